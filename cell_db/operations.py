"""Operations on living servers: begun by a compare-and-set, sent until they are answered, settled once; and what hosts
tell unasked."""

import dataclasses
import uuid as uuids
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

import cell_db.instances
import core.errors
from cell_db.history import Phase, Told, request_id_of, tell
from cell_db.history import fault as fault_of
from cell_db.tables import image_tasks, instances, services
from core.context import Context, service_context
from database.statements import changed
from database.types import UNREADABLE, as_text, is_over, now_sql
from lifecycle import actions, refusals, states
from lifecycle.actions import OPERATIONS, Action
from objects.build import BuildSpec
from objects.host import COMPUTE
from workflows.definitions.create_image import UPLOAD
from workflows.positions import Heading

FIRST_LEASE_S = 5.0
UNANSWERED_LEASE_S = 60.0
"""Between two orders to a host that has not answered for longer than the action's deadline."""
_POWERED = (states.RUNNING, states.POWER_PAUSED)


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """An operation under way, as its order to the host needs it.

    `vm_state`: before it; `spec`: for those that carry it; `request_id`: of the user's request that asked for it. Not
    `is_readable`: its row holds no such order.
    """

    uuid: str
    attempt: int
    host: str
    operation_id: str
    operation: str
    arguments: dict[str, Any]
    vm_state: str
    spec: BuildSpec | None = None
    is_readable: bool = True
    request_id: str = ""


_WITH_SPEC = [key for key, action in OPERATIONS.items() if action.with_spec]
_NAME_OF_ITS_ACTION = sa.case({key: action.name for key, action in OPERATIONS.items()}, value=instances.c.operation)
_OPERATION = (
    instances.c.uuid, instances.c.attempt, instances.c.host, instances.c.operation_id, instances.c.operation,
    as_text(instances.c.operation_arguments), instances.c.vm_state,
    sa.case((instances.c.operation.in_(_WITH_SPEC), as_text(instances.c.spec))).label("spec"),
    request_id_of(instances.c.uuid, [_NAME_OF_ITS_ACTION]),
)  # fmt: skip


def waits_for_host() -> sa.ColumnElement[bool]:
    """Whether an image that is being made is its host's to work on: its record is there, and it is not being undone."""
    return sa.and_(image_tasks.c.step == UPLOAD, image_tasks.c.heading == Heading.FORWARD.value)


_IS_THE_HOSTS = ~sa.exists(
    sa.select(image_tasks.c.image_id).where(image_tasks.c.operation_id == instances.c.operation_id, ~waits_for_host())
)


def _operation(row: Sequence[Any]) -> Operation:
    *head, arguments, vm_state, spec, request_id = row
    try:
        decoded = msgspec.json.decode(arguments, type=dict[str, Any])
        build = None if spec is None else msgspec.json.decode(spec, type=BuildSpec)
        return Operation(*head, decoded, vm_state, build, request_id=request_id)
    except UNREADABLE:
        return Operation(*head, {}, vm_state, is_readable=False, request_id=request_id)


def begin_operation(
    connection: sa.Connection,
    uuid: str,
    action: Action,
    context: Context,
    *,
    arguments: Mapping[str, Any],
    deadline_s: float | None = None,
) -> str:
    """Records an operation as under way, with its action record; gives its id.

    `action` is one of `lifecycle.actions.OPERATIONS`; `deadline_s` None: what its row of the table says. From this
    commit on the cell's conductor sees that it is done, hint or no hint.

    Raises:
        NotFound, Locked, WrongState, Busy: it may not begin.
    """
    row = cell_db.instances.admitted(connection, uuid, action, context)
    if row.host is None:
        raise refusals.no_host(action, uuid, vm_state=row.vm_state)
    _refuse_if_busy(uuid, row)
    # A hard reboot takes the place of what is under way.
    return put_under_way(
        connection, uuid, action, context, arguments=arguments, deadline_s=deadline_s,
        instead_of_all=row.operation_id is not None
    )  # fmt: skip


def put_under_way(
    connection: sa.Connection,
    uuid: str,
    action: Action,
    context: Context,
    *,
    arguments: Mapping[str, Any] | None = None,
    deadline_s: float | None = None,
    instead_of_all: bool = True,
    **columns: Any,
) -> str:
    """Records an operation, with its action record; gives its id. Its caller has locked the row and admitted the
    action.

    `instead_of_all`: it takes the place of whatever is under way; `columns`: what else changes in the row.
    """
    operation_id = str(uuids.uuid4())
    values = _ordered(action, operation_id, action.deadline_s if deadline_s is None else deadline_s)
    values |= {"operation_arguments": dict(arguments or {}), "task_state": action.during, "updated_at": now_sql()}
    connection.execute(sa.update(instances).where(instances.c.uuid == uuid).values(**values, **columns))
    tell(connection, action.name, Phase.BEGAN, [Told(uuid=uuid, by=context)], instead_of_all=instead_of_all)
    return operation_id


def _ordered(action: Action, operation_id: str, deadline_s: float, lease_s: float = FIRST_LEASE_S) -> dict[str, Any]:
    return {
        "operation_id": operation_id, "operation": action.operation, "operation_deadline": now_sql(deadline_s),
        "lease_until": now_sql(lease_s),
    }  # fmt: skip


def _ordered_again(action: Action, lease_s: float = 0.0) -> dict[str, Any]:
    """The columns of an order that is given once more. Under a fresh id: the host may remember the old one as
    failed."""
    return {**_ordered(action, str(uuids.uuid4()), action.deadline_s, lease_s), "operation_arguments": {}}


def _refuse_if_busy(uuid: str, row: sa.Row[Any]) -> None:
    """
    Raises:
        Busy: an operation is under way that no task_state shows.
    """
    under_way = OPERATIONS.get(row.operation or "")
    if row.operation_id is not None and under_way is not None and row.task_state is None:
        raise core.errors.Busy(
            f"Instance {uuid} is busy with '{under_way.name}' at this moment, try again.", server=uuid
        )


def sealing_key(connection: sa.Connection, host: str) -> str | None:
    """The key to which secrets for this host's agent are sealed; None: it never told one."""
    query = sa.select(services.c.sealing_key).where(services.c.host == host, services.c.binary == COMPUTE)
    return connection.execute(query).scalar()


def operations(connection: sa.Connection, wanted: Sequence[str]) -> list[Operation]:
    """The operations under way on these servers that their hosts are to do."""
    query = sa.select(*_OPERATION).where(
        instances.c.uuid.in_(list(wanted)),
        instances.c.operation_id.is_not(None),
        instances.c.state == states.BUILD_ACTIVE,
        _IS_THE_HOSTS,
    )
    return [_operation(row) for row in connection.execute(query)]


def take_operations(connection: sa.Connection, *, lease_s: float, most: int) -> list[Operation]:
    """Leases operations whose lease is over, so that they are sent again."""
    free = (
        sa.select(instances.c.id)
        .where(
            instances.c.operation_id.is_not(None),
            is_over(instances.c.lease_until),
            instances.c.state == states.BUILD_ACTIVE,
            _IS_THE_HOSTS,
        )
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    ids = list(connection.execute(free).scalars())
    if not ids:
        return []
    unanswered = sa.and_(instances.c.vm_state == states.SOFT_DELETED, instances.c.task_state.is_(None))
    lease_until = sa.case((unanswered, now_sql(UNANSWERED_LEASE_S)), else_=now_sql(lease_s))
    connection.execute(sa.update(instances).where(instances.c.id.in_(ids)).values(lease_until=lease_until))
    return [_operation(row) for row in connection.execute(sa.select(*_OPERATION).where(instances.c.id.in_(ids)))]


def overdue_operations(connection: sa.Connection, *, most: int) -> list[Operation]:
    """Operations past their deadline."""
    query = sa.select(*_OPERATION).where(
        instances.c.operation_id.is_not(None),
        is_over(instances.c.operation_deadline),
        instances.c.state == states.BUILD_ACTIVE,
    )
    return [_operation(row) for row in connection.execute(query.limit(most))]


def note_step(connection: sa.Connection, *, uuid: str, operation_id: str, host: str, step: str) -> bool:
    """Shows how far an operation is; False: it is over, or its row of the table has no such step."""
    keys = [key for key, action in OPERATIONS.items() if step in action.steps]
    mine = sa.update(instances).where(
        instances.c.uuid == uuid,
        instances.c.operation_id == operation_id,
        instances.c.operation.in_(keys),
        instances.c.host == host,
        instances.c.state == states.BUILD_ACTIVE,
    )
    if not changed(connection.execute(mine.values(task_state=step, updated_at=now_sql()))):
        return False
    tell(connection, step, Phase.STEP, [Told(uuid=uuid, host=host)])
    return True


def settle_operation(
    connection: sa.Connection,
    *,
    uuid: str,
    operation_id: str,
    action: Action,
    power_state: int | None,
    fault: str | None,
    host: str,
    unharmed: bool = False,
    answered: bool = True,
) -> bool:
    """Ends an operation on a server of this host: the states that the action's row of the table says, with the fault
    recorded if there is one.

    `unharmed`: the fault came before anything was done to the guest; not `answered`: it is that the host was silent.
    False: the row knows another operation or none, or another host; or the order goes out once more, not for the first
    time.
    """
    over: dict[str, Any] = {"operation_id": None, "operation": None, "operation_arguments": None, "task_state": None}
    recorded = None if fault is None else fault_of(500, f"{action.name} failed: {fault}", host=host)
    after = (
        _done(action, power_state)
        if recorded is None
        else {"fault": recorded, **_failed(action, power_state, unharmed)}
    )
    mine = sa.update(instances).where(
        instances.c.uuid == uuid,
        instances.c.operation_id == operation_id,
        instances.c.host == host,
        instances.c.state == states.BUILD_ACTIVE,
    )
    if action.until_answered and fault is not None and (not answered or power_state in _POWERED):
        over = {**_ordered_again(action, UNANSWERED_LEASE_S), "task_state": None}
        if changed(connection.execute(mine.where(instances.c.task_state.is_(None)).values(**over))):
            return False
    if not changed(connection.execute(mine.values(**over, **after, updated_at=now_sql()))):
        return False
    phase = Phase.ENDED if fault is None else Phase.FAILED
    tell(
        connection, action.name, phase, [Told(uuid=uuid, event=action.event_name, host=host, why=fault, fault=recorded)]
    )
    return True


def _done(action: Action, power_state: int | None) -> dict[str, Any]:
    """The columns after an action that went well."""
    power = action.power if power_state is None else power_state
    values = {} if power is None else {"power_state": power}
    if action.then is None:
        return values
    kept = instances.c.vm_state.in_(sorted(action.keeps))
    then = sa.case((kept, instances.c.vm_state), else_=action.then) if action.keeps else action.then
    return {**values, "vm_state": then, "fault": None}


def _failed(action: Action, power_state: int | None, unharmed: bool) -> dict[str, Any]:
    """The columns after one that failed."""
    if action.failed is None or (unharmed and not action.in_any_case):
        return {}
    return {"vm_state": action.failed, **({} if power_state is None else {"power_state": power_state})}


def set_power_state(connection: sa.Connection, *, uuid: str, attempt: int, host: str, power_state: int) -> bool:
    """A guest stopped, crashed, started or vanished behind our back: the record follows, unless an operation is under
    way."""
    if power_state == states.NO_STATE:
        return lost_guest(connection, uuid=uuid, attempt=attempt, host=host, while_idle=True)
    vm_state = {states.RUNNING: states.ACTIVE, states.POWER_PAUSED: states.PAUSED}.get(power_state, states.STOPPED)
    before = connection.execute(sa.select(instances.c.vm_state).where(instances.c.uuid == uuid)).scalar()
    if before == states.SOFT_DELETED:
        return _set_power_of_soft_deleted(connection, uuid=uuid, attempt=attempt, host=host, power_state=power_state)
    mine = sa.update(instances).where(
        instances.c.uuid == uuid,
        instances.c.attempt == attempt,
        instances.c.host == host,
        instances.c.state == states.BUILD_ACTIVE,
        instances.c.operation_id.is_(None),
        instances.c.power_state != power_state,
        instances.c.vm_state.in_((states.ACTIVE, states.STOPPED, states.PAUSED)),
    )
    if not changed(connection.execute(mine.values(power_state=power_state, vm_state=vm_state, updated_at=now_sql()))):
        return False
    if before != vm_state:
        # An action of nobody's, over already.
        action = _noticed_action(before, vm_state)
        tell(
            connection,
            action.name,
            Phase.ENDED,
            [Told(uuid=uuid, by=service_context(), event=action.event_name, host=host)],
        )
    return True


def _set_power_of_soft_deleted(
    connection: sa.Connection, *, uuid: str, attempt: int, host: str, power_state: int
) -> bool:
    """Notes the power state of a guest that is to be off; one that runs is stopped once more, news or not."""
    is_off = power_state not in _POWERED
    mine = sa.update(instances).where(
        instances.c.uuid == uuid,
        instances.c.attempt == attempt,
        instances.c.host == host,
        instances.c.state == states.BUILD_ACTIVE,
        instances.c.operation_id.is_(None),
        instances.c.vm_state == states.SOFT_DELETED,
        *([instances.c.power_state != power_state] if is_off else []),
    )
    again = {} if is_off else _ordered_again(actions.SOFT_DELETE)
    if not changed(connection.execute(mine.values(power_state=power_state, updated_at=now_sql(), **again))):
        return False
    tell(connection, "power", Phase.STEP, [Told(uuid=uuid, host=host)])
    return True


def _noticed_action(before: str | None, now: str) -> Action:
    """What a user would have asked for to get there."""
    if now == states.ACTIVE:
        return actions.UNPAUSE if before == states.PAUSED else actions.START
    return actions.PAUSE if now == states.PAUSED else actions.STOP


def lost_guest(connection: sa.Connection, *, uuid: str, attempt: int, host: str, while_idle: bool = False) -> bool:
    """The host has no such guest any more, which should run there: ERROR with a fault; its claim and its row stay. A
    server that is soft-deleted stays that, and cannot be started when it is restored.

    With `while_idle` an operation under way goes before: it will find no guest, and say so.
    """
    fault = fault_of(500, f"Host {host} no longer has the guest of this instance", host=host)
    mine = sa.update(instances).where(
        instances.c.uuid == uuid,
        instances.c.attempt == attempt,
        instances.c.host == host,
        instances.c.state == states.BUILD_ACTIVE,
        instances.c.vm_state.not_in((states.ERROR, states.SOFT_DELETED)),
        *([instances.c.operation_id.is_(None)] if while_idle else []),
    )
    values = {"vm_state": states.ERROR, "power_state": states.NO_STATE, "fault": fault}
    if not changed(connection.execute(mine.values(**values, updated_at=now_sql()))):
        return False
    tell(connection, "lost", Phase.FAILED, [Told(uuid=uuid, host=host, fault=fault)])
    return True
