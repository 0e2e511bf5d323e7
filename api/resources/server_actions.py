"""What can be done to a server: POST /servers/{id}/action, one row for each key."""

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa

import api_db.instances
import cell_db.instances
import core.errors
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import ActionRoute
from api.http.schema import ANY, NULL, STRING_1_255, Body, Property, choice, fixed, nullable, structure
from api.resources.host_answers import reply_of_host
from api.resources.server_of import gate_of, server_of
from api.resources.server_operations import PATH, operate
from cells.answers import value_of
from cells.route import Found
from core.context import Context
from lifecycle import actions
from lifecycle.actions import Action
from messaging.verbs import cell

REBOOT = "os_compute_api:servers:reboot"
LOCK = "os_compute_api:os-lock-server:lock"
UNLOCK = "os_compute_api:os-lock-server:unlock"
UNLOCK_OVERRIDE = "os_compute_api:os-lock-server:unlock:unlock_override"
TRIGGER_CRASH_DUMP = "os_compute_api:servers:trigger_crash_dump"
RESET_STATE = "os_compute_api:os-admin-actions:reset_state"
CONSOLE_OUTPUT = "os_compute_api:os-console-output"

Handler = Callable[[Call], Awaitable[object]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Power:
    """A key of the request that is one operation on the host, without arguments."""

    key: str
    operation: str
    policy: str
    description: str


_POWER = (
    _Power("os-start", "start", "os_compute_api:servers:start", "Start a server"),
    _Power("os-stop", "stop", "os_compute_api:servers:stop", "Stop a server"),
    _Power("pause", "pause", "os_compute_api:os-pause-server:pause", "Pause a server"),
    _Power("unpause", "unpause", "os_compute_api:os-pause-server:unpause", "Unpause a server"),
    _Power("suspend", "suspend", "os_compute_api:os-suspend-server:suspend", "Suspend a server"),
    _Power("resume", "resume", "os_compute_api:os-suspend-server:resume", "Resume a server"),
)

POLICIES = [
    *(Rule(row.policy, policy.MEMBER, row.description) for row in _POWER),
    Rule(REBOOT, policy.MEMBER, "Reboot a server"),
    Rule(TRIGGER_CRASH_DUMP, policy.MEMBER, "Make the kernel of a server's guest dump itself"),
    Rule(LOCK, policy.MEMBER, "Lock a server"),
    Rule(UNLOCK, policy.MEMBER, "Unlock a server"),
    Rule(UNLOCK_OVERRIDE, policy.ADMIN, "Unlock a server that an admin locked"),
    Rule(RESET_STATE, policy.ADMIN, "Set the state of a server's record"),
    Rule(CONSOLE_OUTPUT, policy.MEMBER, "Read a server's console log"),
]

# ---- operations on the host --------------------------------------------------------------------------------------------


def _operates(operation: str, rule: str) -> Handler:
    """The handler that begins one operation."""

    async def handler(call: Call) -> None:
        await operate(call, operation, rule)

    return handler


async def reboot(call: Call) -> None:
    """Begins a reboot of the kind that was asked for."""
    await operate(call, f"reboot-{call.body['type'].lower()}", REBOOT)


# ---- changes of the record ---------------------------------------------------------------------------------------------


async def lock(call: Call) -> None:
    """Locks the server for its owner; what an admin locked stays the admin's."""
    found = await server_of(call, LOCK)
    reason = (call.body or {}).get("locked_reason") if isinstance(call.body, dict) else None
    gate_of(call, found, actions.LOCK.name)
    await call.cloud.api_write(api_db.instances.set_locked, found.server.uuid, True)
    await _write(call, found, actions.LOCK, _lock, _locker(call, found), reason)


def _lock(connection: sa.Connection, uuid: str, action: Action, context: Context, by: str, reason: str | None) -> None:
    cell_db.instances.lock(connection, uuid, action, context, by=by, reason=reason)


async def unlock(call: Call) -> None:
    """Unlocks the server; what an admin locked only for those who may override it."""
    found = await server_of(call, UNLOCK)
    await _write(call, found, actions.UNLOCK, _unlock, call.can(UNLOCK_OVERRIDE))
    await call.cloud.api_write(api_db.instances.set_locked, found.server.uuid, False)


def _unlock(connection: sa.Connection, uuid: str, action: Action, context: Context, may_override: bool) -> None:
    cell_db.instances.unlock(connection, uuid, action, context, may_override=may_override)


async def reset_state(call: Call) -> None:
    """Sets the record's state by an operator's word, whatever the guest does."""
    found = await server_of(call, RESET_STATE)
    await _write(call, found, actions.RESET_STATE, _reset_state, call.body["state"])


def _reset_state(connection: sa.Connection, uuid: str, action: Action, context: Context, vm_state: str) -> None:
    cell_db.instances.reset_state(connection, uuid, vm_state, context)


def _locker(call: Call, found: Found) -> str:
    return "owner" if found.server.project_id == call.context.project_id else "admin"


async def _write(call: Call, found: Found, action: Action, change: Callable[..., None], *values: Any) -> None:
    """One transaction on the server's row in its cell."""
    gate = gate_of(call, found, action.name)
    value_of(await gate.write(change, found.server.uuid, action, call.context, *values))


# ---- the console -------------------------------------------------------------------------------------------------------


async def console_output(call: Call) -> dict[str, str]:
    """The tail of the guest's console log."""
    found = await server_of(call, CONSOLE_OUTPUT)
    gate = gate_of(call, found, actions.CONSOLE_OUTPUT.name)
    server = found.server
    if server.host is None:
        raise core.errors.WrongState(f"Instance {server.uuid} is not ready: it has no host.", server=server.uuid, state=server.vm_state)
    wanted = cell.HostConsole(uuid=server.uuid, host=server.host, lines=call.body.get("length"))
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

ROUTES = [
    *(ActionRoute(PATH, row.key, _operates(row.operation, row.policy), policy=row.policy) for row in _POWER),
    ActionRoute(PATH, "reboot", reboot, policy=REBOOT, body=Body("reboot", Property("type", _TYPE, required=True))),
    ActionRoute(
        PATH,
        "trigger_crash_dump",
        _operates("trigger-crash-dump", TRIGGER_CRASH_DUMP),
        policy=TRIGGER_CRASH_DUMP,
        body=Body.holding("trigger_crash_dump", NULL),
        since="2.17",
    ),
    ActionRoute(PATH, "lock", lock, policy=LOCK, body=Body.holding("lock", ANY), until="2.72"),
    ActionRoute(PATH, "lock", lock, policy=LOCK, body=Body.holding("lock", _REASON), since="2.73"),
    ActionRoute(PATH, "unlock", unlock, policy=UNLOCK),
    ActionRoute(
        PATH,
        "os-resetState",
        reset_state,
        policy=RESET_STATE,
        body=Body("os-resetState", Property("state", choice("active", "error"), required=True)),
    ),
    ActionRoute(
        PATH,
        "os-getConsoleOutput",
        console_output,
        policy=CONSOLE_OUTPUT,
        status=200,
        body=Body("os-getConsoleOutput", Property("length", _LENGTH)),
    ),
]
