"""Soft deletes and restores of a cell's servers: each has a number, its mark, and an older one than the row has seen
does nothing. See docs/build-protocol.md, section 11."""

from typing import Any

import sqlalchemy as sa

import cell_db.operations
from cell_db.tables import instances
from core.context import Context
from lifecycle import states
from lifecycle.actions import RESTORE, SOFT_DELETE

_GOING = (states.BUILD_DELETING, states.BUILD_DELETED)
_ROW = (
    instances.c.state, instances.c.mark, instances.c.vm_state, instances.c.task_state, instances.c.launched_at,
    instances.c.host,
)  # fmt: skip


def soft_delete(connection: sa.Connection, uuid: str, *, mark: int, by: Context) -> bool:
    """Begins to power the guest off, in place of any operation under way. False: the server never ran, or has no host,
    and nothing could be restored of it: it has to be deleted for good."""
    row = _locked(connection, uuid)
    if row is not None and _is_over(row, mark):
        return True
    if row is None or row.state != states.BUILD_ACTIVE or row.launched_at is None or row.host is None:
        return False
    cell_db.operations.put_under_way(connection, uuid, SOFT_DELETE, by, mark=mark)
    return True


def restore(connection: sa.Connection, uuid: str, *, mark: int, by: Context) -> None:
    """Begins to start the guest. One that no soft delete has reached stays as it is."""
    row = _locked(connection, uuid)
    if row is None or _is_over(row, mark):
        return
    if row.state == states.BUILD_ACTIVE and _is_soft_deleted(row):
        cell_db.operations.put_under_way(connection, uuid, RESTORE, by, mark=mark)
    else:
        connection.execute(sa.update(instances).where(instances.c.uuid == uuid).values(mark=mark))


def _locked(connection: sa.Connection, uuid: str) -> sa.Row[Any] | None:
    return connection.execute(sa.select(*_ROW).where(instances.c.uuid == uuid).with_for_update()).first()


def _is_over(row: sa.Row[Any], mark: int) -> bool:
    """Whether this, or what came after it, is done already."""
    return row.state in _GOING or row.mark >= mark


def _is_soft_deleted(row: sa.Row[Any]) -> bool:
    return row.vm_state == states.SOFT_DELETED or row.task_state == states.SOFT_DELETING
