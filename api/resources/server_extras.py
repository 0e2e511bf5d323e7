"""What a server's view shows beside its row: the state of its host."""

from collections.abc import Mapping

import msgspec

import api_db.server_groups
from api.http.call import Call
from api.resources.server_of import server_of
from api.resources.server_views import HOST_STATUS, HOST_STATUS_IF_UNKNOWN
from cell_db.hosts import Agent
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


async def with_its_group(call: Call, server: Server) -> Server:
    """The server with the group that it is in: the row knows which one it joined, not whether that still exists."""
    if not (server.extra or {}).get("server_groups"):
        return server
    group = await call.cloud.api_read(api_db.server_groups.group_of, server.uuid)
    return msgspec.structs.replace(server, extra={**(server.extra or {}), "server_groups": [group] if group else []})


def shows_host_status(call: Call) -> bool:
    """Whether the caller may see host states at all: otherwise nobody need read them."""
    return call.can(HOST_STATUS) or call.can(HOST_STATUS_IF_UNKNOWN)


def with_host_status(server: Server, statuses: Mapping[str, str]) -> Server:
    """The server as the view wants it; a host that nobody told us of is in an unknown state."""
    status = statuses.get(server.host, UNKNOWN) if server.host else ""
    return msgspec.structs.replace(server, extra={**(server.extra or {}), "host_status": status})


def host_status(agent: Agent) -> str:
    """What an operator said of the host comes before what is observed."""
    if agent.forced_down:
        return DOWN
    if agent.disabled:
        return MAINTENANCE
    return UP if agent.is_up else UNKNOWN
