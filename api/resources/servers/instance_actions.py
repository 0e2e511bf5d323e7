"""What was done to a server: its actions, latest first, and the events of each."""

import dataclasses
import hashlib
from typing import Any

import cell_db.history
import cells.route
import core.errors
from api.http import policy
from api.http.call import Call
from api.http.paging import LIMIT, MARKER, Page, limit_of, page_of
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import Param, Query
from api.http.view import Field, ListView, View, with_microseconds
from api.resources.servers.access import target_of
from api.resources.times import TIME
from api_db.instances import Mapping
from api_db.journal import Entry
from cell_db.history import ActionRecord, Event
from cells.gate.answers import value_of
from lifecycle.actions import CREATE

LIST = "os_compute_api:os-instance-actions:list"
SHOW = "os_compute_api:os-instance-actions:show"
EVENTS = "os_compute_api:os-instance-actions:events"
EVENT_DETAILS = "os_compute_api:os-instance-actions:events:details"

POLICIES = [
    Rule(LIST, policy.READER, "List what was done to a server"),
    Rule(SHOW, policy.READER, "Show one thing that was done to a server"),
    Rule(EVENTS, policy.ADMIN, "See the traceback and the host of an action's events"),
    Rule(EVENT_DETAILS, policy.ADMIN, "See the details of an action's events"),
]


@dataclasses.dataclass(frozen=True, slots=True)
class _Shown:
    """An action with its events, and the project in whose terms hosts are named."""

    action: ActionRecord
    events: list[tuple[Event, str]]


def _host_id(event: tuple[Event, str]) -> str:
    host, project_id = event[0].host, event[1]
    return hashlib.sha224((project_id + host).encode()).hexdigest() if host else ""


def _event(name: str, get: Any = None, **more: Any) -> Field:
    return Field(name, get or (lambda event: getattr(event[0], name)), **more)


_EVENT_FIELDS = (
    _event("event"),
    _event("start_time", lambda event: with_microseconds(event[0].start_time)),
    _event("finish_time", lambda event: with_microseconds(event[0].finish_time)),
    _event("result"),
    _event("traceback", policy=EVENTS),
    _event("hostId", _host_id, since="2.62"),
    _event("host", since="2.62", policy=EVENTS),
    _event("details", since="2.84", policy=EVENT_DETAILS),
)
_EVENT = View(None, *_EVENT_FIELDS)


def _action_fields(prefix: str) -> tuple[Field, ...]:
    return (
        Field("action", f"{prefix}action"),
        Field("instance_uuid", f"{prefix}uuid"),
        Field("request_id", f"{prefix}request_id"),
        Field("user_id", f"{prefix}user_id"),
        Field("project_id", f"{prefix}project_id"),
        Field("message", f"{prefix}message"),
    )


ACTION_IN_LIST = View(
    "instanceAction",
    *_action_fields(""),
    Field("start_time", lambda action: with_microseconds(action.start_time)),
    Field("updated_at", lambda action: with_microseconds(action.updated_at), since="2.58"),
)
ACTION = View(
    "instanceAction",
    *_action_fields("action."),
    Field("start_time", lambda shown: with_microseconds(shown.action.start_time)),
    Field("updated_at", lambda shown: with_microseconds(shown.action.updated_at), since="2.58"),
    Field("events", each=_EVENT, until="2.50", policy=EVENTS),
    Field("events", each=_EVENT, since="2.51"),
)
ACTIONS = ListView("instanceActions", ACTION_IN_LIST, links="links")

_QUERY = Query(
    dataclasses.replace(LIMIT, since="2.58"),
    dataclasses.replace(MARKER, since="2.58"),
    Param("changes-since", TIME, since="2.58"),
    Param("changes-before", TIME, since="2.66"),
    strict_since="2.58",
)


async def list_actions(call: Call) -> list[ActionRecord]:
    """All actions of a server."""
    mapping, entry = await _located(call, LIST)
    if mapping.cell_uuid is None:
        return _accepted_so_far(entry)
    actions: list[ActionRecord] = await _in_cell(call, mapping.cell_uuid, cell_db.history.list_actions, mapping.uuid)
    return actions


async def list_page(call: Call) -> Page:
    """One page of a server's actions, of one that was deleted, too."""
    mapping, entry = await _located(call, LIST, deleted=True)
    since, before = call.query.get("changes-since"), call.query.get("changes-before")
    if since and before and since > before:
        raise core.errors.Invalid(
            "The value of changes-since must be less than or equal to changes-before.", field="changes-since"
        )
    limit, marker = limit_of(call), call.query.get("marker")
    if limit == 0:
        return Page([])
    if mapping.cell_uuid is None:
        return Page(_accepted_so_far(entry))
    try:
        actions = await _in_cell(
            call,
            mapping.cell_uuid,
            cell_db.history.list_actions,
            mapping.uuid,
            limit=limit,
            marker=marker,
            changes_since=since,
            changes_before=before,
        )
    except core.errors.NotFound as error:
        raise core.errors.Invalid(f"marker [{marker}] not found", field="marker") from error
    return page_of(actions, limit=limit, marker=lambda action: action.request_id)


async def show(call: Call) -> _Shown:
    """One action with its events."""
    return await _show(call, deleted=False)


async def show_of_deleted_too(call: Call) -> _Shown:
    """One action with its events, of a server that was deleted, too."""
    return await _show(call, deleted=True)


async def _show(call: Call, *, deleted: bool) -> _Shown:
    mapping, entry = await _located(call, SHOW, deleted=deleted)
    request_id = call.path["id"]
    if mapping.cell_uuid is None:
        for action in _accepted_so_far(entry):
            if action.request_id == request_id:
                return _Shown(action, [])
        raise core.errors.NotFound(f"Action for request_id {request_id} on instance {mapping.uuid} not found")
    action, events = await _in_cell(call, mapping.cell_uuid, cell_db.history.get_action, mapping.uuid, request_id)
    return _Shown(action, [(event, mapping.project_id) for event in events])


def _accepted_so_far(entry: Entry | None) -> list[ActionRecord]:
    """The one action of a server that no cell has yet: its creation, as its cell will record it."""
    if entry is None or entry.build_request is None:
        return []
    build_request = entry.build_request
    return [
        ActionRecord(
            id=0,
            uuid=build_request.uuid,
            action=CREATE.name,
            request_id=build_request.request_id,
            user_id=build_request.build.user_id,
            project_id=build_request.build.project_id,
            message=None,
            start_time=build_request.created_at,
            finish_time=None,
            updated_at=build_request.created_at,
        )
    ]


async def _located(call: Call, rule: str, *, deleted: bool = False) -> tuple[Mapping, Entry | None]:
    mapping, entry = await cells.route.locate(call.cloud, call.context, call.path["server_id"], deleted=deleted)
    call.enforce(rule, target_of(mapping))
    return mapping, entry


async def _in_cell(call: Call, cell_uuid: str, read: Any, *values: Any, **more: Any) -> Any:
    gate = await call.cloud.cells.find_gate(cell_uuid)
    return value_of(await gate.read(read, *values, **more))


_LIST_PATH = "/servers/{server_id}/os-instance-actions"
_SHOW_PATH = "/servers/{server_id}/os-instance-actions/{id}"

ROUTES = [
    Route("GET", _LIST_PATH, list_actions, policy=LIST, view=ACTIONS, query=_QUERY, until="2.20"),
    Route("GET", _LIST_PATH, list_page, policy=LIST, view=ACTIONS, query=_QUERY, since="2.21"),
    Route("GET", _SHOW_PATH, show, policy=SHOW, view=ACTION, until="2.20"),
    Route("GET", _SHOW_PATH, show_of_deleted_too, policy=SHOW, view=ACTION, since="2.21"),
]
