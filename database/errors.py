"""What the errors of a database mean: a conflict, a duplicate, a missing table, a server that is in no position to
serve.

What Galera asks for is in `docs/decisions/0020`: a conflict may be told as late as at COMMIT, an unfit node answers
some statements.
"""

from typing import Any

import sqlalchemy as sa

import core.errors

DataError = sa.exc.DataError
"""A value does not fit its column."""

DEADLOCK_CODES = {
    1205,
    1213,
}  # MariaDB: lock wait timeout; deadlock, and on Galera a conflict with another node's transaction
DUPLICATE_CODES = {1062}
NO_SUCH_TABLE = 1146
# A node that is in no position to serve: not part of its cluster's majority (Galera's 1047; 1180 while it commits), or
# read-only.
NOT_READY, ERROR_DURING_COMMIT, READ_ONLY_OPTION, READ_ONLY_MODE = 1047, 1180, 1290, 1836
# The server undid the transaction before it said so. Whatever else is said at COMMIT leaves open whether other nodes
# have it.
UNDONE_AT_COMMIT = DEADLOCK_CODES | {READ_ONLY_OPTION, READ_ONLY_MODE}


class OutcomeUnknown(Exception):
    """The answer to a COMMIT was lost, or said too little: the transaction may have taken effect. `__cause__` says
    how."""


def is_unfit(error: BaseException | None) -> bool:
    """Whether the driver's error says that this server is in no position to serve now, whatever it is asked: another
    one may be."""
    number, text = (*getattr(error, "args", ()), None, None)[:2]
    return number in (NOT_READY, ERROR_DURING_COMMIT, READ_ONLY_MODE) or (
        number == READ_ONLY_OPTION and "read-only" in str(text)
    )


def timed_out(error: BaseException | str) -> bool:
    """Whether the driver gave up waiting for a server that neither answers nor refuses; an error or its text."""
    return "timed out" in str(error)


def is_duplicate(error: sa.exc.IntegrityError) -> bool:
    """Whether a unique key refused the row (and not a foreign key or a missing value)."""
    number = number_of(error)
    return number in DUPLICATE_CODES or "UNIQUE constraint failed" in str(number)


def is_transient(error: sa.exc.DBAPIError) -> bool:
    """Whether the transaction was undone by a conflict with another one or a lock wait, and may simply be tried
    again."""
    number = number_of(error)
    return number in DEADLOCK_CODES or "database is locked" in str(number)


def number_of(error: sa.exc.DBAPIError) -> Any:
    """The server's number of an error; of SQLite, which has none, its text."""
    return error.orig.args[0] if error.orig and error.orig.args else None


def unkept(error: sa.exc.DataError) -> core.errors.Invalid:
    """What to say to a user whose value is too long or out of range for its column: a limit that the API failed to
    name."""
    text = (*error.orig.args, "")[1] if error.orig and len(error.orig.args) > 1 else str(error.orig)
    return core.errors.Invalid(f"A value cannot be kept as it was given: {text}")


def is_missing_table(error: sa.exc.DBAPIError) -> bool:
    """Whether the statement named a table that is not there."""
    number = number_of(error)
    return number == NO_SUCH_TABLE or "no such table" in str(number)
