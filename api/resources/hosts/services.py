"""`/os-services`: the processes of the cloud, in which cell ever, under the names that Nova's clients know."""

import asyncio
import datetime
from collections.abc import Callable
from dataclasses import dataclass

import api_db.aggregates
import api_db.hosts
import api_db.services
import cell_db.hosts
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import BOOLEAN, STRING_1_255, Body, Param, Property, Query, choice, text
from api.http.view import Field, ListView, View, with_microseconds
from api.resources.hosts.all_cells import ask, down_after_s
from api.resources.hosts.api_processes import SHOWN_AS, ApiProcess, api_processes
from api.resources.hosts.own_hosts import OwnHosts
from api.resources.ids import API_LEVEL, cloud_number, is_of, number_in_path, row_number_of, uuid_in_path
from api_db.aggregates import DEFAULT_ZONE, INTERNAL_ZONE
from cell_db.hosts import Service
from cells.gate.answers import value_of
from cells.gate.gate import Gate
from core import errors
from database.engine import Connection
from objects.host import COMPUTE, CONDUCTOR, CONSOLE_PROXY

LIST = "os_compute_api:os-services:list"
UPDATE = "os_compute_api:os-services:update"
DELETE = "os_compute_api:os-services:delete"
POLICIES = [
    Rule(LIST, policy.ADMIN, "List the processes of the cloud"),
    Rule(UPDATE, policy.ADMIN, "Disable, enable or force down a compute host"),
    Rule(DELETE, policy.ADMIN, "Delete a process that has gone for good"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A process as the list shows it; of one in a silent cell (`known` false) only what the host's mapping says."""

    binary: str
    host: str
    status: str
    known: bool = True
    id: int | None = None
    uuid: str | None = None
    zone: str | None = None
    state: str | None = None
    disabled_reason: str | None = None
    forced_down: bool = False
    updated_at: datetime.datetime | None = None


def _if_known(name: str, get: Callable[[Row], object] | None = None, since: str = "2.1") -> tuple[Field, Field]:
    """A field that rows of a silent cell, which there are from 2.69 on, do not have."""
    return Field(name, get, since=since, until="2.68"), Field(name, get, since="2.69", when=lambda row: row.known)


SERVICE = View(
    "service",
    Field("id", until="2.52"),
    Field("id", "uuid", since="2.53", until="2.68"),
    Field("id", "uuid", since="2.69", when=lambda row: row.known),
    Field("binary"),
    Field("host"),
    Field("status"),
    *_if_known("zone"),
    *_if_known("state"),
    *_if_known("updated_at", lambda row: with_microseconds(row.updated_at)),
    *_if_known("disabled_reason"),
    *_if_known("forced_down", since="2.11"),
)
STATUS = View("service", Field("host"), Field("binary"), Field("status"))
STATUS_AND_REASON = View("service", Field("host"), Field("binary"), Field("status"), Field("disabled_reason"))
FORCED_DOWN = View("service", Field("host"), Field("binary"), Field("forced_down"))

LIST_QUERY = Query(Param("host", text(0, 255)), Param("binary", text(0, 255)), strict_since="2.75")
HOST = text(1, 255, r"^[a-zA-Z0-9._-]+\Z")
OF_HOST = (Property("host", HOST, required=True), Property("binary", text(1, 255), required=True))
# Until 2.52 one schema serves all verbs: each ignores what is another's.
VERB_BODY = Body(
    None, *OF_HOST, Property("disabled_reason", STRING_1_255), Property("forced_down", BOOLEAN, since="2.11")
)
REASON_BODY = Body(
    None,
    *OF_HOST,
    Property("disabled_reason", STRING_1_255, required=True),
    Property("forced_down", BOOLEAN, since="2.11"),
)
FORCE_BODY = Body(
    None, *OF_HOST, Property("disabled_reason", STRING_1_255), Property("forced_down", BOOLEAN, required=True)
)
UPDATE_BODY = Body(
    None,
    Property("status", choice("enabled", "disabled")),
    Property("disabled_reason", STRING_1_255),
    Property("forced_down", BOOLEAN),
)


# Processes that there are and that build no servers: nobody can disable them.
OTHER_BINARIES = frozenset({CONDUCTOR, CONSOLE_PROXY, *SHOWN_AS.values()})


# ---- list ------------------------------------------------------------------------------------------------------------


async def index(call: Call) -> list[Row]:
    """The processes of the API level and of all cells that answer."""
    known, _ = await _rows(call)
    return known


async def index_with_unknown(call: Call) -> list[Row]:
    """Beside them the hosts of silent cells, of which only the mappings are known."""
    known, unknown = await _rows(call)
    return known + unknown


async def _rows(call: Call) -> tuple[list[Row], list[Row]]:
    host, binary = call.query.get("host"), call.query.get("binary")
    answers, of_api, zones, mapped = await asyncio.gather(
        ask(call, cell_db.hosts.list_services, down_after_s=down_after_s(call), host=host, binary=binary),
        api_processes(call),
        call.cloud.api_read(api_db.aggregates.zones_of_hosts),
        call.cloud.api_read(api_db.hosts.list_all),
    )
    own = OwnHosts(mapped)
    known = [
        _api_row(process) for process in of_api if host in (None, process.host) and binary in (None, process.binary)
    ]
    known += [
        _row(gate, service, zones)
        for gate, services in answers.values
        for service in services
        if service.binary != COMPUTE or own.is_of(gate, service.host)
    ]
    if not answers.silent or binary not in (None, COMPUTE):
        return known, []
    silent = {cell.uuid for cell in answers.silent}
    unknown = [each.host for each in mapped if each.cell_uuid in silent and host in (None, each.host)]
    return known, [Row(binary=COMPUTE, host=each, status="UNKNOWN", known=False) for each in unknown]


def _row(gate: Gate, service: Service, zones: dict[str, str]) -> Row:
    return Row(
        id=cloud_number(gate.cell.number, service.id),
        uuid=service.uuid,
        binary=service.binary,
        host=service.host,
        zone=zones.get(service.host, DEFAULT_ZONE) if service.binary == COMPUTE else INTERNAL_ZONE,
        status=service.status,
        state=service.state,
        disabled_reason=service.disabled_reason,
        forced_down=service.forced_down,
        updated_at=service.last_seen_at,
    )


def _api_row(process: ApiProcess) -> Row:
    return Row(
        id=cloud_number(API_LEVEL, process.id),
        uuid=process.uuid,
        binary=process.binary,
        host=process.host,
        zone=INTERNAL_ZONE,
        status="enabled",
        state=process.state,
        updated_at=process.last_seen_at,
    )


# ---- change ----------------------------------------------------------------------------------------------------------


async def enable(call: Call) -> Row:
    return await _change_of_host(call, disabled=False)


async def disable(call: Call) -> Row:
    return await _change_of_host(call, disabled=True)


async def disable_with_reason(call: Call) -> Row:
    return await _change_of_host(call, disabled=True, disabled_reason=call.body["disabled_reason"])


async def force_down(call: Call) -> Row:
    return await _change_of_host(call, forced_down=call.body["forced_down"])


async def unknown_verb(call: Call) -> Row:
    raise errors.NotFound(f"Unknown action {call.path['id'][:255]}")


async def _change_of_host(
    call: Call, *, disabled: bool | None = None, disabled_reason: str | None = None, forced_down: bool | None = None
) -> Row:
    """Changes a service named by host and binary."""
    host, binary = call.body["host"], call.body["binary"]
    if binary in OTHER_BINARIES:
        raise _cannot_be_updated(binary)
    process = await on_host(call, host, binary)
    return await change(
        call, process.gate, process.service, disabled=disabled, disabled_reason=disabled_reason, forced_down=forced_down
    )


async def on_host(call: Call, host: str, binary: str) -> "InCell":
    """The process of a host.

    Raises:
        NotFound: there is none.
    """
    cell_uuid = await call.cloud.api_read(api_db.hosts.cell_of, host)
    gate = await call.cloud.cells.find_gate(cell_uuid)
    services = value_of(
        await gate.read(cell_db.hosts.list_services, down_after_s=down_after_s(call), host=host, binary=binary)
    )
    if not services:
        raise errors.NotFound(f"Could not find binary {binary} on host {host}.")
    return InCell(gate, services[0])


async def update(call: Call) -> Row:
    status, reason, forced_down = (call.body.get(name) for name in ("status", "disabled_reason", "forced_down"))
    if status is None and forced_down is None:
        raise errors.Invalid(
            "No updates were requested. Fields 'status' or 'forced_down' should be specified.", field="status"
        )
    if reason is not None and status != "disabled":
        raise errors.Invalid(
            "Specifying 'disabled_reason' requires that 'status' is 'disabled'.", field="disabled_reason"
        )
    process = await _find(call, uuid=uuid_in_path(call))
    if isinstance(process, ApiProcess) or process.binary != COMPUTE:
        raise _cannot_be_updated(process.binary)
    disabled = None if status is None else status == "disabled"
    return await change(
        call, process.gate, process.service, disabled=disabled, disabled_reason=reason, forced_down=forced_down
    )


def _cannot_be_updated(binary: str) -> errors.Invalid:
    return errors.Invalid(
        f"Updating a {binary} service is not supported. Only {COMPUTE} services can be updated.", field="binary"
    )


async def change(
    call: Call,
    gate: Gate,
    service: Service,
    *,
    disabled: bool | None = None,
    disabled_reason: str | None = None,
    forced_down: bool | None = None,
) -> Row:
    """Changes a service in its cell; repeating it does no harm, so an unsure outcome is an error to try again after."""
    changed = value_of(
        await gate.write(
            cell_db.hosts.change_service,
            service.uuid,
            down_after_s=down_after_s(call),
            disabled=disabled,
            disabled_reason=disabled_reason,
            forced_down=forced_down,
        )
    )
    zones = await call.cloud.api_read(api_db.aggregates.zones_of_hosts, [changed.host])
    return _row(gate, changed, zones)


# ---- delete ----------------------------------------------------------------------------------------------------------


async def delete_by_number(call: Call) -> None:
    await _delete(call, await _find(call, number=number_in_path(call)))


async def delete_by_uuid(call: Call) -> None:
    await _delete(call, await _find(call, uuid=uuid_in_path(call)))


async def _delete(call: Call, process: "InCell | ApiProcess") -> None:
    """Deletes a process for good. One that still runs comes back by itself with its next report."""
    if isinstance(process, ApiProcess):
        await call.cloud.api_write(api_db.services.forget, host=process.host, binary=process.program)
    elif process.binary == COMPUTE:
        await _delete_host(call, process.gate, process.service.host, process.service.uuid)
    else:
        value_of(await process.gate.write(cell_db.hosts.delete_service, process.service.uuid))


async def _delete_host(call: Call, gate: Gate, host: str, uuid: str) -> None:
    """The mapping goes first and the service last: whatever fails in between, the service is found again and the
    request can be repeated. The provider in Placement is the cell's conductor's to delete: the API talks to no
    Placement.
    """
    value_of(await gate.read(cell_db.hosts.refuse_host_with_servers, host))
    memberships = await call.cloud.api_write(_forget_host, host)
    try:
        value_of(await gate.write(cell_db.hosts.delete_service, uuid))
    except errors.Conflict:
        # A server arrived since we looked: the host stays what it was.
        await call.cloud.api_write(_remember_host, host, gate.cell.uuid, memberships)
        raise
    # The super-conductor may have discovered the host anew between the two.
    await call.cloud.api_write(_forget_host, host)


def _forget_host(conn: Connection, host: str) -> list[int]:
    memberships = api_db.aggregates.remove_host_everywhere(conn, host)
    api_db.hosts.delete(conn, host)
    return memberships


def _remember_host(conn: Connection, host: str, cell_uuid: str, memberships: list[int]) -> None:
    api_db.hosts.insert(conn, [host], cell_uuid)
    api_db.aggregates.put_host_back(conn, host, memberships)


# ---- find ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InCell:
    """A service and the gate of its cell."""

    gate: Gate
    service: Service

    @property
    def binary(self) -> str:
        return self.service.binary


async def _find(call: Call, *, uuid: str | None = None, number: int | None = None) -> InCell | ApiProcess:
    """The service of this uuid or number, wherever it is.

    Raises:
        NotFound: there is none.
        Unavailable: none was found, but not all cells answered.
    """
    row_id = None if number is None else row_number_of(number)
    answers, of_api = await asyncio.gather(
        ask(call, cell_db.hosts.find_service, down_after_s=down_after_s(call), uuid=uuid, row_id=row_id),
        api_processes(call),
    )
    if number is not None:
        answers = answers.of(lambda cell: is_of(cell, number))
    rows: list[InCell | ApiProcess] = [InCell(gate, service) for gate, service in answers.values if service is not None]
    rows += [process for process in of_api if uuid == process.uuid or number == cloud_number(API_LEVEL, process.id)]
    shown = uuid or number
    if not rows:
        answers.refuse_silence(f"Service {shown} was not found")
        raise errors.NotFound(f"Service {shown} could not be found.")
    return rows[0]


ROUTES = [
    Route(
        "GET", "/os-services", index, policy=LIST, query=LIST_QUERY, view=ListView("services", SERVICE), until="2.68"
    ),
    Route(
        "GET",
        "/os-services",
        index_with_unknown,
        policy=LIST,
        query=LIST_QUERY,
        view=ListView("services", SERVICE),
        since="2.69",
    ),
    Route("PUT", "/os-services/enable", enable, policy=UPDATE, body=VERB_BODY, view=STATUS, until="2.52"),
    Route("PUT", "/os-services/disable", disable, policy=UPDATE, body=VERB_BODY, view=STATUS, until="2.52"),
    Route(
        "PUT",
        "/os-services/disable-log-reason",
        disable_with_reason,
        policy=UPDATE,
        body=REASON_BODY,
        view=STATUS_AND_REASON,
        until="2.52",
    ),
    Route(
        "PUT",
        "/os-services/force-down",
        force_down,
        policy=UPDATE,
        body=FORCE_BODY,
        view=FORCED_DOWN,
        since="2.11",
        until="2.52",
    ),
    Route("PUT", "/os-services/{id}", unknown_verb, policy=UPDATE, body=VERB_BODY, until="2.52"),
    Route("PUT", "/os-services/{id}", update, policy=UPDATE, body=UPDATE_BODY, view=SERVICE, since="2.53"),
    Route("DELETE", "/os-services/{id}", delete_by_number, policy=DELETE, status=204, until="2.52"),
    Route("DELETE", "/os-services/{id}", delete_by_uuid, policy=DELETE, status=204, since="2.53"),
]
