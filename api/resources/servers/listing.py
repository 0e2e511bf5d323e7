"""Lists of servers: who may filter by what, and what the list is sorted by.

Source: Compute API reference, server list query. Which way a list takes through the cells: docs/decisions/0004.
"""

import datetime
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cell_db.filters
import cell_db.regexp
import cells.listing.listing
from api.http import paging, policy
from api.http.call import Call
from api.http.paging import LIMIT, limit_of
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import MAX_INT, UUID_OR_UNKNOWN, Param, Query, canonical_address, choice, text
from api.http.versions import Microversion
from api.http.view import Render, View, compiled
from api.resources.hosts.all_cells import MISSING_CELLS
from api.resources.servers import for_view
from api.resources.servers.bodies import MAX_TAGS
from api.resources.servers.views import (
    EXTENDED_ATTRIBUTES,
    SERVER_BRIEF,
    SERVER_DETAIL,
    UNREACHABLE_BRIEF,
    UNREACHABLE_DETAIL,
)
from api.resources.times import TIME
from cell_db.listing import Shape
from cells.listing.page import Listing, Unreachable, WhenSilent
from core import errors
from database.keyset import Sorting, SortOrder
from lifecycle import states
from objects.ids import as_kept, last_of_address

INDEX = "os_compute_api:servers:index"
DETAIL = "os_compute_api:servers:detail"
ALL_TENANTS = ":get_all_tenants"
ALL_FILTERS = "os_compute_api:servers:allow_all_filters"

POLICIES = [
    Rule(INDEX, policy.READER, "List servers"),
    Rule(DETAIL, policy.READER, "List servers with all that is known of them"),
    Rule(INDEX + ALL_TENANTS, policy.ADMIN, "List the servers of all projects"),
    Rule(DETAIL + ALL_TENANTS, policy.ADMIN, "List the servers of all projects with all that is known of them"),
    Rule(ALL_FILTERS, policy.ADMIN, "Filter a list of servers by anything"),
]

SHOW_UNREACHABLE_SINCE = Microversion(2, 69)
REFUSE_STATUS_SINCE = Microversion(2, 38)
USER_DATA_SINCE = Microversion(2, 3)
HOST_STATUS_SINCE = Microversion(2, 16)

# ---- filters ---------------------------------------------------------------------------------------------------------

_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_FALSE = frozenset({"0", "f", "false", "off", "n", "no"})


def _as_is(text: str) -> str:
    return text


def _flag(text: str) -> bool:
    if text.strip().lower() not in _TRUE | _FALSE:
        raise ValueError(f"{text[:64]!r} is not a boolean such as True or False.")
    return text.strip().lower() in _TRUE


def _number(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f"{text[:64]!r} is not an integer.") from None
    # No row has a number beyond what the column holds, and SQLite's driver takes none beyond 64 bits.
    return max(-MAX_INT - 1, min(number, MAX_INT))


def _moment(text: str) -> datetime.datetime:
    convert = TIME.at(Microversion(2, 1)).convert
    assert convert is not None
    moment: datetime.datetime = convert(text)
    return moment


def _image(text: str) -> str:
    return as_kept(last_of_address(text))


def _one(text: str) -> tuple[str, ...]:
    return (text,)


def _tags(text: str) -> tuple[str, ...]:
    tags = tuple(dict.fromkeys(text.split(",")))
    if "" in tags:
        raise ValueError("A tag has at least one character.")
    if len(tags) > MAX_TAGS:
        raise ValueError(f"These are more than {MAX_TAGS} tags, which is as many as a server may have.")
    return tags


@dataclass(frozen=True, slots=True)
class Filter:
    """A parameter that filters, and the filter that it is (`cell_db.filters`).

    Known from `since` on. Others than those who may filter by anything may use it from `everybody_since` on, None:
    never; what they may not use is ignored, as the Compute API has it.
    """

    name: str
    by: str
    convert: Callable[[str], Any] = _as_is
    since: str = "2.1"
    everybody_since: str | None = "2.1"


ADMINS = None
FILTERS = (
    Filter("name", "name"),
    Filter("flavor", "flavor", last_of_address),
    Filter("image", "image", _image),
    Filter("reservation_id", "reservation_id"),
    Filter("changes-since", "changes_since", _moment),
    Filter("changes-before", "changes_before", _moment, since="2.66", everybody_since="2.66"),
    Filter("tags", "tags", _tags, since="2.26", everybody_since="2.26"),
    Filter("tags-any", "tags_any", _tags, since="2.26", everybody_since="2.26"),
    Filter("not-tags", "not_tags", _tags, since="2.26", everybody_since="2.26"),
    Filter("not-tags-any", "not_tags_any", _tags, since="2.26", everybody_since="2.26"),
    Filter("locked", "locked", _flag, since="2.73", everybody_since="2.73"),
    Filter("availability_zone", "availability_zone", everybody_since="2.83"),
    Filter("config_drive", "config_drive", _flag, everybody_since="2.83"),
    Filter("key_name", "key_name", everybody_since="2.83"),
    Filter("created_at", "created_at", _moment, everybody_since="2.83"),
    Filter("launched_at", "launched_at", _moment, everybody_since="2.83"),
    Filter("terminated_at", "terminated_at", _moment, everybody_since="2.83"),
    Filter("power_state", "power_state", _number, everybody_since="2.83"),
    Filter("task_state", "task_state", _one, everybody_since="2.83"),
    Filter("vm_state", "vm_state", _one, everybody_since="2.83"),
    Filter("progress", "progress", _number, everybody_since="2.83"),
    Filter("user_id", "user_id", everybody_since="2.83"),
    Filter("hostname", "hostname", everybody_since="2.90"),
    Filter("host", "host", everybody_since=ADMINS),
    Filter("node", "node", everybody_since=ADMINS),
    Filter("deleted", "deleted", _flag, everybody_since=ADMINS),
    Filter("uuid", "uuid", as_kept, everybody_since=ADMINS),
    Filter("display_name", "name", everybody_since=ADMINS),
    Filter("description", "description", everybody_since=ADMINS),
    Filter("display_description", "description", everybody_since=ADMINS),
    Filter("locked_by", "locked_by", everybody_since=ADMINS),
    Filter("image_ref", "image", _image, everybody_since=ADMINS),
    Filter("kernel_id", "kernel_id", everybody_since=ADMINS),
    Filter("ramdisk_id", "ramdisk_id", everybody_since=ADMINS),
    Filter("launch_index", "launch_index", _number, everybody_since=ADMINS),
    Filter("root_device_name", "root_device_name", everybody_since=ADMINS),
    Filter("access_ip_v4", "access_ip_v4", canonical_address, everybody_since=ADMINS),
    Filter("access_ip_v6", "access_ip_v6", canonical_address, everybody_since=ADMINS),
    Filter("auto_disk_config", "auto_disk_config", _flag, everybody_since=ADMINS),
)
# Filters that are more than a condition on a row.
ADDRESSES = (Filter("ip", "ip"), Filter("ip6", "ip6", everybody_since="2.5"))
OTHERS = ("status", "all_tenants", "project_id", "tenant_id", "soft_deleted")
REFUSED = r"_|(block_device_mapping|services|metadata|system_metadata|info_cache|security_groups|pci_devices)$"

# ---- sort keys -------------------------------------------------------------------------------------------------------

# Parameter -> key (`cell_db.listing`); None: every server has the same value.
SORT_KEYS: dict[str, str | None] = {
    **{
        name: name
        for name in (
            "access_ip_v4", "access_ip_v6", "auto_disk_config", "availability_zone", "config_drive", "created_at",
            "display_description", "display_name", "host", "hostname", "image_ref", "key_name", "launch_index",
            "launched_at", "locked", "locked_by", "node", "power_state", "progress", "project_id", "root_device_name",
            "task_state", "terminated_at", "updated_at", "user_id", "uuid", "vm_state",
        )
    },
    "instance_type_id": "flavor",
    "kernel_id": None,
    "ramdisk_id": None,
}  # fmt: skip
SORTED_BY_ADMINS = frozenset({"host", "node"})
# Columns of another implementation's tables: taken and ignored until 2.74.
INTERNAL_SORT_KEYS = (
    "architecture", "cell_name", "cleaned", "default_ephemeral_device", "default_swap_device", "deleted", "deleted_at",
    "disable_terminate", "ephemeral_gb", "ephemeral_key_uuid", "id", "key_data", "memory_mb", "os_type",
    "reservation_id", "root_gb", "shutdown_terminate", "user_data", "vcpus", "vm_mode",
)  # fmt: skip

_SINCE_LOCKED = tuple(SORT_KEYS)
_BEFORE_LOCKED = tuple(name for name in SORT_KEYS if name != "locked")

_ONE = text(0, 255)
_SEVERAL = text(0, MAX_TAGS * 61)

QUERY = Query(
    LIMIT,
    Param("marker", UUID_OR_UNKNOWN),
    Param("sort_key", choice(*_BEFORE_LOCKED, *INTERNAL_SORT_KEYS), until="2.72"),
    Param("sort_key", choice(*_SINCE_LOCKED, *INTERNAL_SORT_KEYS), since="2.73", until="2.74"),
    Param("sort_key", choice(*_SINCE_LOCKED), since="2.75"),
    Param("sort_dir", choice("asc", "desc")),
    *(
        Param(each.name, _SEVERAL if each.convert is _tags else _ONE, since=each.since)
        for each in (*FILTERS, *ADDRESSES)
    ),
    *(Param(name, _ONE) for name in OTHERS),
    strict_since="2.75",
    refused=REFUSED,
)

# ---- handlers --------------------------------------------------------------------------------------------------------


async def index(call: Call) -> object:
    """Ids and names."""
    return await _listed(call, INDEX, Shape.BRIEF)


async def detail(call: Call) -> object:
    """All that is known of each server."""
    return await _listed(call, DETAIL, Shape.DETAIL)


async def _listed(call: Call, rule: str, shape: Shape) -> paging.Page:
    filters = _filters(call, rule)
    if filters is None:
        return paging.Page(())
    page = await cells.listing.listing.list_servers(call.cloud, _listing(call, filters, shape))
    if page.silent:
        call.set_header(MISSING_CELLS, ", ".join(page.silent))
    return paging.Page(page.items, more=page.more, marker=page.marker, marker_of=lambda item: str(item.uuid))


def _listing(call: Call, filters: dict[str, Any], shape: Shape) -> Listing:
    conf, is_whole = call.cloud.conf, shape is Shape.DETAIL
    sees_hosts = is_whole and call.version >= HOST_STATUS_SINCE and for_view.shows_host_status(call)
    return Listing(
        filters=filters,
        order=_order(call),
        limit=limit_of(call),
        marker=call.query.get("marker"),
        marker_project=filters.get("project_id"),
        shape=shape,
        user_data=is_whole and call.version >= USER_DATA_SINCE and call.can(EXTENDED_ATTRIBUTES),
        when_silent=_when_silent(call),
        hosts_down_after_s=conf.conductor.service_down_time_s if sees_hosts else None,
        deadline_s=conf.cells.deadline_s,
    )


def _when_silent(call: Call) -> WhenSilent:
    if call.version >= SHOW_UNREACHABLE_SINCE:
        return WhenSilent.SHOW
    return WhenSilent.SKIP if call.cloud.conf.api.list_records_by_skipping_down_cells else WhenSilent.FAIL


# ---- from the query to filters ---------------------------------------------------------------------------------------


def _filters(call: Call, rule: str) -> dict[str, Any] | None:
    """The filters that the caller may use, those that the list has without asking among them; None: nothing fulfils
    them.

    Raises:
        Invalid: names the parameter.
        Forbidden: the servers of all projects, or deleted ones, are not for this caller.
    """
    may_all = call.can(ALL_FILTERS)
    soft_deleted = _flag_of(call, "soft_deleted") if may_all and "soft_deleted" in call.query else None
    filters: dict[str, Any] = {}
    for each in FILTERS:
        if each.name in call.query and _may_use(call, each, may_all):
            filters[each.by] = _converted(each, call.query.get(each.name))
    _check_times(filters)
    project = _project(call, rule, may_all)
    if project is None:
        return None
    filters.update(project)
    # Who asks for changes wants to know of deleted servers, too.
    filters.setdefault("deleted", None if filters.keys() & {"changes_since", "changes_before"} else False)
    if not _by_status(call, filters) or _by_address(call, may_all):
        return None
    return _with_checked_regexps(_with_soft_deleted(filters, soft_deleted))


def _with_soft_deleted(filters: dict[str, Any], asked: bool | None) -> dict[str, Any]:
    """The filters, with servers that are soft-deleted where somebody asks for them, or for their state; a list of
    deleted servers has them unless somebody does not want them."""
    if filters["deleted"] and asked is False:
        return filters | {"deleted_for_good": True}
    if filters["deleted"] is False and (asked or _names_soft_deleted(filters)):
        return filters | {"deleted": None, "deleted_for_good": False}
    return filters


def _names_soft_deleted(filters: dict[str, Any]) -> bool:
    vm_states = {vm_state for vm_state, _, _ in states.states_of_status(filters.get("status", ()))}
    return states.SOFT_DELETED in vm_states.union(filters.get("vm_state", ()))


def _may_use(call: Call, each: Filter, may_all: bool) -> bool:
    return may_all or (each.everybody_since is not ADMINS and call.version >= Microversion.parse(each.everybody_since))


def _converted(each: Filter, text: str) -> Any:
    try:
        return each.convert(text)
    except ValueError as error:
        raise errors.Invalid(
            f"Invalid input for query parameters {each.name}. Value: {text[:255]}. {error}", field=each.name
        ) from None


def _check_times(filters: dict[str, Any]) -> None:
    since, before = filters.get("changes_since"), filters.get("changes_before")
    if since is not None and before is not None and since > before:
        raise errors.Invalid(
            "The value of changes-since must be less than or equal to changes-before.", field="changes-since"
        )


def _project(call: Call, rule: str, may_all: bool) -> dict[str, str] | None:
    """Whose servers: the caller's, or those of all projects, or of one of them; None: those of a project that was not
    asked for."""
    asked = call.query.get("project_id", call.query.get("tenant_id")) if may_all else None
    if _flag_of(call, "all_tenants"):
        call.enforce(rule + ALL_TENANTS)
        return {"project_id": asked} if asked else {}
    own = call.context.project_id or ""
    return {"project_id": own} if asked in (None, own) else None


def _flag_of(call: Call, name: str) -> bool:
    return name in call.query and bool(_converted(Filter(name, "", _flag), call.query.get(name)))


def _by_status(call: Call, filters: dict[str, Any]) -> bool:
    """Adds the filter by status; false: no server can have any of those that were asked for."""
    if "status" not in call.query:
        return True
    asked = list(dict.fromkeys(status.upper() for status in call.query.getall("status")))
    known = tuple(status for status in asked if status in states.known_statuses())
    if not known:
        if call.version >= REFUSE_STATUS_SINCE:
            raise errors.Invalid(f"Invalid status value: {', '.join(asked)[:255]}", field="status")
        return False
    if set(known) == {"DELETED"}:
        if not call.context.is_admin:
            raise errors.Forbidden("Only administrators may list deleted instances")
        filters["deleted"] = True
    filters["status"] = known
    return True


def _by_address(call: Call, may_all: bool) -> bool:
    """Whether servers with certain addresses were asked for: without networks none has any."""
    asked = [each for each in ADDRESSES if each.name in call.query and _may_use(call, each, may_all)]
    for each in asked:
        cell_db.regexp.compiled(call.query.get(each.name), each.name)
    return bool(asked)


def _with_checked_regexps(filters: dict[str, Any]) -> dict[str, Any]:
    """The filters, whose expressions are compiled once to see that they are some."""
    for field in cell_db.filters.REGEXPS & filters.keys():
        cell_db.regexp.compiled(filters[field], field)
    return filters


# ---- from the query to an order --------------------------------------------------------------------------------------

DEFAULT_ORDER = (Sorting("created_at", descending=True), Sorting("uuid", descending=True))


def _order(call: Call) -> SortOrder:
    """The order of the list; ties are broken by uuid in the direction of the last key.

    Raises:
        Invalid: there are more directions than keys.
        Forbidden: a key is for admins.
    """
    names, directions = call.query.getall("sort_key") or ["created_at"], call.query.getall("sort_dir")
    if len(directions) > len(names):
        raise errors.Invalid("Sort direction size exceeds sort key size.", field="sort_dir")
    filled = itertools.chain(directions, itertools.repeat(directions[0] if directions else "desc"))
    order: dict[str, Sorting] = {}
    for name, direction in zip(names, filled, strict=False):
        if name in SORTED_BY_ADMINS and not call.context.is_admin:
            raise errors.Forbidden(f"Only administrators can sort servers by {name}")
        key = SORT_KEYS.get(name)
        if key is not None and "uuid" not in order:
            order.setdefault(key, Sorting(key, direction == "desc"))
    if not order:
        return DEFAULT_ORDER
    order.setdefault("uuid", Sorting("uuid", [*order.values()][-1].descending))
    return tuple(order.values())


# ---- view ------------------------------------------------------------------------------------------------------------


class ServerList:
    """A list of servers in which some may be known by their mappings alone."""

    def __init__(self, whole: View, little: View) -> None:
        self.whole = whole
        self.little = little
        self.parts = (whole, little)

    def document(self, version: Microversion) -> Render:
        """The function that renders a whole response."""
        whole, little = compiled(self.whole, version, many=True), compiled(self.little, version, many=True)

        def rendered(page: paging.Page, call: Call) -> dict[str, Any]:
            servers: list[Any] = []
            for is_little, items in itertools.groupby(page.items, lambda item: isinstance(item, Unreachable)):
                servers += (little if is_little else whole)(list(items), call)
            document: dict[str, Any] = {"servers": servers}
            if page.more and page.marker is not None:
                document["servers_links"] = [{"rel": "next", "href": call.next_page(page.marker)}]
            return document

        return rendered


ROUTES = [
    Route("GET", "/servers", index, policy=INDEX, query=QUERY, view=ServerList(SERVER_BRIEF, UNREACHABLE_BRIEF)),
    Route(
        "GET", "/servers/detail", detail, policy=DETAIL, query=QUERY, view=ServerList(SERVER_DETAIL, UNREACHABLE_DETAIL)
    ),
]
