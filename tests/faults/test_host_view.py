"""The super-conductor's view of a large cell is pulled by changes only, and is the same as if every host had been
read."""

import pathlib
import uuid
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

import api_db.aggregates
import api_db.hosts
import cell_db.heartbeats
import cell_db.tables
from cells.gate.answers import value_of
from conductor.superconductor import host_view_updater as watching
from conductor.superconductor.host_view_updater import HostViewUpdater
from core.clock import utcnow
from database.types import now_sql
from objects.host import Heartbeat, Inventory, Usage, node_uuid
from scheduler.hosts import HostState
from scheduler.view import HostView
from tests.faults.manual_clock import ManualClock
from tests.faults.world import World

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CELL = "east"
HOSTS = watching.READ_WHOLE + 10


class Large:
    """A cell of many hosts, none of which runs: rows alone. `reads` counts how often all of them were read."""

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(folder, (CELL,), hosts=0)
        self.database = self.world.databases[CELL]
        self.names = [f"host-{number:03}" for number in range(HOSTS)]
        self.clock = ManualClock()
        self.view = HostView(clock=self.clock)
        self.watch = self.watching(self.view)
        self.reads = 0
        read = cell_db.heartbeats.hosts

        def counted(connection: sa.Connection) -> list[cell_db.heartbeats.HostReport]:
            self.reads += 1
            return read(connection)

        monkeypatch.setattr(cell_db.heartbeats, "hosts", counted)
        self.conductor()
        with self.database.transaction() as connection:
            for name in self.names:
                _beat(connection, name)
            connection.execute(sa.update(cell_db.tables.compute_nodes).values(updated_at=now_sql(-3600.0)))

    def watching(self, view: HostView) -> HostViewUpdater:
        world = self.world
        return HostViewUpdater(world.conf, world.api_db, world.cells, world.placement, view, self.clock)

    def heartbeat(self, name: str, guests: int = 0, *, vcpus: int = 16, placed: bool = True) -> None:
        with self.database.transaction() as connection:
            _beat(connection, name, guests, vcpus=vcpus, placed=placed)

    def conductor(self) -> None:
        with self.database.transaction() as connection:
            cell_db.heartbeats.conductor_beat(connection, host="conductor", version="1", started_at=utcnow())

    def service(self, name: str, **values: object) -> None:
        services = cell_db.tables.services
        with self.database.transaction() as connection:
            connection.execute(sa.update(services).where(services.c.host == name).values(**values))

    def owe(self, name: str, owes: bool) -> None:
        """A superseded attempt may still be on the host, or not any more."""
        cleanups, instances = cell_db.tables.cleanups, cell_db.tables.instances
        with self.database.transaction() as connection:
            if owes:
                server = self.world.orders("moved")[0]
                first = cell_db.builds.NewInstance(
                    server, name, str(uuid.uuid4()), name, None, [], {}, utcnow(), attempt=2
                )
                cell_db.builds.insert(connection, [first], build_deadline_s=60.0)
                cell_db.cleanups.insert(connection, uuid=server.uuid, host=name, attempt=1)
            else:
                connection.execute(sa.delete(cleanups))
                connection.execute(sa.delete(instances))

    def forget(self, name: str) -> None:
        nodes = cell_db.tables.compute_nodes
        with self.database.transaction() as connection:
            connection.execute(sa.delete(nodes).where(nodes.c.host == name))

    def aggregate(self, name: str) -> None:
        def made(connection: sa.Connection) -> None:
            aggregate = api_db.aggregates.insert(connection, name="fast", availability_zone="mars")
            api_db.aggregates.add_host(connection, aggregate.id, name)

        value_of(self.world.api_db.write_now(made))

    def write(self, fn: Callable[..., object], *arguments: object) -> None:
        value_of(self.world.api_db.write_now(fn, *arguments))

    def read_whole(self) -> dict[str, HostState]:
        """The hosts as somebody sees them who has just come."""
        view = HostView(clock=self.clock)
        self.watching(view).pull()
        return {state.host: state for state in view.reported()}

    def pulled(self) -> dict[str, HostState]:
        self.watch.pull()
        return {state.host: state for state in self.view.reported()}


def _beat(connection: sa.Connection, name: str, guests: int = 0, *, vcpus: int = 16, placed: bool = True) -> None:
    inventory = Inventory(
        node_uuid=node_uuid(name), hypervisor_hostname=name, hypervisor_type="rows", hypervisor_version=1, vcpus=vcpus,
        memory_mib=16384, disk_gib=100,
    )  # fmt: skip
    beat = Heartbeat(
        host=name,
        boot_id="1",
        version="1",
        started_at=0.0,
        inventory=inventory,
        usage=Usage(guests, 64 * guests, guests, guests),
    )
    cell_db.heartbeats.beat(connection, beat)
    if placed:
        cell_db.heartbeats.placed(connection, inventory)


@pytest.fixture
def large(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Large]:
    large = Large(tmp_path, monkeypatch)
    large.watch.pull()
    large.watch.pull()
    yield large
    large.world.stop()


CHANGES: dict[str, Callable[[Large], None]] = {
    "nothing": lambda large: None,
    "a guest came": lambda large: large.heartbeat("host-001", guests=1),
    "the guest went": lambda large: large.heartbeat("host-001"),
    "another inventory that Placement does not know": lambda large: large.heartbeat("host-002", vcpus=32, placed=False),
    "Placement knows it": lambda large: large.heartbeat("host-002", vcpus=32),
    "disabled": lambda large: large.service("host-003", disabled=True),
    "enabled": lambda large: large.service("host-003", disabled=False),
    "forced down": lambda large: large.service("host-004", forced_down=True),
    "not any more": lambda large: large.service("host-004", forced_down=False),
    "silent": lambda large: large.service("host-005", last_seen_at=now_sql(-60.0)),
    "heard again": lambda large: large.heartbeat("host-005"),
    "builds under way": lambda large: large.service("host-007", intents=[["a", 1], ["b", 1]]),
    "they are over": lambda large: large.service("host-007", intents=[]),
    "dedicated": lambda large: large.write(api_db.hosts.dedicate, "host-008", "p"),
    "everybody's again": lambda large: large.write(api_db.hosts.dedicate, "host-008", None),
    "weighed": lambda large: large.write(api_db.hosts.set_weight, "host-009", 2.0),
    "a cleanup": lambda large: large.owe("host-006", True),
    "answered": lambda large: large.owe("host-006", False),
    "left": lambda large: large.service("host-007", left=True),
    "gone": lambda large: large.forget("host-008"),
    "new": lambda large: large.heartbeat("host-008"),
    "in an aggregate": lambda large: large.aggregate("host-009"),
    "without a conductor": lambda large: large.service("conductor", last_seen_at=now_sql(-60.0)),
    "with one again": lambda large: large.conductor(),
}


def test_what_is_pulled_by_changes_is_what_there_is(large: Large) -> None:
    for name, change in CHANGES.items():
        change(large)
        assert large.pulled() == large.read_whole(), name


def test_hosts_at_which_nothing_changes_are_not_read(large: Large) -> None:
    before = large.reads

    for guests in range(3):
        large.heartbeat("host-001", guests=guests)
        large.watch.pull()

    assert large.reads == before
    assert next(state.servers for state in large.view.reported() if state.host == "host-001") == 2


def test_before_a_build_is_given_up_every_host_is_read(large: Large) -> None:
    before = large.reads

    large.watch.pull(whole=True)

    assert large.reads == before + 1
