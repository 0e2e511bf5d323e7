"""What can be done to a server: POST /servers/{id}/action, one row for each key."""

from collections.abc import Callable
from typing import Any

import api_db.instances
import cell_db.instances
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Handler
from api.http.schema import ANY, NULL, STRING_1_255, Body, Property, choice, fixed, nullable, structure
from api.resources.action_rows import route_of, rules_of
from api.resources.host_answers import reply_of_host, way_to_host
from api.resources.server_of import gate_of, server_of
from api.resources.server_operations import operate
from cells.gate.answers import value_of
from cells.route import LocatedServer
from lifecycle.actions import (
    CONSOLE_OUTPUT,
    LOCK,
    PAUSE,
    REBOOT_HARD,
    REBOOT_SOFT,
    RESET_STATE,
    RESUME,
    START,
    STOP,
    SUSPEND,
    TRIGGER_CRASH_DUMP,
    UNLOCK,
    UNPAUSE,
    Action,
)
from messaging.verbs import cell

UNLOCK_OVERRIDE = "os_compute_api:os-lock-server:unlock:unlock_override"

_POWER = (START, STOP, PAUSE, UNPAUSE, SUSPEND, RESUME)
_REBOOTS = {action.request.type: action for action in (REBOOT_SOFT, REBOOT_HARD)}

POLICIES = [
    *rules_of(*_POWER, *_REBOOTS.values(), TRIGGER_CRASH_DUMP, LOCK, UNLOCK, RESET_STATE, CONSOLE_OUTPUT),
    Rule(UNLOCK_OVERRIDE, policy.ADMIN, "Unlock a server that an admin locked"),
]

# ---- operations on the host --------------------------------------------------------------------------------------------


def _operates(action: Action) -> Handler:
    """The handler that begins one operation."""

    async def handler(call: Call) -> None:
        await operate(call, action)

    return handler


async def reboot(call: Call) -> None:
    """Begins a reboot of the kind that was asked for."""
    await operate(call, _REBOOTS[call.body["type"].upper()])


# ---- changes of the record ---------------------------------------------------------------------------------------------


async def lock(call: Call) -> None:
    """Locks the server for its owner; what an admin locked stays the admin's."""
    found = await server_of(call, LOCK.rule.name)
    reason = (call.body or {}).get("locked_reason") if isinstance(call.body, dict) else None
    gate_of(call, found, LOCK)
    await call.cloud.api_write(api_db.instances.set_locked, found.server.uuid, True)
    await _write(call, found, LOCK, cell_db.instances.lock, by=_locker(call, found), reason=reason)


async def unlock(call: Call) -> None:
    """Unlocks the server; what an admin locked only for those who may override it."""
    found = await server_of(call, UNLOCK.rule.name)
    await _write(call, found, UNLOCK, cell_db.instances.unlock, may_override=call.can(UNLOCK_OVERRIDE))
    await call.cloud.api_write(api_db.instances.set_locked, found.server.uuid, False)


async def reset_state(call: Call) -> None:
    """Sets the record's state by an operator's word, whatever the guest does."""
    found = await server_of(call, RESET_STATE.rule.name)
    await _write(call, found, RESET_STATE, cell_db.instances.reset_state, vm_state=call.body["state"])


def _locker(call: Call, found: LocatedServer) -> str:
    return "owner" if found.server.project_id == call.context.project_id else "admin"


async def _write(call: Call, found: LocatedServer, action: Action, change: Callable[..., None], **values: Any) -> None:
    """One transaction on the server's row in its cell, which admits the action."""
    gate = gate_of(call, found, action)
    value_of(await gate.write(change, found.server.uuid, context=call.context, **values))


# ---- the console -------------------------------------------------------------------------------------------------------


async def console_output(call: Call) -> dict[str, str]:
    """The tail of the guest's console log."""
    found = await server_of(call, CONSOLE_OUTPUT.rule.name)
    gate, host = way_to_host(call, found, CONSOLE_OUTPUT)
    wanted = cell.ConsoleLogOnHost(uuid=found.server.uuid, host=host, lines=call.body.get("length"))
    answer = await reply_of_host(call, gate, cell.CONSOLE, wanted)
    return {"output": answer.output}


def _lines(length: Any) -> int | None:
    """How many lines; None for all of them, which -1 says too."""
    lines = None if length is None else int(length)
    if lines is not None and lines < -1:
        raise ValueError(f"{lines} is less than the minimum of -1")
    return None if lines == -1 else lines


_LENGTH = fixed({"type": ["integer", "string", "null"], "pattern": "^-?[0-9]+$", "minimum": -1, "maxLength": 9, "maximum": 10**9}, _lines)

_TYPE = choice("HARD", "Hard", "hard", "SOFT", "Soft", "soft")
_REASON = nullable(structure(Property("locked_reason", STRING_1_255, required=True)))

_STATE = Property("state", choice("active", "error"), required=True)

ROUTES = [
    *(route_of(action, _operates(action)) for action in _POWER),
    route_of(REBOOT_HARD, reboot, body=Body(REBOOT_HARD.request.key, Property("type", _TYPE, required=True))),
    route_of(TRIGGER_CRASH_DUMP, _operates(TRIGGER_CRASH_DUMP), body=Body.with_value(TRIGGER_CRASH_DUMP.request.key, NULL)),
    route_of(LOCK, lock, body=Body.with_value(LOCK.request.key, ANY), until="2.72"),
    route_of(LOCK, lock, body=Body.with_value(LOCK.request.key, _REASON), since="2.73"),
    route_of(UNLOCK, unlock),
    route_of(RESET_STATE, reset_state, body=Body(RESET_STATE.request.key, _STATE)),
    route_of(CONSOLE_OUTPUT, console_output, status=200, body=Body(CONSOLE_OUTPUT.request.key, Property("length", _LENGTH))),
]
