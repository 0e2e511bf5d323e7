"""Chaos: users boot and delete servers on a whole stack while everything in it is killed, frozen and restarted at
random.

`tests/chaos --minutes N --seed S` runs it round after round. Afterwards, in each round, nothing may be lost, stuck or
left behind.
"""

import argparse
import collections
import concurrent.futures
import configparser
import contextlib
import dataclasses
import io
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

import api_db.tables
from core import errors
from devstack import identity
from devstack.accounts import write_private
from devstack.api_client import ApiClient
from devstack.configure import project_id
from devstack.waiting import wait_until
from lifecycle import states
from tests.faults.disruptions import BACK_DEADLINE_S, Disruption
from tests.faults.on_stack import StackWorld
from tests.stack import cloud as clouds
from tests.stack.cloud import Cloud
from tests.stack.servers import Servers

SERVERS = 300
CONCURRENCY = 16
CELLS = 3
DELETED_SHARE = 0.5
"""So many of the servers their users delete again, some at once, some later."""
LONGEST_LIFE_S = 6.0
TRY_AGAIN_S = 0.5
USER_DEADLINE_S = 300.0
"""For what one user wants of the API altogether: it is away at times."""
SETTLE_DEADLINE_S = 240.0
LOOK_EVERY_S = 1.0
DOWN_AFTER_S = 8.0
REPORT_S = 2.0
SPAWN_S = 0.3

Say = Callable[[str], None]


@dataclasses.dataclass
class Accepted:
    """What users know: servers that the API accepted, and those whose delete it accepted."""

    created: set[str] = dataclasses.field(default_factory=set)
    deleted: set[str] = dataclasses.field(default_factory=set)
    unanswered: int = 0
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)


@dataclasses.dataclass(frozen=True)
class Round:
    """How a round ended."""

    accepted: int
    deleted: int
    outcomes: dict[str, int]
    faults: list[str]
    disruptions: dict[str, int]
    lasted_s: float
    settled_s: float

    def __str__(self) -> str:
        outcomes = ", ".join(f"{number} {state}" for state, number in sorted(self.outcomes.items()))
        disruptions = ", ".join(f"{kind} {number}" for kind, number in sorted(self.disruptions.items()))
        faults = "".join(
            f"\n  fault: {number} x {text}" for text, number in collections.Counter(self.faults).most_common()
        )
        return (
            f"accepted {self.accepted}, deleted {self.deleted} in {self.lasted_s:.1f} s; ended as {outcomes}; "
            f"settled {self.settled_s:.1f} s after the trouble; trouble: {disruptions}{faults}"
        )


# ---- users -----------------------------------------------------------------------------------------------------------


class Users:
    """Boot and delete servers, and do not give up when the API is away."""

    def __init__(self, cloud: Cloud, rng: random.Random) -> None:
        self._servers = Servers(cloud, concurrency=CONCURRENCY)
        self._client = _Patient(cloud)
        self._seeds = rng
        self.accepted = Accepted()

    def boot_and_delete(self, number: int, disruptions: Disruption) -> None:
        """So many servers, a share of which are deleted again; more of them until there was trouble enough."""
        # The dice are thrown here: in which order the users come is nobody's plan.
        plans = [
            (self._seeds.random() < DELETED_SHARE, self._seeds.uniform(0.0, LONGEST_LIFE_S)) for _ in range(number)
        ]
        with concurrent.futures.ThreadPoolExecutor(CONCURRENCY) as threads:
            list(threads.map(lambda item: self._one(f"chaos-{item[0]}", *item[1]), enumerate(plans)))
            while not disruptions.is_enough:
                list(threads.map(lambda item: self._one(f"more-{item[0]}", *item[1]), enumerate(plans[:CONCURRENCY])))

    def delete_all(self) -> None:
        """Deletes whatever there is."""
        listed = self._client.insist(lambda api: [server["id"] for server in api.pages("/servers/detail", "servers")])
        with concurrent.futures.ThreadPoolExecutor(CONCURRENCY) as threads:
            list(threads.map(self._delete, listed))

    def _one(self, name: str, is_deleted: bool, life_s: float) -> None:
        body = self._servers.body(name)
        unanswered, document = self._client.insist_counting(lambda api: api.post("/servers", body))
        server = str(document["server"]["id"])
        with self.accepted.lock:
            self.accepted.created.add(server)
            self.accepted.unanswered += unanswered
        if is_deleted:
            time.sleep(life_s)  # the user's own time
            self._delete(server)

    def _delete(self, server: str) -> None:
        self._client.insist(lambda api: api.delete(f"/servers/{server}"))
        with self.accepted.lock:
            self.accepted.deleted.add(server)


class _Patient:
    """One user's requests, each on a connection of its own, again and again until it is answered."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def insist(self, request: Callable[[ApiClient], Any]) -> Any:
        """The answer, sooner or later."""
        return self.insist_counting(request)[1]

    def insist_counting(self, request: Callable[[ApiClient], Any]) -> tuple[int, Any]:
        """How many requests were not answered before, each of which may have taken effect; and the answer."""
        ends = time.monotonic() + USER_DEADLINE_S
        unanswered = 0
        while True:
            try:
                return unanswered, request(self._cloud.api("demo"))
            except (errors.Unavailable, errors.Broken) as error:
                status = error.fields.get("status", 503)
                if not isinstance(status, int) or status < 500 or time.monotonic() > ends:
                    raise
                unanswered += 1
                time.sleep(TRY_AGAIN_S)  # the user's own patience


# ---- a round ---------------------------------------------------------------------------------------------------------


def run_round(cloud: Cloud, *, servers: int, rng: random.Random, say: Say) -> Round:
    """One round: users and trouble together, then quiet; fails if anything is lost, stuck or left behind."""
    world = StackWorld(cloud.state, cloud.shape)
    users = Users(cloud, rng)
    disruptions = Disruption(cloud.control, world, own_processes(cloud), rng, say)
    began = time.monotonic()
    try:
        disruptions.start()
        try:
            users.boot_and_delete(servers, disruptions)
        finally:
            disruptions.end()
        quiet = time.monotonic()
        say(f"quiet: {len(users.accepted.created)} accepted, {users.accepted.unanswered} requests without an answer")
        settle(world, say)
        settled_s = time.monotonic() - quiet
        ended = _outcome(world, users.accepted, disruptions, lasted_s=quiet - began, settled_s=settled_s)
        users.delete_all()
        settle(world, say)
        _expect_nothing_left(world)
        return ended
    finally:
        world.close()


def own_processes(cloud: Cloud) -> list[str]:
    """Those of ours that may be killed at any time."""
    cells = [f"cell-conductor-{cell}" for cell in cloud.shape.cell_names]
    return ["api", "super-conductor", *cells, *(f"compute-{host}" for host in cloud.shape.all_hosts)]


def settle(world: StackWorld, say: Say) -> None:
    """Returns when nothing is under way and everything is as it must be; fails with what is not."""
    ends = time.monotonic() + SETTLE_DEADLINE_S
    said = ""
    while True:
        try:
            complaints = world.complaints()
        except AssertionError:
            raise
        except Exception as error:  # a database or broker that has just come back
            complaints = [f"cannot look: {error!r}"]
        if not complaints:
            return
        if time.monotonic() > ends:
            raise AssertionError(f"not at rest after {SETTLE_DEADLINE_S:g} s: " + "; ".join(complaints[:20]))
        if complaints[0] != said:
            said = complaints[0]
            say(f"not yet: {len(complaints)}, as {said}")
        time.sleep(LOOK_EVERY_S)  # between two looks at what other processes do


def _outcome(
    world: StackWorld, accepted: Accepted, disruptions: Disruption, *, lasted_s: float, settled_s: float
) -> Round:
    rows = world.instances()
    mappings = {row.uuid: row for row in world.rows("api", api_db.tables.instance_mappings)}
    lost = accepted.created - mappings.keys()
    assert not lost, f"accepted, and nowhere: {lost}"
    undead = {uuid for uuid in accepted.deleted if uuid in rows and rows[uuid][1].state != states.BUILD_DELETED}
    assert not undead, f"deleted, and there: {undead}"
    ended = collections.Counter(rows[uuid][1].state if uuid in rows else states.BUILD_DELETED for uuid in mappings)
    faults = [
        str(row.fault["message"]).replace(uuid, "…")
        for uuid, (_, row) in rows.items()
        if row.state == states.BUILD_ERROR
    ]
    return Round(
        len(accepted.created), len(accepted.deleted), dict(ended), faults, dict(disruptions.count), lasted_s, settled_s
    )


def _expect_nothing_left(world: StackWorld) -> None:
    mine = project_id("demo")
    left = [
        uuid
        for uuid, (_, row) in world.instances().items()
        if row.project_id == mine and row.state != states.BUILD_DELETED
    ]
    assert not left, f"deleted at last, and there: {left}"


def lift_quota(cloud: Cloud) -> None:
    """The users may have as many servers as they like."""
    limits = {"instances": -1, "cores": -1, "ram": -1}
    url = f"{cloud.compute}/os-quota-sets/{project_id('demo')}"
    answer = requests.put(url, json={"quota_set": limits}, auth=("admin", cloud.password("admin")), timeout=30)
    answer.raise_for_status()


def make_nervous(cloud: Cloud) -> None:
    """Hosts count as down after seconds, and builds take so long that some are under way whenever that happens."""
    down = {"conductor": {"service_down_time_s": DOWN_AFTER_S}}
    slow = {"compute": {"report_interval_s": REPORT_S}, "simulated": {"spawn_s": SPAWN_S}}
    before = {name: identity.recorded(cloud.state.pid_file(name)) for name in own_processes(cloud)}
    for name, process in before.items():
        _set(cloud, name, slow if name.startswith("compute-") else down)
        if process is not None:
            identity.send(process, signal.SIGTERM)
    for name, process in before.items():
        wait_until(
            lambda name=name,
            process=process: identity.recorded(cloud.state.pid_file(name)) != process and cloud.control.is_ready(name),  # type: ignore[misc]
            what=f"new {name}", deadline_s=BACK_DEADLINE_S,
        )  # fmt: skip
    wait_until(cloud.api("admin").answers, what="answer of the API", deadline_s=BACK_DEADLINE_S)


def _set(cloud: Cloud, process: str, sections: Mapping[str, Mapping[str, object]]) -> None:
    path = cloud.state.config(process)
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(path)
    for section, values in sections.items():
        settings[section] = {
            **(dict(settings[section]) if section in settings else {}),
            **{key: str(value) for key, value in values.items()},
        }
    text = io.StringIO()
    settings.write(text)
    write_private(path, text.getvalue())


# ---- the command -----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Rounds until the time is over; 1 when one of them fails, whose logs are kept."""
    parser = argparse.ArgumentParser(
        prog="tests/chaos", description="Kill, freeze and restart everything while users boot and delete servers."
    )
    parser.add_argument("--minutes", type=float, default=0.0, help="rounds begin for so long; at least one does")
    parser.add_argument(
        "--seed",
        type=int,
        default=None,
        help="the same seed makes the same trouble; default: a random one, which is printed",
    )
    parser.add_argument("--servers", type=int, default=SERVERS, help=f"in each round ({SERVERS})")
    parser.add_argument(
        "--profile",
        choices=["full"],
        default="full",
        help="real databases and brokers; the embedded profile is one process",
    )
    parser.add_argument("--state", type=Path, default=None, help="directory for the stack; default: a temporary one")
    arguments = parser.parse_args(argv)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    say = _Teller()
    say(f"seed {seed}")
    ends = time.monotonic() + arguments.minutes * 60
    with _directory(arguments.state) as path, clouds.running(path, "--profile", "full", "--cells", str(CELLS)) as cloud:
        lift_quota(cloud)
        make_nervous(cloud)
        number = 0
        while number == 0 or time.monotonic() < ends:
            number += 1
            try:
                ended = run_round(cloud, servers=arguments.servers, rng=rng, say=say)
            except (AssertionError, errors.CellplaneError) as failure:
                say(f"round {number} of seed {seed} failed: {failure}")
                say(f"the logs are kept in {_kept_logs(cloud)}")
                return 1
            say(f"round {number}: {ended}")
    return 0


def _kept_logs(cloud: Cloud) -> Path:
    kept = Path(tempfile.mkdtemp(prefix="cellplane-chaos-logs-"))
    shutil.copytree(cloud.state.logs, kept, dirs_exist_ok=True)
    return kept


@contextlib.contextmanager
def _directory(path: Path | None) -> Iterator[Path]:
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="cellplane-chaos-") as temporary:
        yield Path(temporary) / "state"


class _Teller:
    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:7.1f} s  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
