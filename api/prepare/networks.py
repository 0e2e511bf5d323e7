"""Which networks a server gets. There is no network service yet: `auto` means none."""

from collections.abc import Mapping
from typing import Any

from api.prepare.refusals import invalid


def networks(body: Mapping[str, Any]) -> str:
    """The order's `networks`: "none", or "auto" where the user left it to us.

    Raises:
        Invalid: a certain network, port or address was asked for.
    """
    asked = body.get("networks", "auto")
    if not isinstance(asked, str):
        if asked:
            raise invalid("networks", "Networks are not available: no network service is configured; ask for 'auto' or 'none'.")
        return "auto"
    return asked
