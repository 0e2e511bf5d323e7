"""What the Compute API has and this cloud has not yet: THE list of it, each with its reason. It shrinks.

A request for any of it is answered in words that say so, with the code that a Compute API gives for what it does not
have: 404 for a route, 400 for an action.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import cells.route
from api.http.call import Call
from api.http.errors import HttpError
from api.http.routes import ActionRoute, Handler, Route
from api.http.schema import IPV4, IPV6, NAME, NON_NEGATIVE_INT, STRING_1_255, Body, Property, either
from lifecycle.actions import ACTION_PATH

POLICIES = ()

# ---- reasons ---------------------------------------------------------------------------------------------------------

NETWORKS = "no network service is configured"
VOLUMES = "no volume service is configured"
SHARES = "no service of shared file systems is configured"
MOVES = "servers stay on the host on which they were built"
BARE_METAL = "no bare-metal service is configured"
EVENTS = "no other service reports events"
ACCELERATORS = "no accelerator service is configured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that is answered in words: a route, or an action, whose key stands in the body.

    `status`: of the answer; None: 404 for a route, 400 for an action. `said`: the answer's words, where they are not
    made of the row's. `body`: what the request must hold, where it is looked at.
    """

    method: str
    path: str
    action: str = ""
    since: str = "2.1"
    until: str | None = None
    status: int | None = None
    said: str = ""
    body: Body | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """Something that is not there, why, and what of the contract it is: requests, and microversions that change it (all
    that they change, or a part)."""

    what: str
    because: str
    requests: Sequence[Refusal] = ()
    microversions: Sequence[str] = ()


def _routes(path: str, methods: str, *, since: str = "2.1", until: str | None = None) -> list[Refusal]:
    return [Refusal(method=method, path=path, since=since, until=until) for method in methods.split()]


def _action(key: str, *, path: str = ACTION_PATH, since: str = "2.1", until: str | None = None) -> Refusal:
    return Refusal(method="POST", path=path, action=key, since=since, until=until)


def _refused_action(key: str, status: int, said: str, *properties: Property, until: str | None = None) -> Refusal:
    return Refusal(
        method="POST",
        path=ACTION_PATH,
        action=key,
        until=until,
        status=status,
        said=said,
        body=Body(key, *properties),
    )


_LAST_PROXY = "2.35"
_IP = either(IPV4, IPV6)
_GROUP = Property("name", NAME, required=True)
_NETWORK = Property("networkId", either(STRING_1_255, NON_NEGATIVE_INT), required=True)
_ADDRESS = Property("address", _IP, required=True)
_FIXED = Property("fixed_address", _IP)
_INTERFACES = "/servers/{server_id}/os-interface"
_VOLUMES = "/servers/{server_id}/os-volume_attachments"
_SHARES = "/servers/{server_id}/shares"
_MIGRATIONS = "/servers/{server_id}/migrations"

# ---- the list --------------------------------------------------------------------------------------------------------

ABSENT: tuple[Absent, ...] = (
    Absent(
        what="resizes of servers",
        because=MOVES,
        requests=[_action("resize"), _action("confirmResize"), _action("revertResize")],
    ),
    Absent(
        what="migrations of servers",
        because=MOVES,
        requests=[
            _action("migrate"),
            _action("os-migrateLive"),
            *_routes(_MIGRATIONS, "GET", since="2.23"),
            *_routes(_MIGRATIONS + "/{id}", "GET", since="2.23"),
            *_routes(_MIGRATIONS + "/{id}", "DELETE", since="2.24"),
            _action("force_complete", path=_MIGRATIONS + "/{id}/action", since="2.22"),
            *_routes("/os-migrations", "GET"),
        ],
        microversions=(
            "2.22",
            "2.23",
            "2.24",
            "2.25",
            "2.30",
            "2.34",
            "2.56",
            "2.59",
            "2.65",
            "2.66",
            "2.68",
            "2.80",
        ),
    ),
    Absent(
        what="evacuations of servers",
        because=MOVES,
        requests=[_action("evacuate")],
        microversions=("2.14", "2.29", "2.68", "2.95"),
    ),
    Absent(
        what="shelved servers",
        because=MOVES,
        requests=[_action("shelve"), _action("shelveOffload"), _action("unshelve")],
        microversions=("2.77", "2.91"),
    ),
    Absent(
        what="network interfaces of servers",
        because=NETWORKS,
        requests=[*_routes(_INTERFACES, "GET POST"), *_routes(_INTERFACES + "/{id}", "GET DELETE")],
        microversions=("2.32", "2.42", "2.49", "2.70", "2.72"),
    ),
    Absent(
        what="security groups of servers",
        because=NETWORKS,
        requests=[
            *_routes("/servers/{server_id}/os-security-groups", "GET"),
            _refused_action("addSecurityGroup", 404, "The security group could not be found", _GROUP),
            _refused_action("removeSecurityGroup", 404, "The security group could not be found", _GROUP),
        ],
    ),
    Absent(
        what="addresses of servers",
        because=NETWORKS,
        requests=[
            _refused_action("addFixedIp", 400, "The network has no address left", _NETWORK, until="2.43"),
            _refused_action(
                "removeFixedIp", 400, "The server does not have this fixed address", _ADDRESS, until="2.43"
            ),
            _refused_action("addFloatingIp", 400, "The server's network is not ready", _ADDRESS, _FIXED, until="2.43"),
            _refused_action("removeFloatingIp", 404, "The floating address could not be found", _ADDRESS, until="2.43"),
        ],
        microversions=("2.4", "2.5", "2.12", "2.44"),
    ),
    Absent(
        what="networks, addresses and security groups by the Compute API",
        because=NETWORKS,
        requests=[
            *_routes("/os-floating-ip-pools", "GET", until=_LAST_PROXY),
            *_routes("/os-floating-ips", "GET POST", until=_LAST_PROXY),
            *_routes("/os-floating-ips/{id}", "GET DELETE", until=_LAST_PROXY),
            *_routes("/os-networks", "GET", until=_LAST_PROXY),
            *_routes("/os-networks/{id}", "GET", until=_LAST_PROXY),
            *_routes("/os-security-group-rules", "POST", until=_LAST_PROXY),
            *_routes("/os-security-group-rules/{id}", "DELETE", until=_LAST_PROXY),
            *_routes("/os-security-groups", "GET POST", until=_LAST_PROXY),
            *_routes("/os-security-groups/{id}", "GET PUT DELETE", until=_LAST_PROXY),
            *_routes("/os-tenant-networks", "GET", until=_LAST_PROXY),
            *_routes("/os-tenant-networks/{id}", "GET", until=_LAST_PROXY),
        ],
        microversions=("2.36",),
    ),
    Absent(
        what="volumes of servers",
        because=VOLUMES,
        requests=[*_routes(_VOLUMES, "GET POST"), *_routes(_VOLUMES + "/{id}", "GET PUT DELETE")],
        microversions=(
            "2.20",
            "2.32",
            "2.42",
            "2.49",
            "2.60",
            "2.67",
            "2.70",
            "2.79",
            "2.85",
            "2.87",
            "2.89",
            "2.93",
            "2.101",
        ),
    ),
    Absent(
        what="volumes and snapshots by the Compute API",
        because=VOLUMES,
        requests=[
            *_routes("/os-volumes", "GET POST", until=_LAST_PROXY),
            *_routes("/os-volumes/detail", "GET", until=_LAST_PROXY),
            *_routes("/os-volumes/{id}", "GET DELETE", until=_LAST_PROXY),
            *_routes("/os-snapshots", "GET POST", until=_LAST_PROXY),
            *_routes("/os-snapshots/detail", "GET", until=_LAST_PROXY),
            *_routes("/os-snapshots/{id}", "GET DELETE", until=_LAST_PROXY),
        ],
        microversions=("2.36",),
    ),
    Absent(
        what="shares of servers",
        because=SHARES,
        requests=[
            *_routes(_SHARES, "GET POST", since="2.97"),
            *_routes(_SHARES + "/{id}", "GET DELETE", since="2.97"),
        ],
        microversions=("2.97",),
    ),
    Absent(
        what="events of other services",
        because=EVENTS,
        requests=_routes("/os-server-external-events", "POST"),
        microversions=("2.51", "2.76", "2.82", "2.93"),
    ),
    Absent(
        what="bare-metal nodes by the Compute API",
        because=BARE_METAL,
        requests=[
            Refusal(method="GET", path="/os-baremetal-nodes", until=_LAST_PROXY, status=501),
            Refusal(method="GET", path="/os-baremetal-nodes/{id}", until=_LAST_PROXY, status=501),
            Refusal(method="POST", path="/os-baremetal-nodes", until=_LAST_PROXY, status=400),
            Refusal(method="DELETE", path="/os-baremetal-nodes/{id}", until=_LAST_PROXY, status=400),
            _action("add_interface", path="/os-baremetal-nodes/{id}/action", until=_LAST_PROXY),
            _action("remove_interface", path="/os-baremetal-nodes/{id}/action", until=_LAST_PROXY),
        ],
        microversions=("2.36",),
    ),
    Absent(what="accelerators of servers", because=ACCELERATORS, microversions=("2.82",)),
)

# ---- as routes -------------------------------------------------------------------------------------------------------


def _row(absent: Absent, request: Refusal) -> Route | ActionRoute:
    status = request.status or (400 if request.action else 404)
    said = f"There is no such action: {request.action}" if request.action else f"This cloud does not have {absent.what}"
    handler = _says(status, f"{request.said or said}: {absent.because}.", _segment_of_a_server(request.path))
    if request.action:
        return ActionRoute(
            request.path,
            request.action,
            handler,
            body=request.body,
            status=status,
            since=request.since,
            until=request.until,
        )
    return Route(request.method, request.path, handler, status=status, since=request.since, until=request.until)


def _segment_of_a_server(path: str) -> str | None:
    """Which segment of the path names a server; None: none does."""
    return next((name for name in ("id", "server_id") if path.startswith(f"/servers/{{{name}}}/")), None)


def _says(status: int, message: str, segment: str | None) -> Handler:
    """The handler that always refuses. Whether there is the server is looked up before: who reads the refusal knows
    that it is there."""

    async def handler(call: Call) -> NoReturn:
        if segment is not None:
            await cells.route.locate(call.cloud, call.context, call.path[segment])
        raise HttpError(status, message)

    return handler


ROUTES = [_row(absent, request) for absent in ABSENT for request in absent.requests]
