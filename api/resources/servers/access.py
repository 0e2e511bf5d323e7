"""The server that a request is about: found, and allowed."""

from typing import Protocol

import cells.route
import core.errors
from api.http.call import Call
from api_db.instances import Mapping
from api_db.journal import NEW, Entry
from cells.gate.gate import Gate
from cells.route import LocatedServer
from lifecycle import refusals
from lifecycle.actions import Action
from lifecycle.admit import admit, admit_lock, is_always_admitted
from objects.server import Server


class Owned(Protocol):
    """Whatever belongs to a project and a user."""

    @property
    def project_id(self) -> str: ...

    @property
    def user_id(self) -> str: ...


async def server_of(
    call: Call, rule: str, segment: str = "id", *, hosts_down_after_s: float | None = None
) -> LocatedServer:
    """The server named in the path, wherever it is kept, if the rule lets the caller do this to it.

    `hosts_down_after_s`: with the agent of its host, which is down when it was silent for longer.

    Raises:
        NotFound: there is no such server, or not for this caller.
        Forbidden: the rule does not allow it.
        Unavailable: its cell does not answer.
    """
    located = await cells.route.find(
        call.cloud, call.context, call.path[segment], hosts_down_after_s=hosts_down_after_s
    )
    call.enforce(rule, target_of(located.server))
    return located


def target_of(owned: Owned) -> dict[str, str]:
    """What policy rules compare the caller with."""
    return {"project_id": owned.project_id, "user_id": owned.user_id}


def gate_of(call: Call, located: LocatedServer, action: Action) -> Gate:
    """The gate of the cell that holds the server's row.

    Raises:
        WrongState: no cell holds it yet; the message names the state.
    """
    if located.cell is None:
        raise _unplaced(located.server, action)
    gate: Gate = call.cloud.cells.gate(located.cell.uuid)
    return gate


def _unplaced(server: Server, action: Action) -> core.errors.WrongState:
    attribute, state = ("task_state", server.task_state) if server.task_state else ("vm_state", server.vm_state)
    return refusals.wrong_state(action, server.uuid, attribute=attribute, state=state)


def refuse_early(call: Call, located: LocatedServer, action: Action) -> Gate:
    """The gate of the server's cell, if the action may begin as far as is known: before anything is made, or asked,
    elsewhere.

    Raises:
        Locked, WrongState: it may not.
    """
    gate = gate_of(call, located, action)
    admit_server(call, action, located.server)
    return gate


async def admitted_delete(call: Call, action: Action) -> tuple[Mapping, Entry | None]:
    """The mapping of the server named in the path and its journal row, if the caller may delete it; its cell is asked
    only if the answer could be no.

    Raises:
        NotFound: there is no such server, or not for this caller.
        Forbidden: the rule does not allow it.
        Locked, WrongState: it may not begin.
    """
    mapping, entry = await cells.route.locate(call.cloud, call.context, call.path["id"])
    call.enforce(action.rule.name, target_of(mapping))
    is_placed = entry is None or entry.phase != NEW
    if is_placed and not is_always_admitted(action, caller_is_admin=call.context.is_admin):
        await admit_mapped(call, action, mapping)
    return mapping, entry


async def admit_mapped(call: Call, action: Action, mapping: Mapping) -> None:
    """Returns if the caller may begin the action on the server, which the API database alone decides about.

    While its cell does not answer, or its row cannot be read, the mapping's own note of the lock decides: a delete is
    possible whatever a cell does.

    Raises:
        Locked, WrongState: it may not begin.
    """
    try:
        server = (await server_of(call, action.rule.name)).server
    except (core.errors.Unavailable, core.errors.Unreadable):
        admit_lock(action, server=mapping.uuid, locked=mapping.locked, caller_is_admin=call.context.is_admin)
    else:
        admit_server(call, action, server)


def admit_server(call: Call, action: Action, server: Server) -> None:
    """Returns if the caller may begin the action on the server as it was read.

    Raises:
        Locked, WrongState: it may not begin.
    """
    admit(
        action,
        server=server.uuid,
        vm_state=server.vm_state,
        task_state=server.task_state,
        launched=server.launched_at is not None,
        locked=server.locked_by is not None,
        caller_is_admin=call.context.is_admin,
    )
