"""Statements that are asked many times over: compiled once, then given to the driver itself.

Of a short query by way of SQLAlchemy half of this process's time is SQLAlchemy's (54 us of 101 for three rows, 70 of
143 where the statement is long; measured with SQLAlchemy 2.1, PyMySQL 1.2). A page over 80 cells pays that 80 times.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from database.async_connection import AsyncConnection

_ENOUGH = 8
"""Compiling costs as much as so many executions: a statement that is asked less often is left to SQLAlchemy."""


class CompiledStatement:
    """A statement whose answers need no conversion: its columns are text, numbers and times as the driver itself reads
    them.

    Built once and shared by all threads, like the statement.
    """

    def __init__(self, statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> None:
        self._statement = statement
        self._asked = 0
        self._is_compiled = False
        self._text: _Text | None = None

    def rows(self, connection: sa.Connection, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """All rows.

        Raises:
            sqlalchemy.exc.DBAPIError: as from `connection.execute`.
        """
        # The SQLite driver needs SQLAlchemy's conversions of times.
        if connection.dialect.driver == "pymysql":
            if self._text is not None:
                return self._text.rows(connection, parameters)
            self._asked += 1  # Two threads may count as one, and both may compile: it does no harm.
            if self._asked >= _ENOUGH and not self._is_compiled:
                self._text, self._is_compiled = _text(self._statement, connection.dialect), True
        return connection.execute(self._statement, parameters).all()

    def text(self, async_connection: AsyncConnection, parameters: Mapping[str, Any]) -> str | None:
        """The statement with its values, for a wire; None: it was not compiled, or not yet."""
        if self._text is None:
            return None
        return self._text.with_values(async_connection, parameters)


class _Text:
    """A statement as the driver takes it, and the values by name that always go with it."""

    def __init__(self, text: str, constants: Mapping[str, Any], converters: Mapping[str, Any]) -> None:
        self._text = text
        self._constants = constants
        self._converters = converters

    def rows(self, connection: sa.Connection, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        cursor = connection.connection.cursor()
        try:
            cursor.execute(self._text, self._values(parameters))
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
        except connection.dialect.loaded_dbapi.Error as error:
            raise _by_sqlalchemy(error, connection, cursor, self._text) from error
        return rows

    def with_values(self, async_connection: AsyncConnection, parameters: Mapping[str, Any]) -> str:
        with async_connection.cursor() as cursor:
            text: str = cursor.mogrify(self._text, self._values(parameters))
            return text

    def _values(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        values = {**self._constants, **parameters}
        for name, convert in self._converters.items():
            values[name] = convert(values[name])
        return values


def _text(statement: sa.Select[Any] | sa.CompoundSelect[Any], dialect: sa.Dialect) -> _Text | None:
    """None: its text is another one with each execution, as that of `IN` with a list is."""
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, sa.sql.compiler.SQLCompiler)
    if any(bind.expanding or bind.literal_execute for bind in compiled.bind_names):
        return None
    converters = {
        name: bind.type.dialect_impl(dialect).bind_processor(dialect) for bind, name in compiled.bind_names.items()
    }
    return _Text(
        str(compiled),
        {name: bind.effective_value for bind, name in compiled.bind_names.items() if not bind.required},
        {name: convert for name, convert in converters.items() if convert is not None},
    )


def _by_sqlalchemy(error: Exception, connection: sa.Connection, cursor: Any, text: str) -> sa.exc.DBAPIError:
    """The driver's error as SQLAlchemy would raise it; a connection that is lost does not go back to the pool."""
    dialect = connection.dialect
    is_lost = dialect.is_disconnect(error, connection.connection, cursor)  # type: ignore[arg-type]
    if is_lost:
        connection.invalidate(error)
    wrapped = sa.exc.DBAPIError.instance(
        text, None, error, dialect.loaded_dbapi.Error, connection_invalidated=is_lost, dialect=dialect
    )
    assert isinstance(wrapped, sa.exc.DBAPIError)
    return wrapped
