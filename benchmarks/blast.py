"""What a frozen cell costs the others: p95 of their requests while all cells are well and while one is frozen, in turn.

    benchmarks/blast.py [--cells 8] [--rounds 5] [--seconds 8] [--freeze database|broker] [--json FILE]

A cloud of its own with a MariaDB server and a RabbitMQ node for each cell; a steady load of lists, shows and actions on
the cells that stay well (`tests/stack/steady.py`), from a process of its own, far below what the machine can do.
Windows with and without the fault take turns, so that whatever else the machine does is spread over both; a window of
the fault begins with the freeze itself.
"""

import argparse
import contextlib
import dataclasses
import itertools
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    # Started as a script: the directory above holds the packages, this one would hide some of Python's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import orjson
from rich.console import Console
from rich.table import Table

from benchmarks import cloud as measured
from benchmarks import noise, output
from core import errors
from devstack.waiting import wait_until
from tests.stack import cloud as clouds
from tests.stack import faults
from tests.stack.cloud import Cloud
from tests.stack.servers import Servers
from tests.stack.steady import OTHERS, Done, Steady, own_seconds, servers_for

VICTIM = "south"
FREEZES = {"database": f"mariadb-{VICTIM}", "broker": f"rabbitmq-{VICTIM}"}
LEAST_CELLS = 4
BACK_WITHIN_S = 30.0
IN_A_ROW = 6


@dataclasses.dataclass(frozen=True)
class Windows:
    """What ended in the windows of one kind."""

    name: str
    done: list[Done]

    def figures(self) -> dict[str, Any]:
        """Seconds of the requests about healthy cells, and what failed of all requests."""
        mine = own_seconds(self.done)
        cuts = statistics.quantiles(mine, n=100)
        return {
            "requests": len(mine),
            "p50_s": cuts[49],
            "p95_s": cuts[94],
            "p99_s": cuts[98],
            "slowest_s": max(mine),
            "slowest_of_all_s": max(each.took_s - each.withheld_s for each in self.done),
            "failed": sum(each.status not in (200, 202) or bool(each.problem) for each in self.done),
            "p95_s_by_kind": {kind: _p95(list(own_seconds(group))) for kind, group in _by_kind(self.done)},
        }


def _by_kind(done: list[Done]) -> list[tuple[str, list[Done]]]:
    mine = sorted((each for each in done if each.group == OTHERS), key=lambda each: each.kind)
    return [(kind, list(group)) for kind, group in itertools.groupby(mine, key=lambda each: each.kind)]


def _p95(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1] if len(seconds) > 1 else seconds[0]


def measure(cloud: Cloud, arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Both kinds of windows, in turn."""
    admins, demos = servers_for(cloud, victim=VICTIM)
    well, frozen = Windows("well", []), Windows("frozen", [])
    before = noise.yardstick_cpu_s()
    with Steady(cloud, admins=admins, demos=demos, victim=VICTIM) as load:
        load.for_seconds(arguments.seconds / 2)  # every gate has its connections by then
        for number in range(arguments.rounds):
            console.print(f"round {number + 1} of {arguments.rounds}")
            well.done.extend(load.for_seconds(arguments.seconds))
            with faults.frozen(cloud, FREEZES[arguments.freeze]):
                frozen.done.extend(load.for_seconds(arguments.seconds))
            wait_until(lambda: _is_back(cloud, demos[VICTIM]), what=f"{VICTIM} in the lists", deadline_s=BACK_WITHIN_S)
    figures = {each.name: each.figures() for each in (well, frozen)}
    return {
        "machine": measured.machine(), "versions": measured.versions(), "cells": arguments.cells,
        "what": arguments.freeze, "yardstick_cpu_s": {"before": before, "after": noise.yardstick_cpu_s()}, **figures,
        "p95_times": figures["frozen"]["p95_s"] / figures["well"]["p95_s"],
    }  # fmt: skip


def _is_back(cloud: Cloud, server: str) -> bool:
    return all(Servers(cloud).listed().get(server, {}).get("status") == "ACTIVE" for _ in range(IN_A_ROW))


def show(figures: dict[str, Any], console: Console) -> None:
    """Prints the table."""
    table = Table(title="Requests to the other cells", title_justify="left")
    table.add_column("")
    for column in ("requests", "p50 ms", "p95 ms", "p99 ms", "slowest ms", "failed", "slowest of all lists ms"):
        table.add_column(column, justify="right")
    for name in ("well", "frozen"):
        each = figures[name]
        times = (f"{1000 * each[key]:.1f}" for key in ("p50_s", "p95_s", "p99_s", "slowest_s"))
        table.add_row(
            name, str(each["requests"]), *times, str(each["failed"]), f"{1000 * each['slowest_of_all_s']:.0f}"
        )
    console.print(table)
    console.print(
        f"p95 with the {figures['what']} of one cell of {figures['cells']} frozen: {figures['p95_times']:.2f} times "
        "the healthy one"
    )
    console.print(noise.said(figures["yardstick_cpu_s"]))


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/blast.py", description="Measures what a frozen cell costs requests to the other cells."
    )
    parser.add_argument("--cells", type=int, default=8, metavar="N", help="cells (default 8)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="windows of each kind (default 5)")
    parser.add_argument("--seconds", type=float, default=8.0, metavar="S", help="length of a window (default 8)")
    parser.add_argument(
        "--freeze", choices=list(FREEZES), default="database", help="what of the cell is frozen (default database)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures here")
    arguments = parser.parse_args(argv)
    if arguments.cells < LEAST_CELLS:
        parser.error(f"--cells: {LEAST_CELLS} at least")
    console = output.console()
    try:
        with tempfile.TemporaryDirectory(prefix="cellplane-benchmark-") as folder, contextlib.ExitStack() as stack:
            options = ("--profile", "full", "--isolate", "--cells", str(arguments.cells), "--hosts", "1")
            cloud = stack.enter_context(clouds.running(Path(folder) / "state", *options))
            figures = measure(cloud, arguments, console)
    except errors.CellplaneError as error:
        console.print(f"benchmarks/blast.py: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    if arguments.json:
        arguments.json.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")
    show(figures, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
