"""A short question goes on an asynchronous connection where there is one, and by a thread wherever anything is out of
the ordinary; the answer is the same."""

import asyncio
import pathlib
import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from cells.gate.answers import Answer, Cell, Silence
from cells.gate.async_connections import Question
from cells.gate.gate import MAX_ASYNC_CONNECTIONS, Gate
from database.async_connection import Rows
from database.compiled_statements import CompiledStatement
from devstack.services import mariadb
from devstack.waiting import wait_until
from tests.mariadb_server import as_admin

DEADLINE_S = 1.0
BACK_WITHIN_S = 20.0
SCHEMA = "asked"
AT_ONCE = 20
WIRE, THREAD = "asynchronous connection", "thread"

_STATEMENT = sa.select(sa.table("things", sa.column("name")).c.name)


class Asker:
    """Asks a gate one question, and tells which way the answer came."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self._statement = CompiledStatement(_STATEMENT)

    def ask(self, times: int = 1) -> list[Answer[tuple[str, list[str]]] | Silence]:
        """So many times at once."""
        return asyncio.run(self._ask(times))

    def way(self) -> str | None:
        """The way of one right answer; None: there was none."""
        (answer,) = self.ask()
        if isinstance(answer, Silence):
            return None
        way, names = answer.value
        assert names == ["one"]
        return way

    def ways(self, times: int) -> list[str]:
        """The ways of so many right answers at once."""
        answers = self.ask(times)
        assert all(isinstance(answer, Answer) and answer.value[1] == ["one"] for answer in answers)
        return [answer.value[0] for answer in answers if isinstance(answer, Answer)]

    def wait_for(self, way: str) -> None:
        def came() -> bool:
            self.gate.probe()
            return self.way() == way

        wait_until(came, what=f"answer by {way}", deadline_s=BACK_WITHIN_S)

    async def _ask(self, times: int) -> list[Answer[tuple[str, list[str]]] | Silence]:
        question = Question(self._statement, {}, lambda rows: (WIRE, _names(rows)))
        asked = [
            self.gate.submit_query(question, lambda connection: (THREAD, _names(self._statement.rows(connection, {}))))
            for _ in range(times)
        ]
        return [await self.gate._await(each, DEADLINE_S * 2) for each in asked]


def _names(rows: Rows) -> list[str]:
    return [str(name) for (name,) in rows]


@pytest.fixture
def gate(server: mariadb.MariaDB) -> Iterator[Gate]:
    url = server.create_schema(SCHEMA)
    as_admin(
        server,
        f"CREATE OR REPLACE TABLE {SCHEMA}.things (name VARCHAR(20))",
        f"INSERT INTO {SCHEMA}.things VALUES ('one')",
    )
    gate = Gate(Cell(str(uuid.uuid4()), "west", url, "none://"), threads=2, deadline_s=DEADLINE_S)
    yield gate
    gate.close()


@pytest.fixture
def asker(gate: Gate) -> Asker:
    """Of a gate that has all its asynchronous connections."""
    asker = Asker(gate)
    wait_until(
        lambda: asker.ways(AT_ONCE).count(WIRE) == MAX_ASYNC_CONNECTIONS,
        what="all asynchronous connections",
        deadline_s=BACK_WITHIN_S,
    )
    return asker


def _connections(server: mariadb.MariaDB) -> int:
    return len(as_admin(server, f"SELECT id FROM information_schema.processlist WHERE user = '{SCHEMA}'"))


@pytest.mark.mariadb
def test_more_questions_than_wires_are_all_answered(server: mariadb.MariaDB, asker: Asker) -> None:
    for _ in range(3):
        ways = asker.ways(AT_ONCE)
        assert (ways.count(WIRE), ways.count(THREAD)) == (MAX_ASYNC_CONNECTIONS, AT_ONCE - MAX_ASYNC_CONNECTIONS)
    assert _connections(server) <= 2 + MAX_ASYNC_CONNECTIONS


@pytest.mark.mariadb
def test_a_lost_wire_costs_no_answer(server: mariadb.MariaDB, asker: Asker) -> None:
    as_admin(server, f"KILL USER {SCHEMA}@'127.0.0.1'")

    assert asker.way() == THREAD
    asker.wait_for(WIRE)


@pytest.mark.mariadb
def test_a_frozen_server_is_silent_by_wire_as_by_thread_and_comes_back(server: mariadb.MariaDB, asker: Asker) -> None:
    server.freeze()
    try:
        (answer,) = asker.ask()
        assert isinstance(answer, Silence)
        assert "timed out" in answer.why
        assert asker.gate.health()["database"] != "up"
        assert all(isinstance(answer, Silence) for answer in asker.ask(5))
    finally:
        server.thaw()

    asker.wait_for(WIRE)


@pytest.mark.mariadb
def test_what_the_server_refuses_a_thread_looks_into(server: mariadb.MariaDB, asker: Asker) -> None:
    as_admin(server, f"DROP TABLE {SCHEMA}.things")

    (answer,) = asker.ask()

    assert isinstance(answer, Silence)
    assert "things" in answer.why
    assert asker.gate.health()["database"] != "up"


@pytest.mark.mariadb
def test_a_closed_gate_leaves_no_connection(server: mariadb.MariaDB, asker: Asker) -> None:
    asker.gate.close()

    assert isinstance(asker.ask()[0], Silence)
    wait_until(lambda: _connections(server) == 0, what="end of the connections", deadline_s=BACK_WITHIN_S)


def test_sqlite_has_no_wires(tmp_path: pathlib.Path) -> None:
    gate = Gate(
        Cell(str(uuid.uuid4()), "west", f"sqlite:///{tmp_path}/cell.sqlite", "none://"),
        threads=2,
        deadline_s=DEADLINE_S,
    )
    gate.write_now(lambda connection: connection.exec_driver_sql("CREATE TABLE things AS SELECT 'one' AS name").close())
    asker = Asker(gate)

    assert {asker.way() for _ in range(20)} == {THREAD}
    gate.close()
