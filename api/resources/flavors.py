"""Flavors: the sizes that servers come in."""

from collections.abc import Mapping
from typing import Any

import api_db.flavors
import core.scheduling
from api.http import policy
from api.http.call import Call
from api.http.paging import LIMIT, MARKER, Page, limit_of, page_of
from api.http.policy import Rule
from api.http.routes import ActionRoute, Route
from api.http.schema import (
    BOOLEAN,
    MAX_BIGINT,
    METADATA_KEY,
    NAME,
    NON_NEGATIVE_INT,
    POSITIVE_INT,
    STRING_1_255,
    Body,
    Param,
    Property,
    Query,
    Type,
    checked,
    choice,
    description,
    fixed,
    map_of,
    structure,
    text,
)
from api.http.view import Field, ListView, Value, View
from api.prepare.extra_specs import refuse_invalid, refuse_unread
from api_db.flavors import Filter, Flavor, SortOrder
from core import errors

_MANAGE = "os_compute_api:os-flavor-manage"
_ACCESS = "os_compute_api:os-flavor-access"
_SPECS = "os_compute_api:os-flavor-extra-specs"

POLICIES = (
    Rule(f"{_MANAGE}:create", policy.ADMIN, "Create a flavor"),
    Rule(f"{_MANAGE}:update", policy.ADMIN, "Change a flavor's description"),
    Rule(f"{_MANAGE}:delete", policy.ADMIN, "Delete a flavor"),
    Rule(_ACCESS, policy.ADMIN, "List the projects that may use a flavor"),
    Rule(f"{_ACCESS}:add_tenant_access", policy.ADMIN, "Let a project use a flavor"),
    Rule(f"{_ACCESS}:remove_tenant_access", policy.ADMIN, "Let a project use a flavor no longer"),
    Rule(f"{_SPECS}:index", policy.READER, "List a flavor's extra specs, also inside of flavors"),
    Rule(f"{_SPECS}:show", policy.READER, "Show an extra spec"),
    Rule(f"{_SPECS}:create", policy.ADMIN, "Add extra specs"),
    Rule(f"{_SPECS}:update", policy.ADMIN, "Change an extra spec"),
    Rule(f"{_SPECS}:delete", policy.ADMIN, "Delete an extra spec"),
)


# What responses show


def _links(flavor: Flavor, call: Call) -> list[dict[str, str]]:
    return call.links(f"/flavors/{flavor.flavor_id}")


FLAVOR = View(
    "flavor",
    Field("id", "flavor_id"),
    Field("name"),
    Field("ram", "memory_mib"),
    Field("disk", "root_gib"),
    Field("vcpus"),
    Field("swap", lambda flavor: flavor.swap_mib or "", until="2.74"),
    Field("swap", "swap_mib", since="2.75"),
    Field("OS-FLV-EXT-DATA:ephemeral", "ephemeral_gib"),
    Field("OS-FLV-DISABLED:disabled", "disabled", until="2.101"),
    Field("rxtx_factor", until="2.101"),
    Field("os-flavor-access:is_public", "is_public"),
    Field("description", since="2.55"),
    Field("extra_specs", since="2.61", policy=f"{_SPECS}:index"),
    Field("links", _links, with_call=True),
)

FLAVOR_IN_BRIEF = View(
    None,
    Field("id", "flavor_id"),
    Field("name"),
    Field("description", since="2.55"),
    Field("links", _links, with_call=True),
)

FLAVORS = ListView("flavors", FLAVOR_IN_BRIEF)
FLAVORS_IN_DETAIL = ListView("flavors", FLAVOR)


# What requests may hold

_SORT_KEYS = {
    "created_at": "created_at",
    "description": "description",
    "disabled": "disabled",
    "ephemeral_gb": "ephemeral_gib",
    "flavorid": "flavor_id",
    "id": "id",
    "is_public": "is_public",
    "memory_mb": "memory_mib",
    "name": "name",
    "root_gb": "root_gib",
    "swap": "swap_mib",
    "updated_at": "updated_at",
    "vcpu_weight": "vcpu_weight",
    "vcpus": "vcpus",
}
_EVERY_SORT_KEY = {**_SORT_KEYS, "rxtx_factor": "rxtx_factor"}

_NONE = "None"


def _to_is_public(value: str) -> bool | None:
    """None, the word, shows public and other flavors alike."""
    if value.lower() == "none":
        return None
    if value.lower() in ("true", "t", "yes", "y", "on", "1"):
        return True
    if value.lower() in ("false", "f", "no", "n", "off", "0"):
        return False
    raise ValueError(f"Invalid is_public filter [{value}]")


def _one_of(keys: dict[str, str]) -> Type:
    return fixed({"type": "string", "enum": list(keys)}, keys.__getitem__)


LIST_QUERY = Query(
    LIMIT,
    MARKER,
    Param("is_public", fixed({"type": "string", "maxLength": 255}, _to_is_public)),
    Param("minRam", NON_NEGATIVE_INT),
    Param("minDisk", NON_NEGATIVE_INT),
    Param("sort_key", _one_of(_EVERY_SORT_KEY), until="2.101"),
    Param("sort_key", _one_of(_SORT_KEYS), since="2.102"),
    Param("sort_dir", choice("asc", "desc")),
    Param("name", text(0, 255), since="2.102"),
    strict_since="2.75",
)


def _to_rxtx_factor(value: Any) -> float:
    factor = float(value)
    if not 0 < factor <= _MAX_RXTX:
        raise ValueError(f"{value} is not between 0 and 3.40282e+38")
    return factor


_ID = fixed(
    {
        "type": ["string", "number", "null"],
        "pattern": r"^(?! )[a-zA-Z0-9. _-]+(?<! )\Z",
        "minLength": 1,
        "maxLength": 255,
        "minimum": -MAX_BIGINT,
        "maximum": MAX_BIGINT,
    },
    lambda value: None if value is None else str(value),
)
_MAX_RXTX = 3.40282e38
_RXTX_FACTOR = fixed(
    {
        "type": ["string", "number"],
        "maxLength": 61,
        "minimum": 0,
        "maximum": _MAX_RXTX,
        "pattern": r"^[0-9]{1,40}(\.[0-9]{1,20})?\Z",
    },
    _to_rxtx_factor,
)
_DESCRIPTION = description(65535)

CREATE = Body(
    "flavor",
    Property("name", NAME, required=True),
    Property("id", _ID),
    Property("ram", POSITIVE_INT, required=True),
    Property("vcpus", POSITIVE_INT, required=True),
    Property("disk", NON_NEGATIVE_INT, required=True),
    Property("OS-FLV-EXT-DATA:ephemeral", NON_NEGATIVE_INT),
    Property("swap", NON_NEGATIVE_INT),
    Property("rxtx_factor", _RXTX_FACTOR, until="2.101"),
    Property("os-flavor-access:is_public", BOOLEAN),
    Property("description", _DESCRIPTION, since="2.55"),
)

UPDATE = Body("flavor", Property("description", _DESCRIPTION, required=True))

_SPEC_VALUE = fixed(
    {"type": ["string", "number"], "maxLength": 255, "minimum": -MAX_BIGINT, "maximum": MAX_BIGINT}, str
)

_SPECS_MAP = map_of(_SPEC_VALUE, keys=METADATA_KEY)
_ONE_SPEC = map_of(_SPEC_VALUE, keys=METADATA_KEY, minimum=1, maximum=1)

ADD_SPECS = Body.of(
    structure(
        Property("extra_specs", checked(_SPECS_MAP, refuse_unread), required=True, until="2.85"),
        Property("extra_specs", checked(_SPECS_MAP, refuse_invalid), required=True, since="2.86"),
    )
)
SET_SPEC = Body.of(checked(_ONE_SPEC, refuse_unread))
SET_CHECKED_SPEC = Body.of(checked(_ONE_SPEC, refuse_invalid))

_TENANT = Property("tenant", STRING_1_255, required=True)


# Handlers


def _viewer(call: Call) -> str | None:
    """The project whose flavors the caller may see; None for an administrator, who sees all."""
    return None if call.context.is_admin else call.context.project_id


async def list_in_brief(call: Call) -> object:
    """A page of flavors without their extra specs."""
    return await _list(call, with_extra_specs=False)


async def list_in_detail(call: Call) -> object:
    """A page of whole flavors."""
    return await _list(call, with_extra_specs=True)


async def _list(call: Call, *, with_extra_specs: bool) -> Page:
    limit = limit_of(call)
    if limit == 0:
        return Page([])
    query = call.query
    order = SortOrder(
        key=query.get("sort_key", "flavor_id"), direction=query.get("sort_dir", "asc"), marker=query.get("marker")
    )
    flavors: list[Flavor] = await call.cloud.api_read(
        api_db.flavors.list_page, _filter(call), order, limit=limit, with_extra_specs=with_extra_specs
    )
    return page_of(flavors, limit=limit, marker=lambda flavor: flavor.flavor_id)


def _filter(call: Call) -> Filter:
    """What the caller may see and asked for: public flavors and the project's own, unless an administrator says
    more."""
    query = call.query
    is_admin = call.context.is_admin
    return Filter(
        is_public=query.get("is_public", True) if is_admin else True,
        project_id=call.context.project_id,
        min_memory_mib=query.get("minRam"),
        min_root_gib=query.get("minDisk"),
        disabled=None if is_admin else False,
        name=query.get("name"),
    )


async def show(call: Call) -> object:
    """One flavor."""
    return await _flavor(call)


async def _flavor(call: Call) -> Flavor:
    flavor: Flavor = await call.cloud.api_read(api_db.flavors.get, call.path["id"], project_id=_viewer(call))
    return flavor


async def create(call: Call) -> object:
    """Makes a flavor."""
    asked = call.body
    return await call.cloud.api_write(
        api_db.flavors.insert,
        flavor_id=asked.get("id"),
        name=asked["name"],
        memory_mib=asked["ram"],
        vcpus=asked["vcpus"],
        root_gib=asked["disk"],
        ephemeral_gib=asked.get("OS-FLV-EXT-DATA:ephemeral", 0),
        swap_mib=asked.get("swap", 0),
        rxtx_factor=asked.get("rxtx_factor", 1.0),
        is_public=asked.get("os-flavor-access:is_public", True),
        description=asked.get("description"),
    )


async def update(call: Call) -> object:
    """Changes the description, the one thing that may change."""
    return await call.cloud.api_write(
        api_db.flavors.set_description, call.path["id"], call.body["description"]
    )


async def delete(call: Call) -> None:
    """Removes a flavor."""
    await call.cloud.api_write(api_db.flavors.delete, call.path["id"])


async def list_specs(call: Call) -> object:
    """All extra specs of a flavor."""
    return (await _flavor(call)).extra_specs


async def show_spec(call: Call) -> object:
    """One extra spec."""
    name = call.path["name"]
    specs = (await _flavor(call)).extra_specs
    if name not in specs:
        raise api_db.flavors.no_extra_spec(call.path["id"], name)
    return {name: specs[name]}


async def add_specs(call: Call) -> object:
    """Adds extra specs to those that there are."""
    specs = call.body["extra_specs"]
    _refuse_unknown_policy(call, specs)
    await call.cloud.api_write(api_db.flavors.set_extra_specs, call.path["id"], specs)
    return specs


async def set_spec(call: Call) -> object:
    """Sets one extra spec, which the path and the body both name."""
    name = call.path["name"]
    if name not in call.body:
        raise errors.Invalid("Request body and URI mismatch", field=name)
    _refuse_unknown_policy(call, call.body)
    await call.cloud.api_write(api_db.flavors.set_extra_specs, call.path["id"], call.body)
    return call.body


def _refuse_unknown_policy(call: Call, specs: Mapping[str, str]) -> None:
    if core.scheduling.KEY in specs:
        core.scheduling.refuse_unknown(call.cloud.filters_of_policies, specs[core.scheduling.KEY])


async def delete_spec(call: Call) -> None:
    """Removes one extra spec."""
    await call.cloud.api_write(api_db.flavors.delete_extra_spec, call.path["id"], call.path["name"])


async def list_access(call: Call) -> object:
    """The projects that may use a flavor that is not public."""
    flavor = await _flavor(call)
    if flavor.is_public:
        raise errors.NotFound("Access list not available for public flavors.", field="flavor")
    return await _access(call)


async def add_access(call: Call) -> object:
    """Lets a project use the flavor; up to 2.6 a public one, too."""
    await call.cloud.api_write(api_db.flavors.add_access, call.path["id"], call.body["tenant"])
    return await _access(call)


async def add_access_unless_public(call: Call) -> object:
    """Lets a project use a flavor that is not public."""
    if (await _flavor(call)).is_public:
        raise errors.Conflict("Can not add access to a public flavor.", field="flavor")
    return await add_access(call)


async def remove_access(call: Call) -> object:
    """Lets a project use the flavor no longer."""
    await call.cloud.api_write(api_db.flavors.remove_access, call.path["id"], call.body["tenant"])
    return await _access(call)


async def _access(call: Call) -> list[dict[str, str]]:
    flavor_id = call.path["id"]
    projects = await call.cloud.api_read(api_db.flavors.projects_with_access, flavor_id)
    return [{"flavor_id": flavor_id, "tenant_id": project} for project in projects]


_ONE = "/flavors/{id}"
_ALL_SPECS = "/flavors/{id}/os-extra_specs"
_SPEC = "/flavors/{id}/os-extra_specs/{name}"
_DO = "/flavors/{id}/action"
_ADD = f"{_ACCESS}:add_tenant_access"
_SET = f"{_SPECS}:update"
_PROJECTS = Value("flavor_access")

ROUTES = (
    Route("GET", "/flavors", list_in_brief, query=LIST_QUERY, view=FLAVORS),
    Route("GET", "/flavors/detail", list_in_detail, query=LIST_QUERY, view=FLAVORS_IN_DETAIL),
    Route("POST", "/flavors", create, policy=f"{_MANAGE}:create", body=CREATE, view=FLAVOR),
    Route("GET", _ONE, show, view=FLAVOR),
    Route("PUT", _ONE, update, policy=f"{_MANAGE}:update", body=UPDATE, view=FLAVOR, since="2.55"),
    Route("DELETE", _ONE, delete, policy=f"{_MANAGE}:delete", status=202),
    Route("GET", _ALL_SPECS, list_specs, policy=f"{_SPECS}:index", view=Value("extra_specs")),
    Route("POST", _ALL_SPECS, add_specs, policy=f"{_SPECS}:create", body=ADD_SPECS, view=Value("extra_specs")),
    Route("GET", _SPEC, show_spec, policy=f"{_SPECS}:show"),
    Route("PUT", _SPEC, set_spec, policy=_SET, body=SET_SPEC, until="2.85"),
    Route("PUT", _SPEC, set_spec, policy=_SET, body=SET_CHECKED_SPEC, since="2.86"),
    Route("DELETE", _SPEC, delete_spec, policy=f"{_SPECS}:delete"),
    Route("GET", "/flavors/{id}/os-flavor-access", list_access, policy=_ACCESS, view=_PROJECTS),
    ActionRoute(
        _DO, "addTenantAccess", add_access, _ADD, Body("addTenantAccess", _TENANT), _PROJECTS, 200, until="2.6"
    ),
    ActionRoute(
        _DO, "addTenantAccess", add_access_unless_public, _ADD, Body("addTenantAccess", _TENANT), _PROJECTS, 200,
        since="2.7",
    ),
    ActionRoute(
        _DO, "removeTenantAccess", remove_access, f"{_ACCESS}:remove_tenant_access",
        Body("removeTenantAccess", _TENANT), _PROJECTS, 200,
    ),
)
