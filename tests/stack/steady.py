"""A steady load on a cloud from a process of its own: what became of every request, and when.

`python -m tests.stack.steady PLAN` sends requests at fixed moments, whether those before have ended or not, each on a
connection of its own (as the command line client does), and prints a line of JSON for each that ended. Nothing is tried
again: what fails is a failure.

Clocks: `time.monotonic()`, which all processes of a machine share, so that whoever reads the lines can say what
happened when.
"""

import asyncio
import base64
import dataclasses
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp

from devstack.api_client import MICROVERSION
from devstack.background import REPOSITORY
from devstack.waiting import wait_until
from tests.stack.cloud import Cloud
from tests.stack.servers import Servers

MISSING_CELLS = "X-Cellplane-Missing-Cells"
OTHERS, EVERYTHING, OPERATOR = "others", "everything", "operator"
"""Groups of requests: about servers of healthy cells alone; lists over all cells; cross-cell reads of an operator."""
OTHERS_PER_S, EVERYTHING_PER_S, OPERATOR_PER_S = 14.0, 3.0, 1.5
ACTIVE_WITHIN_S = 60.0
SETTLES_WITHIN_S = 30.0
LOOK_EVERY_S = 0.15
TICK_S = 0.01
NOTICED_S = 0.005
REQUEST_TIMEOUT_S = 20.0
REPORT_DEADLINE_S = 30.0


@dataclasses.dataclass(frozen=True)
class Done:
    """A request that ended. `status` 0: no answer. `problem`: what was wrong with the answer, empty if nothing.

    `withheld_s`: for how much of its time the machine did not let the load itself run, and so may not have let the
    cloud either.
    """

    group: str
    kind: str
    began: float
    took_s: float
    status: int
    problem: str
    missing: list[str]
    withheld_s: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the load needs to know. `admins`: servers of the admin's project, all in healthy cells; `demos`: cell -> a
    server of demo's."""

    compute: str
    passwords: dict[str, str]
    admins: list[str]
    demos: dict[str, str]
    hosts: dict[str, str]
    victim: str


def servers_for(cloud: Cloud, *, victim: str, spare: str | None = None) -> tuple[list[str], dict[str, str]]:
    """What the load is about: new servers of the admin's, one in each cell but the victim, and cell -> demo's server
    that came with the stack. The spare cell has none of either.
    """
    servers, api = Servers(cloud), cloud.api("admin")
    hello = {row["name"]: server for server, row in servers.listed().items()}
    demos = {cell: hello[f"hello-{cell}"] for cell in cloud.shape.cell_names if cell != spare}
    cells = [cell for cell in demos if cell != victim]
    admins = [str(api.post("/servers", servers.body(f"steady-{cell}", zone=cell))["server"]["id"]) for cell in cells]
    for server in admins:
        assert api.wait_for_server(server, deadline_s=ACTIVE_WITHIN_S)["status"] == "ACTIVE"
    return admins, demos


def own_seconds(done: Iterable[Done], group: str = OTHERS) -> list[float]:
    """Seconds of the requests of a group, without what the machine withheld."""
    return [max(0.0, each.took_s - each.withheld_s) for each in done if each.group == group]


class Steady:
    """The load seen by whoever starts it; a context manager."""

    def __init__(self, cloud: Cloud, *, admins: Sequence[str], demos: dict[str, str], victim: str) -> None:
        hosts = {cell: cloud.shape.hosts_of(cell)[0] for cell in demos}
        passwords = {user: cloud.password(user) for user in ("admin", "demo")}
        self._plan = Plan(cloud.compute, passwords, list(admins), demos, hosts, victim)
        self._folder = tempfile.TemporaryDirectory()
        self._lines = Path(self._folder.name) / "lines"
        self._done: list[Done] = []
        self._read_to = 0
        self._finished_until = 0.0

    def __enter__(self) -> Self:
        plan = Path(self._folder.name) / "plan"
        plan.write_text(json.dumps(dataclasses.asdict(self._plan)))
        with self._lines.open("wb") as lines:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.stack.steady", str(plan)], cwd=REPOSITORY, stdout=lines
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()

    def for_seconds(self, seconds: float) -> list[Done]:
        """What began within so many seconds from now, once all of it has ended."""
        began = time.monotonic()
        ended = began + seconds
        wait_until(lambda: self._reported(ended), what="report of the load", deadline_s=seconds + REPORT_DEADLINE_S)
        return [each for each in self._done if began <= each.began < ended]

    def _reported(self, until: float) -> bool:
        assert self._process.poll() is None, "the load ended"
        with self._lines.open() as lines:
            lines.seek(self._read_to)
            while (line := lines.readline()).endswith("\n"):
                self._read_to = lines.tell()
                told = json.loads(line)
                if isinstance(told, dict):
                    self._done.append(Done(**told))
                else:
                    self._finished_until = told
        return self._finished_until > until


# ---- the process -----------------------------------------------------------------------------------------------------


class _Watch:
    """How often, and for how long, this process was not let run: its own ticks that came late."""

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []

    async def run(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(TICK_S)
            late_s = time.monotonic() - began - TICK_S
            if late_s > NOTICED_S:
                self._late.append((began, late_s))

    def withheld_s(self, began: float, ended: float) -> float:
        """Of the time between these moments."""
        self._late = [each for each in self._late if each[0] > began - 2 * REQUEST_TIMEOUT_S]
        return sum(late_s for at, late_s in self._late if began - TICK_S <= at <= ended)


class _Load:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._watch = _Watch()
        self._under_way: set[float] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def run(self) -> None:
        """Until the process is ended."""
        headers = {"OpenStack-API-Version": f"compute {MICROVERSION}", "Accept": "application/json"}
        for user, password in self._plan.passwords.items():
            account = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._sessions[user] = aiohttp.ClientSession(
                headers={**headers, "Authorization": f"Basic {account}"},
                timeout=aiohttp.ClientTimeout(REQUEST_TIMEOUT_S),
                connector=aiohttp.TCPConnector(force_close=True, limit=0),
            )  # fmt: skip
        power, plain = self._plan.admins[:2], self._plan.admins[2:]
        await asyncio.gather(
            self._watch.run(),
            self._report(),
            self._at_a_rate(OTHERS_PER_S, itertools.cycle(self._about_others(plain))),
            self._at_a_rate(
                EVERYTHING_PER_S, itertools.cycle([self._everything_by_name, self._everything_newest_first])
            ),
            self._at_a_rate(
                OPERATOR_PER_S, itertools.cycle([self._services, self._hypervisors, self._zones, self._aggregates])
            ),
            *(self._stop_and_start(server) for server in power),
        )

    async def _at_a_rate(self, per_s: float, works: Iterator[Callable[[], Awaitable[object]]]) -> None:
        due = time.monotonic()
        for work in works:
            due = max(due + 1 / per_s, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            task = asyncio.ensure_future(work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            print(json.dumps(min(self._under_way, default=time.monotonic())), flush=True)

    # ---- about the others --------------------------------------------------------------------------------------------

    def _about_others(self, servers: Sequence[str]) -> list[Callable[[], Awaitable[object]]]:
        works: list[Callable[[], Awaitable[object]]] = []
        for number, server in enumerate(servers):
            works += [
                lambda: self._list("newest first", "/servers/detail"),
                lambda server=server: self._ask(OTHERS, "admin", "show", "GET", f"/servers/{server}"),
                lambda: self._list("by name", "/servers/detail?sort_key=display_name&sort_dir=asc&limit=50"),
                lambda server=server, number=number: self._ask(
                    OTHERS,
                    "admin",
                    "metadata",
                    "POST",
                    f"/servers/{server}/metadata",
                    {"metadata": {"number": str(number)}},
                ),
                lambda: self._list("filtered", "/servers?name=steady&not-tags=none"),
                lambda server=server: self._act(server, {"lock": None}),
                lambda server=server: self._ask(OTHERS, "admin", "show", "GET", f"/servers/{server}"),
                lambda server=server: self._act(server, {"unlock": None}),
            ]
        return works

    async def _list(self, kind: str, path: str) -> None:
        wanted = set(self._plan.admins)
        await self._ask(
            OTHERS, "admin", kind, "GET", path,
            check=lambda document, _: "" if wanted <= _ids(document) else f"misses {wanted - _ids(document)}",
        )  # fmt: skip

    async def _act(self, server: str, body: dict[str, Any]) -> bool:
        done = await self._ask(OTHERS, "admin", next(iter(body)), "POST", f"/servers/{server}/action", body)
        return done.status == 202

    async def _stop_and_start(self, server: str) -> None:
        while True:
            for action, wanted in (("os-stop", "SHUTOFF"), ("os-start", "ACTIVE")):
                await asyncio.sleep(LOOK_EVERY_S)
                if await self._act(server, {action: None}):
                    await self._settle(server, wanted)

    async def _settle(self, server: str, wanted: str) -> None:
        began = time.monotonic()
        statuses: list[str] = []

        def note(document: Any, _: list[str]) -> str:
            statuses.append(document["server"]["status"])
            return ""

        while wanted not in statuses[-1:]:
            if time.monotonic() - began > SETTLES_WITHIN_S:
                self._tell(
                    Done(
                        OTHERS,
                        "settle",
                        began,
                        time.monotonic() - began,
                        0,
                        f"{server} is {statuses[-1:]}, not {wanted}",
                        [],
                        0.0,
                    )
                )
                return
            await asyncio.sleep(LOOK_EVERY_S)
            await self._ask(OTHERS, "admin", "show", "GET", f"/servers/{server}", check=note)

    # ---- over all cells ----------------------------------------------------------------------------------------------

    async def _everything_by_name(self) -> None:
        await self._everything("all by name", "/servers/detail?sort_key=display_name", tells_of_unknown=False)

    async def _everything_newest_first(self) -> None:
        await self._everything("all newest first", "/servers/detail", tells_of_unknown=True)

    async def _everything(self, kind: str, path: str, *, tells_of_unknown: bool) -> None:
        def check(document: Any, missing: list[str]) -> str:
            statuses = {server["id"]: server["status"] for server in document["servers"]}
            for cell, server in self._plan.demos.items():
                is_missing = cell in missing
                wanted = ("UNKNOWN" if tells_of_unknown else None) if is_missing else "ACTIVE"
                if statuses.get(server) != wanted:
                    return f"the server of {cell} is {statuses.get(server)} and not {wanted}; missing cells: {missing}"
            return self._only_victim(missing)

        await self._ask(EVERYTHING, "demo", kind, "GET", path, check=check)

    def _only_victim(self, missing: list[str]) -> str:
        return "" if set(missing) <= {self._plan.victim} else f"missing cells: {missing}"

    async def _services(self) -> None:
        await self._reads(
            "/os-services?binary=nova-compute",
            lambda document: {each["host"] for each in document["services"] if each.get("state") == "up"},
        )

    async def _hypervisors(self) -> None:
        await self._reads(
            "/os-hypervisors/detail?with_servers=true",
            lambda document: {each["service"]["host"] for each in document["hypervisors"]},
        )

    async def _zones(self) -> None:
        await self._reads(
            "/os-availability-zone/detail",
            lambda document: {host for zone in document["availabilityZoneInfo"] for host in zone["hosts"] or ()},
        )

    async def _aggregates(self) -> None:
        await self._reads(
            "/os-aggregates", lambda document: {host for each in document["aggregates"] for host in each["hosts"]}
        )

    async def _reads(self, path: str, hosts_in: Callable[[Any], set[str]]) -> None:
        def check(document: Any, missing: list[str]) -> str:
            wanted = {host for cell, host in self._plan.hosts.items() if cell not in missing}
            lost = wanted - hosts_in(document)
            return f"misses {lost}; missing cells: {missing}" if lost else self._only_victim(missing)

        await self._ask(OPERATOR, "admin", path, "GET", path, check=check)

    # ---- one request -------------------------------------------------------------------------------------------------

    async def _ask(
        self, group: str, user: str, kind: str, method: str, path: str, body: Any = None, *,
        check: Callable[[Any, list[str]], str] = lambda document, missing: "",
    ) -> Done:  # fmt: skip
        began = time.monotonic()
        while began in self._under_way:
            began += 1e-9
        self._under_way.add(began)
        status, problem, missing = 0, "", list[str]()
        try:
            async with self._sessions[user].request(method, self._plan.compute + path, json=body) as response:
                content = await response.read()
                took_s = time.monotonic() - began
                status = response.status
                missing = [name for name in response.headers.get(MISSING_CELLS, "").split(", ") if name]
                problem = (
                    check(json.loads(content), missing)
                    if status == 200
                    else ""
                    if status == 202
                    else content.decode()[:300]
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            took_s, problem = time.monotonic() - began, f"{type(error).__name__}: {error}"
        done = Done(group, kind, began, took_s, status, problem, missing, self._watch.withheld_s(began, began + took_s))
        self._tell(done)
        self._under_way.discard(began)
        return done

    def _tell(self, done: Done) -> None:
        print(json.dumps(dataclasses.asdict(done)), flush=True)


def _ids(document: Any) -> set[str]:
    return {server["id"] for server in document["servers"]}


def main() -> None:
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    asyncio.run(_Load(plan).run())


if __name__ == "__main__":
    main()
