"""Operations on living servers: begun by a compare-and-set, sent until they are answered, settled once; and what hosts tell unasked."""

import dataclasses
import uuid as uuids
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

import cell_db.history
import cell_db.instances
import core.errors
from cell_db.tables import instances
from core.context import Context
from core.database import changed, now_sql
from lifecycle import states
from lifecycle.actions import Action

FIRST_LEASE_S = 5.0


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


def begin_operation(
    connection: sa.Connection, uuid: str, key: str, action: Action, context: Context, *, arguments: Mapping[str, Any], deadline_s: float
) -> str:
    """Records an operation as under way, with its action record; gives its id.

    `key` is one of `lifecycle.actions.OPERATIONS`. From this commit on the cell's conductor sees that it is done, hint or no hint.

    Raises:
        NotFound, Locked, WrongState: it may not begin.
    """
    row = cell_db.instances.admitted(connection, uuid, action, context)
    if row.host is None:
        raise core.errors.WrongState(f"Cannot '{action.name}' instance {uuid} while it has no host", server=uuid, state=row.vm_state)
    operation_id = str(uuids.uuid4())
    connection.execute(
        sa.update(instances)
        .where(instances.c.uuid == uuid)
        .values(
            operation_id=operation_id, operation=key, operation_arguments=dict(arguments), operation_deadline=now_sql(deadline_s),
            task_state=action.during, lease_until=now_sql(FIRST_LEASE_S), updated_at=now_sql(),
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
