"""Text that is not ASCII, where a column has ASCII only: no row has it, none can be given it, and no question fails of
it."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import api_db.tables
import cell_db.tables
from database.compiled_statements import CompiledStatement
from database.engine import Database
from database.types import Ascii, NotAscii
from devstack.services import mariadb

BEYOND = ("ß", "é" * 300, "😀", "ａ", "a\u0301", "web-\x80")
COLUMNS = [
    column
    for metadata in (api_db.tables.metadata, cell_db.tables.metadata)
    for table in metadata.sorted_tables
    for column in table.columns
    if isinstance(column.type, Ascii)
]
ENOUGH = 20
"""Times after which a frequent statement is text of its own."""


def kept(column: sa.Column[Any]) -> sa.Column[Any]:
    """The same column in a table that has no other."""
    return sa.Table(column.table.name, sa.MetaData(), sa.Column(column.name, column.type)).c[column.name]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('ascii')}/ascii.sqlite"
    else:
        server: mariadb.MariaDB = request.getfixturevalue("mariadb_server")
        url = server.create_schema("ascii")
    database = Database(url)
    yield database
    database.close()


@pytest.fixture(params=COLUMNS, ids=str)
def column(request: pytest.FixtureRequest, database: Database) -> Iterator[sa.Column[Any]]:
    column = kept(request.param)
    with database.transaction() as connection:
        column.table.create(connection)
        connection.execute(sa.insert(column.table), [{column.name: "a"}, {column.name: "z"}])
    yield column
    with database.transaction() as connection:
        column.table.drop(connection)


def test_there_are_columns_of_both_databases() -> None:
    assert {str(column) for column in COLUMNS} > {
        "server_groups.uuid",
        "instances.uuid",
        "instances.image_ref",
        "instance_actions.request_id",
    }


def test_it_is_asked_for_and_found_nowhere(database: Database, column: sa.Column[Any]) -> None:
    wanted = sa.bindparam("wanted")
    frequent = CompiledStatement(sa.select(column).where(column == wanted))
    with database.reading() as connection:
        for text in BEYOND:
            for condition in (column == text, column.in_([text]), column.in_([text, "a"]) & (column == text)):
                assert connection.execute(sa.select(column).where(condition)).all() == []
            for condition in (
                column != text,
                column.not_in([text]),
                column.is_distinct_from(text),
                column >= text,
                column.not_in([text, "b"]),
            ):
                assert connection.execute(sa.select(column).where(condition).order_by(column)).scalars().all() == [
                    "a",
                    "z",
                ]
            assert connection.execute(sa.select(column).where(column == wanted), {"wanted": text}).all() == []
            assert connection.execute(
                sa.select(column).where(column.in_(sa.bindparam("some", expanding=True))), {"some": [text, "z"]}
            ).all() == [("z",)]
            for _ in range(ENOUGH):
                assert list(frequent.rows(connection, {"wanted": text})) == []


def test_it_is_not_written(database: Database, column: sa.Column[Any]) -> None:
    for text in BEYOND:
        for write in (
            sa.insert(column.table).values({column.name: text}),
            sa.update(column.table).values({column.name: text}),
        ):
            with pytest.raises(NotAscii), database.transaction() as connection:
                connection.execute(write)
        with pytest.raises(NotAscii), database.transaction() as connection:
            connection.execute(sa.insert(column.table), [{column.name: "b"}, {column.name: text}])
    with database.reading() as connection:
        assert connection.execute(sa.select(column).order_by(column)).scalars().all() == ["a", "z"]


def test_what_is_asked_for_may_be_nothing(database: Database, column: sa.Column[Any]) -> None:
    with database.reading() as connection:
        assert connection.execute(sa.select(column).where(column.is_(None))).all() == []
        assert connection.execute(sa.select(column).where(column == None)).all() == []  # noqa: E711
        assert connection.execute(sa.select(column).where(column == "a")).all() == [("a",)]
