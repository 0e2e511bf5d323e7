"""The program: one worker in this process, several forked ones, health and metrics."""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

import api_db.cells
from api.main import Api, listening_socket
from api.workers import PARENT_CHECK_S
from api_db.schema import SCHEMA
from core import errors
from core.process import EXIT_INVALID
from database.engine import Database
from database.migrations import sync
from devstack.supervisor import HAND_OVER
from tests.api.http.harness import settings

pytestmark = pytest.mark.slow

WITHIN_S = 20.0
NO_AUTH = "[api]\nauth_strategy = none\nport = 0\n"


def until(condition: Callable[[], Any]) -> Any:
    """The condition's value once it is true."""
    deadline = time.monotonic() + WITHIN_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value


def get(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN_S)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read()


def answers(port: int) -> bool:
    try:
        return get(port, "/cellplane/health/live")[0] == 200
    except OSError:
        return False


@pytest.fixture
def synced(tmp_path: pathlib.Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/api.sqlite")
    sync(SCHEMA, database)
    yield database
    database.close()


@pytest.fixture
def worker(tmp_path: pathlib.Path, synced: Database) -> Iterator[Api]:
    worker = Api(settings(tmp_path, NO_AUTH))
    worker.start()
    yield worker
    worker.stop(2.0)


def test_a_socket_that_is_handed_over_is_used(tmp_path: pathlib.Path) -> None:
    asks = "from api.listening import listening_socket; print(listening_socket(None).getsockname()[1])"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [sys.executable, "-c", HAND_OVER, str(listening.fileno()), sys.executable, "-c", asks]
        result = subprocess.run(
            command, pass_fds=[listening.fileno()], capture_output=True, text=True, timeout=WITHIN_S, check=True
        )

        assert int(result.stdout) == listening.getsockname()[1]


def test_who_is_connected_already_is_served_while_a_worker_stops(worker: Api) -> None:
    kept = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=WITHIN_S)
    stopping = threading.Thread(target=worker.stop, args=(WITHIN_S,))
    with contextlib.closing(kept):
        said = None
        while said != "close":
            kept.request("GET", "/v2.1")
            response = kept.getresponse()
            assert (response.status, bool(response.read())) == (200, True)
            said = response.headers["Connection"]
            if stopping.ident is None:
                stopping.start()
    stopping.join(WITHIN_S)
    assert not stopping.is_alive()


def test_a_worker_serves_in_this_process_until_it_is_stopped(worker: Api) -> None:
    assert get(worker.port, "/v2.1")[0] == 200
    port = worker.port

    worker.stop(2.0)

    with pytest.raises(OSError):
        get(port, "/v2.1")


def test_it_refuses_to_start_on_a_schema_it_does_not_know(tmp_path: pathlib.Path) -> None:
    worker = Api(settings(tmp_path, NO_AUTH))
    with pytest.raises(errors.Broken, match="cellctl"):
        worker.start()


def test_it_refuses_an_address_that_is_taken(tmp_path: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(errors.Invalid, match="can't listen"):
            listening_socket(settings(tmp_path, f"[api]\nport = {port}\n"))


def test_health_says_whether_it_is_ready(worker: Api, synced: Database) -> None:
    status, body = get(worker.port, "/cellplane/health")
    assert (status, json.loads(body)) == (
        200,
        {"live": True, "ready": True, "api_database": "up", "cells": {"total": 0, "up": 0, "down": [], "disabled": []}},
    )

    with synced.transaction() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'newer'")

    status, body = get(worker.port, "/cellplane/health")
    assert (status, json.loads(body)["ready"]) == (503, False)
    assert "schema" in json.loads(body)["api_database"]


def test_health_counts_the_cells(worker: Api, synced: Database, tmp_path: pathlib.Path) -> None:
    with synced.transaction() as connection:
        api_db.cells.create(
            connection,
            name="west",
            database_connection=f"sqlite:///{tmp_path}/west.sqlite",
            transport_url="none://",
            disabled=True,
        )

    def cells() -> Any:
        counts = json.loads(get(worker.port, "/cellplane/health")[1])["cells"]
        return counts if counts["total"] else None

    assert until(cells) == {"total": 1, "up": 1, "down": [], "disabled": ["west"]}


def test_what_a_proxy_passes_on_is_told_no_names(worker: Api) -> None:
    passed_on = {"X-Forwarded-For": "127.0.0.1"}

    assert json.loads(get(worker.port, "/cellplane/health", passed_on)[1])["cells"] == {"total": 0, "up": 0}
    assert get(worker.port, "/cellplane/metrics", passed_on)[0] == 403


def test_it_is_not_ready_while_the_database_takes_no_writes(worker: Api, synced: Database) -> None:
    with synced.transaction() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER read_only BEFORE UPDATE ON alembic_version BEGIN SELECT RAISE(ABORT, 'read only'); END"
        )

    status, body = get(worker.port, "/cellplane/health")

    assert (status, json.loads(body)["ready"]) == (503, False)
    assert "read only" in json.loads(body)["api_database"]


def test_a_silent_connection_ends(tmp_path: pathlib.Path, synced: Database) -> None:
    worker = Api(settings(tmp_path, NO_AUTH + "head_timeout_s = 0.2\n"))
    worker.start()
    try:
        with socket.create_connection(("127.0.0.1", worker.port), timeout=WITHIN_S) as silent:
            assert silent.recv(1) == b""
    finally:
        worker.stop(2.0)


def test_networks_that_are_none_are_refused_at_start(tmp_path: pathlib.Path, synced: Database) -> None:
    worker = Api(settings(tmp_path, NO_AUTH + "monitoring_networks = everywhere\n"))
    with pytest.raises(errors.Invalid, match="monitoring_networks"):
        worker.start()


def test_metrics_count_requests(worker: Api) -> None:
    get(worker.port, "/v2.1")
    get(worker.port, "/v2.1/nothing")

    status, body = get(worker.port, "/cellplane/metrics")

    assert status == 200
    assert b'cellplane_api_requests_total{method="GET",status="404"} 1.0' in body
    assert b"cellplane_api_seconds_count" in body


@pytest.fixture
def program(tmp_path: pathlib.Path, synced: Database) -> Iterator[tuple[psutil.Process, int]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings(tmp_path, f"[api]\nauth_strategy = none\nport = {port}\nworkers = 2\nstop_timeout_s = 2\n")
    root = pathlib.Path(__file__).parents[3]
    arguments = [sys.executable, "-m", "api.main", "--config-file", str(tmp_path / "api.conf")]
    started = subprocess.Popen(arguments, cwd=root, stderr=subprocess.DEVNULL)
    process = psutil.Process(started.pid)
    try:
        until(lambda: len(process.children()) == 2 and answers(port))
        yield process, port
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in process.children():
                child.kill()
            process.kill()
        started.wait(WITHIN_S)


def test_a_dead_worker_is_started_again(program: tuple[psutil.Process, int]) -> None:
    process, port = program
    before = {child.pid for child in process.children()}

    os.kill(min(before), signal.SIGKILL)

    until(lambda: len({child.pid for child in process.children()} - before) == 1)
    until(lambda: answers(port))
    assert len(process.children()) == 2


def test_the_parent_stops_its_workers(program: tuple[psutil.Process, int]) -> None:
    process, port = program
    children = process.children()

    process.send_signal(signal.SIGTERM)

    assert process.wait(WITHIN_S) in (0, None)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not answers(port)


def test_a_worker_that_was_frozen_goes_on_when_it_thaws(program: tuple[psutil.Process, int]) -> None:
    """CPython's sigtimedwait gives rubbish instead of None when a freeze outlasts its time: workers took it for a
    request to end."""
    process, port = program
    frozen = process.children()[0]

    frozen.suspend()
    with pytest.raises(psutil.TimeoutExpired):
        frozen.wait(PARENT_CHECK_S * 1.5)
    frozen.resume()

    with pytest.raises(psutil.TimeoutExpired):
        frozen.wait(PARENT_CHECK_S)
    assert answers(port)


def test_workers_do_not_outlive_their_parent(program: tuple[psutil.Process, int]) -> None:
    process, _ = program
    children = process.children()

    process.kill()

    until(lambda: not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE])


def test_a_program_that_cannot_start_says_so_and_ends(tmp_path: pathlib.Path) -> None:
    settings(tmp_path, "[api]\nauth_strategy = none\nlisten_host = 0.0.0.0\nport = 0\nworkers = 2\n")
    root = pathlib.Path(__file__).parents[3]
    arguments = [sys.executable, "-m", "api.main", "--config-file", str(tmp_path / "api.conf")]

    ended = subprocess.run(arguments, cwd=root, capture_output=True, timeout=WITHIN_S, check=False)

    assert ended.returncode == EXIT_INVALID
    assert b"loopback" in ended.stderr
