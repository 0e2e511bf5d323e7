"""A change of a server's row that no host has to know: one transaction in its cell, which admits the action."""

from collections.abc import Callable
from typing import Any

from api.http.call import Call
from api.resources.servers.access import gate_of
from cells.gate.answers import value_of
from cells.route import LocatedServer
from lifecycle.actions import (
    Action,
)


async def write(call: Call, located: LocatedServer, action: Action, change: Callable[..., None], **values: Any) -> None:
    """One transaction on the server's row in its cell, which admits the action."""
    gate = gate_of(call, located, action)
    value_of(await gate.write(change, located.server.uuid, context=call.context, **values))
