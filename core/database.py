"""Engines and transactions for MariaDB (or anything MySQL-compatible) and SQLite.

Facts that shaped this (measured, DESIGN sections 5 and 7): PyMySQL's connect, read and write each need a time-out; SQLite's driver
must not open transactions by itself, writes begin with BEGIN IMMEDIATE; leases are compared with the database's own clock.
"""

import contextlib
import datetime
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

import core.errors

DEADLOCK_CODES = {1205, 1213}  # MariaDB: lock wait timeout, deadlock
DUPLICATE_CODES = {1062}


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


def Ascii(length: int) -> sa.types.TypeEngine[str]:
    """Text for uuids, states and other words of ours: one byte a character keeps indexes small."""
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")


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


class Database:
    """One database: a bounded pool of connections and two kinds of transaction.

    Args:
        url: SQLAlchemy URL; `mysql://` is taken as `mysql+pymysql://`.
        pool_size: connections at most; none is opened before it is needed.
        connect_timeout_s: seconds to connect, in whole seconds for PyMySQL.
        io_timeout_s: seconds that one packet may take to be read or written; None waits for ever (migrations).
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
        """A connection inside a write transaction, committed at the end, rolled back on any exception."""
        with self.engine.begin() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection for reads; on MariaDB each statement is a transaction of its own."""
        if self.is_sqlite:
            with self.engine.connect() as connection:
                yield connection
        else:
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                yield connection

    def close(self) -> None:
        """Drops the pool's idle connections."""
        self.engine.dispose()


def _sqlite_engine(url: sa.URL, pool_size: int, wait_s: float, io_timeout_s: float | None) -> sa.Engine:
    engine = sa.create_engine(
        url,
        poolclass=sa.pool.QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=wait_s,
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
    arguments: dict[str, Any] = {"connect_timeout": max(1, round(connect_timeout_s)), "charset": "utf8mb4", "ssl_disabled": True}
    if io_timeout_s is not None:
        arguments |= {"read_timeout": io_timeout_s, "write_timeout": io_timeout_s}
    return sa.create_engine(
        url,
        poolclass=sa.pool.QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=wait_s,
        pool_recycle=1800,
        isolation_level="READ COMMITTED",
        connect_args=arguments,
    )


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


def unavailable(error: Exception, what: str) -> core.errors.Unavailable:
    """The error of a database that did not answer, without its address or password."""
    return core.errors.Unavailable(f"{what} did not answer: {type(error).__name__}")
