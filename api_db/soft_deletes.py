"""Soft deletes and restores: which servers can be restored, and the rows that tell their cells. Steps
`api.soft-delete`,
`api.restore` and `super.make-final` of the build protocol (docs/build-protocol.md, section 11).

The mapping decides: of a restore and a delete for good, whichever commits first.
"""

import uuid as uuids
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

import api_db.instances
import api_db.journal
import api_db.quota
from api_db.cells import CELL0_UUID
from api_db.instances import DELETED, LIVING, SOFT_DELETED
from api_db.journal import NEW, Entry, Kind
from api_db.tables import build_requests, instance_mappings
from core.context import Context
from database.statements import changed
from database.types import now_sql
from lifecycle import refusals, states
from lifecycle.actions import RESTORE


def request_soft_delete(
    connection: sa.Connection, *, uuid: str, lease_s: float, by: Context, has_run: bool = False
) -> Entry | None:
    """Marks the mapping soft-deleted (quota is free, lists hide it) and leaves a journal row for its cell.

    A server of which nothing can be restored is deleted for good, as by `api_db.journal.request_delete`: one that no
    cell with hosts owns, or that is still on its way to one. Returns the entry, leased by the caller. None: an order is
    in the journal and its holder meets the mark; or the server is soft-deleted already, and nothing has changed.

    `has_run`: its cell has said so. Then the cell has the row for sure, and an order that is still in the journal is
    only to be dropped.

    Raises:
        NotFound: there is no such server, or it is deleted already.
    """
    mine = instance_mappings.c.uuid == uuid
    ordered = sa.exists().where(
        build_requests.c.uuid == uuid, build_requests.c.kind.is_(None),
        *([build_requests.c.phase == NEW] if has_run else [])
    )  # fmt: skip
    can_be_restored = instance_mappings.c.cell_uuid != CELL0_UUID, ~ordered
    if _change(connection, uuid, LIVING, SOFT_DELETED, *can_be_restored, soft_deleted_at=now_sql()):
        return _tell(connection, uuid, Kind.SOFT_DELETE, lease_s=lease_s, by=by)
    if connection.execute(sa.select(instance_mappings.c.deleted).where(mine)).scalar() == SOFT_DELETED:
        return None
    return api_db.journal.request_delete(connection, uuid=uuid, lease_s=lease_s, by=by)


def request_restore(
    connection: sa.Connection, *, uuid: str, project_id: str, quota_defaults: Mapping[str, int], lease_s: float,
    by: Context
) -> Entry:  # fmt: skip
    """Makes a soft-deleted server a living one, if the project (and its user, who has limits of his own) has room for
    it, and leaves a journal row for its cell; gives that, leased by the caller.

    Raises:
        OverQuota: there is no room.
        NotFound: it was deleted for good.
        WrongState: somebody else has restored it.
    """
    api_db.quota.lock(connection, project_id)
    mapping = api_db.instances.get(connection, uuid)
    if mapping.is_soft_deleted:
        wanted = {"instances": 1, "cores": mapping.vcpus, "ram": mapping.memory_mib}
        api_db.quota.check(
            connection, project_id=project_id, user_id=mapping.user_id, wanted=wanted, defaults=quota_defaults
        )
    if _change(connection, uuid, SOFT_DELETED, LIVING, soft_deleted_at=None):
        return _tell(connection, uuid, Kind.RESTORE, lease_s=lease_s, by=by)
    if mapping.deleted == LIVING:
        raise refusals.wrong_state(RESTORE, uuid, attribute="task_state", state=states.RESTORING)
    raise refusals.not_found(uuid)


def make_final(connection: sa.Connection, entry: Entry) -> bool:
    """Turns a soft delete into a delete for good: its cell has found that nothing could be restored. False: it is not
    as it was."""
    mine = build_requests.c.uuid == entry.uuid, build_requests.c.token == entry.token
    is_mine = sa.exists().where(*mine, build_requests.c.kind == Kind.SOFT_DELETE.value)
    is_it = instance_mappings.c.mark == entry.mark, is_mine
    if not _change(connection, entry.uuid, SOFT_DELETED, DELETED, *is_it):
        return False
    final = {"deleting": True, "kind": None, "updated_at": now_sql()}
    return changed(connection.execute(sa.update(build_requests).where(*mine).values(**final)))


def due(connection: sa.Connection, *, after_s: float, most: int) -> list[tuple[str, int]]:
    """(uuid, mark) of servers that have been soft-deleted for so long, by the database's clock, the longest first."""
    query = sa.select(instance_mappings.c.uuid, instance_mappings.c.mark).where(
        instance_mappings.c.deleted == SOFT_DELETED, instance_mappings.c.soft_deleted_at <= now_sql(-after_s)
    )
    rows = connection.execute(query.order_by(instance_mappings.c.soft_deleted_at).limit(most))
    return [(row.uuid, row.mark) for row in rows]


def count(connection: sa.Connection) -> int:
    """How many servers are soft-deleted."""
    query = sa.select(sa.func.count()).where(instance_mappings.c.deleted == SOFT_DELETED)
    return int(connection.execute(query).scalar_one())


def _change(
    connection: sa.Connection, uuid: str, was: int, becomes: int, *conditions: sa.ColumnElement[bool], **more: Any
) -> bool:
    mine = sa.update(instance_mappings).where(
        instance_mappings.c.uuid == uuid, instance_mappings.c.deleted == was, *conditions
    )
    mark = instance_mappings.c.mark + int(becomes != DELETED)
    return changed(connection.execute(mine.values(deleted=becomes, mark=mark, updated_at=now_sql(), **more)))


def _tell(connection: sa.Connection, uuid: str, kind: Kind, *, lease_s: float, by: Context) -> Entry:
    """Leaves the row, in place of an older one or of an order that the cell has: its holder's token is none any
    more."""
    mark = connection.execute(sa.select(instance_mappings.c.mark).where(instance_mappings.c.uuid == uuid)).scalar_one()
    values = {"kind": kind.value, "mark": mark, "deleting": False, "delete_context": api_db.journal.asked_by(by)}
    standing = sa.update(build_requests).where(build_requests.c.uuid == uuid)
    fresh = {"token": str(uuids.uuid4()), "tries": 0, "lease_until": now_sql(lease_s), "updated_at": now_sql()}
    no_build = dict.fromkeys(("instance", "host", "alternates", "fault"))
    if changed(connection.execute(standing.values(**values, **fresh, **no_build))):
        entry = api_db.journal.find(connection, uuid)
    else:
        entry = api_db.journal.insert_for_cell(connection, uuid, lease_s=lease_s, **values)
    assert entry is not None, uuid  # It was written just now.
    return entry
