"""How every operation on a server's host begins: found, allowed, recorded; the hint only makes it quick."""

from collections.abc import Mapping
from typing import Any

import cell_db.operations
from api.http.call import Call
from api.resources.server_of import gate_of, server_of
from cells.answers import value_of
from cells.gate import Gate
from cells.route import Found
from lifecycle.actions import OPERATIONS
from lifecycle.admit import admit
from messaging.verbs import cell

PATH = "/servers/{id}/action"


async def operate(call: Call, operation: str, rule: str) -> None:
    """Begins an operation that needs no arguments."""
    await begin(call, await server_of(call, rule), operation, {})


async def begin(call: Call, found: Found, operation: str, arguments: Mapping[str, Any]) -> None:
    """Records the operation as under way; the cell's conductor does it."""
    action = OPERATIONS[operation]
    gate = gate_of(call, found, action.name)
    uuid = found.server.uuid
    value_of(await gate.write(cell_db.operations.begin_operation, uuid, operation, action, call.context, arguments=arguments))
    hint(call, gate, uuid)


def hint(call: Call, gate: Gate, uuid: str) -> None:
    """Tells the cell's conductor that the server's row is worth a look."""
    gate.hint(cell.QUEUE, cell.ACT, cell.Uuids(uuids=[uuid]), call.context)


def refuse_early(call: Call, found: Found, operation: str) -> Gate:
    """The gate of the server's cell, if the operation may begin as far as is known: before anything is made for it elsewhere.

    Raises:
        Locked, WrongState: it may not.
    """
    server, action = found.server, OPERATIONS[operation]
    gate = gate_of(call, found, action.name)
    admit(
        action,
        server=server.uuid,
        vm_state=server.vm_state,
        task_state=server.task_state,
        launched=server.launched_at is not None,
        locked=server.locked_by is not None,
        caller_is_admin=call.context.is_admin,
    )
    return gate
