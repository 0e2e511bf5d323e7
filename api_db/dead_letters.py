"""Messages of the API level that nobody could handle, kept for the operator."""

import dataclasses
import datetime
from typing import Any

import sqlalchemy as sa

import core.errors
from api_db.tables import dead_letters
from database.statements import changed
from database.types import now_sql


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


def insert(
    connection: sa.Connection, *, verb: str, queue: str, arguments: Any, why: str, request_id: str | None
) -> None:
    """Keeps one message."""
    values = {"verb": verb, "queue": queue, "arguments": arguments, "why": why, "request_id": request_id}
    connection.execute(sa.insert(dead_letters).values(**values, created_at=now_sql()))


def list_all(connection: sa.Connection, *, most: int = 1000) -> list[DeadLetterRecord]:
    """The latest first."""
    query = sa.select(*_COLUMNS).order_by(dead_letters.c.id.desc()).limit(most)
    return [DeadLetterRecord(*row) for row in connection.execute(query)]


def get(connection: sa.Connection, number: int) -> DeadLetterRecord:
    """One of them.

    Raises:
        NotFound: it is not kept, or not any more.
    """
    row = connection.execute(sa.select(*_COLUMNS).where(dead_letters.c.id == number)).first()
    if row is None:
        raise core.errors.NotFound(f"dead letter {number} could not be found")
    return DeadLetterRecord(*row)


def delete(connection: sa.Connection, number: int) -> bool:
    """Forgets one; false: it is gone already."""
    return changed(connection.execute(sa.delete(dead_letters).where(dead_letters.c.id == number)))
