"""Who holds which order of the journal, as an operator sees it, and what he may do about it.

An order that this release cannot read is seen all the same: what was ordered is not looked at here.
"""

import dataclasses
import datetime
import enum
import uuid as uuids
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

import api_db.journal
from api_db.cells import CELL0_UUID
from api_db.instances import DELETED
from api_db.journal import ASSIGNED, NEW, Assignment
from api_db.tables import build_requests, instance_mappings
from database.statements import changed
from database.types import as_text, document, now_sql
from objects.build_request import BuildRequest
from objects.candidate import Candidate
from objects.fault import Fault


@dataclasses.dataclass(frozen=True, slots=True)
class BuildStatus:
    """One row of the journal. `lease_s`: for so long its holder may go on, by the database's clock; below zero it is
    anybody's."""

    uuid: str
    project_id: str
    phase: str
    target: str | None
    host: str | None
    alternates: list[Candidate] | None
    deleting: bool
    kind: str | None
    fault: Fault | None
    token: str | None
    tries: int
    lease_until: datetime.datetime | None
    not_after: datetime.datetime | None
    created_at: datetime.datetime | None
    now: datetime.datetime

    @property
    def lease_s(self) -> float | None:
        return None if self.lease_until is None else (self.lease_until - self.now).total_seconds()

    @property
    def age_s(self) -> float | None:
        return None if self.created_at is None else (self.now - self.created_at).total_seconds()


# The documents as text: one that is none must not keep the other servers from being shown.
_DOCUMENTS = {"alternates": list[Candidate], "fault": Fault}
_FROM_THE_TABLE = tuple(
    as_text(build_requests.c[field.name]) if field.name in _DOCUMENTS else build_requests.c[field.name]
    for field in dataclasses.fields(BuildStatus)
    if field.name != "now"
)
_COLUMNS = (*_FROM_THE_TABLE, now_sql().label("now"))


def list_all(connection: sa.Connection, *, most: int, target: str | None = None) -> list[BuildStatus]:
    """Rows of the journal, oldest first; with `target` only those on their way to this cell."""
    query = sa.select(*_COLUMNS).order_by(build_requests.c.id).limit(most)
    if target is not None:
        query = query.where(build_requests.c.target == target)
    return [_build_status(row) for row in connection.execute(query)]


def find(connection: sa.Connection, uuid: str) -> BuildStatus | None:
    """The journal's row of a server, if it has one."""
    row = connection.execute(sa.select(*_COLUMNS).where(build_requests.c.uuid == uuid)).first()
    return _build_status(row) if row else None


def _build_status(row: sa.Row[Any]) -> BuildStatus:
    values = dict(row._mapping)
    return BuildStatus(**values | {name: document(values[name], kind) for name, kind in _DOCUMENTS.items()})


def end_lease(connection: sa.Connection, uuid: str) -> bool:
    """The next sweep may take the row at once. Its holder may still be faster: the token decides. False: there is no
    row."""
    mine = sa.update(build_requests).where(build_requests.c.uuid == uuid)
    return changed(connection.execute(mine.values(lease_until=now_sql())))


def abandon(connection: sa.Connection, status: BuildStatus, fault: Fault) -> bool:
    """Takes the order from whoever holds it: to cell0 with the fault if no cell has been chosen yet, else the fault is
    noted, and its cell's row, if there is one, decides. False: it is not as it was seen.
    """
    token = str(uuids.uuid4())
    mine = sa.update(build_requests).where(
        build_requests.c.uuid == status.uuid,
        build_requests.c.phase == status.phase,
        build_requests.c.deleting == sa.false(),
        build_requests.c.kind.is_(None),
    )
    if status.phase == ASSIGNED:
        return changed(
            connection.execute(mine.values(token=token, lease_until=now_sql(), fault=fault, updated_at=now_sql()))
        )
    if not changed(connection.execute(mine.values(token=token, lease_until=now_sql(), updated_at=now_sql()))):
        return False
    failed = Assignment(
        uuid=status.uuid,
        token=token,
        project_id=status.project_id,
        cell_uuid=CELL0_UUID,
        host=None,
        alternates=[],
        fault=fault,
    )
    return bool(api_db.journal.assign(connection, [failed]))


class Ending(enum.Enum):
    """What became of a row that could not be read."""

    MENDED = "mended: what could not be read of it is gone, and a super-conductor goes on with it"
    ENDED = "ended: nothing of the server is known"
    REMOVED = "removed from the journal: its cell has the server"


def end_unreadable(connection: sa.Connection, status: BuildStatus, *, in_cell: bool, fault: Fault) -> Ending | None:
    """Ends a row that nobody can read (`api_db.journal.unreadable`). None: it is not as it was seen.

    A delete or a restore is done all the same. A build goes to cell0 with the fault if its order can be read. If not,
    the row goes, and with it the server, unless its cell has it.
    """
    row = connection.execute(
        sa.select(as_text(build_requests.c.instance)).where(build_requests.c.uuid == status.uuid)
    ).first()
    if row is None or not api_db.journal.unreadable(connection, most=1, uuid=status.uuid):
        return None
    order = document(row.instance, BuildRequest)
    if status.deleting or status.kind is not None:
        _mend(connection, status, keep_build=order is not None)
        if not api_db.journal.unreadable(connection, most=1, uuid=status.uuid):
            return Ending.MENDED
        # Of a kind that this release does not know: what is asked of the cell cannot be told.
        connection.execute(sa.delete(build_requests).where(build_requests.c.uuid == status.uuid))
        return Ending.REMOVED
    if order is not None:
        mended = _mend(connection, status, keep_build=True)
        now = find(connection, status.uuid) if mended else None
        return Ending.MENDED if now is not None and abandon(connection, now, fault) else None
    connection.execute(sa.delete(build_requests).where(build_requests.c.uuid == status.uuid))
    if in_cell:
        return Ending.REMOVED
    mine = sa.update(instance_mappings).where(instance_mappings.c.uuid == status.uuid)
    connection.execute(mine.values(deleted=DELETED, updated_at=now_sql()))
    return Ending.ENDED


def _mend(connection: sa.Connection, status: BuildStatus, *, keep_build: bool) -> bool:
    """Takes out of the row what nothing can be done without reading it. One that is assigned to nothing is new again,
    or goes where its mapping says."""
    values: dict[str, Any] = {"delete_context": None, "explanations": None, "token": None, "lease_until": now_sql()}
    values |= {name: None for name in _DOCUMENTS if getattr(status, name) is None}
    values |= {} if keep_build else {"instance": None}
    if status.not_after is None or status.created_at is None:
        values |= {"not_after": now_sql(), "created_at": now_sql()}
    if status.phase != NEW and status.target is None:
        mapping = sa.select(instance_mappings.c.cell_uuid).where(instance_mappings.c.uuid == status.uuid)
        target = connection.execute(mapping).scalar()
        values |= {"target": target, "phase": NEW if target is None else ASSIGNED}
    mine = sa.update(build_requests).where(build_requests.c.uuid == status.uuid)
    return changed(connection.execute(mine.values(**values, updated_at=now_sql())))


def forget_deletes(connection: sa.Connection, wanted: Sequence[str], *, cell_uuid: str) -> set[str]:
    """Ends deletes that wait for a cell which will never answer. Gives the servers whose row went."""
    return {uuid for uuid in wanted if _forget_delete(connection, uuid, cell_uuid)}


def _forget_delete(connection: sa.Connection, uuid: str, cell_uuid: str) -> bool:
    token = str(uuids.uuid4())
    mine = sa.update(build_requests).where(
        build_requests.c.uuid == uuid, build_requests.c.target == cell_uuid, build_requests.c.deleting == sa.true()
    )
    return changed(connection.execute(mine.values(token=token))) and api_db.journal.finish(
        connection, uuid=uuid, token=token
    )


__all__ = [
    "ASSIGNED",
    "NEW",
    "BuildStatus",
    "Ending",
    "abandon",
    "end_lease",
    "end_unreadable",
    "find",
    "forget_deletes",
    "list_all",
]
