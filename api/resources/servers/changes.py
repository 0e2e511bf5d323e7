"""Changes of a server's record and of what hangs off it, each in one transaction on its row."""

from collections.abc import Callable
from typing import Any, TypeVar

import cell_db.instances
from api.http.call import Call
from api.resources.servers.access import gate_of, server_of
from cells.gate.answers import value_of
from cells.route import LocatedServer
from core.context import Context
from database.engine import Connection
from lifecycle.actions import Action
from objects.server import Server

T = TypeVar("T")

Change = Callable[[Connection, Server], T]


async def change(call: Call, action: Action, by: Change[T]) -> T:
    """What `by` gives for the server that the path names, called with its row locked and the action admitted.

    Raises:
        NotFound, Forbidden, Locked, WrongState, Unavailable: it may not or cannot be changed.
    """
    return await change_located(call, await server_of(call, action.rule.name, "server_id"), action, by)


async def change_located(call: Call, located: LocatedServer, action: Action, by: Change[T]) -> T:
    """The same for a server that was found, and allowed, already.

    Raises:
        NotFound, Locked, WrongState, Unavailable: it may not or cannot be changed.
    """
    gate = gate_of(call, located, action)
    changed: T = value_of(await gate.write(_change, located.server.uuid, action, call.context, by))
    return changed


def _change(connection: Connection, uuid: str, action: Action, context: Context, by: Change[Any]) -> Any:
    cell_db.instances.admitted(connection, uuid, action, context)
    return by(connection, cell_db.instances.get(connection, uuid))
