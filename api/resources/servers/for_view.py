"""What a server's view shows beside its row: the state of its host, the group that it is in."""

import msgspec

import api_db.server_groups
from api.http.call import Call
from api.resources.servers.access import server_of
from api.resources.servers.views import HOST_STATUS, HOST_STATUS_IF_UNKNOWN
from cells.route import LocatedServer
from objects.server import Server


async def server_for_view(call: Call, rule: str) -> LocatedServer:
    """The server named in the path; with the state of its host, for callers who may see that."""
    down_after_s = call.cloud.conf.conductor.service_down_time_s if shows_host_status(call) else None
    return await server_of(call, rule, hosts_down_after_s=down_after_s)


async def with_its_group(call: Call, server: Server) -> Server:
    """The server with the group that it is in: the row knows which one it joined, not whether that still exists."""
    if not (server.extra or {}).get("server_groups"):
        return server
    group = await call.cloud.api_read(api_db.server_groups.group_of, server.uuid)
    return msgspec.structs.replace(server, extra={**(server.extra or {}), "server_groups": [group] if group else []})


def shows_host_status(call: Call) -> bool:
    """Whether the caller may see host states at all: otherwise nobody need read them."""
    return call.can(HOST_STATUS) or call.can(HOST_STATUS_IF_UNKNOWN)
