#!/usr/bin/env python3
"""What a boot costs: servers per second, CPU seconds over all processes, messages, commits, requests to Placement.

    benchmarks/boot.py [--state DIR] [--cases c1,c8,c16,multi50] [--boots N] [--json FILE]
    benchmarks/boot.py --large [--state DIR] [--cells 20] [--hosts 100] [--boots N] [--json FILE]

A case boots servers on simulated hosts as admin over HTTP: c8 keeps 8 requests under way, each waiting until its server
is ACTIVE; multi50 asks for 50 servers in one request, then for 50 more. How the wait is done: one request for all, the
brief list of servers in BUILD, every 50 ms while somebody waits; whoever is no longer on it is done. That list costs
CPU too, which is part of `cpu_s_per_boot`; `cpu_s_per_boot_of_waiting` says how much it is, measured on the same cloud
at rest. The rows tell the time to ACTIVE without that wait.

CPU is that of every process of the stack: workers, conductors, agents, Placement, image service, MariaDB, RabbitMQ;
from the first request until all is ACTIVE and the journal is empty, whatever runs in the background included.

`--large` is another measurement, for the night: see `benchmarks/large.py`. It ends with 1 if it does not show what is
promised.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    # Started as a script: the directory above holds the packages, this one would hide some of Python's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import orjson
import pymysql
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import cloud, large, noise, output
from benchmarks.boots import CASES, Benchmark, Case, sized
from benchmarks.cloud import Cloud
from benchmarks.users import user_of
from core import errors

LARGE = large.Size()

# ---- what a person reads ---------------------------------------------------------------------------------------------


def show(figures: dict[str, Any], cases: list[Case], console: Console) -> None:
    """Prints the tables."""
    console.print(_summary(figures, cases))
    console.print(_by_process(figures, cases))
    rest = figures["at_rest"]
    console.print(
        f"At rest: {rest['cpu_s_per_s']:.3f} CPU s/s, {rest['messages_per_s']:.1f} messages/s, "
        f"{rest['commits_per_s']:.1f} writing commits/s, {rest['placement_requests_per_s']:.1f} requests to "
        f"Placement/s. Memory (PSS) {figures['pss_mib']:.0f} MiB in {figures['threads']} threads; with databases and "
        f"brokers {figures['pss_mib_with_databases_and_brokers']:.0f} MiB."
    )
    console.print(noise.said(figures["yardstick_cpu_s"]))


def _summary(figures: dict[str, Any], cases: list[Case]) -> Table:
    table = Table(title="Boots", title_justify="left")
    table.add_column("for each boot")
    for case in cases:
        table.add_column(case.name, justify="right")
    rows = {
        "boots/s": ("boots_per_s", ".1f"),
        "CPU s": ("cpu_s_per_boot", ".4f"),
        "  of it, of waiting": ("cpu_s_per_boot_of_waiting", ".4f"),
        "to ACTIVE p50 s": ("tta_p50_s", ".3f"),
        "to ACTIVE p95 s": ("tta_p95_s", ".3f"),
        "rows, to ACTIVE p50 s": ("tta_rows_p50_s", ".3f"),
        "rows, to ACTIVE p95 s": ("tta_rows_p95_s", ".3f"),
        "messages": ("messages_per_boot", ".2f"),
        "writing commits": ("commits_per_boot", ".2f"),
        "requests to Placement": ("placement_requests_per_boot", ".2f"),
        "deletes/s": ("deletes_per_s", ".1f"),
        "CPU s of a delete": ("cpu_s_per_delete", ".4f"),
        "messages of a delete": ("messages_per_delete", ".2f"),
        "commits of a delete": ("commits_per_delete", ".2f"),
    }
    for label, (key, form) in rows.items():
        table.add_row(label, *(format(figures[case.name][key], form) for case in cases))
    for statement in sorted(figures[cases[0].name]["statements"]) if cases else ():
        table.add_row(f"SQL: {statement}", *(f"{figures[case.name]['statements'][statement]:.1f}" for case in cases))
    return table


def _by_process(figures: dict[str, Any], cases: list[Case]) -> Table:
    table = Table(title="Where it goes", title_justify="left")
    table.add_column("CPU ms of a boot (of a delete)")
    for case in cases:
        table.add_column(case.name, justify="right")
    table.add_column("at rest, ms/s", justify="right")
    table.add_column("PSS MiB", justify="right")
    table.add_column("threads", justify="right")
    for name, used in figures["processes"].items():
        boots = [figures[case.name]["cpu_ms_by_process"].get(name, 0) for case in cases]
        deletes = [figures[case.name]["delete"]["cpu_ms_by_process"].get(name, 0) for case in cases]
        costs = (f"{boot:.1f} ({delete:.1f})" for boot, delete in zip(boots, deletes, strict=True))
        rest = figures["at_rest"]["cpu_ms_per_s_by_process"].get(name, 0)
        table.add_row(name, *costs, f"{rest:.1f}", f"{used['pss_mib']:.1f}", str(used["threads"]))
    return table


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/boot.py", description="Measures what a boot costs on a stack of the full profile."
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="a running stack's state directory; default: a stack of its own, removed at the end",
    )
    parser.add_argument(
        "--large", action="store_true", help="2,000 played hosts in 20 cells, one super-conductor and two"
    )
    parser.add_argument("--cells", type=int, help="cells of its own stack (default 3; with --large 20)")
    parser.add_argument("--hosts", type=int, help="hosts of each cell (default 2; with --large 100)")
    parser.add_argument("--cases", default=",".join(CASES), help=f"default {','.join(CASES)}")
    parser.add_argument("--boots", type=int, metavar="N", help="boots of each case; default: what the case says")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures here")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.cases.split(",")) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    cases = [sized(CASES[name], arguments.boots) for name in arguments.cases.split(",")]
    console = output.console()
    try:
        figures = _measured(arguments, cases, console)
    except (errors.CellplaneError, pymysql.MySQLError) as error:
        console.print(f"benchmarks/boot.py: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    if arguments.json:
        arguments.json.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")
    if arguments.large:
        large.show(figures, console)
        return 0 if large.is_as_promised(figures) else 1
    show(figures, cases, console)
    return 0


def _measured(arguments: argparse.Namespace, cases: list[Case], console: Console) -> dict[str, Any]:
    cells = arguments.cells or (LARGE.cells if arguments.large else 3)
    hosts = 1 if arguments.large else arguments.hosts or 2
    with console.status("the stack") as status, cloud.running(arguments.state, cells=cells, hosts=hosts) as measured:
        status.stop()
        before = noise.yardstick_cpu_s()
        if arguments.large:
            size = large.Size(cells, arguments.hosts or LARGE.hosts_of_a_cell, arguments.boots or LARGE.boots)
            figures = large.measured(measured, size, console)
        else:
            with Progress(console=console, transient=True) as progress:
                figures = asyncio.run(_benchmark(measured, cases, progress))
    yardstick = {"before": before, "after": noise.yardstick_cpu_s()}
    return {"machine": cloud.machine(), "versions": cloud.versions(), "yardstick_cpu_s": yardstick, **figures}


async def _benchmark(measured: Cloud, cases: list[Case], progress: Progress) -> dict[str, Any]:
    async with user_of(measured, at_once=max(case.at_once for case in cases) + 8) as user:
        return await Benchmark(measured, user, progress).run(cases)


if __name__ == "__main__":
    sys.exit(main())
