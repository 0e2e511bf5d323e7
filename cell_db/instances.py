"""Servers of a cell: the compare-and-sets of the build protocol, and what users change.

Rule of the protocol: every write of the row names the state and the attempt that it replaces. See docs/build-protocol.md.
"""

import dataclasses
import datetime
import uuid as uuids
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

import cell_db.history
import core.errors
from cell_db.tables import cleanups, instance_metadata, instance_tags, instances
from core.context import Context
from core.database import changed, insert_if_absent, now_sql
from lifecycle import states
from lifecycle.actions import Action
from lifecycle.admit import admit
from objects.build import BuildSpec
from objects.order import ServerOrder
from objects.server import Server, extra_of_order, flavor_values

SERVER_COLUMNS = tuple(instances.c[name] for name in Server.__struct_fields__)
"""The columns of a Server, in its order: `Server(*row)`."""

# Built once: every request about a server asks this, and building a statement costs a third of asking it.
_ONE_OR_DELETED = sa.select(*SERVER_COLUMNS).where(instances.c.uuid == sa.bindparam("wanted"))
_ONE = _ONE_OR_DELETED.where(instances.c.deleted == sa.false())

INSERT_LEASE_S = 5.0


def get(connection: sa.Connection, uuid: str, *, deleted: bool = False) -> Server:
    """The server; with `deleted` also one that is deleted and not purged yet.

    Raises:
        NotFound: there is none.
    """
    row = connection.execute(_ONE_OR_DELETED if deleted else _ONE, {"wanted": uuid}).first()
    if row is None:
        raise core.errors.NotFound(f"Instance {uuid} could not be found.", server=uuid)
    return Server(*row)


def list_of(connection: sa.Connection, wanted: Iterable[str]) -> list[Server]:
    """These servers, those that exist, in no order."""
    return [Server(*row) for row in connection.execute(sa.select(*SERVER_COLUMNS).where(instances.c.uuid.in_(list(wanted))))]


# ---- super.insert, super.tombstone -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """A server to insert. With a fault it is in ERROR from the start: buried in cell0, or its cell was away for too long."""

    order: ServerOrder
    host: str | None
    node_uuid: str | None
    hypervisor_hostname: str | None
    availability_zone: str | None
    alternates: list[dict[str, Any]]
    resources: dict[str, int]
    not_after: datetime.datetime
    fault: dict[str, Any] | None = None

    @property
    def is_buried(self) -> bool:
        """Whether nothing is to be built."""
        return self.host is None or self.fault is not None


def insert(connection: sa.Connection, placed: Sequence[Placed], *, build_deadline_s: float) -> int:
    """Inserts the rows that are not there yet (a tombstone stays); they are runnable from this commit. Gives the number inserted."""
    present = set(
        connection.execute(sa.select(instances.c.uuid).where(instances.c.uuid.in_([p.order.uuid for p in placed]))).scalars()
    )
    missing = [p for p in placed if p.order.uuid not in present]
    if not missing:
        return 0
    rows = [_row(p) for p in missing]
    clocks = {"lease_until": now_sql(INSERT_LEASE_S), "deadline": now_sql(build_deadline_s), "updated_at": now_sql()}
    statement = sa.insert(instances).prefix_with("OR IGNORE" if connection.dialect.name == "sqlite" else "IGNORE")
    inserted = connection.execute(statement.values(**clocks), rows).rowcount
    _insert_children(connection, [p.order.build for p in missing])
    cell_db.history.insert_creations(connection, [(p.order, p.fault) for p in missing])
    return inserted


def _row(placed: Placed) -> dict[str, Any]:
    order, build = placed.order, placed.order.build
    buried = placed.is_buried
    host = None if buried else placed.host
    return {
        "uuid": build.uuid,
        "project_id": build.project_id,
        "user_id": build.user_id,
        "state": states.FAILED if buried else states.BUILD,
        "attempt": 1,
        "host": host,
        "node_uuid": placed.node_uuid if host else None,
        "alternates": placed.alternates,
        "resources": placed.resources,
        "not_after": placed.not_after,
        "vm_state": states.ERROR if buried else states.BUILDING,
        "task_state": states.IDLE if buried else states.SPAWNING,
        "power_state": states.NO_STATE,
        "display_name": build.name,
        "display_description": order.description,
        "hostname": build.hostname,
        "availability_zone": placed.availability_zone,
        "hypervisor_hostname": placed.hypervisor_hostname if host else None,
        "image_ref": order.image_ref,
        "flavor_id": build.flavor.flavor_id,
        "flavor": flavor_values(build.flavor),
        "vcpus": build.flavor.vcpus,
        "memory_mib": build.flavor.memory_mib,
        "root_gib": build.flavor.root_gib,
        "ephemeral_gib": build.flavor.ephemeral_gib,
        "key_name": build.key_name,
        "config_drive": build.config_drive,
        "access_ip_v4": order.access_ip_v4,
        "access_ip_v6": order.access_ip_v6,
        "auto_disk_config": order.auto_disk_config,
        "root_device_name": order.root_device_name,
        "launch_index": build.launch_index,
        "reservation_id": build.reservation_id,
        "progress": 0,
        "metadata": build.metadata or None,
        "tags": build.tags or None,
        "fault": placed.fault,
        "extra": extra_of_order(order),
        "user_data": build.user_data,
        "spec": msgspec.to_builtins(build),
        "created_at": order.created_at,
        "deleted": False,
    }


def _insert_children(connection: sa.Connection, builds: Sequence[BuildSpec]) -> None:
    metadata = [{"uuid": b.uuid, "key": key, "value": value} for b in builds for key, value in b.metadata.items()]
    insert_if_absent(connection, instance_metadata, metadata)
    insert_if_absent(connection, instance_tags, [{"uuid": b.uuid, "tag": tag} for b in builds for tag in b.tags])


def tombstone(connection: sa.Connection, *, uuid: str, project_id: str, user_id: str, is_cell0: bool, context: Context | None = None) -> bool:
    """Marks the server as going, or leaves a row that keeps a late insert out. Gives whether a host still has to say "gone".

    In cell0 it is deleted at once: nothing of it is on any host.
    """
    standing = sa.select(instances.c.state, instances.c.attempt, instances.c.host).where(instances.c.uuid == uuid).with_for_update()
    row = connection.execute(standing).first()
    if row is None and _insert_tombstone(connection, uuid=uuid, project_id=project_id, user_id=user_id, is_cell0=is_cell0):
        return False
    if row is None:  # A late insert was faster.
        row = connection.execute(standing).one()
    if context is not None:
        cell_db.history.start(connection, uuid=uuid, action="delete", context=context)
    if is_cell0:
        return _deleted(connection, uuid) and False
    if row.state in (states.GOING, states.GONE):
        return row.state == states.GOING
    if row.host is not None:
        _insert_cleanup(connection, uuid=uuid, host=row.host, attempt=row.attempt)
    going = sa.update(instances).where(instances.c.uuid == uuid, instances.c.state.not_in((states.GOING, states.GONE)))
    values = {"state": states.GOING, "task_state": states.DELETING, "operation_id": None, "operation": None}
    connection.execute(going.values(**values, lease_until=now_sql(), updated_at=now_sql()))
    return row.host is not None


def _insert_tombstone(connection: sa.Connection, *, uuid: str, project_id: str, user_id: str, is_cell0: bool) -> bool:
    row = {
        "uuid": uuid, "project_id": project_id, "user_id": user_id, "attempt": 0, "vm_state": states.BUILDING, "power_state": 0,
        "task_state": states.DELETING, "state": states.GONE if is_cell0 else states.GOING, "flavor": {}, "vcpus": 0, "memory_mib": 0,
        "root_gib": 0, "ephemeral_gib": 0, "config_drive": False, "auto_disk_config": False, "launch_index": 0, "progress": 0,
        "deleted": True,
    }  # fmt: skip
    statement = sa.insert(instances).prefix_with("OR IGNORE" if connection.dialect.name == "sqlite" else "IGNORE")
    now = now_sql()
    return changed(connection.execute(statement.values(**row, created_at=now, updated_at=now, deleted_at=now, lease_until=now)))


def _insert_cleanup(connection: sa.Connection, *, uuid: str, host: str, attempt: int) -> None:
    statement = sa.insert(cleanups).prefix_with("OR IGNORE" if connection.dialect.name == "sqlite" else "IGNORE")
    connection.execute(statement.values(uuid=uuid, host=host, attempt=attempt, created_at=now_sql()))


def _deleted(connection: sa.Connection, uuid: str) -> bool:
    going = sa.update(instances).where(instances.c.uuid == uuid, instances.c.state != states.GONE)
    values = {"state": states.GONE, "vm_state": states.DELETED, "task_state": None, "power_state": states.NO_STATE, "deleted": True}
    done = changed(
        connection.execute(going.values(**values, deleted_at=now_sql(), terminated_at=now_sql(), updated_at=now_sql(), host=None))
    )
    cell_db.history.finish_latest(connection, uuid=uuid, action="delete", fault=None)
    return done


# ---- cell.take, cell.supersede, cell.active ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Building:
    """A server under way: what its order to the host needs."""

    uuid: str
    attempt: int
    host: str
    node_uuid: str
    alternates: list[dict[str, Any]]
    project_id: str
    user_id: str
    resources: dict[str, int]
    spec: BuildSpec


_BUILDING = (
    instances.c.uuid, instances.c.attempt, instances.c.host, instances.c.node_uuid, instances.c.alternates, instances.c.project_id,
    instances.c.user_id, instances.c.resources, instances.c.spec,
)  # fmt: skip


def _building(row: Sequence[Any]) -> Building:
    *head, alternates, project_id, user_id, resources, spec = row
    return Building(*head, alternates or [], project_id, user_id, resources or {}, msgspec.convert(spec, BuildSpec))


def building(connection: sa.Connection, uuids_wanted: Sequence[str]) -> list[Building]:
    """Those of the servers that are still under way."""
    query = sa.select(*_BUILDING).where(instances.c.uuid.in_(list(uuids_wanted)), instances.c.state == states.BUILD)
    return [_building(row) for row in connection.execute(query)]


def take(connection: sa.Connection, *, lease_s: float, most: int) -> list[Building]:
    """Leases servers under way whose lease is over, oldest first, so that one conductor looks after each."""
    free = (
        sa.select(instances.c.id)
        .where(instances.c.state == states.BUILD, instances.c.lease_until <= now_sql())
        .order_by(instances.c.id)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    ids = list(connection.execute(free).scalars())
    if not ids:
        return []
    token = str(uuids.uuid4())
    connection.execute(sa.update(instances).where(instances.c.id.in_(ids)).values(token=token, lease_until=now_sql(lease_s)))
    return [_building(row) for row in connection.execute(sa.select(*_BUILDING).where(instances.c.id.in_(ids)))]


def keep(connection: sa.Connection, host: str, held: Sequence[tuple[str, int]], *, lease_s: float) -> None:
    """Prolongs the lease of servers whose current attempt the host says it is building, (uuid, attempt): no sweep looks at them meanwhile."""
    if held:
        mine = sa.update(instances).where(
            sa.tuple_(instances.c.uuid, instances.c.attempt).in_(list(held)), instances.c.host == host, instances.c.state == states.BUILD
        )
        connection.execute(mine.values(lease_until=now_sql(lease_s)))


def overdue(connection: sa.Connection, *, hosts_down: Sequence[str], most: int) -> list[Building]:
    """Servers under way past their deadline, or on a host that is down."""
    late = sa.or_(instances.c.deadline <= now_sql(), instances.c.host.in_(list(hosts_down)))
    query = sa.select(*_BUILDING).where(instances.c.state == states.BUILD, late).order_by(instances.c.id).limit(most)
    return [_building(row) for row in connection.execute(query)]


def supersede(
    connection: sa.Connection, build: Building, *, reason: str, host_said_so: bool, build_deadline_s: float
) -> bool:
    """Gives the attempt up: the next alternate takes over, or, when none is left, the server is in ERROR with the reason as its fault.

    Without the host's word the attempt is remembered as a cleanup, in the same commit. False: somebody else was faster.
    """
    mine = sa.update(instances).where(
        instances.c.uuid == build.uuid, instances.c.state == states.BUILD, instances.c.attempt == build.attempt
    )
    if build.alternates:
        first, *rest = build.alternates
        values: dict[str, Any] = {
            "attempt": build.attempt + 1, "host": first["host"], "node_uuid": first["node_uuid"], "alternates": rest,
            "hypervisor_hostname": first.get("hypervisor_hostname"), "deadline": now_sql(build_deadline_s), "lease_until": now_sql(),
        }  # fmt: skip
        if first.get("availability_zone"):
            values["availability_zone"] = first["availability_zone"]
    else:
        fault = cell_db.history.fault(500, f"Build of instance {build.uuid} failed: {reason}", host=build.host)
        values = {
            "state": states.FAILED, "vm_state": states.ERROR, "task_state": None, "host": None, "node_uuid": None, "fault": fault,
            "hypervisor_hostname": None, "lease_until": now_sql(),
        }  # fmt: skip
    if not changed(connection.execute(mine.values(**values, updated_at=now_sql()))):
        return False
    if not host_said_so:
        _insert_cleanup(connection, uuid=build.uuid, host=build.host, attempt=build.attempt)
    if not build.alternates:
        cell_db.history.insert_fault(connection, build.uuid, values["fault"])
        cell_db.history.finish_latest(connection, uuid=build.uuid, action="create", fault=reason)
    cell_db.history.event_of_latest(
        connection, uuid=build.uuid, action="create", event="compute__do_build_and_run_instance", host=build.host, error=reason
    )
    return True


@dataclasses.dataclass(frozen=True, slots=True)
class Ran:
    """A guest that runs, as its host reports it."""

    uuid: str
    attempt: int
    host: str
    power_state: int


def active(connection: sa.Connection, ran: Sequence[Ran]) -> set[str]:
    """Marks servers as running. Gives the uuids whose row took it; others were superseded, deleted, or are running already."""
    done: set[str] = set()
    for guest in ran:
        mine = sa.update(instances).where(
            instances.c.uuid == guest.uuid,
            instances.c.state == states.BUILD,
            instances.c.attempt == guest.attempt,
            instances.c.host == guest.host,
        )
        values = {"state": states.LIVE, "vm_state": states.ACTIVE, "task_state": None, "power_state": guest.power_state}
        if changed(connection.execute(mine.values(**values, launched_at=now_sql(), updated_at=now_sql(), fault=None))):
            done.add(guest.uuid)
    cell_db.history.finish_creations(connection, sorted(done), {guest.uuid: guest.host for guest in ran})
    return done


def attempts(connection: sa.Connection, wanted: Sequence[str]) -> dict[str, tuple[str, int, str | None]]:
    """uuid -> (state, attempt, host) of those servers that have a row."""
    query = sa.select(instances.c.uuid, instances.c.state, instances.c.attempt, instances.c.host).where(instances.c.uuid.in_(list(wanted)))
    return {row.uuid: (row.state, row.attempt, row.host) for row in connection.execute(query)}


def live_on(connection: sa.Connection, host: str, *, launched_before: datetime.datetime) -> list[tuple[str, int]]:
    """(uuid, attempt) of the running servers of a host that were launched before then."""
    query = sa.select(instances.c.uuid, instances.c.attempt).where(
        instances.c.host == host, instances.c.state == states.LIVE, instances.c.launched_at < launched_before
    )
    return [(row.uuid, row.attempt) for row in connection.execute(query)]


def count_on(connection: sa.Connection, host: str) -> int:
    """Servers whose row names the host."""
    query = sa.select(sa.func.count()).where(instances.c.host == host, instances.c.deleted == sa.false())
    return int(connection.execute(query).scalar_one())


def count_by_state(connection: sa.Connection) -> dict[str, int]:
    """Rows by protocol state, deleted ones left out."""
    query = sa.select(instances.c.state, sa.func.count()).where(instances.c.state != states.GONE).group_by(instances.c.state)
    return {str(state): int(number) for state, number in connection.execute(query)}


# ---- cell.gone, cell.deleted, cell.release ---------------------------------------------------------------------------------------


def gone(connection: sa.Connection, host: str, answered: Sequence[tuple[str, int]]) -> None:
    """The host said that nothing of these (uuid, attempt) or older is left: their cleanups go."""
    for uuid, attempt in answered:
        connection.execute(
            sa.delete(cleanups).where(cleanups.c.uuid == uuid, cleanups.c.host == host, cleanups.c.attempt <= attempt)
        )


def without_cleanups_but(connection: sa.Connection, host: str, answered: Sequence[tuple[str, int]]) -> list[tuple[str, str]]:
    """(uuid, state) of servers that are going or failed and whose last cleanups are the ones that the host just answered."""
    wanted = [uuid for uuid, _ in answered]
    upto = dict(answered)
    open_cleanups = sa.select(cleanups.c.uuid, cleanups.c.host, cleanups.c.attempt).where(cleanups.c.uuid.in_(wanted))
    blocked = {row.uuid for row in connection.execute(open_cleanups) if row.host != host or row.attempt > upto[row.uuid]}
    ended = sa.select(instances.c.uuid, instances.c.state).where(
        instances.c.uuid.in_([uuid for uuid in wanted if uuid not in blocked]),
        instances.c.state.in_((states.GOING, states.FAILED, states.GONE)),
    )
    return [(row.uuid, row.state) for row in connection.execute(ended)]


def ended_without_cleanups(connection: sa.Connection, *, most: int, wanted: Sequence[str] | None = None) -> list[str]:
    """Servers that are going and that no host has to answer for any more, their lease over."""
    query = sa.select(instances.c.uuid).where(
        instances.c.state == states.GOING,
        instances.c.lease_until <= now_sql(),
        ~sa.exists().where(cleanups.c.uuid == instances.c.uuid),
    )
    if wanted is not None:
        query = query.where(instances.c.uuid.in_(list(wanted)))
    return list(connection.execute(query.order_by(instances.c.id).limit(most)).scalars())


def over(connection: sa.Connection, wanted: Sequence[str]) -> list[str]:
    """Those of the servers that are in ERROR or deleted, with no host left to answer: they need no claim."""
    query = sa.select(instances.c.uuid).where(
        instances.c.uuid.in_(list(wanted)),
        instances.c.state.in_((states.FAILED, states.GONE)),
        ~sa.exists().where(cleanups.c.uuid == instances.c.uuid),
    )
    return list(connection.execute(query).scalars())


def deleted(connection: sa.Connection, uuid: str) -> bool:
    """Marks a server that is going as gone; the row stays until it is purged. False: it is gone already."""
    row = connection.execute(sa.select(instances.c.state).where(instances.c.uuid == uuid)).first()
    return bool(row and row.state == states.GOING) and _deleted(connection, uuid)


# ---- operations on living servers --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """An operation under way, as its order to the host needs it."""

    uuid: str
    attempt: int
    host: str
    operation_id: str
    operation: str
    arguments: dict[str, Any]


_OPERATION = (
    instances.c.uuid, instances.c.attempt, instances.c.host, instances.c.operation_id, instances.c.operation,
    instances.c.operation_arguments,
)  # fmt: skip
_ADMISSION = (
    instances.c.vm_state, instances.c.task_state, instances.c.state, instances.c.launched_at, instances.c.locked_by, instances.c.host,
    instances.c.deleted,
)  # fmt: skip


def admitted(connection: sa.Connection, uuid: str, action: Action, context: Context) -> sa.Row[Any]:
    """The row's states, locked for the rest of the transaction, if the action may begin.

    Raises:
        NotFound, Locked, WrongState: it may not.
    """
    row = connection.execute(sa.select(*_ADMISSION).where(instances.c.uuid == uuid).with_for_update()).first()
    if row is None or row.deleted:
        raise core.errors.NotFound(f"Instance {uuid} could not be found.", server=uuid)
    admit(
        action,
        server=uuid,
        vm_state=row.vm_state,
        task_state=row.task_state,
        launched=row.launched_at is not None,
        locked=row.locked_by is not None,
        caller_is_admin=context.is_admin,
    )
    return row


def begin_operation(
    connection: sa.Connection, uuid: str, key: str, action: Action, context: Context, *, arguments: Mapping[str, Any], deadline_s: float
) -> str:
    """Records an operation as under way, with its action record; gives its id.

    `key` is one of `lifecycle.actions.OPERATIONS`. From this commit on the cell's conductor sees that it is done, hint or no hint.

    Raises:
        NotFound, Locked, WrongState: it may not begin.
    """
    row = admitted(connection, uuid, action, context)
    if row.host is None:
        raise core.errors.WrongState(f"Cannot '{action.name}' instance {uuid} while it has no host", server=uuid, state=row.vm_state)
    operation_id = str(uuids.uuid4())
    connection.execute(
        sa.update(instances)
        .where(instances.c.uuid == uuid)
        .values(
            operation_id=operation_id, operation=key, operation_arguments=dict(arguments), operation_deadline=now_sql(deadline_s),
            task_state=action.during, lease_until=now_sql(INSERT_LEASE_S), updated_at=now_sql(),
        )
    )  # fmt: skip
    cell_db.history.start(connection, uuid=uuid, action=action.name, context=context)
    return operation_id


def operations(connection: sa.Connection, wanted: Sequence[str]) -> list[Operation]:
    """The operations under way on these servers."""
    query = sa.select(*_OPERATION).where(
        instances.c.uuid.in_(list(wanted)), instances.c.operation_id.is_not(None), instances.c.state == states.LIVE
    )
    return [Operation(*row) for row in connection.execute(query)]


def take_operations(connection: sa.Connection, *, lease_s: float, most: int) -> list[Operation]:
    """Leases operations whose lease is over, so that they are sent again."""
    free = (
        sa.select(instances.c.id)
        .where(instances.c.operation_id.is_not(None), instances.c.lease_until <= now_sql(), instances.c.state == states.LIVE)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    ids = list(connection.execute(free).scalars())
    if not ids:
        return []
    connection.execute(sa.update(instances).where(instances.c.id.in_(ids)).values(lease_until=now_sql(lease_s)))
    return [Operation(*row) for row in connection.execute(sa.select(*_OPERATION).where(instances.c.id.in_(ids)))]


def overdue_operations(connection: sa.Connection, *, most: int) -> list[Operation]:
    """Operations past their deadline."""
    query = sa.select(*_OPERATION).where(
        instances.c.operation_id.is_not(None), instances.c.operation_deadline <= now_sql(), instances.c.state == states.LIVE
    )
    return [Operation(*row) for row in connection.execute(query.limit(most))]


def settle_operation(
    connection: sa.Connection, *, uuid: str, operation_id: str, action: Action, power_state: int | None, fault: str | None, host: str | None
) -> bool:
    """Ends an operation: the states that the action's row of the table says or, with a fault, the server back where it was, with the
    fault recorded. False: the report is late, the row knows another operation or none.
    """
    values: dict[str, Any] = {"operation_id": None, "operation": None, "operation_arguments": None, "task_state": None}
    if fault is None:
        values |= {"vm_state": action.then} if action.then else {}
        values["power_state"] = action.power if power_state is None else power_state
        values["fault"] = None
    else:
        values["fault"] = cell_db.history.fault(500, f"{action.name} failed: {fault}", host=host)
    mine = sa.update(instances).where(instances.c.uuid == uuid, instances.c.operation_id == operation_id)
    if not changed(connection.execute(mine.values(**values, updated_at=now_sql()))):
        return False
    if fault is not None:
        cell_db.history.insert_fault(connection, uuid, values["fault"])
    cell_db.history.event_of_latest(
        connection, uuid=uuid, action=action.name, event=f"compute_{action.name.replace('-', '_')}_instance", host=host, error=fault
    )
    cell_db.history.finish_latest(connection, uuid=uuid, action=action.name, fault=fault)
    return True


def set_power_state(connection: sa.Connection, *, uuid: str, attempt: int, host: str, power_state: int) -> bool:
    """A guest stopped, crashed or started behind our back: the record follows, unless an operation is under way."""
    vm_state = {states.RUNNING: states.ACTIVE, states.POWER_PAUSED: states.PAUSED}.get(power_state, states.STOPPED)
    mine = sa.update(instances).where(
        instances.c.uuid == uuid,
        instances.c.attempt == attempt,
        instances.c.host == host,
        instances.c.state == states.LIVE,
        instances.c.operation_id.is_(None),
        instances.c.power_state != power_state,
        instances.c.vm_state.in_((states.ACTIVE, states.STOPPED, states.PAUSED)),
    )
    return changed(connection.execute(mine.values(power_state=power_state, vm_state=vm_state, updated_at=now_sql())))


def lost_guest(connection: sa.Connection, *, uuid: str, attempt: int, host: str) -> bool:
    """The host came back without a guest that should run there: ERROR with a fault; its claim and its row stay."""
    fault = cell_db.history.fault(500, f"Host {host} no longer has the guest of this instance", host=host)
    mine = sa.update(instances).where(
        instances.c.uuid == uuid,
        instances.c.attempt == attempt,
        instances.c.host == host,
        instances.c.state == states.LIVE,
        instances.c.vm_state != states.ERROR,
    )
    values = {"vm_state": states.ERROR, "power_state": states.NO_STATE, "fault": fault}
    if not changed(connection.execute(mine.values(**values, updated_at=now_sql()))):
        return False
    cell_db.history.insert_fault(connection, uuid, fault)
    return True


# ---- what users change -----------------------------------------------------------------------------------------------------------------


def update(connection: sa.Connection, uuid: str, changes: Mapping[str, Any]) -> Server:
    """Changes names, description, addresses … of a server; the keys are columns.

    Raises:
        NotFound: there is none.
    """
    mine = sa.update(instances).where(instances.c.uuid == uuid, instances.c.deleted == sa.false())
    if not changed(connection.execute(mine.values(**changes, updated_at=now_sql()))):
        raise core.errors.NotFound(f"Instance {uuid} could not be found.", server=uuid)
    return get(connection, uuid)


def lock(connection: sa.Connection, uuid: str, action: Action, context: Context, *, by: str, reason: str | None) -> None:
    """Locks the server for its plain owner (`by` "owner" or "admin"); what an admin locked stays the admin's."""
    row = admitted(connection, uuid, action, context)
    if row.locked_by == "admin" and by == "owner":
        return
    update(connection, uuid, {"locked_by": by, "locked_reason": reason})
    cell_db.history.record(connection, uuid=uuid, action="lock", context=context)


def unlock(connection: sa.Connection, uuid: str, action: Action, context: Context, *, may_override: bool) -> None:
    """Unlocks the server.

    Raises:
        Forbidden: an admin locked it and the caller may not override that.
    """
    row = admitted(connection, uuid, action, context)
    if row.locked_by == "admin" and not may_override:
        raise core.errors.Forbidden(f"Instance {uuid} was locked by an admin", server=uuid)
    update(connection, uuid, {"locked_by": None, "locked_reason": None})
    cell_db.history.record(connection, uuid=uuid, action="unlock", context=context)


def reset_state(connection: sa.Connection, uuid: str, vm_state: str, context: Context) -> None:
    """Sets vm_state "active" or "error" by an operator's word; ends whatever task the record shows."""
    values = {"vm_state": vm_state, "task_state": None, "operation_id": None, "operation": None}
    update(connection, uuid, values)
    cell_db.history.record(connection, uuid=uuid, action="reset-state", context=context)


def replace_metadata(connection: sa.Connection, uuid: str, metadata: Mapping[str, str]) -> None:
    """Sets the whole metadata: on the row for readers, in its table for filters."""
    update(connection, uuid, {"metadata": dict(metadata) or None})
    connection.execute(sa.delete(instance_metadata).where(instance_metadata.c.uuid == uuid))
    rows = [{"uuid": uuid, "key": key, "value": value} for key, value in metadata.items()]
    if rows:
        connection.execute(sa.insert(instance_metadata), rows)


def replace_tags(connection: sa.Connection, uuid: str, tags: Sequence[str]) -> None:
    """Sets all tags: on the row for readers, in their table for filters."""
    update(connection, uuid, {"tags": sorted(set(tags)) or None})
    connection.execute(sa.delete(instance_tags).where(instance_tags.c.uuid == uuid))
    rows = [{"uuid": uuid, "tag": tag} for tag in sorted(set(tags))]
    if rows:
        connection.execute(sa.insert(instance_tags), rows)
