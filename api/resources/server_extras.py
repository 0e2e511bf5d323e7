"""What a server's view shows beside its row: the state of its host."""

from collections.abc import Mapping

import msgspec

import cell_db.hosts
from api.http.call import Call
from api.resources.server_views import HOST_STATUS, HOST_STATUS_IF_UNKNOWN
from cell_db.hosts import Service
from cells.answers import Answer
from cells.gate import Gate
from cells.route import Found
from objects.host import COMPUTE
from objects.server import Server

UP = "UP"
DOWN = "DOWN"
MAINTENANCE = "MAINTENANCE"
UNKNOWN = "UNKNOWN"


async def completed(call: Call, found: Found) -> Server:
    """The server with the state of its host, for callers who may see that."""
    if found.cell is None or not shows_host_status(call):
        return found.server
    return with_host_status(found.server, await host_statuses(call, call.cloud.cells.gate(found.cell.uuid), found.server.host))


def shows_host_status(call: Call) -> bool:
    """Whether the caller may see host states at all: otherwise nobody need read them."""
    return call.can(HOST_STATUS) or call.can(HOST_STATUS_IF_UNKNOWN)


async def host_statuses(call: Call, gate: Gate, host: str | None = None) -> dict[str, str]:
    """Host -> `host_status`, of one host or of all of a cell; empty while the cell does not answer."""
    down_after_s = call.cloud.conf.conductor.service_down_time_s
    answer = await gate.read(cell_db.hosts.list_services, down_after_s=down_after_s, host=host, binary=COMPUTE)
    return {service.host: host_status(service) for service in answer.value} if isinstance(answer, Answer) else {}


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
