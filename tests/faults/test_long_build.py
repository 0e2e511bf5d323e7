"""A build of 40 minutes, over three losses of the broker, by a clock that the test hands in: see `passing_time`."""

import contextlib
import pathlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import api_db.tables
import cell_db.tables
import messaging.verbs.cell as cell_verbs
from compute.deadline import Deadline
from compute.simulated.driver.hypervisor import SimulatedHypervisor
from conductor.cell.reports import BUILD_LEASE_S
from database.types import now_sql
from devstack.services import mariadb
from lifecycle import states
from messaging import in_process
from objects.build import BuildSpec, Guest
from tests.faults import invariants
from tests.faults.conftest import PROFILES
from tests.faults.manual_clock import ManualClock, pass_time
from tests.faults.steps import BreakableSteps
from tests.faults.tcp_proxy import TcpProxy
from tests.faults.world import USER, Addresses, World, wait_until
from tests.rabbitmq_node import HOSTS, SharedRabbitMQ

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CELL = "east"
BUILD_S = 40 * 60.0
HOP_S = 12.0
"""So much time passes at once: less than a lease, and a heartbeat or two of a real agent."""
LOST_AFTER_S = (10 * 60.0, 20 * 60.0, 30 * 60.0)
LOST_FOR_S = 48.0
"""Longer than any lease of the build, even one that a heartbeat renewed which was on its way at the cut; shorter than
it takes to believe a host dead."""
DEADLINE_S = 3600.0
DOWN_AFTER_S = 60.0


class PatientHypervisor(SimulatedHypervisor):
    """Its guests are done when the test says that their time has come."""

    spawns: list[tuple[str, int]]
    time_is_up: threading.Event

    def __init__(self, directory: pathlib.Path, **settings: Any) -> None:
        super().__init__(directory, **settings)
        self._spawn = self.guests.spawn
        self.guests.spawn = self._spawn_when_time_is_up  # type: ignore[method-assign]

    def _spawn_when_time_is_up(
        self, spec: BuildSpec, attempt: int, *, image: pathlib.Path | None, deadline: Deadline
    ) -> Guest:
        self.spawns.append((spec.uuid, attempt))
        assert deadline.left_s() > BUILD_S, "the agent itself would give the build up"
        while not self.time_is_up.is_set():
            deadline.wait(0.05)
        return self._spawn(spec, attempt, image=image, deadline=deadline)


class Losses:
    """How agents lose the broker: `cut` takes it away, and `mend` gives it back."""

    def __init__(self, url: str, control: Callable[..., object] | None) -> None:
        """`control`: RabbitMQ's own command; without it the broker is the one in this process."""
        self._control = control
        self._vhost = url.rpartition("/")[2]
        self._detour: TcpProxy | None = None
        self.url = url
        if control is not None:
            port = int(url.partition("@")[2].partition(":")[2].partition("/")[0])
            self._detour = TcpProxy(port)
            self.url = url.replace(f":{port}/", f":{self._detour.port}/")

    @property
    def connections(self) -> int | None:
        """How many connections agents made in all, where somebody counts them."""
        return self._detour.connections if self._detour else None

    def cut(self, number: int) -> None:
        """The agents' connections are reset, or (every second time) the broker itself closes everybody's."""
        if self._detour is None or self._control is None:
            in_process.broker(self._vhost).go_away()
            return
        if number % 2:
            self._control("close_all_connections", "--vhost", self._vhost, "closed by a test")
        self._detour.cut()

    def mend(self) -> None:
        if self._detour is None:
            in_process.broker(self._vhost).come_back()
        else:
            self._detour.mend()

    def close(self) -> None:
        if self._detour is not None:
            self._detour.close()


class Cloud:
    """A cell with two hosts, and the time in it."""

    def __init__(self, world: World, losses: Losses) -> None:
        self.world = world
        self.losses = losses
        self.clock = ManualClock()
        self.passed_s = 0.0
        self._count = {"cell.take": 0, "cell.send": 0, "agent.accept": 0}
        self._seen = threading.Condition()

    def start(self, hypervisor: type[PatientHypervisor]) -> None:
        world, watched = self.world, BreakableSteps("watched", self._note)
        settings: dict[str, Any] = {
            "service_down_time_s": DOWN_AFTER_S,
            "build_deadline_s": DEADLINE_S,
            "sweep_s": 0.05,
        }
        world.start("conductor", world.cell_conductor(CELL, watched, clock=self.clock, **settings))
        for host in world.hosts[CELL]:
            agent = world.agent(
                CELL,
                host,
                watched,
                kind=hypervisor,
                broker=self.losses.url,
                report_interval_s=0.1,
                build_deadline_s=DEADLINE_S,
            )
            world.start(host, agent)
        running = world.start("super", world.super_conductor(clock=self.clock, **settings))
        wait_until(lambda: sum(host.up for host in running.view.snapshot()) == 2, "both hosts are up")

    def _note(self, _: str, step: str) -> None:
        with self._seen:
            if step in self._count:
                self._count[step] += 1

    def count(self, step: str) -> int:
        """How often somebody came to a step."""
        with self._seen:
            return self._count[step]

    def hop(self) -> None:
        """A little time passes for everybody, and the cell's conductor has seen it: one whole sweep began and ended
        since."""
        for name, tables in (
            ("api", api_db.tables.metadata),
            (CELL, cell_db.tables.metadata),
            ("cell0", cell_db.tables.metadata),
        ):
            pass_time(self.world.databases[name], tables, HOP_S)
        self.clock.go_ahead(HOP_S)
        self.passed_s += HOP_S
        sweeps = self.count("cell.take")
        wait_until(lambda: self.count("cell.take") >= sweeps + 2, "a sweep")

    def hop_in_touch(self) -> None:
        """As `hop`, and the host that builds has said so since."""
        self.hop()
        self.wait_for_touch()

    def wait_for_touch(self) -> None:
        """Returns when a heartbeat has renewed the server's lease."""
        wait_until(lambda: self.lease_s() > BUILD_LEASE_S - HOP_S / 2, "a heartbeat that renews the lease")

    def lease_s(self) -> float:
        """What is left of the server's lease."""
        table = cell_db.tables.instances
        with self.world.databases[CELL].reading() as connection:
            row = connection.execute(sa.select(table.c.lease_until, now_sql().label("now"))).one()
        return float((row.lease_until - row.now).total_seconds())

    def row(self) -> Any:
        return self.world.rows(CELL, cell_db.tables.instances)[0]


@pytest.fixture(params=PROFILES)
def cloud(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Cloud]:
    at, control = None, None
    if request.param == "full":
        server: mariadb.MariaDB = request.getfixturevalue("mariadb_server")
        node: SharedRabbitMQ = request.getfixturevalue("rabbit_node")
        at, control = _addresses(server, node), node.control
    world = World(tmp_path, (CELL,), hosts=2, at=at)
    losses = Losses(world.at.brokers[CELL], control)
    with contextlib.ExitStack() as stack:
        stack.callback(losses.close)
        stack.callback(world.stop)
        yield Cloud(world, losses)


def _addresses(server: mariadb.MariaDB, node: SharedRabbitMQ) -> Addresses:
    """Of a world beside those that other tests made on the same servers."""
    mark = f"long_{uuid.uuid4().hex[:8]}"
    return Addresses(
        databases={name: server.create_schema(f"{mark}_{name}") for name in ("api", "cell0", CELL)},
        brokers={name: node.create_vhost(f"{mark}_{name}", HOSTS) for name in ("api", CELL)},
        placement_database=server.create_schema(f"{mark}_placement", collation="utf8mb4_general_ci"),
        passwords={user.name: node.password(user.name) for user in HOSTS},
    )


@pytest.mark.timeout(240)
def test_a_build_of_forty_minutes_survives_three_losses_of_the_broker(cloud: Cloud) -> None:
    spawns: list[tuple[str, int]] = []
    hypervisor = type("Hypervisor", (PatientHypervisor,), {"spawns": spawns, "time_is_up": threading.Event()})
    cloud.start(hypervisor)
    world = cloud.world
    server = world.accept("patience")[0]
    wait_until(lambda: spawns, "the build has begun")
    connections, orders = cloud.losses.connections, cloud.count("agent.accept")

    for number, lost_at_s in enumerate(LOST_AFTER_S):
        while cloud.passed_s < lost_at_s:
            cloud.hop_in_touch()
        sent = cloud.count("cell.send")
        cloud.losses.cut(number)
        # Until the lease is over and the order was sent again. That may be later: a heartbeat from before the cut can
        # still lie in the queue of a conductor that has to connect anew.
        while cloud.passed_s < lost_at_s + LOST_FOR_S or cloud.count("cell.send") == sent:
            cloud.hop()
            assert (cloud.row().state, cloud.row().attempt) == (states.BUILD, 1)
        cloud.losses.mend()
        cloud.wait_for_touch()
        # Whoever lost his connection gets again what was not acked: the hint, and with it the order to a host that is
        # at it.
        world.cells.by_name(CELL).hint(cell_verbs.QUEUE, cell_verbs.START, cell_verbs.Uuids([server]), USER)
        wait_until(lambda number=number: cloud.count("agent.accept") > orders + number, "the order came again")  # type: ignore[misc]
    while cloud.passed_s < BUILD_S:
        cloud.hop_in_touch()
    assert (cloud.row().state, cloud.row().attempt) == (states.BUILD, 1)
    hypervisor.time_is_up.set()  # type: ignore[attr-defined]
    world.wait_for([server], states.BUILD_ACTIVE)

    assert spawns == [(server, 1)]
    assert cloud.row().attempt == 1
    assert world.guests() == [(cloud.row().host, server, 1)]
    wait_until(lambda: not invariants.complaints(world), "rest")
    if connections is not None and cloud.losses.connections is not None:
        assert cloud.losses.connections >= connections + 3 * len(world.hosts[CELL])


@pytest.mark.timeout(240)
def test_a_build_past_its_deadline_is_given_up_by_the_same_clock(cloud: Cloud) -> None:
    """Else the test above would show nothing: time that is handed in does pass."""
    spawns: list[tuple[str, int]] = []
    hypervisor = type("Hypervisor", (PatientHypervisor,), {"spawns": spawns, "time_is_up": threading.Event()})
    cloud.start(hypervisor)
    server = cloud.world.accept("patience")[0]
    wait_until(lambda: spawns, "the build has begun")
    first = cloud.row().host

    table = cell_db.tables.instances
    with cloud.world.databases[CELL].transaction() as connection:
        connection.execute(sa.update(table).values(deadline=now_sql(2.5 * HOP_S)))
    for _ in range(2):
        cloud.hop_in_touch()
    assert cloud.row().attempt == 1
    cloud.hop()
    wait_until(lambda: cloud.row().attempt == 2, "the next attempt")
    hypervisor.time_is_up.set()  # type: ignore[attr-defined]
    cloud.world.wait_for([server], states.BUILD_ACTIVE)

    assert cloud.row().host != first
    assert spawns == [(server, 1), (server, 2)]
