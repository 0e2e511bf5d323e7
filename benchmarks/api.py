#!/usr/bin/env python3
"""What requests to the API cost: CPU and requests per second, each beside a bare route in the same run.

    benchmarks/api.py [--state DIR] [--cases show,limits] [--at-once 1,8,64] [--seconds S] [--json FILE]

A stack of the full profile answers as admin over HTTP. The bare route (`benchmarks.bare_route`) is aiohttp alone, with
as many processes as the API: it runs as many SELECTs of one row as the request ran statements, through the same driver,
and answers as many bytes. The two take turns. `times` is the CPU of the API and the database server for a request,
over that of the bare route and the database server. Statements that the stack runs by itself are subtracted.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    # Started as a script: the directory above holds the packages, this one would hide some of Python's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import aiohttp
import orjson
import pymysql
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import cloud, noise, output, processes
from benchmarks.boots import Rows, building_servers
from benchmarks.cloud import Cloud
from benchmarks.counters import DatabaseCounters
from benchmarks.users import User, user_of
from core import errors
from devstack import ports
from devstack.accounts import Accounts
from devstack.background import REPOSITORY
from devstack.backing_services import API_SCHEMA
from devstack.configure import API_WORKERS
from devstack.layout import FULL
from devstack.services.mariadb import ADMIN, MariaDB
from devstack.waiting import wait_until

SERVERS = 10
WARM_UPS = 50
TURNS = 3
REST_S = 3.0
BUILT_WITHIN_S = 120.0
BARE_UP_S = 20.0
AT_ONCE = (1, 8, 64)
LOOK_EVERY_S = 0.2
BYTES_OF_A_CREATE = 400
"""About; the bare route answers as many."""
API, BARE, DATABASE = "api", "bare", "mariadb"


class Asked:
    """The cloud with its servers, and who asks it."""

    def __init__(self, user: User, order: dict[str, Any]) -> None:
        self.user = user
        self.order = order
        self.made: list[str] = []
        self.shown = ""

    async def get(self, path: str) -> int:
        """The length of the answer."""
        return len(await self.user.body(path))

    async def refused(self) -> int:
        """A create that names no flavor."""
        return await self.user.refused({**self.order, "name": "refused", "flavorRef": ""}, status=400)

    async def create(self) -> int:
        """A server, which is deleted when all is measured."""
        self.made.append(await self.user.create({**self.order, "name": "api"}))
        return BYTES_OF_A_CREATE

    async def keep(self, number: int) -> None:
        """Deletes all servers but the first ones."""
        while len(self.made) > number:
            await self.user.delete(self.made.pop())


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One kind of request; `ask` gives the bytes of its answer. `most`: servers that a turn may create."""

    name: str
    ask: Callable[[Asked], Awaitable[int]]
    most: int | None = None


def _get(name: str, path: str) -> Case:
    return Case(name, lambda asked: asked.get(path.format(server=asked.shown)))


CASES = {
    case.name: case
    for case in (
        _get("show", "/servers/{server}"),
        _get("brief_10", "/servers?limit=10&all_tenants=1"),
        _get("detail_10", "/servers/detail?limit=10&all_tenants=1"),
        _get("flavors", "/flavors/detail"),
        _get("limits", "/limits"),
        Case("refused_create", Asked.refused),
        Case("create", Asked.create, most=60),
    )
}


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """A stretch of requests of one kind."""

    requests: int
    seconds: float
    cpu_s: float
    statements: float
    size: int

    @property
    def cpu_ms(self) -> float:
        """Of one request."""
        return 1000 * self.cpu_s / self.requests


class Benchmark:
    """Takes turns between the API and the bare route."""

    def __init__(self, measured: Cloud, asked: Asked, bare: "Bare", *, seconds: float) -> None:
        self._asked = asked
        self._bare = bare
        self._seconds = seconds
        leaders = measured.leaders()
        databases = {name: pid for name, pid in leaders.items() if name.startswith(DATABASE)}
        self._api = {API: leaders[API], **databases}
        self._bare_leaders = {BARE: bare.pid, **databases}
        self._database = DatabaseCounters(measured.backing.servers.values())
        self._rows = Rows(measured)
        self._rest = 0.0
        self._rest_cpu = {API: 0.0, BARE: 0.0}

    async def at_rest(self) -> None:
        """What goes on by itself is no request's."""
        before, cpu = self._database.read(), self._cpu()
        await asyncio.sleep(REST_S)
        self._rest = (self._database.read() - before)["Queries"] / REST_S
        self._rest_cpu = {name: (after - cpu[name]) / REST_S for name, after in self._cpu().items()}

    async def case(self, case: Case, at_once: int) -> dict[str, Any]:
        """Its figures with so many requests at once."""
        ours, least = list[Turn](), list[Turn]()
        for _ in range(TURNS):
            ours.append(await self._turn(lambda: case.ask(self._asked), API, at_once, case.most))
            if case.most is not None:
                await self._settle()
            alike = functools.partial(self._bare.get, round(ours[-1].statements), ours[-1].size)
            least.append(await self._turn(alike, BARE, at_once, None))
        api, bare = (statistics.median(turn.cpu_ms for turn in turns) for turns in (ours, least))
        return {
            "requests_per_s": statistics.median(turn.requests / turn.seconds for turn in ours),
            "bare_requests_per_s": statistics.median(turn.requests / turn.seconds for turn in least),
            "cpu_ms": api,
            "bare_cpu_ms": bare,
            "times": api / bare if bare else 0.0,
            "statements": statistics.median(turn.statements for turn in ours),
            "bytes": ours[-1].size,
            "requests": sum(turn.requests for turn in ours),
        }

    async def _settle(self) -> None:
        """What the creates left must not count with the next turn."""
        await self._asked.keep(SERVERS)
        async with asyncio.timeout(BUILT_WITHIN_S):
            while not self._rows.are_settled():
                await asyncio.sleep(LOOK_EVERY_S)

    async def _turn(self, ask: Callable[[], Awaitable[int]], who: str, at_once: int, most: int | None) -> Turn:
        size = 0
        for _ in range(WARM_UPS if most is None else 1):
            size = await ask()
        before, cpu, started = self._database.read(), self._cpu()[who], time.monotonic()
        ends, number = started + self._seconds, 0

        async def one_user() -> None:
            nonlocal number
            while time.monotonic() < ends and (most is None or number < most):
                number += 1
                await ask()

        await asyncio.gather(*(one_user() for _ in range(at_once)))
        seconds = time.monotonic() - started
        used = self._cpu()[who] - cpu - self._rest_cpu[who] * seconds
        statements = (self._database.read() - before)["Queries"] - self._rest * seconds
        return Turn(number, seconds, max(used, 0.0), max(0.0, statements / number), size)

    def _cpu(self) -> dict[str, float]:
        return {
            API: sum(processes.cpu_s(self._api).values()),
            BARE: sum(processes.cpu_s(self._bare_leaders).values()),
        }


class Bare:
    """The bare route, running."""

    def __init__(self, session: aiohttp.ClientSession, url: str, pid: int) -> None:
        self._session = session
        self._url = url
        self.pid = pid

    async def get(self, selects: int, size: int) -> int:
        """An answer of that size after so many SELECTs."""
        async with self._session.get(f"{self._url}/{selects}/{size}") as response:
            body = await response.read()
        if response.status != 200:
            raise errors.Broken(f"the bare route answered {response.status}")
        return len(body)


@contextlib.contextmanager
def _bare_process(server: MariaDB, *, number: int) -> Iterator[tuple[str, int]]:
    """The URL and the pid of the bare route, which asks this database server."""
    port = ports.free_port()
    at = f"127.0.0.1:{server.port}/{API_SCHEMA}"
    command = [sys.executable, "-m", "benchmarks.bare_route", str(port), str(number), at, ADMIN]
    child = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, start_new_session=True)
    assert child.stdin is not None
    child.stdin.write(Accounts(server.directory / "accounts.json").password(ADMIN).encode() + b"\n")
    child.stdin.close()
    try:
        wait_until(lambda: ports.answers(port), what="the bare route", deadline_s=BARE_UP_S)
        yield f"http://127.0.0.1:{port}", child.pid
    finally:
        # All processes of its session, which is its own.
        os.killpg(child.pid, signal.SIGTERM)
        child.wait(BARE_UP_S)


@contextlib.asynccontextmanager
async def _asked(measured: Cloud, *, at_once: int) -> AsyncIterator[tuple[Asked, aiohttp.ClientSession]]:
    """Who asks, with the servers that are listed and shown; they are deleted at the end."""
    async with user_of(measured, at_once=at_once) as user, aiohttp.ClientSession(trust_env=False) as session:
        flavor, image = await user.flavor_and_image()
        asked = Asked(user, {"flavorRef": flavor, "imageRef": image, "networks": "none"})
        try:
            for _ in range(SERVERS):
                await asked.create()
            asked.shown = asked.made[0]
            async with asyncio.timeout(BUILT_WITHIN_S):
                while await building_servers(user):
                    await asyncio.sleep(LOOK_EVERY_S)
            yield asked, session
        finally:
            await asked.keep(0)


async def _benchmark(measured: Cloud, arguments: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    database = next(iter(measured.backing.servers.values()))
    most = max(arguments.at_once)
    figures: dict[str, Any] = {}
    with _bare_process(database, number=API_WORKERS[FULL]) as (url, pid):
        async with _asked(measured, at_once=most) as (asked, session):
            benchmark = Benchmark(measured, asked, Bare(session, url, pid), seconds=arguments.seconds)
            await benchmark.at_rest()
            task = progress.add_task("requests", total=len(arguments.cases) * len(arguments.at_once))
            for name in arguments.cases:
                for at_once in arguments.at_once:
                    progress.update(task, description=f"{name}, {at_once} at once")
                    figures.setdefault(name, {})[str(at_once)] = await benchmark.case(CASES[name], at_once)
                    progress.advance(task)
    return figures


def show(figures: dict[str, Any], console: Console) -> None:
    """Prints the table."""
    table = Table(title="Requests", title_justify="left")
    table.add_column("")
    for column in ("at once", "requests/s", "bare", "CPU ms", "bare", "times", "statements", "bytes"):
        table.add_column(column, justify="right")
    for name, by_number in figures["cases"].items():
        for at_once, each in by_number.items():
            table.add_row(
                name, at_once, f"{each['requests_per_s']:.0f}", f"{each['bare_requests_per_s']:.0f}",
                f"{each['cpu_ms']:.2f}", f"{each['bare_cpu_ms']:.2f}", f"{each['times']:.2f}",
                f"{each['statements']:.1f}", str(each["bytes"]),
            )  # fmt: skip
    console.print(table)
    console.print(noise.said(figures["yardstick_cpu_s"]))


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/api.py", description="Measures what requests to the API cost, beside a bare route."
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="a running stack's state directory; default: a stack of its own, removed at the end",
    )
    parser.add_argument("--cases", type=_cases, default=list(CASES), help=f"default {','.join(CASES)}")
    parser.add_argument("--at-once", type=_numbers, default=list(AT_ONCE), help="default 1,8,64")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of one turn of three (default 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures here")
    arguments = parser.parse_args(argv)
    console = output.console()
    try:
        figures = _measured(arguments, console)
    except (errors.CellplaneError, pymysql.MySQLError) as error:
        console.print(f"benchmarks/api.py: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    if arguments.json:
        arguments.json.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")
    show(figures, console)
    return 0


def _measured(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    with console.status("the stack") as status, cloud.running(arguments.state, cells=2, hosts=1) as measured:
        status.stop()
        before = noise.yardstick_cpu_s()
        with Progress(console=console, transient=True) as progress:
            cases = asyncio.run(_benchmark(measured, arguments, progress))
    yardstick = {"before": before, "after": noise.yardstick_cpu_s()}
    return {"machine": cloud.machine(), "versions": cloud.versions(), "yardstick_cpu_s": yardstick, "cases": cases}


def _cases(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(CASES):
        raise argparse.ArgumentTypeError(f"no such case: {', '.join(sorted(unknown))}")
    return names


def _numbers(text: str) -> list[int]:
    numbers = [int(number) for number in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError("expected numbers of at least 1")
    return numbers


if __name__ == "__main__":
    sys.exit(main())
