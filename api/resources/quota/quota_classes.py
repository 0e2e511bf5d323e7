"""`/os-quota-class-sets`: limits by class. The class `default` holds the limits of all projects that have none of their
own."""

from collections.abc import Mapping
from dataclasses import dataclass

import api_db.limits
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import QUOTA, Body, Property
from api.http.view import Field, View
from api.resources.quota.resources import RESOURCES, Resource
from core import errors
from database.engine import Connection

SHOW = "os_compute_api:os-quota-class-sets:show"
UPDATE = "os_compute_api:os-quota-class-sets:update"
POLICIES = [
    Rule(SHOW, policy.ADMIN, "See the limits of a quota class"),
    Rule(UPDATE, policy.ADMIN, "Set the limits of a quota class"),
]

_MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class QuotaClass:
    name: str
    limits: Mapping[str, int]


def _field(resource: Resource) -> Field:
    name = resource.name
    return Field(name, lambda shown: shown.limits[name], since=resource.class_since, until=resource.class_until)


_LIMITS = tuple(_field(each) for each in RESOURCES)
WITH_ID = View("quota_class_set", Field("id", "name"), *_LIMITS)
WITHOUT_ID = View("quota_class_set", *_LIMITS)
# Server groups could always be set here, though they are shown from 2.50 on only.
UPDATE_BODY = Body("quota_class_set", *(Property(each.name, QUOTA, until=each.class_until) for each in RESOURCES))


async def show(call: Call) -> QuotaClass:
    return await call.cloud.api_read(_read, _name(call), call.cloud.quota_defaults)


async def update(call: Call) -> QuotaClass:
    return await call.cloud.api_write(_update, _name(call), call.body, call.cloud.quota_defaults)


def _name(call: Call) -> str:
    name = call.path["id"]
    if len(name) > _MAX_NAME:
        raise errors.Invalid("The name of the quota class is too long.", field="id")
    return name


def _read(conn: Connection, name: str, defaults: Mapping[str, int]) -> QuotaClass:
    return QuotaClass(name, api_db.limits.of_class(conn, name, defaults))


def _update(conn: Connection, name: str, limits: Mapping[str, int], defaults: Mapping[str, int]) -> QuotaClass:
    api_db.limits.set_class(conn, name, limits)
    return _read(conn, name, defaults)


ROUTES = [
    Route("GET", "/os-quota-class-sets/{id}", show, policy=SHOW, view=WITH_ID),
    Route("PUT", "/os-quota-class-sets/{id}", update, policy=UPDATE, body=UPDATE_BODY, view=WITHOUT_ID),
]
