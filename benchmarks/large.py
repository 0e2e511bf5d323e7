"""Thousands of hosts: does a build cost more on a large cloud than on a small one, and do two super-conductors get in
each other's way?

The hosts are played (`benchmarks/played_hosts.py`), everything else is real: MariaDB, RabbitMQ, Placement over HTTP,
API, conductors. The same stack is measured with one played host in each cell, and then with all of them; each time with
one super-conductor and with two.
"""

import asyncio
import configparser
import contextlib
import dataclasses
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import noise
from benchmarks.boots import Benchmark, Case, percentile
from benchmarks.cloud import Cloud
from benchmarks.counters import administrator, ask
from benchmarks.played_hosts import host_name, player_of
from benchmarks.users import user_of
from core import errors
from devstack.background import REPOSITORY
from devstack.backing_services import API_SCHEMA, PLACEMENT_SCHEMA, schema_of
from devstack.child import Child
from devstack.supervisor import Control
from devstack.waiting import wait_until

AT_ONCE = 16
HOSTS_DEADLINE_S = 600.0
GRACE_S = 30.0
REFUSED_CLAIM = re.compile(r'requestlog .*"POST [^" ]*/allocations[^"]*" status: (409)')
MAX_GROWTH = 2.0
"""CPU of a build on the large cloud, times that on the small one: what is promised at most."""


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """How large the cloud is, and how much is booted on it. `cells` is what a stack of its own is given; another one
    has its own."""

    cells: int = 20
    hosts_of_a_cell: int = 100
    boots: int = 200


class LargeCloud(Cloud):
    """A stack whose hosts are played and whose super-conductors are timed."""

    def __init__(self, measured: Cloud) -> None:
        super().__init__(measured.state)
        self.control = Control(self.state)
        self.supers: dict[str, Child] = {}
        self._players: list[Child] = []
        self._servers = [administrator(server) for server in self.backing.servers.values()]

    def leaders(self) -> dict[str, int]:
        """Also the super-conductors that are timed. The hosts are left out, on the small cloud as on the large one."""
        return {**super().leaders(), **{name: child.pid for name, child in self.supers.items()}}

    @contextlib.contextmanager
    def to_itself(self) -> Iterator[None]:
        """Inside, the stack's own hosts take nothing, and its own super-conductor rests. Played hosts stay behind, as
        hosts that are down."""
        self._let_own_hosts(disabled=True)
        self.control.hold("super-conductor")
        try:
            yield
        finally:
            self.close()
            self.control.release("super-conductor")
            self._let_own_hosts(disabled=False)
            for connection in self._servers:
                connection.close()

    def _let_own_hosts(self, *, disabled: bool) -> None:
        for cell in self.shape.cell_names:
            own = ", ".join(f"'{host}'" for host in self.shape.hosts_of(cell))
            self._tell(
                cell,
                f"UPDATE {{schema}}.services SET disabled = {int(disabled)} WHERE `binary` = 'nova-compute' AND host "
                f"IN ({own})",
            )

    def play(self, first: int, hosts: int) -> None:
        """Plays so many hosts more in each cell; returns when Placement knows all of them."""
        for cell in self.shape.cell_names:
            self.backing.node_of(cell).create_vhost(cell, [player_of(cell)])
        command = [
            sys.executable, "-m", "benchmarks.played_hosts", "--state", str(self.state.path), "--first", str(first),
            "--hosts", str(hosts),
        ]  # fmt: skip
        player = Child(command, env={}, log=self.state.log(f"played-hosts-{first}"), cwd=REPOSITORY)
        self._players.append(player)
        player.start()
        last, wanted = first + hosts - 1, len(self.shape.cell_names) * (first + hosts - 1)

        def are_known() -> bool:
            if not player.is_running():
                raise errors.Unavailable(f"the played hosts ended: {self.state.log(f'played-hosts-{first}')}")
            return self.placed_hosts() >= wanted

        wait_until(
            are_known,
            what=f"{wanted} hosts that Placement knows ({host_name('…', last)})",
            deadline_s=HOSTS_DEADLINE_S,
            every_s=0.5,
        )

    def placed_hosts(self) -> int:
        """Played hosts that Placement was told of."""
        return sum(
            int(
                self._tell(
                    cell,
                    "SELECT COUNT(*) FROM {schema}.compute_nodes WHERE hypervisor_type = 'played' AND placed = "
                    "inventory",
                )[0][0]
            )
            for cell in self.shape.cell_names
        )

    @contextlib.contextmanager
    def super_conductors(self, number: int) -> Iterator[Callable[[], dict[str, list[float]]]]:
        """So many of them. What it gives stops them, and gives the times of all of them together."""
        times = [self.state.path / f"timed-super-{one}.json" for one in range(1, number + 1)]
        for one, path in enumerate(times, 1):
            self.supers[f"timed-super-{one}"] = self._super_conductor(f"timed-super-{one}", path)

        def stopped() -> dict[str, list[float]]:
            for child in self.supers.values():
                child.stop(grace_s=GRACE_S)
            self.supers.clear()
            seconds_by_name: dict[str, list[float]] = {}
            for path in times:
                for name, seconds in orjson.loads(path.read_bytes()).items():
                    seconds_by_name.setdefault(name, []).extend(seconds)
            return seconds_by_name

        try:
            yield stopped
        finally:
            for child in self.supers.values():
                child.stop(grace_s=GRACE_S)
            self.supers.clear()

    def _super_conductor(self, name: str, times: Path) -> Child:
        settings = configparser.ConfigParser(interpolation=None)
        settings.read(self.state.config("super-conductor"))
        settings["DEFAULT"].update({"host": name, "log_file": str(self.state.log(name))})
        with self.state.config(name).open("w") as file:
            settings.write(file)
        command = [
            sys.executable, "-m", "benchmarks.timed_super_conductor", "--times", str(times), "--config-file",
            str(self.state.config(name)),
        ]  # fmt: skip
        child = Child(command, env={}, log=self.state.output(name), cwd=REPOSITORY)
        child.start()
        up = f"SELECT COUNT(*) FROM {{schema}}.services WHERE host = '{name}'"
        wait_until(
            lambda: child.is_running() and self._ask(API_SCHEMA, up)[0][0] == 1,
            what=f"start of {name}",
            deadline_s=60.0,
        )
        return child

    def wrongs(self) -> list[str]:
        """Servers that are not where they should be, once and claimed; hosts that were given more than they have."""
        rows = {
            str(uuid): (cell, str(node), str(state))
            for cell in self.shape.cell_names
            for uuid, node, state in self._tell(
                cell, "SELECT uuid, node_uuid, vm_state FROM {schema}.instances WHERE NOT deleted"
            )
        }
        cells = dict(self._ask(API_SCHEMA, "SELECT uuid, name FROM {schema}.cell_mappings"))
        mapped = {
            str(uuid): cells.get(cell)
            for uuid, cell in self._ask(
                API_SCHEMA, "SELECT uuid, cell_uuid FROM {schema}.instance_mappings WHERE NOT deleted"
            )
        }
        claims: dict[str, set[str]] = {}
        claimed = (
            "SELECT a.consumer_id, p.uuid FROM {schema}.allocations a "
            "JOIN {schema}.resource_providers p ON p.id = a.resource_provider_id"
        )
        for consumer, provider in self._ask(PLACEMENT_SCHEMA, claimed):
            claims.setdefault(str(consumer), set()).add(str(provider))
        return [
            *(
                f"server {uuid} is {row} and its mapping names {mapped.get(uuid)}"
                for uuid, row in rows.items()
                if mapped.get(uuid) != row[0]
            ),
            *(f"server {uuid} is {row[2]}" for uuid, row in rows.items() if row[2] != "active"),
            *(
                f"server {uuid} is on {row[1]} and claimed on {claims.get(uuid)}"
                for uuid, row in rows.items()
                if claims.get(uuid) != {row[1]}
            ),
            *(f"a claim of {uuid}, which is no server" for uuid in claims.keys() - rows.keys()),
            *(f"server {uuid} is in no cell" for uuid in mapped.keys() - rows.keys()),
            *(
                f"provider {provider} is given {used} {name} of {total}"
                for provider, name, used, total in self._ask(PLACEMENT_SCHEMA, OVERFULL)
            ),
        ]

    def _tell(self, cell: str, statement: str) -> list[tuple[Any, ...]]:
        return self._ask(schema_of(cell), statement)

    def _ask(self, schema: str, statement: str) -> list[tuple[Any, ...]]:
        for connection in self._servers:
            if ask(connection, "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", schema):
                return ask(connection, statement.format(schema=f"`{schema}`"))
        raise errors.NotFound(f"there is no schema {schema}")

    def close(self) -> None:
        """Ends the processes that were started here."""
        for child in (*self.supers.values(), *self._players):
            child.stop(grace_s=GRACE_S)


OVERFULL = """
SELECT p.uuid, i.resource_class_id, SUM(a.used), i.total
FROM {schema}.inventories i
JOIN {schema}.resource_providers p ON p.id = i.resource_provider_id
JOIN {schema}.allocations a ON a.resource_provider_id = p.id AND a.resource_class_id = i.resource_class_id
GROUP BY p.uuid, i.resource_class_id, i.total, i.reserved, i.allocation_ratio
HAVING SUM(a.used) > (i.total - i.reserved) * i.allocation_ratio
"""


# ---- measuring -------------------------------------------------------------------------------------------------------


def measured(stack: Cloud, size: Size, console: Console) -> dict[str, Any]:
    """All figures, ready for JSON."""
    cloud = LargeCloud(stack)
    size = dataclasses.replace(size, cells=len(cloud.shape.cell_names))
    figures: dict[str, Any] = {"size": dataclasses.asdict(size)}
    with cloud.to_itself(), Progress(console=console, transient=True) as progress:
        for hosts_of_a_cell, more in ((1, 1), (size.hosts_of_a_cell, size.hosts_of_a_cell - 1)):
            began_s = time.monotonic()
            task = progress.add_task(f"{size.cells * hosts_of_a_cell} hosts", total=None)
            cloud.play(hosts_of_a_cell - more + 1, more)
            progress.remove_task(task)
            figures[f"hosts_{size.cells * hosts_of_a_cell}"] = {
                "registered_s": time.monotonic() - began_s,
                **{
                    name: _one(cloud, number, size, progress)
                    for name, number in (("one_super_conductor", 1), ("two_super_conductors", 2))
                },
            }
    small, large = (
        figures[f"hosts_{size.cells * hosts}"]["one_super_conductor"] for hosts in (1, size.hosts_of_a_cell)
    )
    figures["growth"] = {
        name: large[name] / small[name]
        for name in ("cpu_s_per_boot", "cpu_s_per_boot_beyond_rest", "cpu_s_of_super_conductors_per_boot")
    }
    return figures


def _one(cloud: LargeCloud, number: int, size: Size, progress: Progress) -> dict[str, Any]:
    log = cloud.state.log("placement")
    with cloud.super_conductors(number) as stopped:
        figures = asyncio.run(_boots(cloud, size, progress, log))
        times = stopped()
    return figures | {
        f"{name}_{percent}_s": percentile(sorted(times.get(key, [])), int(percent[1:]))
        for name, key in (
            ("decision", "decision"),
            ("claim", "super.claim"),
            ("assign", "super.assign"),
            ("insert", "super.insert"),
        )
        for percent in ("p50", "p99")
    }


async def _boots(cloud: LargeCloud, size: Size, progress: Progress, log: Path) -> dict[str, Any]:
    async with user_of(cloud, at_once=AT_ONCE + 8) as user:
        benchmark = Benchmark(cloud, user, progress)
        await benchmark.prepare()
        read_to = log.stat().st_size
        wrongs: list[str] = []
        case = Case("large", at_once=AT_ONCE, servers_of_a_request=1, boots=size.boots)
        rest, figures = await benchmark.rest_and(case, between=lambda: wrongs.extend(cloud.wrongs()))
    supers = sum(ms for name, ms in figures["cpu_ms_by_process"].items() if name.startswith("timed-super")) / 1000
    return {
        "cpu_s_per_s_at_rest": rest,
        **figures,
        "cpu_s_per_boot_beyond_rest": figures["cpu_s_per_boot"] - rest / figures["boots_per_s"],
        "cpu_s_of_super_conductors_per_boot": supers,
        "conflicts": len(REFUSED_CLAIM.findall(_from(log, read_to))),
        "wrong": wrongs,
    }


def _from(log: Path, offset: int) -> str:
    with log.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")


# ---- what a person reads ---------------------------------------------------------------------------------------------


def show(figures: dict[str, Any], console: Console) -> None:
    """Prints the table."""
    table = Table(title="Large", title_justify="left")
    table.add_column("")
    columns = [
        (size, supers)
        for size in figures
        if size.startswith("hosts_")
        for supers in ("one_super_conductor", "two_super_conductors")
    ]
    for size, supers in columns:
        table.add_column(
            f"{size.removeprefix('hosts_')} hosts, {'1' if supers.startswith('one') else '2'} super", justify="right"
        )
    rows = {
        "boots/s": ("boots_per_s", 1.0, ".1f"),
        "CPU ms of a boot": ("cpu_s_per_boot", 1000.0, ".1f"),
        "  beyond what goes on anyway": ("cpu_s_per_boot_beyond_rest", 1000.0, ".1f"),
        "  of it, super-conductors": ("cpu_s_of_super_conductors_per_boot", 1000.0, ".1f"),
        "CPU s/s at rest": ("cpu_s_per_s_at_rest", 1.0, ".3f"),
        "to ACTIVE p50 s": ("tta_p50_s", 1.0, ".2f"),
        "to ACTIVE p95 s": ("tta_p95_s", 1.0, ".2f"),
        **{
            f"{name} {percent} ms": (f"{name}_{percent}_s", 1000.0, ".1f")
            for name in ("decision", "claim")
            for percent in ("p50", "p99")
        },
        "claims refused (409)": ("conflicts", 1.0, ".0f"),
    }
    for label, (key, times, form) in rows.items():
        table.add_row(label, *(format(figures[size][supers][key] * times, form) for size, supers in columns))
    table.add_row("wrong", *(str(len(figures[size][supers]["wrong"])) for size, supers in columns))
    console.print(table)
    for name, growth in figures["growth"].items():
        console.print(f"{name}: {growth:.2f} times that of the small cloud")
    console.print(noise.said(figures["yardstick_cpu_s"]))


def is_as_promised(figures: dict[str, Any]) -> bool:
    """Whether builds cost little more than on the small cloud, and nothing went wrong."""
    runs = [
        figures[size][supers]
        for size in figures
        if size.startswith("hosts_")
        for supers in ("one_super_conductor", "two_super_conductors")
    ]
    return figures["growth"]["cpu_s_per_boot"] < MAX_GROWTH and not any(run["wrong"] for run in runs)
