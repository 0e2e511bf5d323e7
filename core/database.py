"""Engines and transactions for MariaDB (or anything MySQL-compatible) and SQLite.

Facts that shaped this (measured, DESIGN sections 5 and 7): PyMySQL's connect, read and write each need a time-out; SQLite's driver
must not open transactions by itself, writes begin with BEGIN IMMEDIATE; leases are compared with the database's own clock.
"""

import contextlib
import datetime
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pymysql
import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

import core.errors
from core.wire import Wire

DEADLOCK_CODES = {1205, 1213}  # MariaDB: lock wait timeout, deadlock
DUPLICATE_CODES = {1062}
IDLE_S = 0.5


class Str(sa.types.UserDefinedType[str]):
    """Text of at most `length` characters that compares and sorts byte by byte, trailing spaces included, on every database.

    Python compares str by code point and UTF-8 keeps that order, so a merge of several cells sorts exactly as each database does.
    """

    cache_ok = True

    def __init__(self, length: int) -> None:
        self.length = length

    def get_col_spec(self, **_: Any) -> str:
        return f"VARCHAR({self.length})"


@compiles(Str, "mysql", "mariadb")
def _str_mysql(kind: Str, compiler: Any, **_: Any) -> str:
    collation = "utf8mb4_nopad_bin" if compiler.dialect.is_mariadb else "utf8mb4_0900_bin"
    return f"VARCHAR({kind.length}) CHARACTER SET utf8mb4 COLLATE {collation}"


class Ascii(Str):
    """Text for uuids, states and other words of ours: compares as `Str` does, and one byte a character keeps indexes small."""

    cache_ok = True


@compiles(Ascii, "mysql", "mariadb")
def _ascii_mysql(kind: Ascii, compiler: Any, **_: Any) -> str:
    collation = "ascii_nopad_bin" if compiler.dialect.is_mariadb else "ascii_bin"
    return f"VARCHAR({kind.length}) CHARACTER SET ascii COLLATE {collation}"


Timestamp = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


class Json(sa.types.TypeDecorator[Any]):
    """A JSON document kept as text; None is NULL."""

    impl = LongText
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else msgspec.json.decode(value)


class now_sql(FunctionElement[datetime.datetime]):
    """The database's own clock in UTC, plus some seconds: the only clock that leases are compared with."""

    type = sa.DateTime()
    inherit_cache = True
    name = "now_sql"

    def __init__(self, plus_s: float = 0.0) -> None:
        super().__init__(sa.bindparam(None, round(plus_s * 1_000_000), type_=sa.Integer(), unique=True))


@compiles(now_sql, "mysql", "mariadb")
def _now_mysql(element: now_sql, compiler: Any, **kw: Any) -> str:
    return f"(UTC_TIMESTAMP(6) + INTERVAL {compiler.process(element.clauses, **kw)} MICROSECOND)"


@compiles(now_sql, "sqlite")
def _now_sqlite(element: now_sql, compiler: Any, **kw: Any) -> str:
    # SQLite's clock has milliseconds; SQLAlchemy reads the digits after the point as microseconds, hence the zeros.
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', ({compiler.process(element.clauses, **kw)} / 1000000.0) || ' seconds')"


class OutcomeUnknown(Exception):
    """The answer to a COMMIT was lost: the transaction may have taken effect. `__cause__` says how."""


class Database:
    """One database: a bounded pool of connections and two kinds of transaction.

    Connections are in autocommit mode, so that a read is one round trip; a transaction says BEGIN and COMMIT itself and so knows when
    its outcome is uncertain.

    Args:
        url: SQLAlchemy URL; `mysql://` is taken as `mysql+pymysql://`.
        pool_size: connections at most; none is opened before it is needed.
        connect_timeout_s: seconds to connect.
        io_timeout_s: seconds that one packet may take to be read or written, and that a statement may run; None waits for ever
            (migrations).
        wait_s: seconds to wait for a connection of the pool.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 5,
        connect_timeout_s: float = 3.0,
        io_timeout_s: float | None = 30.0,
        wait_s: float = 10.0,
    ) -> None:
        self.url = sa.engine.make_url(re.sub(r"^(mysql|mariadb)://", "mysql+pymysql://", url))
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self.engine = _sqlite_engine(self.url, pool_size, wait_s, io_timeout_s)
        else:
            self.engine = _mysql_engine(self.url, pool_size, connect_timeout_s, io_timeout_s, wait_s)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A connection inside a write transaction, committed at the end, rolled back on any exception.

        Raises:
            OutcomeUnknown: the connection was lost while it committed.
            sqlalchemy.exc.DBAPIError: anything else; nothing was written.
        """
        with self.reading() as connection:
            # SQLite: its default would take the write lock at the first write only, and lose to whoever wrote since our read.
            connection.exec_driver_sql("BEGIN IMMEDIATE" if self.is_sqlite else "BEGIN")
            try:
                yield connection
            except BaseException:
                _roll_back(connection)
                raise
            _commit(connection)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection for reads; each statement is a transaction of its own."""
        try:
            connection = self.engine.connect()
        except pymysql.err.Error as error:  # raised while a connection is prepared, outside SQLAlchemy's own wrapping
            raise sa.exc.OperationalError("", None, error) from error
        with connection:
            yield connection

    def wire(self) -> Wire:
        """A connection apart from the pool, for an event loop to ask. SQLite has nothing of the kind.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, pymysql.err.Error: none can be opened.
        """
        lent = self.engine.raw_connection()
        wire = lent.dbapi_connection
        lent.detach()
        assert isinstance(wire, Wire)
        wire.never_wait()
        return wire

    def close(self) -> None:
        """Drops the pool's idle connections."""
        self.engine.dispose()


def _commit(connection: sa.Connection) -> None:
    try:
        connection.exec_driver_sql("COMMIT")
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated:
            raise OutcomeUnknown from error
        raise


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
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    return engine


def _mysql_engine(url: sa.URL, pool_size: int, connect_timeout_s: float, io_timeout_s: float | None, wait_s: float) -> sa.Engine:
    arguments: dict[str, Any] = {
        "connect_timeout": connect_timeout_s,
        "charset": "utf8mb4",
        "ssl_disabled": True,
        "init_command": "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
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
    sa.event.listen(engine, "do_connect", lambda _dialect, _record, args, kwargs: Wire(*args, **kwargs))
    if io_timeout_s is not None:
        _limit_statements(engine, io_timeout_s)
    _look_before_use(engine)
    return engine


def _limit_statements(engine: sa.Engine, seconds: float) -> None:
    """The server itself ends a statement that takes too long, a little before the client would give it up and lose the connection."""

    @sa.event.listens_for(engine, "connect")
    def _limit(dbapi_connection: Any, _: Any) -> None:
        if "MariaDB" in dbapi_connection.get_server_info():
            with dbapi_connection.cursor() as cursor:
                cursor.execute("SET SESSION max_statement_time = %s", (seconds * 0.9,))


def _look_before_use(engine: sa.Engine) -> None:
    """A connection that lay idle is asked whether it still stands, so that a server's restart costs no request.

    A server that does not answer is an error at once: with a fresh connection it would only hang again. And one slow query must not
    throw away the whole pool, as SQLAlchemy does for any lost connection.
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
                raise sa.exc.OperationalError("", None, error) from error
            raise sa.exc.DisconnectionError("the connection was lost while it lay idle") from error

    @sa.event.listens_for(engine, "handle_error")
    def _keep_pool(context: Any) -> None:
        if context.is_disconnect and timed_out(context.original_exception):
            context.invalidate_pool_on_disconnect = False


def timed_out(error: BaseException | str) -> bool:
    """Whether the driver gave up waiting for a server that neither answers nor refuses; an error or its text."""
    return "timed out" in str(error)


class OwnDatabase(Database):
    """A program's own database, reached without a gate: what goes wrong between us and it is `Unavailable`, so that whoever brought the
    work (a message, a period) brings it again. A deadlock too: nothing was written.
    """

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        with _or_unavailable(), super().transaction() as connection:
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        with _or_unavailable(), super().reading() as connection:
            yield connection


@contextlib.contextmanager
def _or_unavailable() -> Iterator[None]:
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, OutcomeUnknown) as error:
        raise core.errors.Unavailable(f"the database does not answer: {getattr(error, 'orig', None) or error!r}") from error


def is_duplicate(error: sa.exc.IntegrityError) -> bool:
    """Whether a unique key refused the row (and not a foreign key or a missing value)."""
    args: Sequence[Any] = getattr(error.orig, "args", ())
    return bool(args) and (args[0] in DUPLICATE_CODES or "UNIQUE constraint failed" in str(args[0]))


def is_transient(error: sa.exc.DBAPIError) -> bool:
    """Whether the transaction was undone by a deadlock or a lock wait and may simply be tried again."""
    args: Sequence[Any] = getattr(error.orig, "args", ())
    return bool(args) and (args[0] in DEADLOCK_CODES or "database is locked" in str(args[0]))


def insert_if_absent(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> int:
    """Inserts the rows whose unique key is not taken yet; the others stay as they are. Gives the number inserted."""
    if not rows:
        return 0
    prefix = "OR IGNORE" if connection.dialect.name == "sqlite" else "IGNORE"
    statement = sa.insert(table).prefix_with(prefix)
    return connection.execute(statement, rows).rowcount


def changed(result: sa.CursorResult[Any]) -> bool:
    """Whether a compare-and-set took effect on exactly one row or more."""
    return result.rowcount > 0
