"""Which networks a server gets. There is no network service yet: `auto` and `none` are the same."""

from collections.abc import Mapping
from typing import Any

from api.prepare.refusals import invalid


def refuse_networks(body: Mapping[str, Any]) -> None:
    """
    Raises:
        Invalid: a certain network, port or address was asked for.
    """
    asked = body.get("networks")
    if asked and not isinstance(asked, str):
        raise invalid(
            "networks", "Networks are not available: no network service is configured; ask for 'auto' or 'none'."
        )
