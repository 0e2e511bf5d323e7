"""`benchmarks/list.py` on tiny worlds: it runs, and what it writes is whole. How fast it is is not asked here."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.delay import delayed
from devstack.background import REPOSITORY
from devstack.services import mariadb

CASES = (
    "detail_1000", "brief_1000", "detail_50_by_name", "brief_50_by_name", "status_filter", "name_filter", "walk_detail",
    "walk_brief", "one_tenant_of_80", "show", "cells_1_slow", "cells_80_slow", "cells_1_slow_detail",
    "cells_80_slow_detail",
)  # fmt: skip
LARGE_CASES = ("large_show", "large_project", "large_all")
OF_A_CASE = ("wall_s", "cpu_s", "floor_cpu_s", "rows_returned", "queries")
TINY = ("--scale", "0.02", "--seconds", "0.3")
DEADLINE_S = 240.0
needs_mariadb = pytest.mark.skipif(
    not mariadb.is_installed(),
    reason="MariaDB is not installed: apt-get install mariadb-server-core mariadb-client-core",
)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worlds")


def run(worlds: Path, file: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of the program."""
    command = [sys.executable, "benchmarks/list.py", "--worlds", str(worlds), "--json", str(file), *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    return done.returncode, done.stdout + done.stderr


def missing(figures: dict[str, Any], cases: tuple[str, ...]) -> list[str]:
    """What is not there, or no number that can be."""
    wanted = [(case, field) for case in cases for field in OF_A_CASE]
    return [f"{case}.{field}" for case, field in wanted if not figures.get(case, {}).get(field, -1.0) >= 0.0]


@pytest.mark.mariadb
@needs_mariadb
@pytest.mark.timeout(300)
def test_every_figure_of_every_case_is_written(worlds: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"

    code, output = run(worlds, file, *TINY)

    assert code == 0, output
    figures = orjson.loads(file.read_bytes())
    assert missing(figures, CASES) == []
    assert figures["show"]["servers"] == 1
    assert figures["walk_brief"]["servers"] == 3 * 200
    # Every cell is asked once at least, each time 100 ms late; were they asked in turn, three would take three times as
    # long.
    assert figures["cells_1_slow"]["wall_s"] >= 0.1
    for name in ("many_slow_cells", "many_slow_cells_detail"):
        assert figures[name].keys() == {"latency_ratio", "more_cpu_s_per_cell"}


@pytest.mark.mariadb
@needs_mariadb
@pytest.mark.timeout(300)
def test_the_large_world_has_cases_of_its_own(worlds: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"

    code, output = run(worlds, file, "--large", *TINY)

    assert code == 0, output
    assert missing(orjson.loads(file.read_bytes()), LARGE_CASES) == []


@pytest.mark.mariadb
@needs_mariadb
@pytest.mark.timeout(300)
def test_a_world_is_kept_and_one_of_another_size_refused(tmp_path: Path) -> None:
    kept, file = tmp_path / "worlds", tmp_path / "figures.json"
    assert run(kept, file, "--scale", "0.01", "--seconds", "0.1", "--cases", "show")[0] == 0
    made = (kept / "few.json").stat().st_mtime_ns

    again, _ = run(kept, file, "--scale", "0.01", "--seconds", "0.1", "--cases", "show")
    other, output = run(kept, file, "--scale", "0.02", "--seconds", "0.1", "--cases", "show")

    assert (again, other) == (0, 1)
    assert (kept / "few.json").stat().st_mtime_ns == made
    assert "of another size" in output


def test_an_unknown_case_is_refused(tmp_path: Path) -> None:
    code, output = run(tmp_path, tmp_path / "figures.json", "--cases", "large_show")

    assert code == 2
    assert "no such case: large_show" in output


# ---- delay -----------------------------------------------------------------------------------------------------------

DELAY_S = 0.5
CLIENTS = 20


@pytest.fixture
def echo() -> Any:
    """The port of a server that gives back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=CLIENTS)
    stop = threading.Event()

    async def give_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while packet := await reader.read(100):
            writer.write(packet)
        writer.close()
        await writer.wait_closed()

    async def serve() -> None:
        server = await asyncio.start_server(give_back, sock=listener)
        await asyncio.to_thread(stop.wait)
        server.close()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    yield listener.getsockname()[1]
    stop.set()
    thread.join()


async def _talk(port: int, words: list[bytes]) -> list[bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    for word in words:
        writer.write(word)
        answers.append(await reader.readexactly(len(word)))
    writer.close()
    await writer.wait_closed()
    return answers


@pytest.mark.alone
def test_every_packet_is_delayed_and_none_waits_for_another(echo: int) -> None:
    async def all_talk(port: int) -> list[list[bytes]]:
        return await asyncio.gather(*(_talk(port, [b"one", b"two"]) for _ in range(CLIENTS)))

    with delayed(echo, DELAY_S) as port:
        started = time.monotonic()
        answers = asyncio.run(all_talk(port))
        seconds = time.monotonic() - started

    assert answers == [[b"one", b"two"]] * CLIENTS
    # Two packets of each after one another; twenty clients after one another would take twenty times as long.
    assert 2 * DELAY_S <= seconds < CLIENTS * DELAY_S
