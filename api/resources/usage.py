"""`/os-simple-tenant-usage`: what a project's servers used in a window of time. It may go on a bill, so it is whole or
it is refused: a cell that does not answer is a 503 that names it."""

import dataclasses
import datetime
import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import api_db.instances
import cell_db.usage
from api.http import policy
from api.http.call import Call
from api.http.paging import LIMIT, MARKER, limit_of
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import Param, Query, text
from api.http.view import Field, View, with_microseconds
from api.resources.hosts import all_cells
from cell_db.usage import ServerUsage
from core import errors
from core.clock import utcnow

LIST = "os_compute_api:os-simple-tenant-usage:list"
SHOW = "os_compute_api:os-simple-tenant-usage:show"
POLICIES = [
    Rule(LIST, policy.ADMIN, "See what all projects used"),
    Rule(SHOW, policy.READER, "See what a project used"),
]

_FORMATS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f")
_MOMENT = datetime.timedelta(microseconds=1)
_HOUR_S = 3600.0
_TERMINATED = "terminated"
_MAX_PROJECT = 255


@dataclass(frozen=True, slots=True)
class Window:
    """From when to when. `now`: of the request, for what runs still."""

    start: datetime.datetime
    end: datetime.datetime
    now: datetime.datetime


@dataclass(frozen=True, slots=True)
class Used:
    """A server, as far as it ran in the window."""

    server: ServerUsage
    window: Window

    @property
    def hours(self) -> float:
        """That it ran in the window."""
        ended = min(self.server.terminated_at or self.window.end, self.window.end)
        return max(0.0, (ended - max(self.server.launched_at, self.window.start)).total_seconds() / _HOUR_S)

    @property
    def uptime_s(self) -> int:
        """Whole seconds that it has run in all."""
        return int(((self.server.terminated_at or self.window.now) - self.server.launched_at).total_seconds())


@dataclass(frozen=True, slots=True)
class ProjectUsage:
    """What the servers of a project used that are on the page."""

    project_id: str
    window: Window
    servers: Sequence[Used]
    is_detailed: bool

    def total(self, size: Callable[[ServerUsage], int] = lambda server: 1) -> float:
        """Hours of its servers, each times this of it."""
        return sum(used.hours * size(used.server) for used in self.servers)


_SERVER = View(
    None,
    Field("instance_id", "server.uuid"),
    Field("name", "server.name"),
    Field("tenant_id", "server.project_id"),
    Field("flavor", "server.flavor_name"),
    Field("vcpus", "server.vcpus"),
    Field("memory_mb", "server.memory_mib"),
    Field("local_gb", "server.disk_gib"),
    Field("hours"),
    Field("uptime", "uptime_s"),
    Field("started_at", lambda used: with_microseconds(used.server.launched_at)),
    Field("ended_at", lambda used: with_microseconds(used.server.terminated_at)),
    Field("state", lambda used: used.server.vm_state if used.server.terminated_at is None else _TERMINATED),
)
_TOTALS = (
    Field("tenant_id", "project_id"),
    Field("start", lambda usage: with_microseconds(usage.window.start)),
    Field("stop", lambda usage: with_microseconds(usage.window.end)),
    Field("total_hours", lambda usage: usage.total()),
    Field("total_vcpus_usage", lambda usage: usage.total(lambda server: server.vcpus)),
    Field("total_memory_mb_usage", lambda usage: usage.total(lambda server: server.memory_mib)),
    Field("total_local_gb_usage", lambda usage: usage.total(lambda server: server.disk_gib)),
)
_USAGE = View(None, *_TOTALS, Field("server_usages", "servers", each=_SERVER, when=lambda usage: usage.is_detailed))


@dataclass(frozen=True, slots=True)
class UsagePage:
    """The projects of a page, and its last server where more may follow."""

    projects: Sequence[ProjectUsage]
    marker: str | None = None


def _next(page: UsagePage, call: Call) -> list[dict[str, str]]:
    return [{"rel": "next", "href": call.next_page(str(page.marker))}]


def _links(name: str) -> Field:
    return Field(name, _next, since="2.40", when=lambda page: page.marker is not None, with_call=True)


OF_ALL = View(None, Field("tenant_usages", "projects", each=_USAGE), _links("tenant_usages_links"))
OF_ONE = View(
    None,
    Field("tenant_usage", lambda page: page.projects[0], view=_USAGE, when=lambda page: page.projects),
    Field("tenant_usage", lambda page: {}, when=lambda page: not page.projects),
    _links("tenant_usage_links"),
)


async def list_projects(call: Call) -> UsagePage:
    """What each project used; its servers by one where they are asked for."""
    return await _page(call, None, is_detailed=call.query.get("detailed") == "1")


async def show(call: Call) -> UsagePage:
    """What one project used, and its servers by one."""
    project_id = call.path["id"]
    if len(project_id) > _MAX_PROJECT:
        raise errors.Invalid("The project id is too long.", field="id")
    call.enforce(SHOW, {"project_id": project_id})
    return await _page(call, project_id, is_detailed=True)


async def _page(call: Call, project_id: str | None, *, is_detailed: bool) -> UsagePage:
    """
    Raises:
        Invalid: the window, or the marker.
        Unavailable: a cell does not answer.
    """
    window, limit = _window(call), limit_of(call)
    after = await _key_of(call, project_id)
    if limit == 0:
        return UsagePage([])
    answers = await all_cells.ask(
        call, cell_db.usage.page, start=window.start, end=window.end, project_id=project_id, after=after, most=limit
    )
    answers.refuse_silence("The usage is not known as a whole")
    merged = heapq.merge(*(usages for _, usages in answers.values), key=lambda usage: usage.key)
    servers = list(itertools.islice(merged, limit))
    marker = servers[-1].uuid if len(servers) == limit else None
    return UsagePage(_by_project(servers, window, is_detailed=is_detailed), marker)


def _by_project(servers: Iterable[ServerUsage], window: Window, *, is_detailed: bool) -> list[ProjectUsage]:
    grouped = itertools.groupby(servers, key=lambda server: server.project_id)
    return [
        ProjectUsage(project_id, window, [Used(server, window) for server in some], is_detailed)
        for project_id, some in grouped
    ]


async def _key_of(call: Call, project_id: str | None) -> tuple[str, str] | None:
    """After which server the page begins."""
    marker = call.query.get("marker")
    if marker is None:
        return None
    try:
        mapping = await call.cloud.api_read(api_db.instances.get, marker)
    except errors.NotFound:
        mapping = None
    if mapping is None or project_id not in (None, mapping.project_id):
        raise errors.Invalid(f"marker [{marker}] not found", field="marker")
    return mapping.project_id, mapping.uuid


def _window(call: Call) -> Window:
    """What was asked for; without `start` or `end` until now, or from now, as OpenStack has it."""
    now = utcnow()
    start, end = _moment(call, "start", now - _MOMENT), _moment(call, "end", now)
    if not start < end:
        raise errors.Invalid("Invalid start time. The start time cannot occur after the end time.", field="start")
    return Window(start, end, now)


def _moment(call: Call, name: str, default: datetime.datetime) -> datetime.datetime:
    told = call.query.get(name)
    if told is None:
        return default
    for form in _FORMATS:
        try:
            return datetime.datetime.strptime(told, form)
        except ValueError:
            continue
    raise errors.Invalid(
        f"Datetime is in invalid format: {told[:64]}. Expected, for example, 2026-01-31T12:00:00.", field=name
    )


_TIME = text(1, 64)
_WINDOW = (Param("start", _TIME), Param("end", _TIME))
_DETAILED = Param("detailed", text(0, 64))
_PAGES = (dataclasses.replace(LIMIT, since="2.40"), dataclasses.replace(MARKER, since="2.40"))

ROUTES = [
    Route(
        "GET",
        "/os-simple-tenant-usage",
        list_projects,
        policy=LIST,
        query=Query(*_WINDOW, _DETAILED, *_PAGES, strict_since="2.75"),
        view=OF_ALL,
    ),
    Route(
        "GET",
        "/os-simple-tenant-usage/{id}",
        show,  # It asks the policy about the project in the path.
        query=Query(*_WINDOW, *_PAGES, strict_since="2.75"),
        view=OF_ONE,
    ),
]
