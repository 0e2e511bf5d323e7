"""`/os-hosts`: the hosts as clients saw them until 2.42, before `/os-services` and `/os-hypervisors`."""

from dataclasses import dataclass
from typing import NoReturn

import api_db.hosts
import cell_db.hosts
from api.http import policy
from api.http.call import Call
from api.http.errors import HttpError
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import STRING_1_255, Body, Param, Property, Query, choice, structure
from api.http.view import Field, ListView, Value, View
from api.resources.hosts import services
from api.resources.hosts.all_cells import down_after_s
from cell_db.hosts import HostRow, Used
from cells.gate.answers import value_of
from core import errors
from database.engine import Connection
from objects.host import COMPUTE

_RULE = "os_compute_api:os-hosts:"
_ACTS = {
    "list": "List hosts",
    "show": "See what a host has and which projects use it",
    "update": "Enable or disable a host",
    "reboot": "Reboot a host",
    "shutdown": "Shut a host down",
    "start": "Start a host",
}
POLICIES = [Rule(_RULE + act, policy.ADMIN, description) for act, description in _ACTS.items()]
LAST = "2.42"


@dataclass(frozen=True, slots=True)
class Resource:
    """One line of what a host has, or is used of it: `project` names the line."""

    host: str
    project: str
    used: Used


async def index(call: Call) -> list[services.Row]:
    """The enabled processes of all cells that answer."""
    zone = call.query.get("zone")
    return [row for row in await services.index(call) if row.status == "enabled" and zone in (None, row.zone)]


async def show(call: Call) -> list[Resource]:
    """What the host has, what is used now, what its servers may use, and the same of each project.

    Raises:
        NotFound: there is no such host.
    """
    host = call.path["id"]
    gate = await call.cloud.cells.find_gate(await call.cloud.api_read(api_db.hosts.cell_of, host))
    row, by_project = value_of(await gate.read(_read, host, down_after_s(call)))
    if row is None:
        raise errors.NotFound(f"Compute host {host[:255]} could not be found.", host=host)
    has = row.inventory
    return [
        Resource(host, "(total)", Used(has.vcpus, has.memory_mib, has.disk_gib)),
        Resource(host, "(used_now)", Used(row.vcpus_used, row.memory_mib_taken, row.disk_gib_taken)),
        Resource(host, "(used_max)", cell_db.hosts.sum_of(by_project.values())),
        *(Resource(host, project, used) for project, used in by_project.items()),
    ]


def _read(connection: Connection, host: str, down_after: float) -> tuple[HostRow | None, dict[str, Used]]:
    row = cell_db.hosts.find_host(connection, down_after_s=down_after, host=host)
    return row, cell_db.hosts.used_by_project(connection, host)


async def update(call: Call) -> dict[str, str]:
    """Enables or disables the host.

    Raises:
        NotFound: there is no such host.
        HttpError: it should be put in maintenance, which no driver here does by itself.
    """
    host, status = call.path["id"], call.body.get("status")
    process = await services.on_host(call, host, COMPUTE)
    if "maintenance_mode" in call.body:
        raise _not_supported()
    changed = await services.change(call, process.gate, process.service, disabled=status.lower() == "disable")
    return {"host": host, "status": changed.status}


async def act(call: Call) -> NoReturn:
    """
    Raises:
        NotFound: there is no such host.
        HttpError: always: no driver here switches its machine on or off.
    """
    await services.on_host(call, call.path["id"], COMPUTE)
    raise _not_supported()


def _not_supported() -> HttpError:
    return HttpError(501, "The requested functionality is not supported.")


_HOST = View(
    None,
    Field("host_name", "host"),
    Field("service", lambda row: row.binary.removeprefix("nova-")),
    Field("zone"),
)
_RESOURCE = View(
    "resource",
    Field("host"),
    Field("project"),
    Field("cpu", "used.vcpus"),
    Field("memory_mb", "used.memory_mib"),
    Field("disk_gb", "used.disk_gib"),
)
_LINE = View(None, Field("resource", lambda line: line, view=_RESOURCE))
_SPELLINGS = [spell(word) for word in ("enable", "disable") for spell in (str.lower, str.capitalize, str.upper)]
_BODY = Body.of(
    structure(Property("status", choice(*_SPELLINGS)), Property("maintenance_mode", choice(*_SPELLINGS)), minimum=1)
)
_ACTIONS = (("reboot", "reboot"), ("shutdown", "shutdown"), ("startup", "start"))

ROUTES = [
    Route(
        "GET", "/os-hosts", index, policy=_RULE + "list", query=Query(Param("zone", STRING_1_255)),
        view=ListView("hosts", _HOST), until=LAST,
    ),
    Route("GET", "/os-hosts/{id}", show, policy=_RULE + "show", view=ListView("host", _LINE), until=LAST),
    Route("PUT", "/os-hosts/{id}", update, policy=_RULE + "update", body=_BODY, view=Value(None), until=LAST),
    *(
        Route("GET", f"/os-hosts/{{id}}/{name}", act, policy=_RULE + rule, status=501, until=LAST)
        for name, rule in _ACTIONS
    ),
]  # fmt: skip
