"""The server that a request is about: found, and allowed."""

from typing import Protocol

import cells.route
import core.errors
from api.http.call import Call
from cells.gate import Gate
from cells.route import Found
from objects.server import Server


class Owned(Protocol):
    """Whatever belongs to a project and a user."""

    @property
    def project_id(self) -> str: ...

    @property
    def user_id(self) -> str: ...


async def server_of(call: Call, rule: str, segment: str = "id", *, hosts_down_after_s: float | None = None) -> Found:
    """The server named in the path, wherever it is kept, if the rule lets the caller do this to it.

    `hosts_down_after_s`: with the agent of its host, which is down when it was silent for longer.

    Raises:
        NotFound: there is no such server, or not for this caller.
        Forbidden: the rule does not allow it.
        Unavailable: its cell does not answer.
    """
    found = await cells.route.find(call.cloud, call.context, call.path[segment], hosts_down_after_s=hosts_down_after_s)
    call.enforce(rule, target_of(found.server))
    return found


def target_of(owned: Owned) -> dict[str, str]:
    """What policy rules compare the caller with."""
    return {"project_id": owned.project_id, "user_id": owned.user_id}


def gate_of(call: Call, found: Found, what: str) -> Gate:
    """The gate of the cell that holds the server's row.

    Raises:
        WrongState: no cell holds it yet; the message names the state.
    """
    if found.cell is None:
        raise _unplaced(found.server, what)
    gate: Gate = call.cloud.cells.gate(found.cell.uuid)
    return gate


def _unplaced(server: Server, what: str) -> core.errors.WrongState:
    kind, state = ("task_state", server.task_state) if server.task_state else ("vm_state", server.vm_state)
    return core.errors.WrongState(f"Cannot '{what}' instance {server.uuid} while it is in {kind} {state}", server=server.uuid, state=state)
