"""`/os-hypervisors`: the hosts of all cells. Lists are whole but for cells that are silent, which a header names."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import api_db.hosts
import cell_db.hosts
from api.http import policy
from api.http.call import Call
from api.http.errors import HttpError
from api.http.paging import LIMIT, MARKER, Page, limit_of, page_of
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import BOOLEAN, NON_NEGATIVE_INT, STRING_1_255, UUID, Param, Query
from api.http.view import AnyView, Field, ListView, View
from api.resources.hosts.all_cells import Answers, ask, down_after_s
from api.resources.hosts.own_hosts import OwnHosts
from api.resources.ids import NUMBER, cloud_number, is_of, number_in_path, row_number_of, uuid_in_path
from cell_db.hosts import Capacity, HostRow
from cells.gate.gate import Gate
from core import errors

LIST = "os_compute_api:os-hypervisors:list"
DETAIL = "os_compute_api:os-hypervisors:list-detail"
SHOW = "os_compute_api:os-hypervisors:show"
STATISTICS = "os_compute_api:os-hypervisors:statistics"
SEARCH = "os_compute_api:os-hypervisors:search"
SERVERS = "os_compute_api:os-hypervisors:servers"
UPTIME = "os_compute_api:os-hypervisors:uptime"
POLICIES = [
    Rule(LIST, policy.ADMIN, "List hypervisors"),
    Rule(DETAIL, policy.ADMIN, "List hypervisors with all that is known of them"),
    Rule(SHOW, policy.ADMIN, "Show a hypervisor"),
    Rule(STATISTICS, policy.ADMIN, "See what all hypervisors have and use in sum"),
    Rule(SEARCH, policy.ADMIN, "Find hypervisors by a part of their names"),
    Rule(SERVERS, policy.ADMIN, "See the servers of hypervisors"),
    Rule(UPTIME, policy.ADMIN, "See for how long a hypervisor has been up"),
]


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """A host as this resource shows it, numbers over the cloud included; `servers` None: nobody asked for them."""

    host: HostRow
    servers: list[str] | None = None


# ---- views -----------------------------------------------------------------------------------------------------------


SERVER = View("server", Field("name", lambda uuid: uuid), Field("uuid", lambda uuid: uuid))
SERVICE = View(
    "service", Field("id", until="2.52"), Field("id", "uuid", since="2.53"), Field("host"), Field("disabled_reason")
)
_BRIEF = (
    Field("id", "host.id", until="2.52"),
    Field("id", "host.uuid", since="2.53"),
    Field("hypervisor_hostname", "host.hypervisor_hostname"),
    Field("state", "host.service.state"),
    Field("status", "host.service.status"),
)
_SERVERS = (
    Field("servers", each=SERVER, until="2.74", when=lambda shown: bool(shown.servers)),
    Field("servers", each=SERVER, since="2.75", when=lambda shown: shown.servers is not None),
)
BRIEF = View("hypervisor", *_BRIEF, *_SERVERS)
WHOLE = View(
    "hypervisor",
    *_BRIEF,
    Field("hypervisor_type", "host.hypervisor_type"),
    Field("hypervisor_version", "host.hypervisor_version"),
    Field("host_ip", "host.inventory.host_ip"),
    Field("service", "host.service", view=SERVICE),
    Field("cpu_info", lambda shown: json.dumps(shown.host.inventory.cpu_info), until="2.27"),
    Field("cpu_info", "host.inventory.cpu_info", since="2.28", until="2.87"),
    Field("vcpus", "host.inventory.vcpus", until="2.87"),
    Field("vcpus_used", "host.vcpus_used", until="2.87"),
    Field("memory_mb", "host.inventory.memory_mib", until="2.87"),
    Field("memory_mb_used", "host.memory_mib_taken", until="2.87"),
    Field("free_ram_mb", lambda shown: shown.host.inventory.memory_mib - shown.host.memory_mib_taken, until="2.87"),
    Field("local_gb", "host.inventory.disk_gib", until="2.87"),
    Field("local_gb_used", "host.disk_gib_taken", until="2.87"),
    Field("free_disk_gb", lambda shown: shown.host.inventory.disk_gib - shown.host.disk_gib_taken, until="2.87"),
    Field("disk_available_least", lambda shown: None, until="2.87"),
    Field("running_vms", "host.guests", until="2.87"),
    Field("current_workload", "host.building", until="2.87"),
    # Agents do not report how long their machine has been up.
    Field("uptime", lambda shown: None, since="2.88"),
    *_SERVERS,
)
SUM = View(
    "hypervisor_statistics",
    Field("count", "hosts"),
    Field("vcpus"),
    Field("vcpus_used"),
    Field("memory_mb", "memory_mib"),
    Field("memory_mb_used", "memory_mib_taken"),
    Field("free_ram_mb", lambda total: total.memory_mib - total.memory_mib_taken),
    Field("local_gb", "disk_gib"),
    Field("local_gb_used", "disk_gib_taken"),
    Field("free_disk_gb", lambda total: total.disk_gib - total.disk_gib_taken),
    Field("disk_available_least", lambda total: None),
    Field("running_vms", "guests"),
    Field("current_workload", "building"),
)

PAGES = Query(
    Param("limit", NON_NEGATIVE_INT, since="2.33"),
    Param("marker", NUMBER, since="2.33", until="2.52"),
)
PAGES_OF_UUIDS = Query(
    LIMIT,
    dataclasses.replace(MARKER, type=UUID),
    Param("hypervisor_hostname_pattern", STRING_1_255, once=True),
    Param("with_servers", BOOLEAN, once=True),
    strict_since="2.53",
)
ONE = Query(Param("with_servers", BOOLEAN, once=True), strict_since="2.53")


# ---- lists -----------------------------------------------------------------------------------------------------------


async def index_by_number(call: Call) -> Page:
    """A page in the order of the numbers."""
    limit, marker = limit_of(call), call.query.get("marker")
    if marker is not None and await _with_number(call, marker) is None:
        raise _bad_marker(marker)
    # A cell before the marker's may have a row of the same number on the page before, one behind it has it on this one.
    # "~" sorts after every uuid: the place behind the rows of the number before.
    after = None if marker is None else (row_number_of(marker) - 1, "~")
    hosts = await _hosts(call, by_id=True, after=after, limit=limit + 1)
    hosts = sorted((host for host in hosts if marker is None or host.id > marker), key=lambda host: host.id)
    return page_of([Hypervisor(host) for host in hosts[:limit]], limit=limit, marker=lambda shown: str(shown.host.id))


async def index(call: Call) -> Page:
    """A page in the order of the names, or all whose names have the pattern in them."""
    pattern = call.query.get("hypervisor_hostname_pattern")
    if pattern is not None:
        return Page(await _shown(call, await _matching(call, pattern)))
    limit, marker = limit_of(call), call.query.get("marker")
    hosts = await _hosts(call, after=await _position_of(call, marker), limit=limit)
    hosts.sort(key=lambda host: (host.hypervisor_hostname, host.uuid))
    return page_of(await _shown(call, hosts[:limit]), limit=limit, marker=lambda shown: shown.host.uuid)


async def _position_of(call: Call, marker: str | None) -> tuple[str, str] | None:
    if marker is None:
        return None
    host = await _with_uuid(call, marker)
    if host is None:
        raise _bad_marker(marker)
    return host.hypervisor_hostname, host.uuid


async def _matching(call: Call, pattern: str) -> list[HostRow]:
    """
    Raises:
        NotFound: no hypervisor's name has this part.
        Invalid: a page is asked for, too.
    """
    if "limit" in call.query or "marker" in call.query:
        raise errors.Invalid(
            "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.",
            field="hypervisor_hostname_pattern",
        )
    hosts = await _hosts(call, pattern=pattern)
    if not hosts:
        raise errors.NotFound(f"No hypervisor matching '{pattern}' could be found.")
    return sorted(hosts, key=lambda host: (host.hypervisor_hostname, host.uuid))


async def search(call: Call) -> list[Hypervisor]:
    return [Hypervisor(host) for host in await _matching(call, call.path["id"])]


async def servers(call: Call) -> list[Hypervisor]:
    return await _with_servers(call, await _matching(call, call.path["id"]))


async def statistics(call: Call) -> Capacity:
    """The sum over the enabled hosts of all cells that answer."""
    answers = await ask(call, cell_db.hosts.capacity)
    parts = [dataclasses.astuple(part) for _, part in answers.values]
    return Capacity(*(sum(column) for column in zip(*parts, strict=True)))


async def _hosts(call: Call, **which: Any) -> list[HostRow]:
    answers = await ask(call, cell_db.hosts.list_hosts, down_after_s=down_after_s(call), **which)
    own = OwnHosts(await call.cloud.api_read(api_db.hosts.list_all))
    return [
        _numbered(gate, host) for gate, hosts in answers.values for host in hosts if own.is_of(gate, host.service.host)
    ]


def _numbered(gate: Gate, host: HostRow) -> HostRow:
    """The host with its numbers over the cloud."""
    service = dataclasses.replace(host.service, id=cloud_number(gate.cell.number, host.service.id))
    return dataclasses.replace(host, id=cloud_number(gate.cell.number, host.id), service=service)


async def _shown(call: Call, hosts: list[HostRow]) -> list[Hypervisor]:
    if call.query.get("with_servers"):
        return await _with_servers(call, hosts)
    return [Hypervisor(host) for host in hosts]


async def _with_servers(call: Call, hosts: list[HostRow]) -> list[Hypervisor]:
    answers = await ask(call, cell_db.hosts.servers_on, [host.service.host for host in hosts])
    by_host: dict[str, list[str]] = {}
    for _, of_cell in answers.values:
        by_host.update(of_cell)
    return [Hypervisor(host, by_host.get(host.service.host, [])) for host in hosts]


# ---- one -------------------------------------------------------------------------------------------------------------


async def show_by_number(call: Call) -> Hypervisor:
    return Hypervisor(await _by_number(call))


async def show(call: Call) -> Hypervisor:
    return (await _shown(call, [await _by_uuid(call)]))[0]


async def uptime_by_number(call: Call) -> Hypervisor:
    return _no_uptime(await _by_number(call))


async def uptime(call: Call) -> Hypervisor:
    return _no_uptime(await _by_uuid(call))


def _no_uptime(host: HostRow) -> Hypervisor:
    raise HttpError(501, f"Virt driver of {host.hypervisor_hostname} does not implement uptime function.")


async def _by_number(call: Call) -> HostRow:
    """
    Raises:
        NotFound: no cell has a host of this number.
    """
    shown = call.path["id"][:255]
    try:
        number = number_in_path(call)
    except errors.Invalid:
        raise _not_found(shown) from None
    host = await _with_number(call, number)
    if host is None:
        raise _not_found(shown)
    return host


async def _by_uuid(call: Call) -> HostRow:
    uuid = uuid_in_path(call)
    host = await _with_uuid(call, uuid)
    if host is None:
        raise _not_found(uuid)
    return host


async def _with_number(call: Call, number: int) -> HostRow | None:
    answers = (
        await ask(call, cell_db.hosts.find_host, down_after_s=down_after_s(call), row_id=row_number_of(number))
    ).of(lambda cell: is_of(cell, number))
    return _host_of(answers, f"Hypervisor {number} was not found")


async def _with_uuid(call: Call, uuid: str) -> HostRow | None:
    answers = await ask(call, cell_db.hosts.find_host, down_after_s=down_after_s(call), uuid=uuid)
    return _host_of(answers, f"Hypervisor {uuid} was not found")


def _host_of(answers: Answers[HostRow | None], not_found: str) -> HostRow | None:
    """The host that a cell has.

    Raises:
        Unavailable: there is none, but not all cells answered.
    """
    for gate, host in answers.values:
        if host is not None:
            return _numbered(gate, host)
    answers.refuse_silence(not_found)
    return None


def _not_found(shown: str) -> errors.NotFound:
    return errors.NotFound(f"Hypervisor with ID '{shown}' could not be found.")


def _bad_marker(marker: object) -> errors.Invalid:
    return errors.Invalid(f"marker [{marker}] not found", field="marker")


def _lists(path: str, rule: str, item: View) -> list[Route]:
    view: AnyView = ListView("hypervisors", item)
    return [
        Route("GET", path, index_by_number, policy=rule, query=PAGES, view=view, until="2.52"),
        Route("GET", path, index, policy=rule, query=PAGES_OF_UUIDS, view=view, since="2.53"),
    ]


_LIST_VIEW = ListView("hypervisors", BRIEF)
ROUTES = [
    *_lists("/os-hypervisors", LIST, BRIEF),
    *_lists("/os-hypervisors/detail", DETAIL, WHOLE),
    Route("GET", "/os-hypervisors/statistics", statistics, policy=STATISTICS, view=SUM, until="2.87"),
    Route("GET", "/os-hypervisors/{id}", show_by_number, policy=SHOW, view=WHOLE, until="2.52"),
    Route("GET", "/os-hypervisors/{id}", show, policy=SHOW, query=ONE, view=WHOLE, since="2.53"),
    Route("GET", "/os-hypervisors/{id}/search", search, policy=SEARCH, view=_LIST_VIEW, until="2.52"),
    Route("GET", "/os-hypervisors/{id}/servers", servers, policy=SERVERS, view=_LIST_VIEW, until="2.52"),
    Route("GET", "/os-hypervisors/{id}/uptime", uptime_by_number, policy=UPTIME, until="2.52"),
    Route("GET", "/os-hypervisors/{id}/uptime", uptime, policy=UPTIME, since="2.53", until="2.87"),
]
