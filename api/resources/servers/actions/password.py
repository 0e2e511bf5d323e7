"""Passwords of servers: one is set by the agent in the guest, and none is ever readable in a row, a queue or a log."""

import asyncio
import time

import cell_db.history
import cell_db.instances
import cell_db.operations
import core.errors
import core.sealed
from api.http import policy
from api.http.call import Call
from api.http.errors import HttpError
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import TEXT, Body, Property
from api.http.view import Value
from api.resources.servers.access import server_of
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.ask_host import way_to_host
from api.resources.servers.changes import change
from api.resources.servers.operations import begin
from cells.gate.answers import Answer, value_of
from cells.gate.gate import Gate
from database.engine import Connection
from lifecycle.actions import CHANGE_PASSWORD, CLEAR_PASSWORD
from objects.build import BuildSpec
from objects.server import Server

SHOW = "os_compute_api:os-server-password:show"
_STORED = "password"
_FIRST_LOOK_S = 0.05
_LONGEST_PAUSE_S = 0.5

POLICIES = [
    *rules_of(CHANGE_PASSWORD, CLEAR_PASSWORD),
    Rule(SHOW, policy.READER, "See the password that a server's guest left, sealed to its key pair"),
]

# ---- set one ---------------------------------------------------------------------------------------------------------


async def change_password(call: Call) -> None:
    """Begins it with the password sealed to the server's host, and waits for a while whether that can do it.

    Raises:
        Conflict: it cannot: no agent answers in the guest, for one.
        HttpError: 501: nothing can be sealed to this host.
    """
    located = await server_of(call, CHANGE_PASSWORD.rule.name)
    gate, host = way_to_host(call, located, CHANGE_PASSWORD)
    uuid = located.server.uuid
    spec, key = value_of(await gate.read(_guest_and_key, uuid, host))
    if key is None:
        raise HttpError(501, f"The host of instance {uuid} cannot set passwords.")
    sealed = _sealed(call.body["adminPass"], key, uuid)
    await begin(call, located, CHANGE_PASSWORD, {"user": _administrator(spec), "sealed": sealed})
    await _wait(call, gate, uuid)


def _sealed(password: str, key: str, uuid: str) -> str:
    """
    Raises:
        Unavailable: what the host gave as its key is none, which is not the user's fault.
    """
    try:
        return core.sealed.seal(password, key=key, about=uuid)
    except core.errors.Invalid as error:
        raise core.errors.Unavailable(
            f"The host of instance {uuid} has no usable key for passwords.", server=uuid
        ) from error


def _guest_and_key(connection: Connection, uuid: str, host: str) -> tuple[BuildSpec, str | None]:
    return cell_db.instances.build_spec(connection, uuid), cell_db.operations.sealing_key(connection, host)


def _administrator(spec: BuildSpec) -> str:
    """The user whose password it is, by the image's word."""
    properties = spec.image.properties if spec.image else {}
    return properties.get("os_admin_user") or ("Administrator" if properties.get("os_type") == "windows" else "root")


async def _wait(call: Call, gate: Gate, uuid: str) -> None:
    """Returns when it is done, or goes on behind our back.

    Raises:
        Conflict: it failed.
    """
    ends, pause_s = time.monotonic() + call.cloud.conf.api.password_wait_s, _FIRST_LOOK_S
    while (left_s := ends - time.monotonic()) > 0:
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        answer = await gate.read(cell_db.history.get_action, uuid, call.context.request_id)
        if not isinstance(answer, Answer):
            continue
        action, events = answer.value
        if action.finish_time is None:
            continue
        if action.message:
            why = next((event.details for event in events if event.details), None)
            raise core.errors.Conflict(
                f"Failed to set admin password on {uuid} because {why or 'its host could not'}", server=uuid
            )
        return


# ---- the one that the guest left -------------------------------------------------------------------------------------


async def show_stored(call: Call) -> str:
    """What the guest left; empty when it left none."""
    located = await server_of(call, SHOW, "server_id")
    return str((located.server.extra or {}).get(_STORED, ""))


async def clear_stored(call: Call) -> None:
    """Forgets it."""
    await change(call, CLEAR_PASSWORD, _clear)


def _clear(connection: Connection, server: Server) -> None:
    extra = server.extra or {}
    if _STORED in extra:
        cell_db.instances.update(
            connection, server.uuid, {"extra": {name: value for name, value in extra.items() if name != _STORED}}
        )


ROUTES = [
    route_of(
        CHANGE_PASSWORD,
        change_password,
        body=Body(CHANGE_PASSWORD.request.key, Property("adminPass", TEXT, required=True)),
    ),
    Route("GET", CLEAR_PASSWORD.request.path, show_stored, policy=SHOW, view=Value("password")),
    route_of(CLEAR_PASSWORD, clear_stored, status=204),
]
