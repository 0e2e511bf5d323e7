"""Regular expressions that users send: alike on both databases, and never without an end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import regex
import sqlalchemy as sa

import core.errors
from cell_db import regexp_subset

# MariaDB: the expression is none; the statement took longer than max_statement_time
INVALID_REGEXP, STATEMENT_TIMED_OUT = 1139, 1969
# For one name, in seconds of the processor (so the library counts): an expression that takes longer has no end. On a
# machine with much else to do it takes many times as long by the wall, and has to be refused before the cell is taken
# for silent.
MAX_PER_TEXT_S = 0.02
_STEPS = 10_000
"""SQLite looks at the clock after so many of its machine's steps: some tenths of a millisecond."""


def compiled(pattern: str, field: str = "name") -> "regex.Pattern[str]":
    """A regular expression that is searched for in a text; case matters.

    Raises:
        Invalid: it is none, or none that is taken.
    """
    try:
        # Not kept: the library would keep 500 of them, whatever they weigh.
        return regex.compile(regexp_subset.in_python(pattern), cache_pattern=False)
    except (ValueError, regex.error, OverflowError, RecursionError) as error:
        raise core.errors.Invalid(f"Invalid regular expression for {field}: {error}", field=field) from error


class TooSlow(core.errors.TooExpensive):
    """The time is over."""

    @property
    def code(self) -> str:
        return "TooExpensive"


class Search:
    """A regular expression that may be searched for in many texts, but no longer than `within_s` in all.

    Raises:
        Invalid: it is none.
    """

    def __init__(self, pattern: str, within_s: float) -> None:
        self._pattern = compiled(pattern)
        self._ends = time.monotonic() + within_s

    def matches(self, text: str | None) -> bool:
        """
        Raises:
            TooSlow: the time is over.
        """
        if text is None:
            return False
        left_s = self._ends - time.monotonic()
        if left_s <= 0:
            raise _too_slow()
        try:
            # concurrent: other threads run meanwhile.
            return self._pattern.search(text, timeout=min(left_s, MAX_PER_TEXT_S), concurrent=True) is not None
        except TimeoutError:
            raise _too_slow() from None


@contextmanager
def bounded(connection: sa.Connection, within_s: float) -> Iterator[None]:
    """Lets statements that may take long, for regular expressions or many rows, take no longer than this.

    Raises:
        Invalid: the expression is none for this database.
        TooSlow: it took longer.
    """
    if connection.dialect.name == "sqlite":
        with _taught_sqlite(connection, within_s):
            yield
        return
    sa.event.listen(connection, "before_cursor_execute", _with_limit(connection, within_s), retval=True)
    try:
        yield
    except sa.exc.DBAPIError as error:
        number = error.orig.args[0] if error.orig and error.orig.args else None
        if number == INVALID_REGEXP:
            raise core.errors.Invalid("Invalid regular expression.", field="name") from error
        if number == STATEMENT_TIMED_OUT:
            raise _too_slow() from error
        raise


def _with_limit(connection: sa.Connection, within_s: float) -> Any:
    """What puts the limit before a statement; a connection is made anew for each visit, so it ends with it."""

    def limited(
        _: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> tuple[str, Any]:
        return f"SET STATEMENT max_statement_time={within_s:.3f} FOR {statement}", parameters

    return limited


@contextmanager
def _taught_sqlite(connection: sa.Connection, within_s: float) -> Iterator[None]:
    """SQLite has no regular expressions of its own: the driver's connection is taught ours, with the time of this
    visit."""
    searches: dict[str, Search] = {}
    refused: list[core.errors.Invalid] = []

    def search(pattern: str, text: str | None) -> bool:
        try:
            if pattern not in searches:
                searches[pattern] = Search(pattern, within_s)
            return searches[pattern].matches(text)
        except core.errors.Invalid as error:
            refused.append(error)
            raise

    driver: Any = connection.connection.dbapi_connection
    driver.create_function("regexp", 2, search)
    ends = time.monotonic() + within_s
    driver.set_progress_handler(lambda: time.monotonic() > ends, _STEPS)
    try:
        yield
    except sa.exc.DBAPIError as error:
        # The driver says only that a function of ours raised something, or asked for an end.
        if refused:
            raise refused[0] from error
        if "interrupted" in str(error.orig):
            raise _too_slow() from error
        raise
    finally:
        driver.set_progress_handler(None, _STEPS)


def _too_slow() -> TooSlow:
    return TooSlow("The regular expression takes too long to evaluate.", field="name")
