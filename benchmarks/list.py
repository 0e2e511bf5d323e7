#!/usr/bin/env python3
"""What a list costs: latency and CPU of the API and the database server, each case beside its floor in the same run.

    benchmarks/list.py [--cases detail_1000,show] [--large] [--worlds DIRECTORY] [--json FILE]

The rows are synthetic and written straight into the databases of worlds of their own: 3 cells x 10,000 servers, 80 x
500 and 1 x 500, with `--large` instead 200 cells that hold 1,000,000. A MariaDB server and the API with two workers
run, nothing else. `--worlds` names a directory in which the worlds are kept for the next run; otherwise they are made
anew and removed at the end.

Requests come one after another, as admin over all projects, through HTTP, authentication and policy. The floor reads
the same rows by plain SQL from one merged table, through the same driver, into the same dictionaries (compared with the
API's answer) and dumps them with orjson; its CPU is this process's and the database server's. In the cases with `_slow`
in their names every query of every cell takes 100 ms longer (`benchmarks.delay`).

CPU is read from /proc, whose clock ticks at 10 ms: a case is repeated until that does not matter.
"""

import argparse
import asyncio
import dataclasses
import itertools
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    # Started as a script: the directory above holds the packages, this one would hide some of Python's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import orjson
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import cloud, noise, output, processes, synthetic
from benchmarks.counters import DatabaseCounters
from benchmarks.floor import BY_NAME, Floor
from benchmarks.synthetic import PROJECT, TENANT, Synthetic, World
from benchmarks.users import User, user_of
from core import errors

REST_S = 3.0
WARM_UPS = 8
ENOUGH_S = 4.0
"""A case is repeated for so long at least, unless `most` times come first."""
PART_OF_FLOOR = 0.25
"""Its floor takes this part of the time."""
SETTLE_S = 60.0
"""Cells that are far away may be late while their connections are opened."""
SLOW_S = 0.1
MAX_DIFFERENCES_SHOWN = 5

FEW, MANY, ONE, LARGE = "few", "many", "one", "large"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request, or a walk of many, and its floor; both give what they list as JSON."""

    name: str
    ask: Callable[["Bench"], Awaitable[list[bytes]]]
    floor: Callable[["Bench"], list[bytes]]
    most: int
    world: str = FEW
    delay_s: float = 0.0

    @property
    def stage(self) -> tuple[str, float]:
        """What it needs running."""
        return self.world, self.delay_s


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


def _page(name: str, path: str, *, most: int, world: str = FEW, delay_s: float = 0.0, **floor: Any) -> Case:
    return Case(
        name=name,
        ask=lambda bench: bench.page(f"{path}&all_tenants=1"),
        floor=lambda bench: [bench.floor.page(**floor)],
        most=most,
        world=world,
        delay_s=delay_s,
    )


def _walk(name: str, path: str, *, detail: bool) -> Case:
    return Case(
        name=name,
        ask=lambda bench: bench.walk(f"{path}?all_tenants=1&limit=1000"),
        floor=lambda bench: bench.floor.walk(detail=detail),
        most=3,
    )


def _show(name: str, *, world: str = FEW) -> Case:
    return Case(
        name=name,
        ask=lambda bench: bench.page(f"/servers/{bench.shown}"),
        floor=lambda bench: [bench.floor.show(bench.shown)],
        most=1000,
        world=world,
    )


def _slow(name: str, world: str, *, detail: bool = False) -> Case:
    """Not in the order that the mappings know: every cell is asked."""
    path = "/servers/detail" if detail else "/servers"
    return _page(
        name,
        f"{path}?limit=50&{_SORTED}",
        most=200,
        world=world,
        delay_s=SLOW_S,
        detail=detail,
        order=BY_NAME,
        limit=50,
    )


_SORTED = "sort_key=display_name&sort_dir=asc"
_STOPPED = "AND vm_state = 'stopped'"
_DATABASES = "AND display_name REGEXP '^db-'"
_OF_TENANT = f"AND project_id = '{TENANT}'"
_OF_PROJECT = f"AND project_id = '{PROJECT}'"
_CASES = (
    _page("detail_1000", "/servers/detail?limit=1000", most=60, detail=True),
    _page("brief_1000", "/servers?limit=1000", most=120, detail=False),
    _page("detail_50_by_name", f"/servers/detail?limit=50&{_SORTED}", most=300, detail=True, order=BY_NAME, limit=50),
    _page("brief_50_by_name", f"/servers?limit=50&{_SORTED}", most=500, detail=False, order=BY_NAME, limit=50),
    _page("status_filter", "/servers/detail?limit=50&status=SHUTOFF", most=300, detail=True, where=_STOPPED, limit=50),
    _page("name_filter", "/servers/detail?limit=50&name=%5Edb-", most=200, detail=True, where=_DATABASES, limit=50),
    _walk("walk_detail", "/servers/detail", detail=True),
    _walk("walk_brief", "/servers", detail=False),
    _page(
        "one_tenant_of_80", f"/servers/detail?limit=50&{_SORTED}&project_id={TENANT}",
        most=300, world=MANY, detail=True, where=_OF_TENANT, order=BY_NAME, limit=50,
    ),
    _show("show"),
    _slow("cells_1_slow", ONE),
    _slow("cells_80_slow", MANY),
    _slow("cells_1_slow_detail", ONE, detail=True),
    _slow("cells_80_slow_detail", MANY, detail=True),
)  # fmt: skip
_LARGE_CASES = (
    _show("large_show", world=LARGE),
    _page(
        "large_project",
        f"/servers/detail?limit=100&project_id={PROJECT}",
        most=200,
        world=LARGE,
        detail=True,
        where=_OF_PROJECT,
        limit=100,
    ),
    _page("large_all", "/servers/detail?limit=100", most=200, world=LARGE, detail=True, limit=100),
)
CASES = {case.name: case for case in _CASES}
LARGE_CASES = {case.name: case for case in _LARGE_CASES}


class Benchmark:
    """The cases on one cloud."""

    def __init__(self, bench: Bench, *, enough_s: float) -> None:
        self._bench = bench
        self._enough_s = enough_s
        self._database = DatabaseCounters([bench.cloud.server])
        self._looking: Counter[str] = Counter()
        self._rest_per_s: dict[str, float] = {}
        self._rest_cpu_s = 0.0

    async def run(self, cases: list[Case], progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
        """Case -> its figures, and what the API used meanwhile; both ready for JSON."""
        await self._at_rest()
        figures: dict[str, Any] = {}
        task = progress.add_task("lists", total=len(cases))
        for case in cases:
            progress.update(task, description=case.name)
            figures[case.name] = await self._case(case)
            progress.advance(task)
        used = processes.usages(self._bench.cloud.leaders())["api"]
        return figures, {
            "pss_mib": round(used.pss_mib, 1),
            "threads": used.threads,
            "cpu_s_per_s_at_rest": self._rest_cpu_s,
        }

    async def _at_rest(self) -> None:
        """What goes on by itself, and what looking costs: neither is a request's."""
        await self._bench.user.get("/servers?limit=1")
        before = self._database.read()
        self._looking = self._database.read() - before
        before, cpu = self._database.read(), self._cpu_s()
        seconds = min(REST_S, self._enough_s)
        await asyncio.sleep(seconds)
        self._rest_cpu_s = (self._cpu_s() - cpu) / seconds
        rest = self._database.read() - before - self._looking
        self._rest_per_s = {name: value / seconds for name, value in rest.items()}

    async def _case(self, case: Case) -> dict[str, Any]:
        await self._check(case)
        if case.most >= WARM_UPS:
            for _ in range(WARM_UPS):
                await case.ask(self._bench)
        seconds, cpu_s, counts, bodies = await self._measured(case)
        floor_cpu_s = self._floor(case)
        number = len(seconds)
        return {
            "wall_s": statistics.median(seconds),
            "wall_mean_s": statistics.mean(seconds),
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
        while len(seconds) < case.most and (len(seconds) < 3 or sum(seconds) < self._enough_s):
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
        number, ends = 0, time.monotonic() + self._enough_s * PART_OF_FLOOR
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
        least, ends = _servers(case.floor(self._bench)), time.monotonic() + (SETTLE_S if case.delay_s else 0.0)
        while (ours := _servers(await case.ask(self._bench))) != least:
            if time.monotonic() > ends:
                raise errors.Broken(
                    f"{case.name}: the API and the floor give different servers: {_differences(ours, least)}"
                )

    def _own(self, count: int, name: str, seconds: float) -> float:
        """What of a count is not the background's."""
        return max(0.0, count - self._rest_per_s.get(name, 0.0) * seconds)

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
            return "; ".join(
                f"{key}: {one.get(key)!r}, {other.get(key)!r}" for key in differing[:MAX_DIFFERENCES_SHOWN]
            )
    return "none"


def show(figures: Mapping[str, Any], console: Console) -> None:
    """Prints the table."""
    table = Table(title="Lists", title_justify="left")
    table.add_column("case", no_wrap=True)
    for column in (
        "p50 ms",
        "p95 ms",
        "CPU ms",
        "of it API",
        "of it MariaDB",
        "floor ms",
        "x floor",
        "rows",
        "queries",
        "servers",
    ):
        table.add_column(column, justify="right")
    for name, each in figures.items():
        of = each["cpu_s_by_process"]
        times = (each["wall_s"], each["wall_p95_s"], each["cpu_s"], of["api"], of["mariadb"], each["floor_cpu_s"])
        counts = (
            f"{each['ratio']:.1f}",
            f"{each['rows_returned']:.0f}",
            f"{each['queries']:.1f}",
            str(each["servers"]),
        )
        table.add_row(name, *(f"{1000 * seconds:.2f}" for seconds in times), *counts)
    console.print(table)


def _far_and_many(one: Mapping[str, Any], many: Mapping[str, Any], cells: int) -> dict[str, float]:
    """What many slow cells cost beside one."""
    return {
        "latency_ratio": many["wall_s"] / one["wall_s"],
        "more_cpu_s_per_cell": (many["cpu_s"] - one["cpu_s"]) / cells,
    }


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks/list.py", description="Measures what lists over many cells cost.")
    parser.add_argument("--cases", metavar="NAMES", help=f"default {','.join(CASES)}")
    parser.add_argument(
        "--large",
        action="store_true",
        help=f"1,000,000 servers in 200 cells instead; its cases are {','.join(LARGE_CASES)}",
    )
    parser.add_argument("--worlds", type=Path, metavar="DIRECTORY", help="keeps the rows here for the next run")
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="PART",
        help="makes only this part of all rows, and of more than 3 cells (default 1)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=ENOUGH_S,
        metavar="N",
        help=f"repeats a case for so long (default {ENOUGH_S:g})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures here")
    arguments = parser.parse_args(argv)
    known = LARGE_CASES if arguments.large else CASES
    names = arguments.cases.split(",") if arguments.cases else [*known]
    if unknown := set(names) - known.keys():
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    console = output.console()
    try:
        figures = _measured([known[name] for name in names], arguments, console)
    except errors.CellplaneError as error:
        console.print(f"benchmarks/list.py: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    if arguments.json:
        arguments.json.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")
    show({name: figures[name] for name in names}, console)
    for name, what in (("many_slow_cells", "brief"), ("many_slow_cells_detail", "detail")):
        if name in figures:
            said = (
                "Many slow cells beside one, {what}: {latency_ratio:.2f} times as long, "
                "{more_cpu_s_per_cell:.5f} CPU s more per cell."
            )
            console.print(said.format(what=what, **figures[name]))
    console.print(noise.said(figures["yardstick_cpu_s"]))
    return 0


def _sizes(scale: float) -> dict[str, World]:
    """The worlds by name; a part of them is for trying."""

    def part(number: int) -> int:
        return max(3, round(number * scale))

    sizes = (
        World(FEW, 3, part(10_000)),
        World(MANY, part(80), part(500)),
        World(ONE, 1, part(500)),
        World(LARGE, part(200), part(5000)),
    )
    return {world.name: world for world in sizes}


def _measured(cases: list[Case], arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """All figures: those of the cases by their names, and what they were measured on."""
    sizes, figures, used, before = _sizes(arguments.scale), dict[str, Any](), dict[str, Any](), noise.yardstick_cpu_s()
    with synthetic.worlds(arguments.worlds) as kept, Progress(console=console, transient=True) as progress:
        for (name, delay_s), of_stage in itertools.groupby(
            sorted(cases, key=lambda case: case.stage), lambda case: case.stage
        ):
            progress.console.print(f"{name}: {sizes[name].cells} cells of {sizes[name].servers} servers")
            figures_here, used_here = _staged(
                kept.running(sizes[name], delay_s=delay_s), list(of_stage), arguments.seconds, progress
            )
            figures |= figures_here
            used[f"{name}_slow" if delay_s else name] = dataclasses.asdict(sizes[name]) | used_here
    for suffix in ("", "_detail"):
        one, many = f"cells_1_slow{suffix}", f"cells_80_slow{suffix}"
        if {one, many} <= figures.keys():
            figures[f"many_slow_cells{suffix}"] = _far_and_many(figures[one], figures[many], sizes[MANY].cells)
    yardstick = {"before": before, "after": noise.yardstick_cpu_s()}
    return {
        "machine": cloud.machine(),
        "versions": cloud.versions(),
        "worlds": used,
        "yardstick_cpu_s": yardstick,
        **figures,
    }


def _staged(
    running: AbstractContextManager[Synthetic], cases: list[Case], enough_s: float, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any]]:
    with running as measured:
        return asyncio.run(_benchmark(measured, cases, enough_s, progress))


async def _benchmark(
    measured: Synthetic, cases: list[Case], enough_s: float, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any]]:
    floor = Floor(measured)
    try:
        async with user_of(measured, at_once=1) as user:
            return await Benchmark(Bench(measured, user, floor), enough_s=enough_s).run(cases, progress)
    finally:
        floor.close()


if __name__ == "__main__":
    sys.exit(main())
