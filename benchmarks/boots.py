"""Boots and deletes on a cloud, and what they cost: the cases of `benchmarks/boot.py`."""

import asyncio
import dataclasses
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from rich.progress import Progress

from benchmarks import cloud, processes
from benchmarks.cloud import Cloud
from benchmarks.counters import (
    WRITING_COMMITS,
    BrokerCounters,
    Counts,
    DatabaseCounters,
    PlacementCounters,
    administrator,
    ask,
)
from benchmarks.users import User
from core import errors
from devstack.backing_services import API_SCHEMA, schema_of

POLL_S = 0.05
QUIET_POLL_S = 0.1
CASE_DEADLINE_S = 300.0
REST_S = 5.0
CALIBRATION_POLLS = 100
NAME = "benchmark"


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """`at_once` requests under way, each for so many servers."""

    name: str
    at_once: int
    servers_of_a_request: int
    boots: int


CASES = {
    case.name: case
    for case in (
        Case("c1", at_once=1, servers_of_a_request=1, boots=40),
        Case("c8", at_once=8, servers_of_a_request=1, boots=96),
        Case("c16", at_once=16, servers_of_a_request=1, boots=128),
        Case("multi50", at_once=1, servers_of_a_request=50, boots=100),
    )
}


def sized(case: Case, boots: int | None) -> Case:
    """The case with about so many boots; None: as many as it says."""
    if boots is None:
        return case
    requests = max(1, round(boots / case.servers_of_a_request))
    return dataclasses.replace(case, boots=requests * case.servers_of_a_request)


class Wait:
    """All who wait for servers to leave BUILD, served by one poll."""

    def __init__(self, user: User) -> None:
        self._user = user
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._wanted = asyncio.Event()
        self.polls = 0

    async def until_built(self, uuids: list[str]) -> None:
        """Returns once none of them is in BUILD any more."""
        loop = asyncio.get_running_loop()
        futures = {uuid: loop.create_future() for uuid in uuids}
        self._waiting |= futures
        self._wanted.set()
        await asyncio.gather(*futures.values())

    async def run(self) -> None:
        """Polls as long as anybody waits, until it is cancelled."""
        while True:
            await self._wanted.wait()
            await asyncio.sleep(POLL_S)
            asked = set(self._waiting)
            building = await building_servers(self._user)
            self.polls += 1
            for uuid in asked - building:
                self._waiting.pop(uuid).set_result(None)
            if not self._waiting:
                self._wanted.clear()


async def building_servers(user: User) -> set[str]:
    """What the poll asks."""
    return {server["id"] for server in (await user.get("/servers?all_tenants=1&status=BUILD&limit=1000"))["servers"]}


class Rows:
    """What the databases say of the servers; asked by SQL, so that looking costs next to nothing."""

    def __init__(self, measured: Cloud) -> None:
        self._servers = [administrator(server) for server in measured.backing.servers.values()]
        self._schemas = [*map(schema_of, measured.shape.cell_names)]

    def are_settled(self) -> bool:
        """Whether no order is in the journal and no cell has a build, a delete or a cleanup under way."""
        left = sum(self._ask(API_SCHEMA, "SELECT COUNT(*) FROM {schema}.build_requests"), ())
        for schema in self._schemas:
            left += sum(
                self._ask(
                    schema, "SELECT COUNT(*) FROM {schema}.instances WHERE state IN ('build', 'going') AND NOT deleted"
                ),
                (),
            )
            left += sum(self._ask(schema, "SELECT COUNT(*) FROM {schema}.cleanups"), ())
        return not sum(left)

    def seconds_to_active(self, name: str) -> list[float]:
        """created_at to launched_at of each server of this name that is ACTIVE."""
        seconds, mine = (
            "TIMESTAMPDIFF(MICROSECOND, created_at, launched_at) / 1e6",
            "display_name LIKE %s AND vm_state = 'active' AND NOT deleted",
        )
        query = f"SELECT {seconds} FROM {{schema}}.instances WHERE {mine}"
        return [float(seconds) for schema in self._schemas for (seconds,) in self._ask(schema, query, f"{name}%")]

    def servers(self, name: str) -> list[str]:
        """The uuids of the servers of this name."""
        query = "SELECT uuid FROM {schema}.instances WHERE display_name LIKE %s AND NOT deleted"
        return [str(uuid) for schema in self._schemas for (uuid,) in self._ask(schema, query, f"{name}%")]

    def _ask(self, schema: str, query: str, *values: object) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for connection in self._servers:
            if ask(connection, "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", schema):
                rows += ask(connection, query.format(schema=f"`{schema}`"), *values)
        return rows


@dataclasses.dataclass(slots=True)
class Meter:
    """Everything that is counted, read before and after a piece of work."""

    measured: Cloud
    database: DatabaseCounters
    broker: BrokerCounters
    placement: PlacementCounters

    async def around(self, work: Callable[[], Awaitable[float]]) -> "Reading":
        """What the work cost; it gives the seconds that its servers took, without the wait for what comes after."""
        self.placement.read()
        broker, database = self.broker.read(), self.database.read()
        cpu = processes.cpu_s(self.measured.leaders())
        seconds = await work()
        cpu_after = processes.cpu_s(self.measured.leaders())
        counts = Counts(self.database.read(), self.broker.read()).since(Counts(database, broker))
        return Reading(
            seconds, {name: cpu_after[name] - cpu.get(name, 0.0) for name in cpu_after}, counts, self.placement.read()
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What a piece of work cost."""

    seconds: float
    cpu_s: dict[str, float]
    counts: Counts
    placement: Counter[str]

    def per(self, number: int) -> dict[str, Any]:
        """The figures for one server."""
        database = self.counts.database
        return {
            "cpu_s": sum(self.cpu_s.values()) / number,
            "messages": self.counts.broker["received"] / number,
            "commits": database[WRITING_COMMITS] / number,
            "placement_requests": self.placement.total() / number,
            "statements": {
                name.removeprefix("Com_"): round(value / number, 2) for name, value in sorted(database.items())
            },
            "placement": {request: round(count / number, 3) for request, count in self.placement.most_common()},
            "cpu_ms_by_process": {name: round(1000 * cpu / number, 2) for name, cpu in sorted(self.cpu_s.items())},
        }


class Benchmark:
    """The cases on one cloud."""

    def __init__(self, measured: Cloud, user: User, show: Progress) -> None:
        self._cloud = measured
        self._user = user
        self._show = show
        self._rows = Rows(measured)
        servers, nodes = measured.backing.servers.values(), measured.backing.nodes.values()
        self._meter = Meter(
            measured,
            DatabaseCounters(servers),
            BrokerCounters(nodes),
            PlacementCounters(measured.state.log("placement")),
        )
        self._order: dict[str, Any] = {}

    async def run(self, cases: list[Case]) -> dict[str, Any]:
        """All figures, ready for JSON."""
        await self.prepare()
        rest = await self._meter.around(self._rest)
        figures: dict[str, Any] = {
            "at_rest": {"cpu_s_per_s": sum(rest.cpu_s.values()) / rest.seconds, **_rest_figures(rest)}
        }
        poll_s = await self._cost_of_a_poll(figures["at_rest"]["cpu_s_per_s"])
        for case in cases:
            figures[case.name] = await self._case(case, poll_s)
        figures |= self._memory()
        return figures

    async def rest_and(self, case: Case, *, between: Callable[[], None]) -> tuple[float, dict[str, Any]]:
        """CPU seconds per second with nothing going on, and the figures of one case; `between` is called while its
        servers are ACTIVE."""
        rest = await self._meter.around(self._rest)
        cpu_s_per_s = sum(rest.cpu_s.values()) / rest.seconds
        return cpu_s_per_s, await self._case(case, await self._cost_of_a_poll(cpu_s_per_s), between)

    async def prepare(self) -> None:
        """Nobody's figures: what is ordered, and the first requests, which open connections and load code."""
        flavor, image = await self._user.flavor_and_image()
        self._order = {"flavorRef": flavor, "imageRef": image, "networks": "none"}
        await self._warm_up()

    async def _warm_up(self) -> None:
        await self._boot(Case("warm-up", at_once=8, servers_of_a_request=1, boots=16), Wait(self._user), [])
        await self._delete("warm-up", 8, 16)

    async def _rest(self) -> float:
        await asyncio.sleep(REST_S)
        return REST_S

    async def _cost_of_a_poll(self, cpu_s_at_rest: float) -> float:
        """CPU seconds of one poll, with nothing else going on."""

        async def polls() -> float:
            started = time.monotonic()
            for _ in range(CALIBRATION_POLLS):
                await building_servers(self._user)
            return time.monotonic() - started

        reading = await self._meter.around(polls)
        return max(0.0, (sum(reading.cpu_s.values()) - cpu_s_at_rest * reading.seconds) / CALIBRATION_POLLS)

    async def _case(self, case: Case, poll_s: float, between: Callable[[], None] = lambda: None) -> dict[str, Any]:
        wait, seen = Wait(self._user), list[float]()
        reading = await self._meter.around(lambda: self._boot(case, wait, seen))
        rows = sorted(self._rows.seconds_to_active(case.name))
        if len(rows) != case.boots:
            raise errors.Broken(f"{len(rows)} of {case.boots} servers of {case.name} are ACTIVE")
        between()
        deletes = await self._meter.around(
            lambda: self._delete(case.name, case.at_once if case.servers_of_a_request == 1 else 8, case.boots)
        )
        each, each_delete = reading.per(case.boots), deletes.per(case.boots)
        return {
            "boots": case.boots,
            "boots_per_s": case.boots / reading.seconds,
            "cpu_s_per_boot": each.pop("cpu_s"),
            "cpu_s_per_boot_of_waiting": wait.polls * poll_s / case.boots,
            "tta_p50_s": percentile(seen, 50),
            "tta_p95_s": percentile(seen, 95),
            "tta_rows_p50_s": percentile(rows, 50),
            "tta_rows_p95_s": percentile(rows, 95),
            **{f"{name}_per_boot": each.pop(name) for name in ("messages", "commits", "placement_requests")},
            **each,
            "deletes_per_s": case.boots / deletes.seconds,
            **{
                f"{name}_per_delete": each_delete.pop(name)
                for name in ("cpu_s", "messages", "commits", "placement_requests")
            },
            "delete": each_delete,
        }

    async def _boot(self, case: Case, wait: Wait, seen: list[float]) -> float:
        requests = iter(range(case.boots // case.servers_of_a_request))
        task = self._show.add_task(f"{case.name}: boot", total=case.boots)
        started = time.monotonic()
        polling = asyncio.create_task(wait.run())
        try:
            async with asyncio.timeout(CASE_DEADLINE_S):
                await _with_failure_of(
                    polling,
                    asyncio.gather(*(self._one_user(case, requests, wait, seen, task) for _ in range(case.at_once))),
                )
        finally:
            polling.cancel()
        seconds = time.monotonic() - started
        await self._until_settled()
        self._show.remove_task(task)
        return seconds

    async def _one_user(self, case: Case, requests: Iterator[int], wait: Wait, seen: list[float], task: Any) -> None:
        for number in requests:
            started = time.monotonic()
            name = f"{case.name}-{NAME}-{number}"
            uuid = await self._user.create(
                {
                    **self._order,
                    "name": name,
                    "min_count": case.servers_of_a_request,
                    "max_count": case.servers_of_a_request,
                }
            )
            uuids = [uuid] if case.servers_of_a_request == 1 else await self._all_named(name, case.servers_of_a_request)
            await wait.until_built(uuids)
            seen += [time.monotonic() - started] * len(uuids)
            self._show.advance(task, len(uuids))

    async def _all_named(self, name: str, number: int) -> list[str]:
        servers = (await self._user.get(f"/servers?all_tenants=1&limit={number}&name=^{name}"))["servers"]
        if len(servers) != number:
            raise errors.Broken(f"{len(servers)} of {number} servers are listed right after they were accepted")
        return [server["id"] for server in servers]

    async def _delete(self, name: str, at_once: int, expected: int) -> float:
        uuids = self._rows.servers(name)
        if len(uuids) != expected:
            raise errors.Broken(f"{len(uuids)} servers are to be deleted, not {expected}")
        task = self._show.add_task(f"{name}: delete", total=len(uuids))
        left, started = iter(uuids), time.monotonic()

        async def one_user() -> None:
            for uuid in left:
                await self._user.delete(uuid)
                self._show.advance(task)

        await asyncio.gather(*(one_user() for _ in range(at_once)))
        await self._until_settled()
        seconds = time.monotonic() - started
        self._show.remove_task(task)
        return seconds

    async def _until_settled(self) -> None:
        ends = time.monotonic() + CASE_DEADLINE_S
        while not self._rows.are_settled():
            if time.monotonic() > ends:
                raise errors.Unavailable(f"work is still under way after {CASE_DEADLINE_S:.0f} s")
            await asyncio.sleep(QUIET_POLL_S)

    def _memory(self) -> dict[str, Any]:
        used = processes.usages(self._cloud.leaders())
        own = processes.total(usage for name, usage in used.items() if not cloud.is_outside(name))
        return {
            "pss_mib": round(own.pss_mib, 1),
            "threads": own.threads,
            "pss_mib_with_databases_and_brokers": round(processes.total(used.values()).pss_mib, 1),
            "threads_with_databases_and_brokers": processes.total(used.values()).threads,
            "processes": {
                name: {"pss_mib": round(usage.pss_mib, 1), "threads": usage.threads} for name, usage in used.items()
            },
        }


async def _with_failure_of(background: "asyncio.Task[None]", work: "asyncio.Future[Any]") -> None:
    """Awaits the work; a failure of what runs beside it fails it too."""
    await asyncio.wait({background, work}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        work.cancel()
        background.result()
    work.result()


def _rest_figures(rest: Reading) -> dict[str, Any]:
    return {
        "messages_per_s": rest.counts.broker["received"] / rest.seconds,
        "commits_per_s": rest.counts.database[WRITING_COMMITS] / rest.seconds,
        "statements_per_s": rest.counts.database["Queries"] / rest.seconds,
        "placement_requests_per_s": rest.placement.total() / rest.seconds,
        "cpu_ms_per_s_by_process": {
            name: round(1000 * cpu / rest.seconds, 2) for name, cpu in sorted(rest.cpu_s.items())
        },
    }


def percentile(values: list[float], percent: int) -> float:
    """The value that so many percent of the sorted values do not exceed."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
