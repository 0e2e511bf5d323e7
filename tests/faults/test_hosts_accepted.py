"""A cell's word on its hosts is a claim: which of them may be used the API level says, before anything is written to
Placement.

Two cells; no program runs: what hosts and conductors write is in the rows, and one look after the other is called by
the test.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

import api_db.hosts
import api_db.tables
import cell_db.heartbeats
import cell_db.hosts
import cell_db.tables
import core.errors
from cells.gate.answers import value_of
from clients.placement import Claim
from conductor.cell.liveness import ConductorLiveness
from conductor.cell.sweeps import Sweeps
from conductor.superconductor.claim_sweep import ClaimSweep
from conductor.superconductor.host_view_updater import HostViewUpdater
from core.clock import SystemClock, utcnow
from core.crash_points import CrashPoints
from objects.host import node_uuid
from scheduler.hosts import HostState
from scheduler.view import HostView
from tests.faults.harness import heartbeat_of, inventory_of
from tests.faults.world import World

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Cloud:
    """East and west with a host each, as their conductors and a super-conductor see them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.placement = world.placement
        self.view = HostView()
        self.accept_new(True)
        for cell in ("east", "west"):
            with self.world.databases[cell].transaction() as connection:
                cell_db.heartbeats.conductor_beat(
                    connection, host=f"{cell}-conductor", version="1", started_at=utcnow()
                )
        self.sweeps = {cell: self._sweeps(cell, again_s=3600.0) for cell in ("east", "west")}
        self.heard("east-1", "east")
        self.heard("west-1", "west")
        self.settle()

    def _sweeps(self, cell: str, *, again_s: float) -> Sweeps:
        nobody: Any = None
        watch = ConductorLiveness(SystemClock(), down_after_s=60.0)
        return Sweeps(
            self.world.databases[cell],
            self.placement,
            nobody,
            watch,
            steps=CrashPoints(),
            down_after_s=60.0,
            inventory_again_s=again_s,
        )

    def accept_new(self, at_once: bool) -> None:
        """Another super-conductor, with this setting."""
        self.world.conf.set_override("new_hosts", "enabled" if at_once else "accept", group="scheduler")
        self.watch = HostViewUpdater(self.world.conf, self.world.api_db, self.world.cells, self.placement, self.view)

    def heard(self, host: str, cell: str) -> None:
        """A conductor of the cell wrote down what the host reports."""
        with self.world.databases[cell].transaction() as connection:
            cell_db.heartbeats.beat(connection, heartbeat_of(host, boot_id="1", intents=[], guests=None))

    def settle(self) -> None:
        """Everybody looks twice, which is enough for a host to be known everywhere."""
        for _ in range(2):
            self.watch.pull()
            for sweeps in self.sweeps.values():
                sweeps.news()
                sweeps.inventories()
                sweeps.departures()
        self.watch.pull()

    def node(self, cell: str, host: str, **values: object) -> None:
        """Somebody writes into the row of the host's node."""
        nodes = cell_db.tables.compute_nodes
        with self.world.databases[cell].transaction() as connection:
            connection.execute(sa.update(nodes).where(nodes.c.host == host).values(**values))

    def raw(self, cell: str, statement: str) -> None:
        """Somebody writes into the cell's database what no program of ours would."""
        with self.world.databases[cell].transaction() as connection:
            connection.exec_driver_sql(statement)

    def hosts(self) -> dict[str, HostState]:
        return {state.host: state for state in self.view.reported()}

    def vcpus(self, host: str) -> int | None:
        """What Placement knows of the host; None: nothing."""
        try:
            return int(self.placement.inventories(node_uuid(host))["VCPU"]["total"])
        except core.errors.NotFound:
            return None

    def names(self) -> set[str]:
        return {provider.name for provider in self.placement.providers([])}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for all tests: each wipes what it made."""
    world = World(tmp_path_factory.mktemp("accepted"), ("east", "west"), hosts=0)
    yield world
    world.stop()


def wipe(world: World) -> None:
    for provider in world.placement.providers([]):
        for server in world.placement.claims_on_provider(provider.uuid):
            world.placement.release(server)
        world.placement.delete_provider(provider.uuid, provider.name)
    for cell in ("east", "west"):
        with world.databases[cell].transaction() as connection:
            connection.execute(sa.delete(cell_db.tables.compute_nodes))
            connection.execute(sa.delete(cell_db.tables.services))
    with world.databases["api"].transaction() as connection:
        connection.execute(sa.delete(api_db.tables.host_mappings))


@pytest.fixture
def cloud(world: World) -> Iterator[Cloud]:
    cloud = Cloud(world)
    assert {host.host for host in cloud.hosts().values() if host.up} == {"east-1", "west-1"}
    assert (cloud.vcpus("east-1"), cloud.vcpus("west-1")) == (64, 64)
    yield cloud
    wipe(world)


def test_a_host_with_the_node_of_another_cells_host_is_not_used(cloud: Cloud) -> None:
    """An invented host with the node of west-1 had Placement told that west-1 has one CPU; nothing repaired it."""
    small = msgspec.structs.replace(inventory_of("west-1"), vcpus=1)
    cloud.heard("evil-1", "east")
    cloud.node("east", "evil-1", uuid=node_uuid("west-1"), inventory=msgspec.to_builtins(small), accepted=True)

    cloud.settle()

    assert cloud.vcpus("west-1") == 64
    assert cloud.names() == {"east-1", "west-1"}
    assert set(cloud.hosts()) == {"east-1", "west-1"}


def test_nor_are_the_claims_on_that_node_taken_for_its_cells(cloud: Cloud) -> None:
    """Servers of west, claimed on a node that east says it has, would have been without an owner."""
    server = "00000000-0000-4000-8000-000000000001"
    claim = Claim(
        uuid=server,
        provider_uuid=node_uuid("west-1"),
        resources={"VCPU": 1},
        project_id="p",
        user_id="u",
        generation=None,
    )
    cloud.placement.claim([claim])
    order = cloud.world.orders("mine")[0]
    cloud.heard("evil-1", "east")
    cloud.node("east", "evil-1", uuid=node_uuid("west-1"), inventory=msgspec.to_builtins(inventory_of("west-1")))
    cloud.raw("west", "DELETE FROM compute_nodes")
    cloud.settle()

    assert order.uuid and node_uuid("west-1") not in {state.node_uuid for state in cloud.hosts().values()}
    sweep = ClaimSweep(cloud.world.api_db, cloud.placement, cloud.view, CrashPoints())
    for _ in range(3):
        sweep.sweep()

    assert cloud.placement.read_claim(server).providers == {node_uuid("west-1"): {"VCPU": 1}}


def test_a_host_with_the_name_of_another_cells_host_is_not_used(cloud: Cloud) -> None:
    """Names are unique in the cloud: the first cell has it. The other's conductor neither writes its provider nor
    deletes it."""
    cloud.heard("west-1", "east")
    cloud.node(
        "east", "west-1", inventory=msgspec.to_builtins(msgspec.structs.replace(inventory_of("west-1"), vcpus=1))
    )
    cloud.settle()

    assert cloud.vcpus("west-1") == 64
    assert cloud.hosts()["west-1"].cell_uuid == cloud.world.cells.by_name("west").cell.uuid
    cloud.raw("east", "DELETE FROM services WHERE host = 'west-1'")
    cloud.settle()
    assert cloud.vcpus("west-1") == 64
    with cloud.world.databases["east"].reading() as connection:
        assert cell_db.hosts.list_departed(connection) == []


def test_a_cell_cannot_accept_a_host_by_itself(cloud: Cloud) -> None:
    cloud.accept_new(False)
    cloud.heard("east-2", "east")
    cloud.settle()
    cloud.node("east", "east-2", accepted=True)

    cloud.watch.pull()

    assert "east-2" not in cloud.hosts()
    with cloud.world.databases["east"].reading() as connection:
        assert {report.host: report.accepted for report in cell_db.heartbeats.hosts(connection)} == {
            "east-1": True,
            "east-2": False,
        }


def test_a_new_host_waits_where_operators_want_to_be_asked(cloud: Cloud) -> None:
    """It was up and enabled at once: with a large inventory it would have drawn builds, and user data and keys with
    them."""
    cloud.accept_new(False)
    cloud.heard("east-2", "east")
    cloud.settle()

    assert set(cloud.hosts()) == {"east-1", "west-1"}
    assert cloud.vcpus("east-2") is None
    assert value_of(cloud.world.api_db.read_now(api_db.hosts.get, "east-2")).accepted is False

    assert value_of(cloud.world.api_db.write_now(api_db.hosts.accept, "east-2"))
    cloud.settle()

    assert cloud.hosts()["east-2"].up
    assert cloud.vcpus("east-2") == 64
    assert not value_of(cloud.world.api_db.write_now(api_db.hosts.accept, "east-2"))


def test_a_host_that_was_deleted_is_new_when_it_returns(cloud: Cloud) -> None:
    cloud.accept_new(False)
    cloud.raw("east", "DELETE FROM services WHERE host = 'east-1'")
    value_of(cloud.world.api_db.write_now(api_db.hosts.delete, "east-1"))
    cloud.settle()
    assert (cloud.vcpus("east-1"), set(cloud.hosts())) == (None, {"west-1"})

    cloud.heard("east-1", "east")
    cloud.settle()

    assert (cloud.vcpus("east-1"), set(cloud.hosts())) == (None, {"west-1"})


def test_what_was_damaged_in_placement_heals(cloud: Cloud) -> None:
    """The conductor wrote an inventory when it changed, and believed for ever that it had told."""
    stock = {"VCPU": {"total": 1}}
    cloud.placement.ensure_provider(node_uuid("west-1"), "west-1", inventories=stock, traits=[], even_below_usage=True)
    cloud.settle()
    assert cloud.vcpus("west-1") == 1

    cloud._sweeps("west", again_s=0.0).inventories()

    assert cloud.vcpus("west-1") == 64
    assert cloud.placement.inventories(node_uuid("west-1")).keys() == {"VCPU", "MEMORY_MB", "DISK_GB"}


def test_a_host_that_refuses_builds_is_not_chosen_until_it_takes_them_again(cloud: Cloud) -> None:
    """Its disk was full; it was up and enabled, and drew builds."""
    for why, is_disabled in (("No space left on device", True), (None, False)):
        beat = msgspec.structs.replace(heartbeat_of("east-1", boot_id="1", intents=[], guests=None), refuses=why)
        with cloud.world.databases["east"].transaction() as connection:
            cell_db.heartbeats.beat(connection, beat)
        cloud.watch.pull()

        assert (cloud.hosts()["east-1"].up, cloud.hosts()["east-1"].disabled) == (True, is_disabled)


NONSENSE = {
    "no document": "inventory = '[1'",
    "null": "inventory = 'null'",
    "no inventory": "inventory = '{}'",
    "empty": "inventory = ''",
    "absurd": "inventory = replace(inventory, '\"vcpus\":64', '\"vcpus\":-64')",
    "no numbers": "vcpus_used = 'many'",
    "too much": "memory_mib_used = -1",
}


@pytest.mark.parametrize("what", NONSENSE)
def test_a_row_that_cannot_be_read_is_one_hosts_loss(cloud: Cloud, what: str) -> None:
    """One such row stopped the sweep of inventories, and the view of the hosts of all cells."""
    cloud.heard("east-2", "east")
    cloud.settle()
    cloud.raw("east", f"UPDATE compute_nodes SET {NONSENSE[what]} WHERE host = 'east-1'")
    cloud.node("east", "east-2", placed=None)
    cloud.heard("west-2", "west")
    cloud.settle()

    assert {host.host for host in cloud.hosts().values() if host.up} == {"east-2", "west-1", "west-2"}
    assert cloud.vcpus("west-2") == 64
    with cloud.world.databases["east"].reading() as connection:
        assert [row.service.host for row in cell_db.hosts.list_hosts(connection, down_after_s=60.0)] == [
            "east-1",
            "east-2",
        ]
        defects = {report.host: report.defect for report in cell_db.heartbeats.hosts(connection)}
    assert defects["east-1"] and defects["east-2"] is None

    cloud.heard("east-1", "east")
    cloud.settle()
    assert cloud.hosts()["east-1"].up




def test_a_host_that_was_seen_at_no_moment_is_down_and_hides_no_other(cloud: Cloud) -> None:
    cloud.raw("east", "UPDATE services SET last_seen_at = 'yesterday' WHERE host = 'east-1'")

    cloud.watch.pull()

    assert {host.host for host in cloud.hosts().values() if host.up} == {"west-1"}

    cloud.heard("east-1", "east")
    cloud.settle()
    assert cloud.hosts()["east-1"].up


def test_a_cell_that_nobody_can_read_does_not_hide_the_others(cloud: Cloud) -> None:
    cloud.raw("east", "ALTER TABLE services RENAME TO elsewhere")
    cloud.heard("west-2", "west")

    cloud.watch.pull()
    for sweeps in (cloud.sweeps["west"],):
        sweeps.news()
    cloud.watch.pull()
    cloud.raw("east", "ALTER TABLE elsewhere RENAME TO services")

    assert {host.host for host in cloud.hosts().values() if host.up} == {"west-1", "west-2"}
    assert cloud.hosts()["east-1"].cut_off
