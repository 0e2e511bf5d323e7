"""Images that are being made of servers: where each stands, and who works on it.

A row goes with the commit that ends its operation. It outlives the server's own: whatever becomes of the server,
the image is completed or its record removed.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

import cell_db.operations
import core.errors
from cell_db.history import request_id_of
from cell_db.tables import image_tasks, instances
from core.context import Context
from database.statements import changed
from database.types import UNREADABLE, as_text, is_over, now_sql
from lifecycle.actions import CREATE_BACKUP, CREATE_IMAGE, OPERATIONS
from workflows.definitions import create_image
from workflows.positions import Heading, Position

ACTIONS = {create_image.CREATE_IMAGE.name: CREATE_IMAGE, create_image.CREATE_BACKUP.name: CREATE_BACKUP}
"""By the workflow of the image: the action on the server, which ends with it."""
MAX_LEASE_S = 960.0
"""So long an image waits that was taken in vain again and again."""
GIVE_UP_S = 86_400.0
"""After so long nothing more is tried for an image that cannot go on."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageTask:
    """One image.

    `record`: what the image service is told; `token`: of whoever works on it; `rotation`: of a backup, how many of its
    type are kept; `host`: the server's, None: it has no such operation any more; `fault`: why it is undone; `is_old`:
    it began more than `GIVE_UP_S` ago.
    """

    image_id: str
    uuid: str
    operation_id: str
    record: dict[str, Any]
    position: Position
    token: str | None
    rotation: int | None = None
    host: str | None = None
    fault: str | None = None
    request_id: str = ""
    is_old: bool = False

    @property
    def is_under_way(self) -> bool:
        """Whether the server's row still has the operation."""
        return self.host is not None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableTask:
    """One image whose row holds what no row can hold, or what only a newer release knows.

    `host`, `operation`: as the server's row has them; None: it has no such operation any more; the others as of
    `ImageTask`.
    """

    image_id: str
    uuid: str
    operation_id: str
    host: str | None
    operation: str | None
    why: str
    token: str | None = None
    request_id: str = ""
    is_old: bool = False


_UNDER_WAY = sa.and_(
    instances.c.uuid == image_tasks.c.instance_uuid, instances.c.operation_id == image_tasks.c.operation_id
)
_NAME_OF_ITS_ACTION = sa.case(
    {workflow: action.name for workflow, action in ACTIONS.items()},
    value=image_tasks.c.workflow,
    else_=CREATE_IMAGE.name,
)
# The documents as text: one that is none is its server's loss, and must not fail the sweep of all.
_TASK = sa.select(
    image_tasks.c.image_id, image_tasks.c.instance_uuid, image_tasks.c.operation_id, as_text(image_tasks.c.record),
    image_tasks.c.rotation, image_tasks.c.workflow, image_tasks.c.step, image_tasks.c.heading,
    as_text(image_tasks.c.reports), image_tasks.c.fault, image_tasks.c.token, instances.c.host, instances.c.operation,
    request_id_of(image_tasks.c.instance_uuid, [_NAME_OF_ITS_ACTION]).label("request_id"),
    (image_tasks.c.created_at <= now_sql(-GIVE_UP_S)).label("is_old"),
).select_from(image_tasks.outerjoin(instances, _UNDER_WAY))  # fmt: skip


def _task(row: sa.Row[Any]) -> ImageTask:
    """
    Raises:
        Unreadable: the row holds what no row can hold, or what only a newer release knows.
    """
    try:
        return ImageTask(
            image_id=row.image_id, uuid=row.instance_uuid, operation_id=row.operation_id, record=_record(row),
            position=_position(row), token=row.token, rotation=msgspec.convert(row.rotation, int | None), host=row.host,
            fault=row.fault, request_id=row.request_id or "", is_old=bool(row.is_old),
        )  # fmt: skip
    except UNREADABLE as error:
        raise core.errors.Unreadable(
            f"The record of image {row.image_id}, which is being made, cannot be read.", why=str(error)
        ) from error


def _record(row: sa.Row[Any]) -> dict[str, Any]:
    record = msgspec.json.decode(row.record, type=dict[str, Any])
    if record.get("id") != row.image_id:
        raise ValueError("it is the record of another image")
    return record


def _position(row: sa.Row[Any]) -> Position:
    reports = msgspec.json.decode(row.reports, type=tuple[tuple[str, str], ...])
    workflow = row.workflow or create_image.CREATE_IMAGE.name
    position = Position(workflow=workflow, step=row.step, heading=Heading(row.heading), reports=reports)
    if not create_image.CATALOG.knows(position):
        raise ValueError(f"no image stands at {row.heading} {row.step} of {workflow}")
    return position


def _task_or_unreadable(row: sa.Row[Any]) -> ImageTask | UnreadableTask:
    try:
        return _task(row)
    except core.errors.Unreadable as error:
        return UnreadableTask(
            image_id=row.image_id, uuid=row.instance_uuid, operation_id=row.operation_id, host=row.host,
            operation=row.operation, why=str(error.fields["why"]), token=row.token, request_id=row.request_id or "",
            is_old=bool(row.is_old),
        )  # fmt: skip


def _columns(position: Position) -> dict[str, Any]:
    reports = [list(each) for each in position.reports]
    return {"workflow": position.workflow, "step": position.step, "heading": position.heading.value, "reports": reports}


def begin(
    connection: sa.Connection, uuid: str, context: Context, *, image_id: str, record: Mapping[str, Any],
    position: Position, token: str, lease_s: float, rotation: int | None = None,
) -> ImageTask:  # fmt: skip
    """The operation is under way from this commit on, and the image stands where it is said, held by this token.

    `rotation`: of a backup.

    Raises:
        NotFound, Locked, WrongState, Busy: it may not begin.
    """
    arguments = {"image_id": image_id}
    action = ACTIONS[position.workflow]
    operation_id = cell_db.operations.begin_operation(connection, uuid, action, context, arguments=arguments)
    task = ImageTask(
        image_id=image_id, uuid=uuid, operation_id=operation_id, record=dict(record), rotation=rotation,
        position=position, token=token,
    )  # fmt: skip
    named = {"image_id": image_id, "instance_uuid": uuid, "operation_id": operation_id}
    values = {**named, "record": task.record, "rotation": rotation}
    moments = {"lease_until": now_sql(lease_s), "created_at": now_sql()}
    connection.execute(sa.insert(image_tasks).values(**values, token=token, **_columns(position), **moments))
    return task


def find(connection: sa.Connection, image_id: str) -> ImageTask | None:
    """The image, if it is still being made.

    Raises:
        Unreadable: its row holds what no row can hold.
    """
    row = connection.execute(_TASK.where(image_tasks.c.image_id == image_id)).first()
    return None if row is None else _task(row)


def take(connection: sa.Connection, *, token: str, lease_s: float, most: int) -> list[ImageTask | UnreadableTask]:
    """Leases images that nobody works on under this token, first those that wait longest.

    The lease is twice as long each time that an image was taken in vain, so that one that fails keeps no other.
    Those that wait for their host are left, unless the server has no such operation any more.
    """
    waits = sa.and_(cell_db.operations.waits_for_host(), sa.exists(sa.select(instances.c.id).where(_UNDER_WAY)))
    free = (
        sa.select(image_tasks.c.image_id).where(is_over(image_tasks.c.lease_until), sa.not_(waits))
        .order_by(image_tasks.c.lease_until, image_tasks.c.image_id).limit(most).with_for_update(skip_locked=True)
    )  # fmt: skip
    ids = list(connection.execute(free).scalars())
    if not ids:
        return []
    tries = image_tasks.c.tries
    # MariaDB assigns one after the other: the lease by the tries before this one.
    leased = sa.update(image_tasks).where(image_tasks.c.image_id.in_(ids)).ordered_values(
        (image_tasks.c.token, token), (image_tasks.c.lease_until, _lease(lease_s)), (tries, tries + 1)
    )  # fmt: skip
    connection.execute(leased)
    return [_task_or_unreadable(row) for row in connection.execute(_TASK.where(image_tasks.c.image_id.in_(ids)))]


def _lease(lease_s: float) -> sa.ColumnElement[Any]:
    lengths = {tries: min(lease_s * 2**tries, MAX_LEASE_S) for tries in range(10)}
    moments = {tries: now_sql(length) for tries, length in lengths.items()}
    return sa.case(moments, value=image_tasks.c.tries, else_=now_sql(MAX_LEASE_S))


def give_back(
    connection: sa.Connection, tasks: Sequence[ImageTask | UnreadableTask], *, token: str, wait_s: float
) -> None:
    """Ends leases early: whoever looks after `wait_s` seconds may take the rows. That was no try of theirs."""
    tries = image_tasks.c.tries
    mine = image_tasks.c.image_id.in_([task.image_id for task in tasks]), image_tasks.c.token == token
    before = sa.case((tries > 0, tries - 1), else_=0)
    connection.execute(sa.update(image_tasks).where(*mine).values(lease_until=now_sql(wait_s), tries=before))


def of_operation(connection: sa.Connection, operation_id: str) -> ImageTask | UnreadableTask | None:
    """The image that this operation makes; None: it makes none, or no more."""
    row = connection.execute(_TASK.where(image_tasks.c.operation_id == operation_id)).first()
    return None if row is None else _task_or_unreadable(row)


def move(
    connection: sa.Connection,
    task: ImageTask,
    after: Position,
    *,
    token: str | None,
    lease_s: float = 0.0,
    fault: str | None = None,
) -> bool:
    """Writes where the image stands next, if it stands where this caller read it and nobody has taken it since.

    `token`: who goes on; None: whoever comes. False: somebody else goes on with it.
    """
    why = {} if fault is None else {"fault": fault}
    written = {**_columns(after), "token": token, "lease_until": now_sql(lease_s), "tries": 0, **why}
    return changed(connection.execute(_mine(sa.update(image_tasks), task).values(**written)))


def end(connection: sa.Connection, task: ImageTask, *, fault: str | None) -> bool:
    """The image is made, or with a fault gone; the server's operation, if there, ends too. False: as for `move`."""
    if not changed(connection.execute(_mine(sa.delete(image_tasks), task))):
        return False
    if task.host is not None:
        cell_db.operations.settle_operation(
            connection, uuid=task.uuid, operation_id=task.operation_id, action=ACTIONS[task.position.workflow],
            power_state=None, fault=fault, host=task.host,
        )  # fmt: skip
    return True


def drop(connection: sa.Connection, task: ImageTask | UnreadableTask, *, fault: str) -> bool:
    """Nobody goes on with the image; the server's operation, if there, ends with this fault. False: it is another's."""
    mine = image_tasks.c.image_id == task.image_id, image_tasks.c.token == task.token
    if not changed(connection.execute(sa.delete(image_tasks).where(*mine))):
        return False
    fail_operation(connection, task, fault=fault)
    return True


def fail_operation(connection: sa.Connection, task: ImageTask | UnreadableTask, *, fault: str) -> bool:
    """The server's operation ends with this fault; the image's row stays. False: the server has it no more."""
    action = (
        OPERATIONS.get(task.operation or "") if isinstance(task, UnreadableTask) else ACTIONS[task.position.workflow]
    )
    if task.host is None or action is None:
        return False
    return cell_db.operations.settle_operation(
        connection, uuid=task.uuid, operation_id=task.operation_id, action=action, power_state=None, fault=fault,
        host=task.host,
    )  # fmt: skip


def _mine(statement: Any, task: ImageTask) -> Any:
    token = image_tasks.c.token
    same_token = token.is_(None) if task.token is None else token == task.token
    stands = (image_tasks.c.step == task.position.step, image_tasks.c.heading == task.position.heading.value)
    return statement.where(image_tasks.c.image_id == task.image_id, same_token, *stands)
