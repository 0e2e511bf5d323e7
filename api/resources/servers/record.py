"""One server, or several alike: create, show, change, delete."""

from collections.abc import Mapping
from typing import Any

import msgspec

import api_db.instances
import api_db.journal
import api_db.server_groups
import cell_db.instances
import cells.delete_server
import cells.route
import cells.soft_delete
import core.errors
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.prepare import build_requests, passwords
from api.prepare.lookups import DEFAULT_GROUP
from api.resources.servers import bodies, for_view, views
from api.resources.servers.access import admit_server, admitted_delete, target_of
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.bodies import PINNED_ZONE
from api.resources.servers.changes import Change, change_located
from api.resources.servers.views import SERVER_SHOW, SERVER_UPDATED, ShowView, UnreachableServer
from api_db.journal import Kind
from cells.accept_build import accept_build_requests
from cells.route import LocatedServer
from core.crash_points import CrashPoints
from database.engine import Connection
from lifecycle.actions import CREATE, DELETE, SOFT_DELETE, UPDATE
from objects.build_request import BuildRequest, RequestSpec
from objects.server import Server

SHOW = "os_compute_api:servers:show"

POLICIES = [
    *rules_of(CREATE, UPDATE, DELETE),
    Rule(build_requests.FORCED_HOST, policy.ADMIN, "Create a server on a certain host, whatever the scheduler says"),
    Rule(build_requests.REQUESTED_DESTINATION, policy.ADMIN, "Create a server on a certain host that fits"),
    Rule(build_requests.ZERO_DISK_FLAVOR, policy.ADMIN, "Create a server from an image with a flavor that has no disk"),
    Rule(SHOW, policy.READER, "Show a server"),
    Rule(views.HOST_STATUS, policy.ADMIN, "See the state of a server's host"),
    Rule(views.HOST_STATUS_IF_UNKNOWN, policy.ADMIN, "See that the state of a server's host is unknown"),
    Rule(views.EXTENDED_ATTRIBUTES, policy.ADMIN, "See a server's host and other attributes of its operation"),
    Rule(views.FLAVOR_EXTRA_SPECS, policy.READER, "See the extra specs of a server's flavor"),
]

# ---- create ----------------------------------------------------------------------------------------------------------


async def create(call: Call) -> object:
    """Accepts the servers: from here on they end ACTIVE, in ERROR with a fault, or deleted."""
    prepared = await build_requests.prepare(call)
    await accept_build_requests(
        call.cloud,
        call.context,
        CrashPoints(),
        request=prepared.request,
        request_uuid=prepared.request_uuid,
        build_requests=prepared.build_requests,
        quota_defaults=call.cloud.quota_defaults,
        not_after=call.cloud.build_not_after,
    )
    if call.body.get("return_reservation_id"):
        return {"reservation_id": prepared.reservation_id}
    return {"server": _created(call, prepared.build_requests[0])}


async def create_described_by_name(call: Call) -> object:
    """Until 2.18 a server's description was its name."""
    call.body["description"] = call.body["name"]
    return await create(call)


def _created(call: Call, accepted: BuildRequest) -> dict[str, Any]:
    path = f"/servers/{accepted.uuid}"
    call.set_header("Location", call.link(path))
    return {
        "id": accepted.uuid,
        "links": call.links(path),
        "OS-DCF:diskConfig": "AUTO" if accepted.auto_disk_config else "MANUAL",
        "security_groups": [{"name": DEFAULT_GROUP}],
        "adminPass": call.body.get("adminPass") or passwords.generate(),
    }


# ---- show ------------------------------------------------------------------------------------------------------------


async def show(call: Call) -> Server:
    """The server, whole."""
    located = await for_view.server_for_view(call, SHOW)
    return await for_view.with_its_group(call, located.server)


async def show_what_is_known(call: Call) -> Server | UnreachableServer:
    """The server; from 2.69 on, while its cell does not answer or its row cannot be read, what the API database alone
    knows of it."""
    try:
        return await show(call)
    except core.errors.OverShare:
        raise
    except (core.errors.Unavailable, core.errors.Unreadable) as silence:
        return await _known_without_its_cell(call, silence)


async def _known_without_its_cell(call: Call, silence: core.errors.CellplaneError) -> UnreachableServer:
    mapping, _ = await cells.route.locate(call.cloud, call.context, call.path["id"])
    if mapping.cell_uuid is None:
        raise silence
    call.enforce(SHOW, target_of(mapping))
    request, group = await call.cloud.api_read(_request_and_group, mapping)
    return UnreachableServer(
        uuid=mapping.uuid,
        project_id=mapping.project_id,
        user_id=mapping.user_id,
        created_at=mapping.created_at,
        availability_zone=request.availability_zone,
        flavor=request.flavor,
        image_ref=request.image_ref,
        server_groups=[group] if group else [],
    )


def _request_and_group(connection: Connection, mapping: api_db.instances.Mapping) -> tuple[RequestSpec, str | None]:
    """Where the server was asked to go, and the group that it is in."""
    request = api_db.instances.request_spec(connection, mapping.request_uuid)
    return request, api_db.server_groups.group_of(connection, mapping.uuid)


# ---- update ----------------------------------------------------------------------------------------------------------

# What a request may change -> its column, where a cell holds the server, or its field of the order or of the order's
# build.
_COLUMN = {
    "name": "display_name",
    "description": "display_description",
    "hostname": "hostname",
    "accessIPv4": "access_ip_v4",
    "accessIPv6": "access_ip_v6",
    "OS-DCF:diskConfig": "auto_disk_config",
}
_REQUEST_FIELD = {
    "description": "description",
    "accessIPv4": "access_ip_v4",
    "accessIPv6": "access_ip_v6",
    "OS-DCF:diskConfig": "auto_disk_config",
}
_BUILD_FIELD = {"name": "name", "hostname": "hostname"}


async def update(call: Call) -> Server:
    """Changes what users may change of the record; the guest does not notice."""
    located = await for_view.server_for_view(call, UPDATE.rule.name)
    changes = {key: _kept(key, value) for key, value in call.body.items()}
    if PINNED_ZONE in changes:
        await _change_pinned(call, located, changes)
    elif changes and located.cell is not None:
        await change_located(call, located, UPDATE, _writes(changes))
    elif changes:
        admit_server(call, UPDATE, located.server)
        await call.cloud.api_write(_change_build_request, located.server.uuid, changes)
    if changes:
        located = await for_view.server_for_view(call, UPDATE.rule.name)
    return await for_view.with_its_group(call, located.server)


async def _change_pinned(call: Call, located: LocatedServer, changes: Mapping[str, Any]) -> None:
    """The record in its cell, which shows the zone, and then the request that moves of the server go by; to repeat it
    does no harm.

    Raises:
        Conflict: the server is not in the zone that it is to be pinned to.
        WrongState: no cell holds it yet.
    """
    await change_located(call, located, UPDATE, _writes(changes))
    await call.cloud.api_write(api_db.instances.pin, located.server.uuid, changes[PINNED_ZONE])


def _writes(changes: Mapping[str, Any]) -> Change[Server]:
    """What writes the changes to the server's row."""

    def write(connection: Connection, server: Server) -> Server:
        columns = {_COLUMN[key]: value for key, value in changes.items() if key in _COLUMN}
        if PINNED_ZONE in changes:
            columns["extra"] = _pinned(server, changes[PINNED_ZONE])
        return cell_db.instances.update(connection, server.uuid, columns)

    return write


def _pinned(server: Server, zone: str | None) -> dict[str, Any]:
    """What the row keeps beside its columns, with this zone: the one that the server is in, or none."""
    if zone is not None and zone != views.zone_of(server):
        raise core.errors.Conflict(
            f"Instance {server.uuid} cannot be pinned to availability zone {zone}: it is not there.", server=server.uuid
        )
    return {**(server.extra or {}), PINNED_ZONE: zone}


def _kept(key: str, value: Any) -> Any:
    """The value as it is kept: an empty address is none."""
    if key == "OS-DCF:diskConfig":
        return value == "AUTO"
    return (value or None) if key.startswith("accessIP") else value


def _change_build_request(connection: Connection, uuid: str, changes: Mapping[str, Any]) -> None:
    """Changes the order of a server that no cell holds yet.

    Raises:
        Busy: it is being handed to its cell at this moment.
    """
    entry = api_db.journal.find(connection, uuid)
    if entry is None or entry.build_request is None:
        raise _being_handed_over(uuid)
    build = msgspec.structs.replace(entry.build_request.build, **_renamed(changes, _BUILD_FIELD))
    build_request = msgspec.structs.replace(entry.build_request, build=build, **_renamed(changes, _REQUEST_FIELD))
    if not api_db.journal.update_build_request(connection, uuid, build_request):
        raise _being_handed_over(uuid)


def _renamed(changes: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names[key]: value for key, value in changes.items() if key in names}


def _being_handed_over(uuid: str) -> core.errors.Busy:
    return core.errors.Busy(
        f"Instance {uuid} is in task_state scheduling: it is being assigned to a cell; try again.", server=uuid
    )


# ---- delete ----------------------------------------------------------------------------------------------------------


async def delete(call: Call) -> None:
    """Deletes the server, for good or so that it can be restored for a while: from now on no list has it and its quota
    is free; its cell hears of it at once or when it is back. One that is soft-deleted already stays that."""
    can_be_restored = call.cloud.conf.reclaim_instance_interval > 0
    mapping, entry = await admitted_delete(call, SOFT_DELETE if can_be_restored else DELETE)
    if mapping.is_soft_deleted:
        return
    if can_be_restored:
        has_run = entry is not None and await _has_run(call, entry)
        await cells.soft_delete.soft_delete_server(call.cloud, call.context, mapping, CrashPoints(), has_run=has_run)
    else:
        await cells.delete_server.delete_server(call.cloud, call.context, mapping, CrashPoints())


async def _has_run(call: Call, entry: api_db.journal.Entry) -> bool:
    """Whether the server has run though its order is still in the journal: its cell is asked."""
    if entry.phase == api_db.journal.NEW or entry.kind is not Kind.BUILD:
        return False
    try:
        server = (await cells.route.find(call.cloud, call.context, entry.uuid)).server
    except (core.errors.Unavailable, core.errors.Unreadable):
        return False
    return server.launched_at is not None


_SERVER = "/servers/{id}"

ROUTES = [
    route_of(CREATE, create_described_by_name, body=bodies.CREATE, status=202, until="2.18"),
    route_of(CREATE, create, body=bodies.CREATE, status=202, since="2.19"),
    Route("GET", _SERVER, show, policy=SHOW, view=SERVER_SHOW, until="2.68"),
    Route("GET", _SERVER, show_what_is_known, policy=SHOW, view=ShowView(), since="2.69"),
    route_of(UPDATE, update, body=bodies.UPDATE, view=SERVER_UPDATED),
    route_of(DELETE, delete, status=204),
]
