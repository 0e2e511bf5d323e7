"""Statements that many modules need: locks, inserts that may be repeated, compare-and-set."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite

from database.errors import is_duplicate


def lock(connection: sa.Connection, table: sa.Table, *which: sa.ColumnElement[bool]) -> bool:
    """Lets no other transaction lock these rows until this one ends, on whatever node it runs. Gives whether there are
    any.

    Galera's nodes tell each other what was written and nothing else: neither `SELECT … FOR UPDATE` nor an UPDATE that
    changes nothing is seen by them. So a lock is a write of a changing value; of two that took it on different nodes
    one is told of a conflict and begins again. Call it before anything that the lock protects is read.
    """
    return changed(connection.execute(sa.update(table).where(*which).values(lock_count=table.c.lock_count + 1)))


def insert_if_absent(
    connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], **computed: sa.ColumnElement[Any]
) -> None:
    """Inserts the rows whose unique key is not taken yet; the others stay as they are. `computed`: columns that the
    database reckons.

    Raises:
        sqlalchemy.exc.IntegrityError, sqlalchemy.exc.DataError: a row is wrong otherwise; as any insert.
    """
    if rows:
        connection.execute(_unless_present(connection, table).values(**computed), [dict(row) for row in rows])


def _unless_present(connection: sa.Connection, table: sa.Table) -> Any:
    """IGNORE would turn every other error, a value that is too long for one, into a warning."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    key = next(iter(table.primary_key))
    return mysql.insert(table).on_duplicate_key_update({key.name: key})


def insert_one(
    connection: sa.Connection, table: sa.Table, row: Mapping[str, Any], **computed: sa.ColumnElement[Any]
) -> bool:
    """Inserts the row unless its unique key is taken; gives whether it did.

    Counts of rows would not tell: with CLIENT_FOUND_ROWS a row that was there and one that is new count alike.

    Raises:
        sqlalchemy.exc.IntegrityError, sqlalchemy.exc.DataError: the row is wrong otherwise; as any insert.
    """
    try:
        connection.execute(sa.insert(table).values(**row, **computed))
    except sa.exc.IntegrityError as error:
        if is_duplicate(error):
            return False
        raise
    return True


def changed(result: sa.CursorResult[Any]) -> bool:
    """Whether a compare-and-set took effect on exactly one row or more."""
    return result.rowcount > 0
