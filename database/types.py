"""Types of columns, alike on MariaDB (or anything MySQL-compatible) and SQLite, and the database's own clock."""

import datetime
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

import core.errors

T = TypeVar("T")


class Str(sa.types.UserDefinedType[str]):
    """Text of at most `length` characters that compares and sorts byte by byte, trailing spaces included, on every
    database.

    Python compares str by code point and UTF-8 keeps that order, so a merge of several cells sorts exactly as each
    database does.
    """

    cache_ok = True

    def __init__(self, length: int) -> None:
        self.length = length

    def get_col_spec(self, **_: Any) -> str:
        return f"VARCHAR({self.length})"

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], Any] | None:
        return _as_text if dialect.name == "sqlite" else None


def _as_text(value: Any) -> str | None:
    """SQLite keeps values of any kind in any column."""
    if value is None or isinstance(value, str):
        return value
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


@compiles(Str, "mysql", "mariadb")
def _str_mysql(kind: Str, compiler: Any, **_: Any) -> str:
    collation = "utf8mb4_nopad_bin" if compiler.dialect.is_mariadb else "utf8mb4_0900_bin"
    return f"VARCHAR({kind.length}) CHARACTER SET utf8mb4 COLLATE {collation}"


class Ascii(Str):
    """Text for uuids, states and other words of ours: compares as `Str` does, and one byte a character keeps indexes
    small.

    Text that is not ASCII is refused where it is written. Where it is compared with a column it equals no row's:
    MariaDB would refuse the whole statement (error 1267, illegal mix of collations).
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


class Enumeration(sa.types.TypeDecorator[str]):
    """One of these words. A row that was damaged may hold another: it is read as it is, for whoever reads one row of
    many must not fail the others."""

    impl = sa.Enum
    cache_ok = True

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], Any] | None:
        return _as_text if dialect.name == "sqlite" else None


class _Moment(sa.DateTime):
    """As `sa.DateTime`; what is no moment (SQLite keeps anything, MariaDB a zero date) is read as None, for whoever
    reads one row of many must not fail the others."""

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], Any] | None:
        read = super().result_processor(dialect, coltype) or (lambda value: value)

        def read_moment(value: Any) -> datetime.datetime | None:
            try:
                moment = read(value)
            except (TypeError, ValueError):
                return None
            return moment if isinstance(moment, datetime.datetime) and moment.tzinfo is None else None

        return read_moment


class _SqliteMoment(_Moment, sqlite.DATETIME):
    pass


class _MysqlMoment(_Moment, mysql.DATETIME):
    pass


Timestamp = (
    sa.DateTime().with_variant(_MysqlMoment(fsp=6), "mysql", "mariadb").with_variant(_SqliteMoment(), "sqlite")  # type: ignore[no-untyped-call]
)
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
UNREADABLE = (msgspec.MsgspecError, TypeError, ValueError, RecursionError)
"""What a document raises that is none, or not of the shape that was asked for: whoever reads rows one by one catches
all of these."""


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


def as_text(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """A JSON column as the text that it is. Decoded by the column's own type, one bad document fails the whole
    result."""
    return sa.type_coerce(column, sa.Text()).label(column.name)


def document(text: str | None, kind: type[T]) -> T | None:
    """The document in such a column; None, too, if it cannot be read."""
    try:
        return None if text is None else msgspec.json.decode(text, type=kind)
    except UNREADABLE:
        return None


Moment = Annotated[datetime.datetime, msgspec.Meta(tz=False)]
"""A moment as JSON has it that a database made of a row; without this a number would be read as one, and could be
compared with none of ours."""


class readable(FunctionElement[Any]):
    """A column's value for `json_array`; of what SQLite alone keeps there, and JSON cannot hold, something that no such
    column has."""

    inherit_cache = True
    name = "readable"

    def __init__(self, column: sa.ColumnElement[Any]) -> None:
        self.type = column.type
        super().__init__(column)


@compiles(readable)
def _readable(element: readable, compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.clauses.clauses[0], **kw))


@compiles(readable, "sqlite")
def _readable_sqlite(element: readable, compiler: Any, **kw: Any) -> str:
    column = compiler.process(element.clauses.clauses[0], **kw)
    other = "0" if isinstance(element.type, Str | sa.Text | Json | Enumeration) else "'?'"
    return f"CASE WHEN typeof({column}) IN ('blob', 'real') THEN {other} ELSE {column} END"


class is_kept_well(FunctionElement[bool]):
    """Whether a value is an int, a str or a datetime, as its column's are (or NULL), so that rows can be sorted by it;
    of others MariaDB keeps zero dates, and binary text in ASCII columns."""

    type = sa.Boolean()
    inherit_cache = True
    name = "is_kept_well"

    def __init__(self, value: sa.ColumnElement[Any], kind: str) -> None:
        super().__init__(value, sa.literal_column(kind))


@compiles(is_kept_well)
def _is_kept_well(element: is_kept_well, compiler: Any, **kw: Any) -> str:
    clause, kind = element.clauses.clauses
    value = compiler.process(clause, **kw)
    if isinstance(clause.type, Ascii):
        return f"({value} IS NULL OR HEX({value}) = HEX(CONVERT({value} USING utf8mb4)))"
    if str(kind) != "datetime":
        return "1 = 1"
    return f"({value} IS NULL OR MONTH({value}) > 0 AND DAYOFMONTH({value}) > 0)"


@compiles(is_kept_well, "sqlite")
def _is_kept_well_sqlite(element: is_kept_well, compiler: Any, **kw: Any) -> str:
    clause, kind = element.clauses.clauses
    value = compiler.process(clause, **kw)
    return f"({value} IS NULL OR {_SQLITE_CHECKS[str(kind)].format(value=value)})"


_SQLITE_CHECKS = {
    "int": "typeof({value}) = 'integer'",
    "str": "typeof({value}) = 'text'",
    "datetime": "(typeof({value}) = 'text'"
    " AND strftime('%Y-%m-%d %H:%M:%S', substr({value}, 1, 19)) = substr({value}, 1, 19)"
    " AND (length({value}) = 19 OR substr({value}, 20) GLOB '.[0-9][0-9][0-9][0-9][0-9][0-9]'))",
}


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
    micros = compiler.process(element.clauses, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', ({micros} / 1000000.0) || ' seconds')"


def is_over(moment: sa.Column[datetime.datetime]) -> sa.ColumnElement[bool]:
    """Whether a lease or a deadline of a row is over; one that the row does not have is, too, so that every row has
    somebody who looks for it."""
    return sa.or_(moment.is_(None), moment <= now_sql())
