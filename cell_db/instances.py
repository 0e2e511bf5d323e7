"""Servers of a cell as readers and their users see them: what is read, what may begin, what users change."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

import core.errors
from cell_db import packed
from cell_db.history import Phase, Told, tell
from cell_db.inventories import as_text
from cell_db.tables import instance_metadata, instance_tags, instances
from core.context import Context
from database.statements import changed
from database.types import UNREADABLE, now_sql
from lifecycle import refusals, states
from lifecycle.actions import LOCK, RESET_STATE, UNLOCK, Action
from lifecycle.admit import admit
from objects.build import BuildSpec
from objects.server import Server

# Built once: every change of a server asks this, and building a statement costs a third of asking it.
_ONE = packed.select(user_data=True, hosts_down_after_s=None).where(
    instances.c.uuid == sa.bindparam("wanted"), instances.c.deleted == sa.false()
)


def get(connection: sa.Connection, uuid: str) -> Server:
    """The server.

    Raises:
        NotFound: there is none.
        Unreadable: its row holds what no server can have.
    """
    server = packed.one(uuid, lambda: connection.execute(_ONE, {"wanted": uuid}).scalar())
    if server is None:
        raise refusals.not_found(uuid)
    return server


def explanations(connection: sa.Connection, uuid: str) -> object:
    """Why the server is where it is, as `objects.explanation.read` reads it; None: nobody said.

    Raises:
        NotFound: there is no such server.
    """
    row = connection.execute(
        sa.select(as_text(instances.c.explanations)).where(instances.c.uuid == uuid, instances.c.deleted == sa.false())
    ).first()
    if row is None:
        raise refusals.not_found(uuid)
    try:
        return msgspec.json.decode(row[0]) if row[0] else None
    except UNREADABLE:
        return None


def set_server_group(connection: sa.Connection, uuid: str, group: str | None) -> None:
    """What the server's row shows of its server group; the API database has the members.

    Raises:
        NotFound: there is no such server.
    """
    kept = sa.func.coalesce(sa.type_coerce(instances.c.extra, sa.Text()), "{}")
    path = "$.server_groups"
    extra = (
        sa.func.json_remove(kept, path) if group is None else sa.func.json_set(kept, path, sa.func.json_array(group))
    )
    mine = sa.update(instances).where(instances.c.uuid == uuid, instances.c.deleted == sa.false())
    if not changed(connection.execute(mine.values(extra=extra, updated_at=now_sql()))):
        raise refusals.not_found(uuid)
    tell(connection, "update", Phase.STEP, [Told(uuid=uuid)])


def build_spec(connection: sa.Connection, uuid: str) -> BuildSpec:
    """What the server was built, or built anew, from.

    Raises:
        NotFound: there is no such server.
        Unreadable: its row holds something else.
    """
    spec = connection.execute(
        sa.select(instances.c.spec).where(instances.c.uuid == uuid, instances.c.deleted == sa.false())
    ).scalar()
    if spec is None:
        raise refusals.not_found(uuid)
    try:
        return msgspec.convert(spec, BuildSpec)
    except msgspec.ValidationError as error:
        raise core.errors.Unreadable(f"What instance {uuid} was built from cannot be read.", server=uuid) from error


def count_by_state(connection: sa.Connection) -> dict[str, int]:
    """Rows by protocol state, deleted ones left out."""
    query = (
        sa.select(instances.c.state, sa.func.count())
        .where(instances.c.state != states.BUILD_DELETED)
        .group_by(instances.c.state)
    )
    return {str(state): int(number) for state, number in connection.execute(query)}


_ADMISSION = (
    instances.c.vm_state, instances.c.task_state, instances.c.state, instances.c.launched_at, instances.c.locked_by,
    instances.c.host, instances.c.deleted, instances.c.operation_id, instances.c.operation,
)  # fmt: skip


def admitted(connection: sa.Connection, uuid: str, action: Action, context: Context) -> sa.Row[Any]:
    """The row's states, locked for the rest of the transaction, if the action may begin.

    Raises:
        NotFound, Locked, WrongState: it may not.
    """
    row = connection.execute(sa.select(*_ADMISSION).where(instances.c.uuid == uuid).with_for_update()).first()
    if row is None or row.deleted:
        raise refusals.not_found(uuid)
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


def update(connection: sa.Connection, uuid: str, changes: Mapping[str, Any]) -> Server:
    """Changes names, description, addresses … of a server; the keys are columns.

    Raises:
        NotFound: there is none.
    """
    mine = sa.update(instances).where(instances.c.uuid == uuid, instances.c.deleted == sa.false())
    if not changed(connection.execute(mine.values(**changes, updated_at=now_sql()))):
        raise refusals.not_found(uuid)
    tell(connection, "update", Phase.STEP, [Told(uuid=uuid)])
    return get(connection, uuid)


def lock(connection: sa.Connection, uuid: str, context: Context, *, by: str, reason: str | None) -> None:
    """Locks the server for its plain owner (`by` "owner" or "admin"); what an admin locked stays the admin's.

    Raises:
        NotFound, WrongState: it may not begin.
    """
    row = admitted(connection, uuid, LOCK, context)
    if row.locked_by == "admin" and by == "owner":
        return
    update(connection, uuid, {"locked_by": by, "locked_reason": reason})
    tell(connection, LOCK.name, Phase.ENDED, [Told(uuid=uuid, by=context)])


def unlock(connection: sa.Connection, uuid: str, context: Context, *, may_override: bool) -> None:
    """Unlocks the server.

    Raises:
        NotFound, WrongState: it may not begin.
        Forbidden: an admin locked it and the caller may not override that.
    """
    row = admitted(connection, uuid, UNLOCK, context)
    if row.locked_by == "admin" and not may_override:
        raise core.errors.Forbidden(f"Instance {uuid} was locked by an admin", server=uuid)
    update(connection, uuid, {"locked_by": None, "locked_reason": None})
    tell(connection, UNLOCK.name, Phase.ENDED, [Told(uuid=uuid, by=context)])


def reset_state(connection: sa.Connection, uuid: str, vm_state: str, context: Context) -> None:
    """Sets vm_state "active" or "error" by an operator's word; ends whatever task the record shows.

    Raises:
        NotFound, Locked, WrongState: it may not begin.
    """
    under_way = admitted(connection, uuid, RESET_STATE, context).operation_id
    values = {
        "vm_state": vm_state,
        "task_state": None,
        "operation_id": None,
        "operation": None,
        "operation_arguments": None,
    }
    update(connection, uuid, values)
    tell(connection, RESET_STATE.name, Phase.ENDED, [Told(uuid=uuid, by=context)], instead_of_all=under_way is not None)


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
