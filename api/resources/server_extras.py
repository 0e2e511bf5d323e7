"""What a server's view shows beside its row: the state of its host."""

from collections.abc import Mapping

import msgspec

from api.http.call import Call
from api.resources.server_of import server_of
from api.resources.server_views import HOST_STATUS, HOST_STATUS_IF_UNKNOWN
from cell_db.hosts import Service
from cells.route import Found
from objects.server import Server

UP = "UP"
DOWN = "DOWN"
MAINTENANCE = "MAINTENANCE"
UNKNOWN = "UNKNOWN"


async def found_for_view(call: Call, rule: str) -> Found:
    """The server named in the path with all that `completed` adds to it, in one visit to its cell."""
    down_after_s = call.cloud.conf.conductor.service_down_time_s if shows_host_status(call) else None
    return await server_of(call, rule, hosts_down_after_s=down_after_s)


def completed(call: Call, found: Found) -> Server:
    """The server with the state of its host, for callers who may see that."""
    if found.cell is None or not shows_host_status(call):
        return found.server
    return with_host_status(found.server, {agent.host: host_status(agent) for agent in found.agents})


def shows_host_status(call: Call) -> bool:
    """Whether the caller may see host states at all: otherwise nobody need read them."""
    return call.can(HOST_STATUS) or call.can(HOST_STATUS_IF_UNKNOWN)


def with_host_status(server: Server, statuses: Mapping[str, str]) -> Server:
    """The server as the view wants it; a host that nobody told us of is in an unknown state."""
    status = statuses.get(server.host, UNKNOWN) if server.host else ""
    return msgspec.structs.replace(server, extra={**(server.extra or {}), "host_status": status})


def host_status(service: Service) -> str:
    """What an operator said of the host comes before what is observed."""
    if service.forced_down:
        return DOWN
    if service.disabled:
        return MAINTENANCE
    return UP if service.is_up else UNKNOWN
