"""A server's consoles: who may see one gets an address that opens it for a while.

The host says where the console is served, the cell keeps a token for that, and the address is one of the cell's console
proxies. Source of types and protocols: OpenStack Compute API, server consoles.
"""

import dataclasses
import ipaddress

import cell_db.console_proxies
import cell_db.console_tokens
import cell_db.inventories
import core.errors
import core.log
from api.http.call import Call
from api.http.errors import HttpError
from api.http.routes import Handler
from api.http.schema import Body, Property, choice
from api.http.view import Field, View
from api.resources.hosts.all_cells import down_after_s
from api.resources.servers.access import gate_of, server_of
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.ask_host import ask_host
from cells.gate.answers import value_of
from cells.route import LocatedServer
from database.engine import Connection
from lifecycle.actions import GET_CONSOLE, GET_SERIAL_CONSOLE, GET_SPICE_CONSOLE, GET_VNC_CONSOLE, Action
from messaging.verbs import cell
from objects import console
from objects.console import Address, Proxy
from objects.console_rules import Allowed, plain

LOG = core.log.get(__name__)

POLICIES = rules_of(GET_CONSOLE)


@dataclasses.dataclass(frozen=True, slots=True)
class ConsoleType:
    """A type of console that may be asked for. `kind` None: no driver here offers it; not `is_implemented`: nor could
    it be switched on."""

    name: str
    protocol: str
    kind: str | None = None
    is_implemented: bool = True


TYPES = {
    row.name: row
    for row in (
        ConsoleType("novnc", "vnc", console.VNC),
        ConsoleType("serial", "serial", console.SERIAL),
        ConsoleType("xvpvnc", "vnc"),
        ConsoleType("spice-html5", "spice"),
        ConsoleType("spice-direct", "spice"),
        ConsoleType("rdp-html5", "rdp"),
        ConsoleType("webmks", "mks", is_implemented=False),
    )
}


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """A console that was asked for, and the address that opens it."""

    protocol: str
    type: str
    url: str


async def create(call: Call) -> Opened:
    """The address of a console of this protocol and type."""
    return await _open(call, GET_CONSOLE, call.body["protocol"], segment="server_id")


def _opens(action: Action, protocol: str) -> Handler:
    """The handler of an action that names its protocol."""

    async def handler(call: Call) -> Opened:
        return await _open(call, action, protocol, segment="id")

    return handler


async def _open(call: Call, action: Action, protocol: str, *, segment: str) -> Opened:
    located = await server_of(call, action.rule.name, segment)
    name = call.body["type"]
    kind = _kind_of(protocol, name)
    answer = await ask_host(call, located, action, cell.CONSOLE_ADDRESSES)
    address = next((address for address in answer.addresses if address.kind == kind), None)
    if address is None:
        raise _not_offered(name)
    return Opened(protocol, name, await _address(call, located, action, address, name))


def _kind_of(protocol: str, name: str) -> str:
    """
    Raises:
        Invalid: no such console is offered here, or the two do not go together.
        HttpError: no driver can.
    """
    asked = TYPES[name]
    if asked.protocol != protocol:
        raise core.errors.Invalid(f"Invalid console type {name} for protocol {protocol}", field="type")
    if not asked.is_implemented:
        raise HttpError(501, f"Consoles of type {name} are not implemented here.")
    if asked.kind is None:
        raise _not_offered(name)
    return asked.kind


def _not_offered(name: str) -> core.errors.Invalid:
    return core.errors.Invalid(f"Unavailable console type {name}.", field="type")


async def _address(call: Call, located: LocatedServer, action: Action, address: Address, name: str) -> str:
    server = located.server
    assert server.host is not None  # It answered.
    url = value_of(
        await gate_of(call, located, action).write(_issue, server.uuid, server.host, address, down_after_s(call))
    )
    if url is None:
        raise _not_offered(name)
    return url


def _issue(connection: Connection, uuid: str, host: str, address: Address, proxy_down_after_s: float) -> str | None:
    """The address with a fresh token; None: the cell has no console proxy."""
    proxy = cell_db.console_proxies.living(connection, down_after_s=proxy_down_after_s)
    if proxy is None:
        return None
    _refuse_misplaced(connection, uuid, host, address, proxy)
    token = cell_db.console_tokens.issue(connection, uuid, instance_host=host, address=address, ttl_s=proxy.token_ttl_s)
    return console.url_of(proxy.public_url, address.kind, token)


def _refuse_misplaced(connection: Connection, uuid: str, host: str, address: Address, proxy: Proxy) -> None:
    """
    Raises:
        Unavailable: the host names a place to which the proxy would not connect.
    """
    refusal = None if proxy.allowed is None else _why_not(connection, host, address, proxy.allowed)
    if refusal is not None:
        LOG.error("host %s reports a console at an address that is not allowed: %s", host, refusal)
        raise _misplaced(uuid)


def _why_not(connection: Connection, host: str, address: Address, allowed: Allowed) -> str | None:
    """As far as it can be said here: links and names are looked up by the proxy."""
    if address.path is not None:
        return allowed.why_not_in(address.path)
    try:
        ip = plain(ipaddress.ip_address(address.host or ""))
    except ValueError:
        return None
    owners = cell_db.inventories.hosts_at(connection, str(ip))
    return allowed.why_not_at(ip, address.port or 0, host=host, owners=owners)


def _misplaced(uuid: str) -> core.errors.Unavailable:
    return core.errors.Unavailable(f"The console of instance {uuid} is at an address that is not allowed.", server=uuid)


_TYPES = ("novnc", "xvpvnc", "rdp-html5", "spice-html5", "serial")
_BODY = Body(
    "remote_console",
    Property("protocol", choice("vnc", "spice", "serial", "rdp"), required=True, until="2.7"),
    Property("protocol", choice("vnc", "spice", "serial", "rdp", "mks"), required=True, since="2.8"),
    Property("type", choice(*_TYPES), required=True, until="2.7"),
    Property("type", choice(*_TYPES, "webmks"), required=True, since="2.8", until="2.98"),
    Property("type", choice(*_TYPES, "webmks", "spice-direct"), required=True, since="2.99"),
)
_REMOTE_CONSOLE = View("remote_console", Field("protocol"), Field("type"), Field("url"))
_CONSOLE = View("console", Field("type"), Field("url"))

ROUTES = [
    route_of(GET_CONSOLE, create, body=_BODY, view=_REMOTE_CONSOLE),
    *(
        route_of(
            action,
            _opens(action, protocol),
            status=200,
            body=Body(action.request.key, Property("type", choice(*types), required=True)),
            view=_CONSOLE,
        )
        for action, protocol, types in (
            (GET_VNC_CONSOLE, "vnc", ("novnc", "xvpvnc")),
            (GET_SPICE_CONSOLE, "spice", ("spice-html5",)),
            (GET_SERIAL_CONSOLE, "serial", ("serial",)),
        )
    ),
]
