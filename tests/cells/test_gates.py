"""What a gate makes of each way in which a cell can fail: silence, at once where that is possible, and an end of it by
itself."""

import asyncio
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import prometheus_client
import pytest
import sqlalchemy as sa

from cells.gate.answers import Answer, Cell, Silence, Unknown
from cells.gate.bulkhead import GateMetrics
from cells.gate.gate import Gate
from core.context import service_context
from devstack.accounts import Accounts
from devstack.services import mariadb
from devstack.waiting import wait_until
from messaging import in_process
from messaging.broker import Broker
from messaging.verbs.cell import CLEAN, Uuids
from tests.mariadb_server import as_admin

DEADLINE_S = 1.0
BACK_WITHIN_S = 10.0
SCHEMA = "gated"


@pytest.fixture
def gate(server: mariadb.MariaDB) -> Iterator[Gate]:
    """To a cell with one row in one table."""
    url = server.create_schema(SCHEMA)
    as_admin(
        server,
        f"CREATE OR REPLACE TABLE {SCHEMA}.alembic_version (version_num VARCHAR(32))",
        f"INSERT INTO {SCHEMA}.alembic_version VALUES ('1')",
    )
    gate = Gate(Cell(str(uuid.uuid4()), "west", url, "none://"), threads=2, deadline_s=DEADLINE_S)
    assert isinstance(gate.read_now(_version), Answer)
    yield gate
    gate.close()


def _version(connection: sa.Connection) -> str:
    return str(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar())


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _is_back(gate: Gate) -> bool:
    gate.probe()
    return isinstance(gate.read_now(_version), Answer)


@pytest.mark.mariadb
@pytest.mark.alone
def test_the_first_request_that_a_frozen_server_leaves_without_an_answer_is_the_last(
    server: mariadb.MariaDB, gate: Gate
) -> None:
    server.freeze()
    try:
        assert isinstance(gate.read_now(_version), Silence)
        wait_until(lambda: gate.health()["database"] != "up", what="open breaker", deadline_s=DEADLINE_S)
        assert max(_seconds(lambda: gate.read_now(_version)) for _ in range(5)) < DEADLINE_S / 2
        gate.probe()
    finally:
        server.thaw()

    wait_until(lambda: _is_back(gate), what="the cell", deadline_s=BACK_WITHIN_S)


@pytest.mark.mariadb
def test_a_wrong_password_is_silence_and_not_tried_twice(server: mariadb.MariaDB, gate: Gate) -> None:
    as_admin(server, f"ALTER USER {SCHEMA}@'127.0.0.1' IDENTIFIED BY 'another'", f"KILL USER {SCHEMA}@'127.0.0.1'")
    refused = gate.read_now(_version)
    assert isinstance(refused, Silence)
    assert "Access denied" in refused.why
    assert gate.health()["database"] != "up"

    as_admin(
        server,
        f"ALTER USER {SCHEMA}@'127.0.0.1' IDENTIFIED BY "
        f"'{Accounts(server.directory / 'accounts.json').password(SCHEMA)}'",
    )
    wait_until(lambda: _is_back(gate), what="the cell", deadline_s=BACK_WITHIN_S)


@pytest.mark.mariadb
def test_a_cell_without_its_schema_stays_away_though_its_server_answers(server: mariadb.MariaDB, gate: Gate) -> None:
    as_admin(server, f"DROP DATABASE {SCHEMA}")
    assert isinstance(gate.read_now(_version), Silence)
    health = gate.health()["database"]
    assert health != "up"

    # The server would answer a plain question, and the cell would come and go.
    asked_at = gate._bulkhead.used_at
    wait_until(lambda: _was_probed(gate, asked_at), what="probe", deadline_s=BACK_WITHIN_S)
    assert gate.health()["database"] != "up"

    server.create_schema(SCHEMA)
    as_admin(
        server,
        f"CREATE TABLE {SCHEMA}.alembic_version (version_num VARCHAR(32))",
        f"INSERT INTO {SCHEMA}.alembic_version VALUES ('1')",
    )
    wait_until(lambda: _is_back(gate), what="the cell", deadline_s=BACK_WITHIN_S)


def _was_probed(gate: Gate, asked_at: float) -> bool:
    gate.probe()
    return gate._bulkhead.used_at > asked_at


@pytest.mark.mariadb
def test_a_slow_query_is_no_reason_to_ask_no_more(gate: Gate) -> None:
    def slow(connection: sa.Connection) -> None:
        connection.execute(sa.text("SELECT SLEEP(5)"))

    assert isinstance(gate.read_now(slow), Silence)
    assert isinstance(gate.read_now(_version), Answer)
    assert gate.health()["database"] == "up"


def test_who_still_waits_when_a_cell_is_re_addressed_is_told_so(tmp_path: pathlib.Path) -> None:
    gate = Gate(
        Cell(str(uuid.uuid4()), "west", f"sqlite:///{tmp_path}/west.sqlite", "none://"), threads=1, deadline_s=30.0
    )
    is_busy, may_end = threading.Event(), threading.Event()

    def busy(_: sa.Connection) -> None:
        is_busy.set()
        may_end.wait(30.0)

    async def ask() -> list[object]:
        first = asyncio.ensure_future(gate.read(busy))
        await asyncio.to_thread(is_busy.wait, 30.0)
        second = asyncio.ensure_future(gate.read(busy))
        await asyncio.sleep(0)
        gate.close()
        may_end.set()
        return [await first, await second]

    first, second = asyncio.run(ask())

    assert isinstance(first, Answer)
    assert isinstance(second, Silence)
    assert "addresses are being changed" in second.why


def test_a_cell_that_was_removed_while_it_was_away_does_not_stay_away_in_the_metrics(tmp_path: pathlib.Path) -> None:
    registry = prometheus_client.CollectorRegistry()
    gate = Gate(
        Cell(str(uuid.uuid4()), "west", f"sqlite:///{tmp_path}/nowhere/west.sqlite", "none://"),
        metrics=GateMetrics(registry),
    )
    labels = {"cell": "west", "target": "database"}
    assert isinstance(gate.read_now(_version), Silence)
    assert registry.get_sample_value("cellplane_gate_open", labels) == 1.0

    gate.close()

    assert registry.get_sample_value("cellplane_gate_open", labels) is None


def test_a_request_that_is_given_up_is_not_taken_for_a_cells_silence(tmp_path: pathlib.Path) -> None:
    gate = Gate(
        Cell(str(uuid.uuid4()), "west", f"sqlite:///{tmp_path}/west.sqlite", "none://"), threads=1, deadline_s=30.0
    )
    may_end = threading.Event()

    async def ask() -> None:
        busy = asyncio.ensure_future(gate.read(lambda _: may_end.wait(30.0)))
        waiting = asyncio.ensure_future(gate.read(lambda _: None))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        may_end.set()
        await busy

    asyncio.run(ask())
    gate.close()


def test_a_broker_that_is_away_is_known_before_there_is_something_to_send() -> None:
    name = f"looked-at-{uuid.uuid4()}"
    broker = in_process.broker(name)
    Broker(f"inproc://{name}").declare("conductor")
    gate = Gate(Cell(str(uuid.uuid4()), "west", "sqlite://", f"inproc://{name}"), deadline_s=0.2)
    gate.check_broker(every_s=0.0)
    assert not gate.broker_is_down

    broker.go_away()
    wait_until(lambda: _looked(gate), what="notice of its end", deadline_s=BACK_WITHIN_S)
    broker.come_back()
    wait_until(lambda: _probed(gate), what="notice of its return", deadline_s=BACK_WITHIN_S)
    gate.close()


def _looked(gate: Gate) -> bool:
    gate.check_broker(every_s=0.0)
    return gate.broker_is_down


def _probed(gate: Gate) -> bool:
    gate.probe()
    return not gate.broker_is_down


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def silent_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Its answers come when the event is set: as a name server that does not answer, which nobody can be told to give
    up."""
    answers, real = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: str, *args: object, **kwargs: object) -> object:
        if host == "db.silent":
            assert answers.wait(30.0)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield answers
    answers.set()


def test_a_silent_resolver_costs_one_deadline(silent_resolver: threading.Event) -> None:
    gate = Gate(
        Cell(str(uuid.uuid4()), "west", "mysql://user:password@db.silent/cell", "none://"),
        threads=2,
        deadline_s=DEADLINE_S,
    )

    assert isinstance(gate.read_now(_version), Silence)
    assert gate.health()["database"] != "up"
    assert all(isinstance(gate.read_now(_version), Silence) for _ in range(100))
    for _ in range(100):
        gate._bulkhead.breaker._next_probe = 0.0
        gate.probe()

    assert gate._bulkhead._pool.busy_threads <= 1
    silent_resolver.set()
    gate.close()


def test_a_silent_resolver_of_a_brokers_name_costs_one_deadline(silent_resolver: threading.Event) -> None:
    gate = Gate(
        Cell(str(uuid.uuid4()), "west", "sqlite://", "amqp://user:password@db.silent/cell"), deadline_s=DEADLINE_S
    )

    answer = gate.cast_now("conductor", CLEAN, Uuids([]), service_context())
    assert isinstance(answer, Silence | Unknown)
    wait_until(lambda: _is_refused_at_once(gate), what="open breaker", deadline_s=DEADLINE_S)

    silent_resolver.set()
    gate.close()


def _is_refused_at_once(gate: Gate) -> bool:
    gate.hint("conductor", CLEAN, Uuids([]), service_context())
    return gate.broker_is_down


@pytest.mark.mariadb
def test_a_connection_that_dies_while_it_is_used_opens_nothing_if_there_are_others(
    server: mariadb.MariaDB, gate: Gate
) -> None:
    def dies(connection: sa.Connection) -> None:
        connection.execute(sa.text("KILL CONNECTION_ID()"))
        connection.execute(sa.text("SELECT 1"))

    for _ in range(3):
        assert isinstance(gate.read_now(dies), Silence)
        assert gate.health()["database"] == "up"
