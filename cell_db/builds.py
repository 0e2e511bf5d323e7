"""Builds under way: the rows and compare-and-sets from `super.insert` to `cell.active`.

Rule of the protocol: every write of the row names the state and the attempt that it replaces. See
docs/build-protocol.md.
"""

import dataclasses
import datetime
import uuid as uuids
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

import cell_db.cleanups
from cell_db.history import Phase, Told, fault, request_id_of, tell
from cell_db.tables import instance_metadata, instance_tags, instances, services
from core.context import Context
from database.statements import changed, insert_if_absent
from database.types import UNREADABLE, as_text, is_over, now_sql
from lifecycle import states
from lifecycle.actions import CREATE
from objects.build import BuildSpec
from objects.build_request import BuildRequest
from objects.candidate import Candidate
from objects.fault import Fault
from objects.host import COMPUTE
from objects.server import extra_of_build_request, flavor_values

INSERT_LEASE_S = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class NewInstance:
    """A server to insert. With a fault it is in ERROR from the start: buried in cell0, or its cell was away for too
    long."""

    build_request: BuildRequest
    host: str | None
    node_uuid: str | None
    hypervisor_hostname: str | None
    availability_zone: str | None
    alternates: list[Candidate]
    resources: dict[str, int]
    not_after: datetime.datetime
    fault: Fault | None = None
    attempt: int = 1
    explanations: list[dict[str, Any]] | None = None

    @property
    def is_failed(self) -> bool:
        """Whether nothing is to be built."""
        return self.host is None or self.fault is not None


def insert(connection: sa.Connection, placed: Sequence[NewInstance], *, build_deadline_s: float) -> int:
    """Inserts the rows that are not there yet (a tombstone stays); they are runnable from this commit. Gives the number
    of those.

    A host that was disabled since it was chosen gets nothing: its attempt is over before anything is sent, and the row
    begins with the next one, on the first alternate that is not disabled. Without such an alternate the choice stands.
    """
    present = set(
        connection.execute(
            sa.select(instances.c.uuid).where(instances.c.uuid.in_([p.build_request.uuid for p in placed]))
        ).scalars()
    )
    missing = [p for p in placed if p.build_request.uuid not in present]
    if not missing:
        return 0
    disabled = _disabled(connection, missing)
    rows = [row_of(_elsewhere(p, disabled)) for p in missing]
    clocks = {"lease_until": now_sql(INSERT_LEASE_S), "deadline": now_sql(build_deadline_s), "updated_at": now_sql()}
    insert_if_absent(connection, instances, rows, **clocks)
    _insert_children(connection, [p.build_request.build for p in missing])
    tell(connection, CREATE.name, Phase.BEGAN, [_created(p) for p in missing if p.fault is None])
    tell(connection, CREATE.name, Phase.FAILED, [_created(p) for p in missing if p.fault is not None])
    return len(missing)


def _created(placed: NewInstance) -> Told:
    build_request = placed.build_request
    by = Context(
        user_id=build_request.build.user_id,
        project_id=build_request.build.project_id,
        request_id=build_request.request_id,
    )
    return Told(uuid=build_request.uuid, by=by, since=build_request.created_at, fault=placed.fault)


def _disabled(connection: sa.Connection, placed: Sequence[NewInstance]) -> set[str]:
    """Those of the chosen hosts and alternates that take nothing new."""
    hosts = {
        host for p in placed if not p.is_failed for host in (p.host, *(alternate.host for alternate in p.alternates))
    }
    if not hosts:
        return set()
    mine = sa.and_(
        services.c.binary == COMPUTE, services.c.host.in_(sorted(map(str, hosts))), services.c.disabled == sa.true()
    )
    return set(connection.execute(sa.select(services.c.host).where(mine)).scalars())


def _elsewhere(placed: NewInstance, disabled: set[str]) -> NewInstance:
    if placed.is_failed or placed.host not in disabled:
        return placed
    usable = [alternate for alternate in placed.alternates if alternate.host not in disabled]
    if not usable:
        return placed
    first, *rest = usable
    return dataclasses.replace(
        placed, attempt=placed.attempt + 1, host=first.host, node_uuid=first.node_uuid, alternates=rest,
        hypervisor_hostname=first.hypervisor_hostname,
        availability_zone=first.availability_zone or placed.availability_zone,
    )  # fmt: skip


def row_of(placed: NewInstance) -> dict[str, Any]:
    """The columns of a new server, but for those that the database's clock fills."""
    build_request, build = placed.build_request, placed.build_request.build
    failed = placed.is_failed
    host = None if failed else placed.host
    return {
        "uuid": build.uuid,
        "project_id": build.project_id,
        "user_id": build.user_id,
        "state": states.BUILD_ERROR if failed else states.BUILD,
        "attempt": placed.attempt,
        "host": host,
        "node_uuid": placed.node_uuid if host else None,
        "alternates": msgspec.to_builtins(placed.alternates),
        "resources": placed.resources,
        "not_after": placed.not_after,
        "vm_state": CREATE.failed if failed else states.BUILDING,
        "task_state": states.IDLE if failed else states.SPAWNING,
        "power_state": states.NO_STATE,
        "display_name": build.name,
        "display_description": build_request.description,
        "hostname": build.hostname,
        "availability_zone": placed.availability_zone,
        "hypervisor_hostname": placed.hypervisor_hostname if host else None,
        "image_ref": build_request.image_ref,
        "flavor_id": build.flavor.flavor_id,
        "flavor": flavor_values(build.flavor),
        "vcpus": build.flavor.vcpus,
        "memory_mib": build.flavor.memory_mib,
        "root_gib": build.flavor.root_gib,
        "ephemeral_gib": build.flavor.ephemeral_gib,
        "key_name": build.key_name,
        "config_drive": build.config_drive,
        "access_ip_v4": build_request.access_ip_v4,
        "access_ip_v6": build_request.access_ip_v6,
        "auto_disk_config": build_request.auto_disk_config,
        "root_device_name": build_request.root_device_name,
        "launch_index": build.launch_index,
        "reservation_id": build.reservation_id,
        "progress": 0,
        "metadata": build.metadata or None,
        "tags": build.tags or None,
        "fault": placed.fault,
        "extra": extra_of_build_request(build_request),
        "user_data": build.user_data,
        "spec": msgspec.to_builtins(build),
        "explanations": placed.explanations,
        "created_at": build_request.created_at,
        "deleted": False,
    }


def _insert_children(connection: sa.Connection, builds: Sequence[BuildSpec]) -> None:
    metadata = [{"uuid": b.uuid, "key": key, "value": value} for b in builds for key, value in b.metadata.items()]
    insert_if_absent(connection, instance_metadata, metadata)
    insert_if_absent(connection, instance_tags, [{"uuid": b.uuid, "tag": tag} for b in builds for tag in b.tags])


@dataclasses.dataclass(frozen=True, slots=True)
class Building:
    """A server under way: what its order to the host needs. `spec` None: its row cannot be read, and nothing can be
    ordered.

    `request_id`: of the user's request that asked for the server.
    """

    uuid: str
    attempt: int
    host: str
    node_uuid: str
    alternates: list[Candidate]
    project_id: str
    user_id: str
    resources: dict[str, int]
    spec: BuildSpec | None
    request_id: str = ""


# The documents as text: one that is none is its server's loss, and must not fail the sweep of all.
_BUILDING = (
    instances.c.uuid, instances.c.attempt, instances.c.host, instances.c.node_uuid, as_text(instances.c.alternates),
    instances.c.project_id, instances.c.user_id, as_text(instances.c.resources), as_text(instances.c.spec),
    request_id_of(instances.c.uuid, [CREATE.name]),
)  # fmt: skip


def _building(row: Sequence[Any]) -> Building:
    *head, alternates, project_id, user_id, resources, spec, request_id = row
    try:
        others = msgspec.json.decode(alternates, type=list[Candidate]) if alternates else []
        needed = msgspec.json.decode(resources, type=dict[str, int]) if resources else {}
        return Building(
            *head, others, project_id, user_id, needed, msgspec.json.decode(spec, type=BuildSpec), request_id
        )
    except UNREADABLE:
        return Building(*head, [], project_id, user_id, {}, None, request_id)


def building(connection: sa.Connection, uuids_wanted: Sequence[str]) -> list[Building]:
    """Those of the servers that are still under way."""
    query = sa.select(*_BUILDING).where(instances.c.uuid.in_(list(uuids_wanted)), instances.c.state == states.BUILD)
    return [_building(row) for row in connection.execute(query)]


def lease(connection: sa.Connection, *, lease_s: float, most: int) -> list[Building]:
    """Leases servers under way whose lease is over, oldest first, so that one conductor looks after each."""
    free = (
        sa.select(instances.c.id)
        .where(instances.c.state == states.BUILD, is_over(instances.c.lease_until))
        .order_by(instances.c.id)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    ids = list(connection.execute(free).scalars())
    if not ids:
        return []
    token = str(uuids.uuid4())
    connection.execute(
        sa.update(instances).where(instances.c.id.in_(ids)).values(token=token, lease_until=now_sql(lease_s))
    )
    return [_building(row) for row in connection.execute(sa.select(*_BUILDING).where(instances.c.id.in_(ids)))]


def renew_leases(connection: sa.Connection, host: str, listed: Sequence[tuple[str, int]], *, lease_s: float) -> None:
    """Prolongs the lease of servers whose current attempt the host says it is building, (uuid, attempt): no sweep looks
    at them meanwhile."""
    if listed:
        mine = sa.update(instances).where(
            sa.tuple_(instances.c.uuid, instances.c.attempt).in_(list(listed)),
            instances.c.host == host,
            instances.c.state == states.BUILD,
        )
        connection.execute(mine.values(lease_until=now_sql(lease_s)))


def overdue(connection: sa.Connection, *, hosts_down: Sequence[str], most: int) -> list[Building]:
    """Servers under way past their deadline, or on a host that is down."""
    late = sa.or_(is_over(instances.c.deadline), instances.c.host.in_(list(hosts_down)))
    query = sa.select(*_BUILDING).where(instances.c.state == states.BUILD, late).order_by(instances.c.id).limit(most)
    return [_building(row) for row in connection.execute(query)]


def supersede(
    connection: sa.Connection, build: Building, *, reason: str, host_said_so: bool, build_deadline_s: float
) -> bool:
    """Gives the attempt up: the next alternate takes over, or, when none is left, the server is in ERROR with the
    reason as its fault.

    Without the host's word the attempt is remembered as a cleanup, in the same commit. False: somebody else was faster.
    """
    mine = sa.update(instances).where(
        instances.c.uuid == build.uuid,
        instances.c.state == states.BUILD,
        instances.c.attempt == build.attempt,
        instances.c.host == build.host,
    )
    failure: Fault | None = None
    if build.alternates:
        first, *rest = build.alternates
        values: dict[str, Any] = {
            "attempt": build.attempt + 1, "host": first.host, "node_uuid": first.node_uuid,
            "alternates": msgspec.to_builtins(rest), "hypervisor_hostname": first.hypervisor_hostname,
            "deadline": now_sql(build_deadline_s), "lease_until": now_sql(),
        }  # fmt: skip
        if first.availability_zone:
            values["availability_zone"] = first.availability_zone
    else:
        failure = fault(500, f"Build of instance {build.uuid} failed: {reason}", host=build.host)
        values = {
            "state": states.BUILD_ERROR, "vm_state": CREATE.failed, "task_state": None, "host": None, "node_uuid": None,
            "fault": failure, "hypervisor_hostname": None, "lease_until": now_sql(),
        }  # fmt: skip
    if not changed(connection.execute(mine.values(**values, updated_at=now_sql()))):
        return False
    if not host_said_so and build.host is not None:
        cell_db.cleanups.insert(connection, uuid=build.uuid, host=build.host, attempt=build.attempt)
    phase = Phase.RETRIED if build.alternates else Phase.FAILED
    tell(
        connection,
        CREATE.name,
        phase,
        [Told(uuid=build.uuid, event=CREATE.event_name, host=build.host, why=reason, fault=failure)],
    )
    return True


@dataclasses.dataclass(frozen=True, slots=True)
class ReportedGuest:
    """A guest that runs, as its host reports it.

    `request_id`: of the user's request that asked for the server, as its record says.
    """

    uuid: str
    attempt: int
    host: str
    power_state: int
    request_id: str = dataclasses.field(default="", compare=False)


def active(connection: sa.Connection, ran: Sequence[ReportedGuest]) -> set[ReportedGuest]:
    """Marks servers as running. Gives the guests whose rows took it, with their request ids.

    Others were superseded, deleted, or are running already.
    """
    mine = instances.c.uuid.in_([guest.uuid for guest in ran])
    query = sa.select(instances.c.uuid, instances.c.attempt, instances.c.host).where(
        mine, instances.c.state == states.BUILD
    )
    waiting = {tuple(row) for row in connection.execute(query.with_for_update())}
    done = {guest for guest in ran if (guest.uuid, guest.attempt, guest.host) in waiting}
    for power_state in sorted({guest.power_state for guest in done}):
        alike = [(guest.uuid, guest.attempt, guest.host) for guest in done if guest.power_state == power_state]
        values = {
            "state": states.BUILD_ACTIVE,
            "vm_state": CREATE.then,
            "task_state": None,
            "power_state": power_state,
            "fault": None,
        }
        as_ordered = sa.tuple_(instances.c.uuid, instances.c.attempt, instances.c.host).in_(alike)
        taken = sa.update(instances).where(as_ordered, instances.c.state == states.BUILD)
        connection.execute(taken.values(**values, launched_at=now_sql(), updated_at=now_sql()))
    told = [Told(uuid=guest.uuid, event=CREATE.event_name, host=guest.host) for guest in done]
    request_ids = tell(connection, CREATE.name, Phase.ENDED, told)
    return {dataclasses.replace(guest, request_id=request_ids.get(guest.uuid, "")) for guest in done}


def attempts(connection: sa.Connection, wanted: Sequence[str]) -> dict[str, tuple[str, int, str | None]]:
    """uuid -> (state, attempt, host) of those servers that have a row."""
    query = sa.select(instances.c.uuid, instances.c.state, instances.c.attempt, instances.c.host).where(
        instances.c.uuid.in_(list(wanted))
    )
    return {row.uuid: (row.state, row.attempt, row.host) for row in connection.execute(query)}


def live_on(connection: sa.Connection, host: str, *, launched_before: datetime.datetime) -> list[tuple[str, int]]:
    """(uuid, attempt) of the running servers of a host that were launched before then."""
    query = sa.select(instances.c.uuid, instances.c.attempt).where(
        instances.c.host == host, instances.c.state == states.BUILD_ACTIVE, instances.c.launched_at < launched_before
    )
    return [(row.uuid, row.attempt) for row in connection.execute(query)]
