"""Messages that nobody could handle, kept for the operator."""

import dataclasses
import datetime
from typing import Any

import sqlalchemy as sa

from cell_db.tables import dead_letters
from core.database import now_sql


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """`arguments` have their secrets masked."""

    id: int
    verb: str
    queue: str
    arguments: Any
    why: str
    request_id: str | None
    created_at: datetime.datetime


_COLUMNS = tuple(dead_letters.c[field.name] for field in dataclasses.fields(DeadLetterRecord))


def insert(connection: sa.Connection, *, verb: str, queue: str, arguments: Any, why: str, request_id: str | None) -> None:
    """Keeps one message."""
    values = {"verb": verb, "queue": queue, "arguments": arguments, "why": why, "request_id": request_id}
    connection.execute(sa.insert(dead_letters).values(**values, created_at=now_sql()))


def list_all(connection: sa.Connection, *, most: int = 1000) -> list[DeadLetterRecord]:
    """The latest first."""
    query = sa.select(*_COLUMNS).order_by(dead_letters.c.id.desc()).limit(most)
    return [DeadLetterRecord(*row) for row in connection.execute(query)]
