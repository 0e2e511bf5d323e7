#!/usr/bin/env python3
"""What a list costs: latency and CPU of the API and the database server, each case beside its floor in the same run.

    benchmarks/list.py [--cells 3] [--servers 1000] [--cases detail_1000,show] [--json FILE]

The rows are synthetic and written straight into the databases of a cloud of its own, removed at the end: MariaDB and the API with two
workers, nothing else. Requests come one after another, as admin over all projects, through HTTP, authentication and policy. The floor
reads the same rows by plain SQL from one merged table, through the same driver, into the same dictionaries (compared with the API's
answer) and dumps them with orjson; its CPU is this process's and the database server's.

CPU is read from /proc, whose clock ticks at 10 ms: a case is repeated until that does not matter.
"""

import argparse
import asyncio
import dataclasses
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    # Started as a script: the directory above holds the packages, this one would hide some of Python's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import orjson
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import cloud, noise, processes, synthetic
from benchmarks.counters import DatabaseCounters
from benchmarks.floor import BY_NAME, Floor
from benchmarks.synthetic import Synthetic
from benchmarks.users import User, user_of
from core import errors

REST_S = 3.0
WARM_UPS = 8
ENOUGH_S = 1.0
"""Repeated for so long at least, unless `most` times come first."""
MOST_DIFFERENCES_SHOWN = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A request, or a walk of many, and its floor; both give what they list as JSON."""

    name: str
    ask: Callable[["Bench"], Awaitable[list[bytes]]]
    floor: Callable[["Bench"], list[bytes]]
    most: int


class Bench:
    """The cloud, who asks it, and its floor."""

    def __init__(self, measured: Synthetic, user: User, floor: Floor) -> None:
        self.cloud = measured
        self.user = user
        self.floor = floor
        self.chance = random.Random(2)
        self.shown = measured.uuids[0]

    async def page(self, path: str) -> list[bytes]:
        """The answer to one request."""
        return [await self.user.body(path)]

    async def walk(self, path: str) -> list[bytes]:
        """The answers to a walk from page to page."""
        pages, following = [], path
        while following:
            pages.append(await self.user.body(following))
            links = orjson.loads(pages[-1]).get("servers_links")
            following = links[0]["href"].removeprefix(self.cloud.addresses.compute) if links else ""
        return pages

    def choose(self) -> None:
        """Another server for `show`."""
        self.shown = self.chance.choice(self.cloud.uuids)


def _page(name: str, path: str, *, most: int, **floor: Any) -> Case:
    return Case(name, lambda bench: bench.page(f"{path}&all_tenants=1"), lambda bench: [bench.floor.page(**floor)], most)


def _walk(name: str, path: str, *, detail: bool) -> Case:
    return Case(name, lambda bench: bench.walk(f"{path}?all_tenants=1&limit=1000"), lambda bench: bench.floor.walk(detail=detail), 3)


_STOPPED = "AND vm_state = 'stopped'"
_DATABASES = "AND display_name REGEXP '^db-'"
CASES = {
    case.name: case
    for case in (
        _page("detail_1000", "/servers/detail?limit=1000", most=30, detail=True),
        _page("brief_1000", "/servers?limit=1000", most=60, detail=False),
        _page("detail_50_by_name", "/servers/detail?limit=50&sort_key=display_name&sort_dir=asc", most=200, detail=True, order=BY_NAME, limit=50),
        _page("brief_50_by_name", "/servers?limit=50&sort_key=display_name&sort_dir=asc", most=200, detail=False, order=BY_NAME, limit=50),
        _page("status_filter", "/servers/detail?limit=50&status=SHUTOFF", most=200, detail=True, where=_STOPPED, limit=50),
        _page("name_filter", "/servers/detail?limit=50&name=%5Edb-", most=200, detail=True, where=_DATABASES, limit=50),
        Case("show", lambda bench: bench.page(f"/servers/{bench.shown}"), lambda bench: [bench.floor.show(bench.shown)], 500),
        _walk("walk_detail", "/servers/detail", detail=True),
        _walk("walk_brief", "/servers", detail=False),
    )
}


class Benchmark:
    """The cases on one cloud."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._database = DatabaseCounters([bench.cloud.server])
        self._looking: Counter[str] = Counter()
        self._rest_per_s: Counter[str] = Counter()
        self._rest_cpu_s = 0.0

    async def run(self, cases: list[Case], show: Progress) -> dict[str, Any]:
        """All figures, ready for JSON."""
        await self._at_rest()
        figures: dict[str, Any] = {}
        task = show.add_task("lists", total=len(cases))
        for case in cases:
            show.update(task, description=case.name)
            figures[case.name] = await self._case(case)
            show.advance(task)
        used = processes.usages(self._bench.cloud.leaders())
        figures["pss_mib"] = round(used["api"].pss_mib, 1)
        figures["threads"] = used["api"].threads
        figures["cpu_s_per_s_at_rest"] = self._rest_cpu_s
        return figures

    async def _at_rest(self) -> None:
        """What goes on by itself, and what looking costs: neither is a request's."""
        await self._bench.user.get("/servers?limit=1")
        before = self._database.read()
        self._looking = self._database.read() - before
        before, cpu = self._database.read(), self._cpu_s()
        await asyncio.sleep(REST_S)
        self._rest_cpu_s = (self._cpu_s() - cpu) / REST_S
        rest = self._database.read() - before - self._looking
        self._rest_per_s = Counter({name: round(value / REST_S) for name, value in rest.items()})

    async def _case(self, case: Case) -> dict[str, Any]:
        await self._check(case)
        if case.most >= WARM_UPS:
            for _ in range(WARM_UPS):
                await case.ask(self._bench)
        seconds, cpu_s, counts, bodies = await self._measured(case)
        floor_cpu_s = self._floor(case)
        number = len(seconds)
        return {
            "wall_s": statistics.mean(seconds),
            "wall_p50_s": statistics.median(seconds),
            "wall_p95_s": sorted(seconds)[min(number - 1, round(number * 0.95))],
            "cpu_s": sum(cpu_s.values()),
            "cpu_s_by_process": cpu_s,
            "floor_cpu_s": floor_cpu_s,
            "ratio": sum(cpu_s.values()) / floor_cpu_s if floor_cpu_s else 0.0,
            "rows_returned": self._own(counts["Rows_sent"], "Rows_sent", sum(seconds)) / number,
            "rows_read": self._own(counts["Rows_read"], "Rows_read", sum(seconds)) / number,
            "queries": self._own(counts["Queries"], "Queries", sum(seconds)) / number,
            "bytes": sum(map(len, bodies)),
            "servers": sum(_number(body) for body in bodies),
            "repeated": number,
        }

    async def _measured(self, case: Case) -> tuple[list[float], dict[str, float], Counter[str], list[bytes]]:
        """Seconds of each repetition, CPU seconds by process of one, the database's counts of all, the last answers."""
        leaders, seconds, bodies = self._bench.cloud.leaders(), list[float](), list[bytes]()
        before, cpu = self._database.read(), processes.cpu_s(leaders)
        while len(seconds) < case.most and (len(seconds) < 3 or sum(seconds) < 4 * ENOUGH_S):
            self._bench.choose()
            started = time.perf_counter()
            bodies = await case.ask(self._bench)
            seconds.append(time.perf_counter() - started)
        cpu_after = processes.cpu_s(leaders)
        counts = self._database.read() - before - self._looking
        return seconds, {name: (cpu_after[name] - cpu[name]) / len(seconds) for name in cpu}, counts, bodies

    def _floor(self, case: Case) -> float:
        """CPU seconds of one floor."""
        leader = {"mariadb": self._bench.cloud.server.pid}
        for _ in range(min(case.most, WARM_UPS)):
            case.floor(self._bench)
        number, ends = 0, time.monotonic() + ENOUGH_S
        own, server = time.process_time(), processes.cpu_s(leader)["mariadb"]
        while time.monotonic() < ends or number < 3:
            self._bench.choose()
            case.floor(self._bench)
            number += 1
        return (time.process_time() - own + processes.cpu_s(leader)["mariadb"] - server) / number

    async def _check(self, case: Case) -> None:
        """The floor gives what the API gives; a floor that did less would be none.

        Raises:
            Broken: it does not.
        """
        answers, floors = await case.ask(self._bench), case.floor(self._bench)
        ours, least = _servers(answers), _servers(floors)
        if ours != least:
            raise errors.Broken(f"{case.name}: the API and the floor give different servers: {_differences(ours, least)}")

    def _own(self, count: int, name: str, seconds: float) -> float:
        """What of a count is not the background's."""
        return max(0.0, count - self._rest_per_s[name] * seconds)

    def _cpu_s(self) -> float:
        return sum(processes.cpu_s(self._bench.cloud.leaders()).values())


def _servers(bodies: list[bytes]) -> list[dict[str, Any]]:
    documents = [orjson.loads(body) for body in bodies]
    return [server for document in documents for server in document.get("servers", [document.get("server")])]


def _number(body: bytes) -> int:
    return len(re.findall(rb'"rel":"self"', body))


def _differences(ours: list[dict[str, Any]], least: list[dict[str, Any]]) -> str:
    if len(ours) != len(least):
        return f"{len(ours)} and {len(least)} of them"
    for one, other in zip(ours, least, strict=True):
        if one != other:
            differing = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
            return "; ".join(f"{key}: {one.get(key)!r}, {other.get(key)!r}" for key in differing[:MOST_DIFFERENCES_SHOWN])
    return "none"


def show(figures: dict[str, Any], cases: list[Case], console: Console) -> None:
    """Prints the table."""
    table = Table(title="Lists", title_justify="left")
    table.add_column("case")
    for column in ("p50 ms", "p95 ms", "CPU ms", "of it API", "of it MariaDB", "floor ms", "x floor", "rows", "queries", "servers"):
        table.add_column(column, justify="right")
    for case in cases:
        each = figures[case.name]
        of = each["cpu_s_by_process"]
        times = (each["wall_p50_s"], each["wall_p95_s"], each["cpu_s"], of["api"], of["mariadb"], each["floor_cpu_s"])
        counts = (f"{each['ratio']:.1f}", f"{each['rows_returned']:.0f}", f"{each['queries']:.1f}", str(each["servers"]))
        table.add_row(case.name, *(f"{1000 * seconds:.2f}" for seconds in times), *counts)
    console.print(table)
    console.print(noise.said(figures["yardstick_cpu_s"]))


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks/list.py", description="Measures what lists over many cells cost.")
    parser.add_argument("--cells", type=int, default=3, metavar="N", help="cells (default 3)")
    parser.add_argument("--servers", type=int, default=1000, metavar="N", help="servers of each cell (default 1000)")
    parser.add_argument("--cases", default=",".join(CASES), help=f"default {','.join(CASES)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures here")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.cases.split(",")) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    cases = [CASES[name] for name in arguments.cases.split(",")]
    console = Console()
    try:
        figures = _measured(arguments, cases, console)
    except errors.CellplaneError as error:
        console.print(f"benchmarks/list.py: {error}", style="red", markup=False)
        return 1
    if arguments.json:
        arguments.json.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")
    show(figures, cases, console)
    return 0


def _measured(arguments: argparse.Namespace, cases: list[Case], console: Console) -> dict[str, Any]:
    with console.status(f"{arguments.cells} cells of {arguments.servers} servers") as status:
        with synthetic.running(cells=arguments.cells, servers=arguments.servers) as measured:
            status.stop()
            before = noise.yardstick_cpu_s()
            with Progress(console=console, transient=True) as progress:
                figures = asyncio.run(_benchmark(measured, cases, progress))
    about = {"machine": cloud.machine(), "versions": cloud.versions(), "cells": arguments.cells, "servers_of_a_cell": arguments.servers}
    return {**about, "yardstick_cpu_s": {"before": before, "after": noise.yardstick_cpu_s()}, **figures}


async def _benchmark(measured: Synthetic, cases: list[Case], progress: Progress) -> dict[str, Any]:
    floor = Floor(measured)
    try:
        async with user_of(measured, at_once=1) as user:
            return await Benchmark(Bench(measured, user, floor)).run(cases, progress)
    finally:
        floor.close()


if __name__ == "__main__":
    sys.exit(main())
