"""Cleanups: attempt n of this server may still be on that host. They go when the host says "gone"."""

import dataclasses
import datetime
from collections.abc import Sequence

import sqlalchemy as sa

from cell_db.history import request_id_of, request_ids
from cell_db.tables import cleanups, instances
from core.clock import utcnow
from database.statements import insert_if_absent
from database.types import now_sql
from lifecycle.actions import CREATE, DELETE


@dataclasses.dataclass(frozen=True, slots=True)
class Cleanup:
    """`request_id`: of the user's request that it belongs to: the delete of the server, and before there is one its
    create."""

    uuid: str
    host: str
    attempt: int
    request_id: str = ""


_COLUMNS = (cleanups.c.uuid, cleanups.c.host, cleanups.c.attempt)
_ACTIONS = (CREATE.name, DELETE.name)
_CLEANUP = (*_COLUMNS, request_id_of(cleanups.c.uuid, _ACTIONS))


def insert(connection: sa.Connection, *, uuid: str, host: str, attempt: int) -> None:
    """Remembers that the attempt may still be on the host; once."""
    insert_if_absent(connection, cleanups, [{"uuid": uuid, "host": host, "attempt": attempt}], created_at=now_sql())


def list_of(connection: sa.Connection, uuids: Sequence[str]) -> list[Cleanup]:
    """The cleanups of these servers."""
    return [Cleanup(*row) for row in connection.execute(sa.select(*_CLEANUP).where(cleanups.c.uuid.in_(list(uuids))))]


def unanswered(connection: sa.Connection, *, hosts_up: Sequence[str], again_after_s: float, most: int) -> list[Cleanup]:
    """Cleanups on hosts that are up and were not told of them lately, oldest first; they count as told from now on."""
    due = (
        sa.select(cleanups.c.id)
        .where(
            cleanups.c.host.in_(list(hosts_up)),
            sa.or_(cleanups.c.sent_at.is_(None), cleanups.c.sent_at <= now_sql(-again_after_s)),
        )
        .order_by(cleanups.c.id)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    ids = list(connection.execute(due).scalars())
    if not ids:
        return []
    connection.execute(sa.update(cleanups).where(cleanups.c.id.in_(ids)).values(sent_at=now_sql()))
    return [
        Cleanup(*row)
        for row in connection.execute(sa.select(*_CLEANUP).where(cleanups.c.id.in_(ids)).order_by(cleanups.c.id))
    ]


def of_guests(connection: sa.Connection, guests: Sequence[tuple[str, str, int]]) -> list[Cleanup]:
    """What hosts are to be told of guests (uuid, host, attempt) that they should not have, whether the table has it or
    not."""
    if not guests:
        return []
    known = request_ids(connection, [uuid for uuid, _, _ in guests], _ACTIONS)
    return [Cleanup(*guest, known.get(guest[0], "")) for guest in guests]


def told(connection: sa.Connection, told_of: Sequence[Cleanup]) -> None:
    """Remembers that the hosts were told just now."""
    for cleanup in told_of:
        connection.execute(
            sa.update(cleanups)
            .where(
                cleanups.c.uuid == cleanup.uuid, cleanups.c.host == cleanup.host, cleanups.c.attempt == cleanup.attempt
            )
            .values(sent_at=utcnow())
        )


def count(connection: sa.Connection) -> int:
    """How many there are."""
    return int(connection.execute(sa.select(sa.func.count()).select_from(cleanups)).scalar_one())


def list_on(connection: sa.Connection, host: str) -> list[Cleanup]:
    """The cleanups that one host still owes an answer for."""
    return [Cleanup(*row) for row in connection.execute(sa.select(*_CLEANUP).where(cleanups.c.host == host))]


@dataclasses.dataclass(frozen=True, slots=True)
class Owed:
    """A cleanup as an operator sees it. `state` of the server's row, None without one; `sent_at`: when its host was
    told last."""

    uuid: str
    host: str
    attempt: int
    state: str | None
    created_at: datetime.datetime
    sent_at: datetime.datetime | None


def owed(connection: sa.Connection, *, most: int, host: str | None = None, uuid: str | None = None) -> list[Owed]:
    """Cleanups, oldest first; a host or a server narrows the list."""
    columns = (*_COLUMNS, instances.c.state, cleanups.c.created_at, cleanups.c.sent_at)
    query = sa.select(*columns).select_from(cleanups.outerjoin(instances, instances.c.uuid == cleanups.c.uuid))
    if host is not None:
        query = query.where(cleanups.c.host == host)
    if uuid is not None:
        query = query.where(cleanups.c.uuid == uuid)
    return [Owed(*row) for row in connection.execute(query.order_by(cleanups.c.id).limit(most))]
