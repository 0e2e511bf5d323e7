"""Who holds which build or delete of a cell, as an operator sees it, and what he may do about it."""

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

import cell_db.builds
import cell_db.heartbeats
import cell_db.hosts
from cell_db.tables import cleanups, instances
from database.statements import changed
from database.types import as_text, document, now_sql
from lifecycle import states
from objects.candidate import Candidate
from objects.fault import Fault
from objects.host import COMPUTE


@dataclasses.dataclass(frozen=True, slots=True)
class BuildStatus:
    """One server's row.

    `lease_s`: for so long nobody else looks after it, by the database's clock. `is_listed`: its host says that it
    builds this attempt. `host_is_up` None: there is no such host. `owed`: hosts that still have to say that nothing is
    left of an attempt.
    """

    uuid: str
    project_id: str
    display_name: str | None
    state: str
    vm_state: str
    task_state: str | None
    attempt: int
    host: str | None
    node_uuid: str | None
    alternates: list[Candidate] | None
    deadline: datetime.datetime | None
    not_after: datetime.datetime | None
    token: str | None
    lease_until: datetime.datetime | None
    operation: str | None
    fault: Fault | None
    created_at: datetime.datetime | None
    now: datetime.datetime
    host_is_up: bool | None = None
    is_listed: bool = False
    owed: tuple[str, ...] = ()

    @property
    def lease_s(self) -> float | None:
        return None if self.lease_until is None else (self.lease_until - self.now).total_seconds()

    @property
    def deadline_s(self) -> float | None:
        """What is left of the time that this attempt may take."""
        return None if self.deadline is None else (self.deadline - self.now).total_seconds()

    @property
    def age_s(self) -> float | None:
        return None if self.created_at is None else (self.now - self.created_at).total_seconds()


_LATER = ("now", "host_is_up", "is_listed", "owed")
# The documents as text: one that is none must not keep the other servers from being shown.
_DOCUMENTS = {"alternates": list[Candidate], "fault": Fault}
_COLUMNS = (
    *(
        as_text(instances.c[field.name]) if field.name in _DOCUMENTS else instances.c[field.name]
        for field in dataclasses.fields(BuildStatus)
        if field.name not in _LATER
    ),
    now_sql().label("now"),
)


def under_way(connection: sa.Connection, *, most: int, down_after_s: float) -> list[BuildStatus]:
    """Servers that are being built or deleted, oldest first."""
    mine = instances.c.state.in_((states.BUILD, states.BUILD_DELETING))
    return _completed(connection, sa.select(*_COLUMNS).where(mine).order_by(instances.c.id).limit(most), down_after_s)


def find(connection: sa.Connection, uuid: str, *, down_after_s: float) -> BuildStatus | None:
    """The server's row in whatever state it is."""
    statuses = _completed(connection, sa.select(*_COLUMNS).where(instances.c.uuid == uuid), down_after_s)
    return statuses[0] if statuses else None


def end_lease(connection: sa.Connection, uuid: str) -> bool:
    """The next sweep may take the server at once, and hosts that owe an answer are asked again. False: nothing of it is
    under way."""
    mine = sa.update(instances).where(
        instances.c.uuid == uuid,
        sa.or_(
            instances.c.state.in_((states.BUILD, states.BUILD_DELETING)), instances.c.operation_id.is_not(None), _owes()
        ),
    )
    asked_again = sa.update(cleanups).where(cleanups.c.uuid == uuid).values(sent_at=None)
    connection.execute(asked_again)
    return changed(connection.execute(mine.values(lease_until=now_sql())))


def abandon(connection: sa.Connection, status: BuildStatus, *, reason: str) -> bool:
    """Ends a build in ERROR, with no host after this one; its host is told to destroy what it has. False: it is not as
    it was seen."""
    builds = cell_db.builds.building(connection, [status.uuid])
    if not builds or builds[0].attempt != status.attempt:
        return False
    last = dataclasses.replace(builds[0], alternates=[])
    return cell_db.builds.supersede(connection, last, reason=reason, host_said_so=False, build_deadline_s=0.0)


def _owes() -> sa.ColumnElement[bool]:
    return sa.exists().where(cleanups.c.uuid == instances.c.uuid)


def _build_status(row: sa.Row[Any]) -> BuildStatus:
    values = dict(row._mapping)
    return BuildStatus(**values | {name: document(values[name], kind) for name, kind in _DOCUMENTS.items()})


def _completed(connection: sa.Connection, query: sa.Select[Any], down_after_s: float) -> list[BuildStatus]:
    statuses = [_build_status(row) for row in connection.execute(query)]
    listed = cell_db.heartbeats.listed_intents(connection)
    is_up = {
        agent.host: agent.is_up
        for agent in cell_db.hosts.list_services(connection, down_after_s=down_after_s, binary=COMPUTE)
    }
    owed = _owed(connection, [status.uuid for status in statuses])
    return [
        dataclasses.replace(
            status,
            host_is_up=is_up.get(status.host or ""),
            is_listed=(status.host, status.uuid, status.attempt) in listed,
            owed=tuple(owed.get(status.uuid, ())),
        )
        for status in statuses
    ]


def _owed(connection: sa.Connection, wanted: Sequence[str]) -> dict[str, list[str]]:
    query = (
        sa.select(cleanups.c.uuid, cleanups.c.host)
        .where(cleanups.c.uuid.in_(list(wanted)))
        .distinct()
        .order_by(cleanups.c.host)
    )
    owed: dict[str, list[str]] = {}
    for uuid, host in connection.execute(query):
        owed.setdefault(uuid, []).append(host)
    return owed
