"""Engines and transactions for MariaDB (or anything MySQL-compatible) and SQLite.

Facts that shaped this (measured): PyMySQL's connect, read and write each need a time-out; SQLite's driver must not open transactions by
itself, writes begin with BEGIN IMMEDIATE; leases are compared with the database's own clock. What Galera asks for is in
`docs/decisions/0020`: a lock is a write, a conflict may be told as late as at COMMIT, an unfit node answers some statements.
"""

import contextlib
import datetime
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
import pymysql
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

import core.database_url
import core.errors
from core.clock import jittered
from core.wire import Wire

P = ParamSpec("P")
T = TypeVar("T")

DEADLOCK_CODES = {1205, 1213}  # MariaDB: lock wait timeout; deadlock, and on Galera a conflict with another node's transaction
DUPLICATE_CODES = {1062}
NO_SUCH_TABLE = 1146
# A node that is in no position to serve: not part of its cluster's majority (Galera's 1047; 1180 while it commits), or read-only.
NOT_READY, ERROR_DURING_COMMIT, READ_ONLY_OPTION, READ_ONLY_MODE = 1047, 1180, 1290, 1836
# The server undid the transaction before it said so. Whatever else is said at COMMIT leaves open whether other nodes have it.
UNDONE_AT_COMMIT = DEADLOCK_CODES | {READ_ONLY_OPTION, READ_ONLY_MODE}
# What is too long or out of range is refused, and not cut, whatever the server's own setting is.
SQL_MODE = "TRADITIONAL"
PROBE = "SELECT version_num FROM alembic_version"
"""What a database is asked to know whether it serves."""
CONFLICT_TRIES = 60
CONFLICT_PAUSE_S = 0.01
# A conflict is over in milliseconds. Who has waited for locks for longer than this is told, and not begun again.
CONFLICT_LIMIT_S = 10.0
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
    """Text for uuids, states and other words of ours: compares as `Str` does, and one byte a character keeps indexes small.

    Text that is not ASCII is refused where it is written. Where it is compared with a column it equals no row's: MariaDB would refuse
    the whole statement (error 1267, illegal mix of collations).
    """

    cache_ok = True

    class Comparator(sa.types.UserDefinedType.Comparator[str]):
        """Gives parameters that are compared the type of a value that is asked for."""

        def operate(self, op: Any, *other: Any, **more: Any) -> Any:
            return super().operate(op, *map(self._asked_for, other), **more)

        def _asked_for(self, other: Any) -> Any:
            if isinstance(other, sa.BindParameter) and isinstance(other.type, sa.types.NullType):
                kind = self.type.coerce_compared_value(None, other)
                return sa.bindparam(other.key, required=other.required, expanding=other.expanding, type_=kind)
            return other

    comparator_factory = Comparator

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return _Asked(self.length)

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], Any]:
        return _written


class _Asked(Ascii):
    """A value that an `Ascii` column is compared with."""

    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], Any]:
        return _asked


class NotAscii(core.errors.Invalid, sa.exc.DontWrapMixin):
    """A value cannot be kept, for its column has ASCII only."""


def _written(value: Any) -> Any:
    if isinstance(value, str) and not value.isascii():
        raise NotAscii(f"A value cannot be kept as it was given: {value[:64]!r} has characters beyond ASCII.")
    return value


def _asked(value: Any) -> Any:
    return _NOBODYS if isinstance(value, str) and not value.isascii() else value


_NOBODYS = "\x1a"
"""ASCII's sign for a character that cannot be shown: no id, state or address has it."""


@compiles(Ascii, "mysql", "mariadb")
def _ascii_mysql(kind: Ascii, compiler: Any, **_: Any) -> str:
    collation = "ascii_nopad_bin" if compiler.dialect.is_mariadb else "ascii_bin"
    return f"VARCHAR({kind.length}) CHARACTER SET ascii COLLATE {collation}"


Timestamp = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


UNREADABLE = (msgspec.MsgspecError, TypeError, ValueError, RecursionError)
"""What a document raises that is none, or not of the shape that was asked for: whoever reads rows one by one catches all of these."""


class Json(sa.types.TypeDecorator[Any]):
    """A JSON document kept as text; None is NULL. Reading one that is none raises `Unreadable`."""

    impl = LongText
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        try:
            return None if value is None else msgspec.json.decode(value)
        except UNREADABLE as error:
            raise core.errors.Unreadable(f"A record in the database cannot be read: {error}") from error


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


def is_over(moment: sa.Column[datetime.datetime]) -> sa.ColumnElement[bool]:
    """Whether a lease or a deadline of a row is over; one that the row does not have is, too, so that every row has somebody who looks for it."""
    return sa.or_(moment.is_(None), moment <= now_sql())


class OutcomeUnknown(Exception):
    """The answer to a COMMIT was lost, or said too little: the transaction may have taken effect. `__cause__` says how."""


class Database:
    """One database: a bounded pool of connections and two kinds of transaction.

    Connections are in autocommit mode, so that a read is one round trip; a transaction says BEGIN and COMMIT itself and so knows when
    its outcome is uncertain.

    Args:
        url: as `core.database_url` takes it.
        pool_size: connections at most; none is opened before it is needed.
        connect_timeout_s: seconds to connect.
        io_timeout_s: seconds that one packet may take to be read or written, and that a statement may run; None waits for ever
            (migrations).
        wait_s: seconds to wait for a connection of the pool.
        delay_s, on_delay: `on_delay` is called, in the thread that waits, when a server has said nothing for so many seconds after it was
            asked something; what it raises (a `pymysql.err.Error`) ends the waiting, and the connection. Not with SQLite.

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
        self.url = core.database_url.parse(url)
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
            # SQLite: its default would take the write lock at the first write only, and lose to whoever wrote since our read.
            connection.exec_driver_sql("BEGIN IMMEDIATE" if self.is_sqlite else "BEGIN")
            try:
                yield connection
            except BaseException:
                _roll_back(connection)
                raise
            _commit(connection)

    def run(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(connection, …)` in one transaction, again from the start as long as conflicts with other transactions undo it.

        A conflict is ordinary where several nodes take writes, and may be told at COMMIT only; nothing was written then. `work` does
        nothing but read and write through its connection.

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
        wire = Wire(**arguments, connect_timeout=within_s, read_timeout=within_s, write_timeout=within_s, ssl_disabled=True)
        with contextlib.closing(wire), contextlib.suppress(pymysql.err.ProgrammingError):  # Without the table it answers as well.
            wire.query(PROBE)
            wire.never_wait()

    def connecting_for_s(self) -> float:
        """For how long the oldest connection has been in the making; 0: none is. A resolver of names that is silent has no time-out of ours."""
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

    def around(self, delay_s: float, on_delay: Callable[[], None] | None) -> Callable[..., Wire]:
        """What opens them for an engine."""

        def connect(_dialect: Any, _record: Any, args: Any, kwargs: Any) -> Wire:
            thread = threading.get_ident()
            self._since[thread] = time.monotonic()
            try:
                wire = Wire(*args, **kwargs)
            finally:
                del self._since[thread]
            if on_delay is not None:
                wire.call_on_delay(delay_s, on_delay)
            return wire

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
                raise sa.exc.OperationalError("PING", None, error) from error
            raise sa.exc.DisconnectionError("the idle connection was lost") from error

    @sa.event.listens_for(engine, "handle_error")
    def _judge(context: Any) -> None:
        if is_unfit(context.original_exception):
            context.is_disconnect = True
        elif context.is_disconnect and timed_out(context.original_exception):
            context.invalidate_pool_on_disconnect = False


def is_unfit(error: BaseException | None) -> bool:
    """Whether the driver's error says that this server is in no position to serve now, whatever it is asked: another one may be."""
    number, text = (*getattr(error, "args", ()), None, None)[:2]
    return number in (NOT_READY, ERROR_DURING_COMMIT, READ_ONLY_MODE) or (number == READ_ONLY_OPTION and "read-only" in str(text))


def timed_out(error: BaseException | str) -> bool:
    """Whether the driver gave up waiting for a server that neither answers nor refuses; an error or its text."""
    return "timed out" in str(error)


class OwnDatabase(Database):
    """A program's own database, reached without a gate: what goes wrong between us and it is `Unavailable`, so that whoever brought the
    work (a message, a period) brings it again. Conflicts with other transactions `run` repeats at once.
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
        raise core.errors.Unavailable(f"the database does not answer: {getattr(error, 'orig', None) or error!r}") from error


def is_duplicate(error: sa.exc.IntegrityError) -> bool:
    """Whether a unique key refused the row (and not a foreign key or a missing value)."""
    number = number_of(error)
    return number in DUPLICATE_CODES or "UNIQUE constraint failed" in str(number)


def is_transient(error: sa.exc.DBAPIError) -> bool:
    """Whether the transaction was undone by a conflict with another one or a lock wait, and may simply be tried again."""
    number = number_of(error)
    return number in DEADLOCK_CODES or "database is locked" in str(number)


def number_of(error: sa.exc.DBAPIError) -> Any:
    """The server's number of an error; of SQLite, which has none, its text."""
    return error.orig.args[0] if error.orig and error.orig.args else None


def unkept(error: sa.exc.DataError) -> core.errors.Invalid:
    """What to say to a user whose value is too long or out of range for its column: a limit that the API failed to name."""
    text = (*error.orig.args, "")[1] if error.orig and len(error.orig.args) > 1 else str(error.orig)
    return core.errors.Invalid(f"A value cannot be kept as it was given: {text}")


def probe(connection: sa.Connection) -> None:
    """Asks whether the database serves: of a table, for a node that is not part of its cluster's majority answers `SELECT 1`."""
    try:
        connection.execute(sa.text(PROBE))
    except sa.exc.DBAPIError as error:
        if not is_missing_table(error):
            raise


def is_missing_table(error: sa.exc.DBAPIError) -> bool:
    """Whether the statement named a table that is not there."""
    number = number_of(error)
    return number == NO_SUCH_TABLE or "no such table" in str(number)


# ---- what many modules write alike ---------------------------------------------------------------------------------------------


def lock(connection: sa.Connection, table: sa.Table, *which: sa.ColumnElement[bool]) -> bool:
    """Lets no other transaction lock these rows until this one ends, on whatever node it runs. Gives whether there are any.

    Galera's nodes tell each other what was written and nothing else: neither `SELECT … FOR UPDATE` nor an UPDATE that changes nothing is
    seen by them. So a lock is a write of a changing value; of two that took it on different nodes one is told of a conflict and begins
    again. Call it before anything that the lock protects is read.
    """
    return changed(connection.execute(sa.update(table).where(*which).values(lock_count=table.c.lock_count + 1)))


def insert_if_absent(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], **computed: sa.ColumnElement[Any]) -> None:
    """Inserts the rows whose unique key is not taken yet; the others stay as they are. `computed`: columns that the database reckons.

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


def insert_one(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any], **computed: sa.ColumnElement[Any]) -> bool:
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
