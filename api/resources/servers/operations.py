"""How every operation on a server's host begins: found, allowed, recorded; the hint only makes it quick."""

from collections.abc import Mapping
from typing import Any

import cell_db.operations
from api.http.call import Call
from api.resources.servers.access import gate_of, server_of
from cells.gate.answers import value_of
from cells.gate.gate import Gate
from cells.route import LocatedServer
from lifecycle.actions import Action
from messaging.verbs import cell


async def operate(call: Call, action: Action) -> None:
    """Begins an operation that needs no arguments."""
    await begin(call, await server_of(call, action.rule.name), action, {})


async def begin(call: Call, located: LocatedServer, action: Action, arguments: Mapping[str, Any]) -> None:
    """Records the operation as under way; the cell's conductor does it."""
    gate = gate_of(call, located, action)
    uuid = located.server.uuid
    value_of(await gate.write(cell_db.operations.begin_operation, uuid, action, call.context, arguments=arguments))
    hint(call, gate, uuid)


def hint(call: Call, gate: Gate, uuid: str) -> None:
    """Tells the cell's conductor that the server's row is worth a look."""
    gate.hint(cell.QUEUE, cell.ACT, cell.Uuids(uuids=[uuid]), call.context)
