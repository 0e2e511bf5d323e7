"""Time that a test hands in: minutes pass without anybody waiting for them.

Two clocks tell the time to the build protocol. Leases, deadlines and last signs of life are rows, compared with the
clock of the database that they lie in. A database's clock cannot be handed in (MariaDB's `SET timestamp` holds for one
connection, SQLite has nothing of the kind), but everything that is compared with it can: `pass_time` moves every moment
that a database holds back by as much as is to pass, in one transaction. To each comparison that is the same as a clock
that went ahead. The programs' own clock, which says how long a conductor has listened, is an argument of theirs:
`ManualClock`.
"""

import datetime
import threading
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from core.clock import utcnow
from database.engine import Database
from database.errors import is_transient

TRIES = 20


class ManualClock:
    """The machine's clock and what the test added to it.

    The time of day stays: it is only ever compared with moments that databases hold, and these are moved.
    """

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def go_ahead(self, seconds: float) -> None:
        """So much time has passed for whoever reads this clock."""
        self._ahead_s += seconds

    @staticmethod
    def now() -> datetime.datetime:
        return utcnow()

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead_s

    @staticmethod
    def wait(event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)


class _Earlier(FunctionElement[datetime.datetime]):
    """A moment that a column holds, so many microseconds earlier."""

    type = sa.DateTime()
    inherit_cache = True

    def __init__(self, column: sa.Column[Any], seconds: float) -> None:
        super().__init__(column, sa.bindparam(None, round(seconds * 1_000_000), type_=sa.Integer(), unique=True))


@compiles(_Earlier, "mysql", "mariadb")
def _earlier_mysql(element: _Earlier, compiler: Any, **kw: Any) -> str:
    column, microseconds = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({column} - INTERVAL {microseconds} MICROSECOND)"


@compiles(_Earlier, "sqlite")
def _earlier_sqlite(element: _Earlier, compiler: Any, **kw: Any) -> str:
    column, microseconds = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"strftime('%Y-%m-%d %H:%M:%f000', {column}, (-{microseconds} / 1000000.0) || ' seconds')"


def pass_time(database: Database, tables: sa.MetaData, seconds: float) -> None:
    """For everything that is compared with this database's clock, so many seconds pass now."""
    for left in reversed(range(TRIES)):
        try:
            with database.transaction() as connection:
                for table in tables.sorted_tables:
                    moments = [column for column in table.columns if isinstance(column.type, sa.DateTime)]
                    if moments:
                        connection.execute(
                            sa.update(table).values({column.name: _Earlier(column, seconds) for column in moments})
                        )
        except sa.exc.OperationalError as error:
            if not left or not is_transient(error):
                raise
        else:
            return
