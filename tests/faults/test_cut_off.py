"""Hosts that nobody hears: down only if somebody listens for them. A broker that is away for minutes turns no build into an error."""

import contextlib
import pathlib
import uuid as uuids
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

import cell_db.heartbeats
import cell_db.tables
from core.clock import utcnow
from core.database import now_sql
from lifecycle import states
from objects.host import Heartbeat, Inventory, Usage
from tests.faults.world import World, wait_until

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
HOST, CELL = "east-1", "east"
INVENTORY = Inventory(
    node_uuid=str(uuids.uuid4()), hypervisor_hostname=HOST, hypervisor_type="simulated", hypervisor_version=1, vcpus=8, memory_mib=16384, disk_gib=100
)
SILENT_S = 60.0


@pytest.fixture
def world(tmp_path: pathlib.Path) -> Iterator[World]:
    """A cell with one host; only the super-conductor runs, the rest is in the rows."""
    world = World(tmp_path, (CELL,), hosts=1)
    entry = {"reserved": 0, "min_unit": 1, "step_size": 1, "allocation_ratio": 1.0}
    totals = {"VCPU": INVENTORY.vcpus, "MEMORY_MB": INVENTORY.memory_mib, "DISK_GB": INVENTORY.disk_gib}
    inventories = {name: {**entry, "total": total, "max_unit": total} for name, total in totals.items()}
    world.placement.ensure_provider(INVENTORY.node_uuid, HOST, inventories=inventories, traits=[], even_below_usage=True)
    with contextlib.closing(_Closing(world)):
        yield world


class _Closing:
    def __init__(self, world: World) -> None:
        self.close = world.stop


def _heard(world: World, *, silent_s: float = 0.0) -> None:
    beat = Heartbeat(host=HOST, boot_id=str(uuids.uuid4()), version="1", started_at=0.0, inventory=INVENTORY, usage=Usage())
    with world.databases[CELL].transaction() as connection:
        cell_db.heartbeats.beat(connection, beat)
        cell_db.heartbeats.placed(connection, INVENTORY)
        services = cell_db.tables.services
        connection.execute(sa.update(services).where(services.c.host == HOST).values(last_seen_at=now_sql(-silent_s)))


def _conductor(world: World, *, deaf: bool) -> None:
    with world.databases[CELL].transaction() as connection:
        cell_db.heartbeats.conductor_beat(connection, host="conductor", version="1", started_at=utcnow(), deaf=deaf)


def test_a_host_that_a_listening_conductor_does_not_hear_is_down(world: World) -> None:
    _heard(world, silent_s=SILENT_S)
    _conductor(world, deaf=False)
    world.start("super", world.super_conductor())

    server = world.accept()
    world.wait_for(server, states.FAILED)

    assert "down" in world.instances()[server[0]][1].fault["message"]


def test_a_build_waits_while_nobody_listens_for_hosts(world: World) -> None:
    _heard(world, silent_s=SILENT_S)
    _conductor(world, deaf=True)
    program = world.start("super", world.super_conductor())

    server = world.accept()
    hopeless = world.accept(zone="mars")
    world.wait_for(hopeless, states.FAILED)
    assert program.view.reported()[0].cut_off
    assert world.state_of(server[0]) is None

    _heard(world)
    _conductor(world, deaf=False)
    world.wait_for(server, states.BUILD)
    wait_until(lambda: not world.rows("api", sa.table("build_requests", sa.column("uuid"))), "an empty journal")


def test_a_build_waits_while_its_only_cell_is_away(world: World) -> None:
    _heard(world)
    _conductor(world, deaf=False)
    program = world.start("super", world.super_conductor())
    wait_until(lambda: [host.up for host in program.view.reported()] == [True], "the host is up in the view")
    gate = program.cells.by_name(CELL)

    for _ in range(10):
        gate._door.breaker.failed("frozen by the test", unreachable=True)
    program.watch.pull()
    server = world.accept(hint=False)
    program.placer.sweep()
    assert world.state_of(server[0]) is None

    world.wait_for(server, states.BUILD)
