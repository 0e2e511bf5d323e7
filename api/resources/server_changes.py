"""Changes of what hangs off a server's record: metadata and tags, each in one transaction on its row."""

from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

import cell_db.instances
from api.http.call import Call
from api.resources.server_of import gate_of, server_of
from cells.answers import value_of
from core.context import Context
from lifecycle import states
from lifecycle.actions import ANY_TASK, Action, At
from objects.server import Server

T = TypeVar("T")

_STATES = frozenset({states.ACTIVE, states.PAUSED, states.SUSPENDED, states.STOPPED})
UPDATE_METADATA = Action("update metadata", _STATES, while_task=ANY_TASK, at=At.API)
DELETE_METADATA = Action("delete metadata", _STATES, while_task=ANY_TASK, at=At.API)
UPDATE_TAGS = Action("update tags", _STATES, while_task=ANY_TASK, at=At.API, even_if_locked=True)
DELETE_TAGS = Action("delete tags", _STATES, while_task=ANY_TASK, at=At.API, even_if_locked=True)

Change = Callable[[sa.Connection, Server], T]


async def change(call: Call, rule: str, action: Action, by: Change[T]) -> T:
    """What `by` gives for the server, called with its row locked and the action admitted.

    Raises:
        NotFound, Forbidden, Locked, WrongState, Unavailable: it may not or cannot be changed.
    """
    found = await server_of(call, rule, "server_id")
    gate = gate_of(call, found, action.name)
    changed: T = value_of(await gate.write(_change, found.server.uuid, action, call.context, by))
    return changed


def _change(connection: sa.Connection, uuid: str, action: Action, context: Context, by: Change[Any]) -> Any:
    cell_db.instances.admitted(connection, uuid, action, context)
    return by(connection, cell_db.instances.get(connection, uuid))
