"""`/os-quota-sets`: the limits of a project or of one of its users. A change holds from the next request on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import api_db.limits
import api_db.quota
import api_db.server_groups
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import BOOLEAN, QUOTA, STRING_1_255, Body, Param, Property, Query
from api.http.view import Field, View
from api.resources.quota.resources import RESOURCES
from api_db.limits import UNLIMITED
from core import errors
from database.engine import Connection

SHOW = "os_compute_api:os-quota-sets:show"
DETAIL = "os_compute_api:os-quota-sets:detail"
DEFAULTS = "os_compute_api:os-quota-sets:defaults"
UPDATE = "os_compute_api:os-quota-sets:update"
DELETE = "os_compute_api:os-quota-sets:delete"
POLICIES = [
    Rule(SHOW, policy.READER, "See a project's limits"),
    Rule(DETAIL, policy.READER, "See a project's limits and what it uses"),
    Rule(DEFAULTS, policy.ANYBODY, "See the limits of a project for which none were set"),
    Rule(UPDATE, policy.ADMIN, "Set limits of a project or of its users"),
    Rule(DELETE, policy.ADMIN, "Give a project or its users the default limits again"),
]

_MAX_PROJECT = 255


@dataclass(frozen=True, slots=True)
class QuotaSet:
    """Limits by resource, and what is used where it was asked for."""

    project_id: str
    limits: Mapping[str, int]
    used: Mapping[str, int] | None = None


def _limit(name: str) -> Callable[[QuotaSet], int]:
    return lambda quota_set: quota_set.limits[name]


def _usage(name: str) -> Callable[[QuotaSet], dict[str, int]]:
    """What is used is counted and not reserved; key pairs and what has no limit count nothing here, as in Nova."""
    limit = _limit(name)
    return lambda quota_set: {"in_use": (quota_set.used or {}).get(name, 0), "limit": limit(quota_set), "reserved": 0}


_LIMITS = tuple(Field(each.name, _limit(each.name), until=each.until) for each in RESOURCES)
WITH_ID = View("quota_set", Field("id", "project_id"), *_LIMITS)
WITHOUT_ID = View("quota_set", *_LIMITS)
IN_DETAIL = View(
    "quota_set",
    Field("id", "project_id"),
    *(Field(each.name, _usage(each.name), until=each.until) for each in RESOURCES),
)

QUERY = Query(Param("user_id", STRING_1_255, once=True), strict_since="2.75")
UPDATE_BODY = Body(
    "quota_set", *(Property(each.name, QUOTA, until=each.until) for each in RESOURCES), Property("force", BOOLEAN)
)


async def show(call: Call) -> QuotaSet:
    return await call.cloud.api_read(_read, _project(call, SHOW), call.query.get("user_id"), call.cloud.quota_defaults)


async def detail(call: Call) -> QuotaSet:
    return await call.cloud.api_read(
        _read_with_usage, _project(call, DETAIL), call.query.get("user_id"), call.cloud.quota_defaults
    )


async def defaults(call: Call) -> QuotaSet:
    project_id = _project(call, DEFAULTS)
    return QuotaSet(project_id, await call.cloud.api_read(api_db.limits.of_default_class, call.cloud.quota_defaults))


async def update(call: Call) -> QuotaSet:
    wanted = dict(call.body)
    force = wanted.pop("force", False)
    return await call.cloud.api_write(
        _update,
        project_id=_project(call, UPDATE),
        user_id=call.query.get("user_id"),
        wanted=wanted,
        force=force,
        defaults=call.cloud.quota_defaults,
    )


async def delete(call: Call) -> None:
    project_id, user_id = _project(call, DELETE), call.query.get("user_id")
    if user_id is None:
        await call.cloud.api_write(api_db.limits.delete_project, project_id)
    else:
        await call.cloud.api_write(api_db.limits.delete_user, project_id, user_id)


def _project(call: Call, rule: str) -> str:
    project_id = call.path["id"]
    if len(project_id) > _MAX_PROJECT:
        raise errors.Invalid("The project id is too long.", field="id")
    call.enforce(rule, {"project_id": project_id})
    return project_id


def _read(conn: Connection, project_id: str, user_id: str | None, defaults: Mapping[str, int]) -> QuotaSet:
    return QuotaSet(project_id, api_db.limits.read(conn, project_id, user_id, defaults).effective)


def _read_with_usage(conn: Connection, project_id: str, user_id: str | None, defaults: Mapping[str, int]) -> QuotaSet:
    limits = api_db.limits.read(conn, project_id, user_id, defaults).effective
    return QuotaSet(project_id, limits, _usage_of(conn, project_id, user_id))


def _usage_of(conn: Connection, project_id: str, user_id: str | None) -> dict[str, int]:
    return api_db.quota.usage(conn, project_id, user_id) | {
        "server_groups": api_db.server_groups.count(conn, project_id, user_id)
    }


def _update(
    conn: Connection,
    *,
    project_id: str,
    user_id: str | None,
    wanted: dict[str, int],
    force: bool,
    defaults: Mapping[str, int],
) -> QuotaSet:
    """Sets the limits while no server of the project is being accepted, so that what they are compared with stays
    so."""
    api_db.quota.lock(conn, project_id)
    if not force:
        _refuse_less_than(wanted, _usage_of(conn, project_id, user_id))
    if user_id is None:
        api_db.limits.set_project(conn, project_id, wanted)
    else:
        _refuse_more_than(wanted, api_db.limits.read(conn, project_id, None, defaults).project)
        api_db.limits.set_user(conn, project_id, user_id, wanted)
    return _read(conn, project_id, user_id, defaults)


def _refuse_less_than(wanted: Mapping[str, int], used: Mapping[str, int]) -> None:
    for name, limit in wanted.items():
        if UNLIMITED < limit < used.get(name, 0):
            raise errors.Invalid(
                f"Quota limit {limit} for {name} must be greater than or equal to already used and reserved "
                f"{used[name]}.",
                field=name,
            )


def _refuse_more_than(wanted: Mapping[str, int], project: Mapping[str, int]) -> None:
    """A user may have at most what the project has."""
    for name, limit in wanted.items():
        most = project[name]
        if most != UNLIMITED and (limit == UNLIMITED or limit > most):
            raise errors.Invalid(f"Quota limit {limit} for {name} must be less than or equal to {most}.", field=name)


def _route(
    method: str, path: str, handler: Callable[[Call], Any], view: View | None, query: Query = QUERY, status: int = 200
) -> Route:
    # Each handler asks the policy about the project in the path.
    return Route(method, path, handler, query=query, view=view, status=status)


ROUTES = [
    _route("GET", "/os-quota-sets/{id}", show, WITH_ID),
    _route("GET", "/os-quota-sets/{id}/detail", detail, IN_DETAIL),
    _route("GET", "/os-quota-sets/{id}/defaults", defaults, WITH_ID, query=Query()),
    Route("PUT", "/os-quota-sets/{id}", update, query=QUERY, body=UPDATE_BODY, view=WITHOUT_ID),
    _route("DELETE", "/os-quota-sets/{id}", delete, None, status=202),
]
