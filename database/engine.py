"""Engines and transactions for MariaDB (or anything MySQL-compatible) and SQLite.

Facts that shaped this (measured): PyMySQL's connect, read and write each need a time-out; SQLite's driver must not open
transactions by itself, writes begin with BEGIN IMMEDIATE; leases are compared with the database's own clock. What
Galera asks for is in `docs/decisions/0020`: a lock is a write, a conflict may be told as late as at COMMIT, an unfit
node answers some statements.
"""

import contextlib
import functools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

import pymysql
import sqlalchemy as sa

import core.errors
from core.clock import jittered
from database import database_url
from database.async_connection import AsyncConnection
from database.errors import (
    UNDONE_AT_COMMIT,
    OutcomeUnknown,
    is_missing_table,
    is_transient,
    is_unfit,
    number_of,
    timed_out,
)

Connection = sa.Connection
"""What a function on a database is given: for those who only pass it on."""

P = ParamSpec("P")
T = TypeVar("T")
# What is too long or out of range is refused, and not cut, whatever the server's own setting is.
SQL_MODE = "TRADITIONAL"
PROBE = "SELECT version_num FROM alembic_version"
"""What a database is asked to know whether it serves."""
CONFLICT_TRIES = 60
CONFLICT_PAUSE_S = 0.01
# A conflict is over in milliseconds. Who has waited for locks for longer than this is told, and not begun again.
CONFLICT_LIMIT_S = 10.0
IDLE_S = 0.5


class Database:
    """One database: a bounded pool of connections and two kinds of transaction.

    Connections are in autocommit mode, so that a read is one round trip; a transaction says BEGIN and COMMIT itself and
    so knows when its outcome is uncertain.

    Args:
        url: as `database.database_url` takes it.
        pool_size: connections at most; none is opened before it is needed.
        connect_timeout_s: seconds to connect.
        io_timeout_s: seconds that one packet may take to be read or written, and that a statement may run; None waits
            for ever (migrations).
        wait_s: seconds to wait for a connection of the pool.
        delay_s, on_delay: `on_delay` is called, in the thread that waits, when a server has said nothing for so many
            seconds after it was asked something; what it raises (a `pymysql.err.Error`) ends the waiting, and the
            connection. Not with SQLite.

    Raises:
        Invalid: the URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 5,
        connect_timeout_s: float = 3.0,
        io_timeout_s: float | None = 30.0,
        wait_s: float = 10.0,
        delay_s: float = 0.0,
        on_delay: Callable[[], None] | None = None,
    ) -> None:
        self.url = database_url.parse(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._connecting = _Connecting()
        if self.is_sqlite:
            self.engine = _sqlite_engine(self.url, pool_size, wait_s, io_timeout_s)
        else:
            self.engine = _mysql_engine(self.url, pool_size, connect_timeout_s, io_timeout_s, wait_s)
            sa.event.listen(self.engine, "do_connect", self._connecting.around(delay_s, on_delay))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A connection inside a write transaction, committed at the end, rolled back on any exception.

        Raises:
            OutcomeUnknown: the connection was lost while it committed.
            sqlalchemy.exc.DBAPIError: anything else; nothing was written.
        """
        with self._connected() as connection:
            # SQLite: its default would take the write lock at the first write only, and lose to whoever wrote since our
            # read.
            connection.exec_driver_sql("BEGIN IMMEDIATE" if self.is_sqlite else "BEGIN")
            try:
                yield connection
            except BaseException:
                _roll_back(connection)
                raise
            _commit(connection)

    def run(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(connection, …)` in one transaction, again from the start as long as conflicts with other transactions
        undo it.

        A conflict is ordinary where several nodes take writes, and may be told at COMMIT only; nothing was written
        then. `work` does nothing but read and write through its connection.

        Raises:
            OutcomeUnknown, sqlalchemy.exc.DBAPIError: as `transaction`.
        """
        return repeated(self.transaction, work, *args, **kwargs)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection for reads; each statement is a transaction of its own."""
        with self._connected() as connection:
            yield connection

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        try:
            connection = self.engine.connect()
        except pymysql.err.Error as error:  # raised while a connection is prepared, outside SQLAlchemy's own wrapping
            raise sa.exc.OperationalError("", None, error) from error
        with connection:
            yield connection

    def async_connection(self) -> AsyncConnection:
        """A connection apart from the pool, for an event loop to ask. SQLite has nothing of the kind.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, pymysql.err.Error: none can be opened.
        """
        lent = self.engine.raw_connection()
        async_connection = lent.dbapi_connection
        lent.detach()
        assert isinstance(async_connection, AsyncConnection)
        async_connection.never_wait()
        return async_connection

    def ping(self, within_s: float) -> None:
        """Reads a table (see `probe`), on a connection of its own; no part of it may take longer than this.

        Raises:
            pymysql.err.Error, sqlite3.Error: there is no connection, or no answer.
        """
        if self.is_sqlite:
            with contextlib.closing(sqlite3.connect(self.url.database or "", timeout=within_s)) as file:
                file.execute("PRAGMA schema_version").fetchall()
            return
        arguments: Any
        _, arguments = self.engine.dialect.create_connect_args(self.url)
        async_connection = AsyncConnection(
            **arguments, connect_timeout=within_s, read_timeout=within_s, write_timeout=within_s, ssl_disabled=True
        )
        with (
            contextlib.closing(async_connection),
            contextlib.suppress(pymysql.err.ProgrammingError),
        ):  # Without the table it answers as well.
            async_connection.query(PROBE)
            async_connection.never_wait()

    def connecting_for_s(self) -> float:
        """For how long the oldest connection has been in the making; 0: none is. A resolver of names that is silent has
        no time-out of ours."""
        return self._connecting.longest_s()

    def close(self) -> None:
        """Drops the pool's idle connections."""
        self.engine.dispose()


def repeated(
    transaction: Callable[[], contextlib.AbstractContextManager[sa.Connection]],
    work: Callable[Concatenate[sa.Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """What `Database.run` does, for any way to open a transaction."""
    until_s = time.monotonic() + CONFLICT_LIMIT_S
    for left in reversed(range(CONFLICT_TRIES)):
        try:
            with transaction() as connection:
                return work(connection, *args, **kwargs)
        except sa.exc.DBAPIError as error:
            if not left or not is_transient(error) or time.monotonic() > until_s:
                raise
            time.sleep(jittered(CONFLICT_PAUSE_S, 0.0, 2.0))
    raise AssertionError("the last try returns or raises")


class _Connecting:
    """The connections in the making."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    def around(self, delay_s: float, on_delay: Callable[[], None] | None) -> Callable[..., AsyncConnection]:
        """What opens them for an engine."""

        def connect(_dialect: Any, _record: Any, args: Any, kwargs: Any) -> AsyncConnection:
            thread = threading.get_ident()
            self._since[thread] = time.monotonic()
            try:
                async_connection = AsyncConnection(*args, **kwargs)
            finally:
                del self._since[thread]
            if on_delay is not None:
                async_connection.call_on_delay(delay_s, on_delay)
            return async_connection

        return connect

    def longest_s(self) -> float:
        started = list(self._since.values())
        return time.monotonic() - min(started) if started else 0.0


def _commit(connection: sa.Connection) -> None:
    try:
        connection.exec_driver_sql("COMMIT")
    except sa.exc.DBAPIError as error:
        if connection.dialect.name == "sqlite" or number_of(error) in UNDONE_AT_COMMIT:
            _roll_back(connection)
            raise
        connection.invalidate()
        raise OutcomeUnknown from error


def _roll_back(connection: sa.Connection) -> None:
    if connection.invalidated:
        return  # the server rolls back what its client has left
    try:
        connection.exec_driver_sql("ROLLBACK")
    except sa.exc.DBAPIError:
        connection.invalidate()


def _sqlite_engine(url: sa.URL, pool_size: int, wait_s: float, io_timeout_s: float | None) -> sa.Engine:
    engine = sa.create_engine(
        url,
        poolclass=sa.pool.QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=wait_s,
        pool_reset_on_return=None,
        # isolation_level None: the driver opens no transaction by itself; ours begin where we say so.
        connect_args={"isolation_level": None, "timeout": io_timeout_s or 60.0, "check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def _prepare(dbapi_connection: Any, _: Any) -> None:
        # Text that is not UTF-8 is its own row's loss: the driver would fail the statement.
        dbapi_connection.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    return engine


def _mysql_engine(
    url: sa.URL, pool_size: int, connect_timeout_s: float, io_timeout_s: float | None, wait_s: float
) -> sa.Engine:
    arguments: dict[str, Any] = {
        "connect_timeout": connect_timeout_s,
        "charset": "utf8mb4",
        "ssl_disabled": True,
        "init_command": "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "sql_mode": SQL_MODE,
    }
    if io_timeout_s is not None:
        arguments |= {"read_timeout": io_timeout_s, "write_timeout": io_timeout_s}
    engine = sa.create_engine(
        url,
        poolclass=sa.pool.QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=wait_s,
        pool_recycle=1800,
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        connect_args=arguments,
    )
    if io_timeout_s is not None:
        _limit_statements(engine, io_timeout_s)
    _look_before_use(engine)
    return engine


def _limit_statements(engine: sa.Engine, seconds: float) -> None:
    """The server itself ends a statement that takes too long, a little before the client would give it up and lose the
    connection."""

    @sa.event.listens_for(engine, "connect")
    def _limit(dbapi_connection: Any, _: Any) -> None:
        if "MariaDB" in dbapi_connection.get_server_info():
            with dbapi_connection.cursor() as cursor:
                cursor.execute("SET SESSION max_statement_time = %s", (seconds * 0.9,))


def _look_before_use(engine: sa.Engine) -> None:
    """A connection that lay idle is asked whether it still stands, so that a server's restart costs no request.

    A server that does not answer is an error at once: with a fresh connection it would only hang again. And one slow
    query must not throw away the whole pool, as SQLAlchemy does for any lost connection.
    """

    @sa.event.listens_for(engine, "checkin")
    def _used(_: Any, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def _look(dbapi_connection: Any, record: Any, _: Any) -> None:
        if time.monotonic() - record.info.get("used_at", time.monotonic()) < IDLE_S:
            return
        try:
            dbapi_connection.ping(reconnect=False)
        except pymysql.err.Error as error:
            if timed_out(error):
                raise sa.exc.OperationalError("PING", None, error) from error
            raise sa.exc.DisconnectionError("the idle connection was lost") from error

    @sa.event.listens_for(engine, "handle_error")
    def _judge(context: Any) -> None:
        if is_unfit(context.original_exception):
            context.is_disconnect = True
        elif context.is_disconnect and timed_out(context.original_exception):
            context.invalidate_pool_on_disconnect = False


class OwnDatabase(Database):
    """A program's own database, reached without a gate: what goes wrong between us and it is `Unavailable`, so that
    whoever brought the work (a message, a period) brings it again. Conflicts with other transactions `run` repeats at
    once.
    """

    def run(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with _or_unavailable():
            return repeated(super().transaction, work, *args, **kwargs)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        with _or_unavailable(), super().transaction() as connection:
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        with _or_unavailable(), self._connected() as connection:
            yield connection


@contextlib.contextmanager
def _or_unavailable() -> Iterator[None]:
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, OutcomeUnknown) as error:
        raise core.errors.Unavailable(
            f"the database does not answer: {getattr(error, 'orig', None) or error!r}"
        ) from error


def probe(connection: sa.Connection) -> None:
    """Asks whether the database serves: of a table, for a node that is not part of its cluster's majority answers
    `SELECT 1`."""
    try:
        connection.execute(sa.text(PROBE))
    except sa.exc.DBAPIError as error:
        if not is_missing_table(error):
            raise
