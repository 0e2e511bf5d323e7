"""A wire gives what a cursor gives, in whatever pieces it arrives, and waits for nothing; a frequent statement gives
what SQLAlchemy gives."""

import select
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa

from database.async_connection import AsyncConnection, Rows, _Answer
from database.compiled_statements import CompiledStatement
from database.engine import Database
from devstack.services import mariadb
from tests.mariadb_server import running_mariadb

pytestmark = pytest.mark.mariadb

DEADLINE_S = 10.0
OFTEN = 20
LONG = "x" * 70_000
QUESTIONS = (
    "SELECT 1",
    "SELECT 1 FROM dual WHERE 1 = 0",
    "SELECT NULL, '', 'Zoë', 1.5, NOW(6) - NOW(6)",
    "SELECT '' UNION ALL SELECT '' UNION ALL SELECT NULL",
    "SELECT REPEAT('y', 250) UNION ALL SELECT REPEAT('y', 251) UNION ALL SELECT REPEAT('y', 65536)",
    f"SELECT '{LONG}', 1 UNION ALL SELECT '{LONG}', 2",
    "SELECT seq, REPEAT('z', MOD(seq, 300)) FROM seq_1_to_2000",
)
"""Texts of which the length takes one byte, three and nine, and answers longer than what a socket gives at once."""

things = sa.table(
    "things", sa.column("name", sa.String), sa.column("number", sa.Integer), sa.column("is_old", sa.Boolean)
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mariadb.MariaDB]:
    with running_mariadb(tmp_path_factory.mktemp("wired")) as server:
        yield server


@pytest.fixture
def database(server: mariadb.MariaDB) -> Iterator[Database]:
    database = Database(server.create_schema("wired"), pool_size=2, io_timeout_s=5.0)
    with database.transaction() as connection:
        connection.exec_driver_sql("CREATE OR REPLACE TABLE things (name VARCHAR(20), number INT, is_old BOOL)")
        rows = [("50%", 1, True), ("it's", 2, False), ("Zoë", 3, False)]
        connection.execute(
            sa.insert(things), [{"name": name, "number": number, "is_old": is_old} for name, number, is_old in rows]
        )
    yield database
    database.close()


@pytest.fixture
def async_connection(database: Database) -> Iterator[AsyncConnection]:
    async_connection = database.async_connection()
    yield async_connection
    async_connection.close()


def answer(async_connection: AsyncConnection) -> Rows:
    while True:
        assert select.select([async_connection], [], [], DEADLINE_S)[0], "no answer"
        rows = async_connection.read()
        if rows is not None:
            return rows


def _by_cursor(database: Database, text: str) -> list[tuple[Any, ...]]:
    with database.reading() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(text)]


def test_a_wire_gives_what_a_cursor_gives(database: Database, async_connection: AsyncConnection) -> None:
    for question in QUESTIONS:
        async_connection.ask(question)
        assert list(answer(async_connection)) == _by_cursor(database, question)


@pytest.mark.parametrize("question", [*QUESTIONS[:4], "SELECT nonsense", "SELECT 1 FROM nowhere"])
def test_an_answer_is_whole_with_its_last_byte_and_not_before(async_connection: AsyncConnection, question: str) -> None:
    async_connection.ask(question)
    assert select.select([async_connection], [], [], DEADLINE_S)[0]
    data = async_connection._arrived()

    growing = _Answer()
    assert [growing.add(data[at : at + 1]) for at in range(len(data))] == [False] * (len(data) - 1) + [True]


def test_an_error_of_the_server_leaves_the_wire_as_it_was(async_connection: AsyncConnection) -> None:
    async_connection.ask("SELECT nonsense")
    with pytest.raises(pymysql.err.OperationalError, match="nonsense"):
        answer(async_connection)

    async_connection.ask("SELECT 2")
    assert list(answer(async_connection)) == [(2,)]


def test_reading_waits_for_nothing(server: mariadb.MariaDB, async_connection: AsyncConnection) -> None:
    server.freeze()
    try:
        async_connection.ask("SELECT 1")
        assert async_connection.read() is None
    finally:
        server.thaw()
    assert list(answer(async_connection)) == [(1,)]


def test_a_lost_wire_says_so(database: Database, async_connection: AsyncConnection) -> None:
    with database.reading() as connection:
        connection.exec_driver_sql(f"KILL {async_connection.thread_id()}")

    assert select.select([async_connection], [], [], DEADLINE_S)[0]
    with pytest.raises(pymysql.err.OperationalError):
        async_connection.read()
    assert not async_connection.open


def test_a_statement_asked_often_gives_the_same_as_before(
    database: Database, async_connection: AsyncConnection
) -> None:
    by_name = CompiledStatement(
        sa.select(things.c.number).where(
            things.c.name == sa.bindparam("name"), things.c.is_old == sa.bindparam("is_old", type_=sa.Boolean)
        )
    )
    wanted = [
        ({"name": "50%", "is_old": True}, [(1,)]),
        ({"name": "it's", "is_old": False}, [(2,)]),
        ({"name": "Zoë", "is_old": True}, []),
    ]

    with database.reading() as connection:
        for _ in range(OFTEN):
            for parameters, rows in wanted:
                assert [tuple(row) for row in by_name.rows(connection, parameters)] == rows
    for parameters, rows in wanted:
        text = by_name.text(async_connection, parameters)
        assert text is not None
        async_connection.ask(text)
        assert list(answer(async_connection)) == rows


def test_a_statement_whose_text_differs_each_time_is_left_to_sqlalchemy(
    database: Database, async_connection: AsyncConnection
) -> None:
    some = CompiledStatement(
        sa.select(things.c.number)
        .where(things.c.name.in_(sa.bindparam("names", expanding=True)))
        .order_by(things.c.number)
    )

    with database.reading() as connection:
        for _ in range(OFTEN):
            assert [tuple(row) for row in some.rows(connection, {"names": ["50%", "Zoë"]})] == [(1,), (3,)]
            assert [tuple(row) for row in some.rows(connection, {"names": ["it's"]})] == [(2,)]
    assert some.text(async_connection, {"names": ["it's"]}) is None


def test_a_frequent_statement_fails_as_sqlalchemy_does(database: Database) -> None:
    counted = CompiledStatement(sa.select(sa.func.count()).select_from(things))
    with database.reading() as connection:
        for _ in range(OFTEN):
            counted.rows(connection, {})
        connection.exec_driver_sql("DROP TABLE things")
        with pytest.raises(sa.exc.ProgrammingError, match="things") as missing:
            counted.rows(connection, {})
        assert not missing.value.connection_invalidated

        with database.reading() as another:
            another.exec_driver_sql(f"KILL {connection.connection.dbapi_connection.thread_id()}")  # type: ignore[union-attr]
        with pytest.raises(sa.exc.DBAPIError) as lost:
            counted.rows(connection, {})
        assert lost.value.connection_invalidated
        assert lost.value.statement
    # What was lost is not handed out again.
    assert _by_cursor(database, "SELECT 1") == [(1,)]
