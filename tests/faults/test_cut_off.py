"""Hosts that nobody hears: down only if somebody listens for them. A broker that is away for minutes turns no build
into an error."""

import contextlib
import pathlib
import uuid as uuids
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

import api_db.tables
import cell_db.heartbeats
import cell_db.hosts
import cell_db.tables
import conductor.superconductor.host_view_updater
from core.clock import utcnow
from database.types import now_sql
from lifecycle import states
from messaging import in_process
from objects.host import CONDUCTOR, Heartbeat, Inventory, Usage, node_uuid
from tests.faults.world import World, wait_until

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
HOST, CELL = "east-1", "east"
INVENTORY = Inventory(
    node_uuid=node_uuid(HOST),
    hypervisor_hostname=HOST,
    hypervisor_type="simulated",
    hypervisor_version=1,
    vcpus=8,
    memory_mib=16384,
    disk_gib=100,
)
SILENT_S = 60.0


@pytest.fixture
def world(tmp_path: pathlib.Path) -> Iterator[World]:
    """A cell with one host; only the super-conductor runs, the rest is in the rows."""
    world = World(tmp_path, (CELL,), hosts=1)
    entry = {"reserved": 0, "min_unit": 1, "step_size": 1, "allocation_ratio": 1.0}
    totals = {"VCPU": INVENTORY.vcpus, "MEMORY_MB": INVENTORY.memory_mib, "DISK_GB": INVENTORY.disk_gib}
    inventories = {name: {**entry, "total": total, "max_unit": total} for name, total in totals.items()}
    world.placement.ensure_provider(
        INVENTORY.node_uuid, HOST, inventories=inventories, traits=[], even_below_usage=True
    )
    with contextlib.closing(_Closing(world)):
        yield world


class _Closing:
    def __init__(self, world: World) -> None:
        self.close = world.stop


def _heard(world: World, *, silent_s: float = 0.0, placed: bool = True) -> None:
    beat = Heartbeat(
        host=HOST, boot_id=str(uuids.uuid4()), version="1", started_at=0.0, inventory=INVENTORY, usage=Usage()
    )
    with world.databases[CELL].transaction() as connection:
        cell_db.heartbeats.beat(connection, beat)
        if placed:
            cell_db.heartbeats.placed(connection, INVENTORY)
        services = cell_db.tables.services
        connection.execute(sa.update(services).where(services.c.host == HOST).values(last_seen_at=now_sql(-silent_s)))


def _conductor(world: World, *, disconnected: bool) -> None:
    with world.databases[CELL].transaction() as connection:
        cell_db.heartbeats.conductor_beat(
            connection, host="conductor", version="1", started_at=utcnow(), disconnected=disconnected
        )


def test_a_host_that_a_listening_conductor_does_not_hear_is_down(world: World) -> None:
    _heard(world, silent_s=SILENT_S)
    _conductor(world, disconnected=False)
    world.start("super", world.super_conductor())

    server = world.accept()
    world.wait_for(server, states.BUILD_ERROR)

    assert "down" in world.instances()[server[0]][1].fault["message"]


def test_a_build_waits_while_nobody_listens_for_hosts(world: World) -> None:
    _heard(world, silent_s=SILENT_S)
    _conductor(world, disconnected=True)
    program = world.start("super", world.super_conductor())

    server = world.accept()
    hopeless = world.accept(zone="mars")
    world.wait_for(hopeless, states.BUILD_ERROR)
    assert program.view.reported()[0].cut_off
    assert world.state_of(server[0]) is None

    _heard(world)
    _conductor(world, disconnected=False)
    world.wait_for(server, states.BUILD)
    wait_until(lambda: not world.rows("api", sa.table("build_requests", sa.column("uuid"))), "an empty journal")


def test_a_build_waits_for_a_host_that_has_just_come(world: World) -> None:
    _heard(world, placed=False)
    _conductor(world, disconnected=False)
    program = world.start("super", world.super_conductor())
    wait_until(lambda: [host.cut_off for host in program.view.reported()] == [True], "the host is in the view")

    server = world.accept(hint=False)
    program.journal.sweep()
    assert world.state_of(server[0]) is None

    _heard(world)
    world.wait_for(server, states.BUILD)


def test_a_build_waits_while_its_only_cell_is_away(world: World) -> None:
    _heard(world)
    _conductor(world, disconnected=False)
    program = world.start("super", world.super_conductor())
    wait_until(lambda: [host.up for host in program.view.reported()] == [True], "the host is up in the view")
    gate = program.cells.by_name(CELL)

    for _ in range(10):
        gate._bulkhead.breaker.failed("frozen by the test", unreachable=True)
    program.watch.pull()
    server = world.accept(hint=False)
    program.journal.sweep()
    assert world.state_of(server[0]) is None

    world.wait_for(server, states.BUILD)


def test_a_build_waits_while_the_broker_of_its_only_cell_is_away(world: World) -> None:
    _heard(world)
    _conductor(world, disconnected=False)
    program = world.start("super", world.super_conductor())
    wait_until(lambda: [host.up for host in program.view.reported()] == [True], "the host is up in the view")
    broker = in_process.broker(world.at.brokers[CELL].removeprefix(in_process.SCHEME))

    broker.go_away()
    wait_until(lambda: [host.cut_off for host in program.view.reported()] == [True], "the host is cut off")
    server = world.accept(hint=False)
    program.journal.sweep()
    assert world.state_of(server[0]) is None

    broker.come_back()

    def is_built() -> bool:
        _heard(world)
        _conductor(world, disconnected=False)
        return world.state_of(server[0]) == states.BUILD

    wait_until(is_built, "the build is in its cell")


def test_nothing_is_built_in_a_cell_that_is_too_slow_to_be_written_to(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _heard(world)
    _conductor(world, disconnected=False)
    program = world.super_conductor()
    program.cells.refresh()
    program.watch.pull()
    assert [(host.up, host.cut_off) for host in program.view.reported()] == [(True, False)]

    with monkeypatch.context() as slowly:
        slowly.setattr(conductor.superconductor.host_view_updater, "SLOW_PART", 0.0)
        program.watch.pull()
        assert [(host.up, host.cut_off) for host in program.view.reported()] == [(False, True)]

    program.watch.pull()
    assert [(host.up, host.cut_off) for host in program.view.reported()] == [(True, False)]
    program.stop(1.0)


# ---- a super-conductor that starts while a cell is away --------------------------------------------------------------


@contextlib.contextmanager
def _away(world: World) -> Iterator[None]:
    """Inside, nobody who looks at the mappings afresh finds the cell's database."""
    mappings = api_db.tables.cell_mappings
    for url in (f"sqlite:///{world.folder}/nowhere/{CELL}.sqlite", world.at.databases[CELL]):
        with world.databases["api"].transaction() as connection:
            connection.execute(sa.update(mappings).where(mappings.c.name == CELL).values(database_connection=url))
        if "nowhere" in url:
            yield


def _in_journal(world: World) -> list[str]:
    return [row.uuid for row in world.rows("api", api_db.tables.build_requests)]


def test_a_build_waits_for_a_cell_that_was_never_read(world: World) -> None:
    """A super-conductor that was restarted while the only cell was away knew of no hosts, and buried the build."""
    _heard(world)
    _conductor(world, disconnected=False)
    with _away(world):
        program = world.start("super", world.super_conductor())
        server = world.accept()
        wait_until(lambda: world.rows("api", api_db.tables.build_requests)[0].token, "the order was looked at")
        program.journal.sweep()
        assert program.watch.unread_cells() == [CELL]
        assert (_in_journal(world), world.state_of(server[0])) == (server, None)

    program.cells.refresh()
    world.wait_for(server, states.BUILD)
    assert program.watch.unread_cells() == []


def test_a_build_that_waited_long_enough_names_the_cells_that_did_not_answer(world: World) -> None:
    with _away(world):
        world.start("super", world.super_conductor(unread_cell_wait_s=0.5))
        server = world.accept()
        world.wait_for(server, states.BUILD_ERROR)

    fault = world.instances()[server[0]][1].fault["message"]
    assert fault.startswith("No valid host was found.")
    assert fault.endswith(f"Cells that have not answered: {CELL}.")


def test_nobody_waits_for_a_cell_that_is_disabled(world: World) -> None:
    mappings = api_db.tables.cell_mappings
    with _away(world):
        with world.databases["api"].transaction() as connection:
            connection.execute(sa.update(mappings).where(mappings.c.name == CELL).values(disabled=True))
        world.start("super", world.super_conductor(unread_cell_wait_s=600))
        server = world.accept()
        world.wait_for(server, states.BUILD_ERROR)

    assert "have not answered" not in world.instances()[server[0]][1].fault["message"]


def test_a_conductor_that_stops_in_good_order_says_so(world: World) -> None:
    """One that died says nothing: an operator tells the two apart."""

    def conductor_of_cell() -> cell_db.hosts.Service:
        with world.databases[CELL].reading() as connection:
            (service,) = cell_db.hosts.list_services(connection, down_after_s=SILENT_S, binary=CONDUCTOR)
        return service

    for _ in range(2):
        world.start("conductor", world.cell_conductor(CELL))
        assert conductor_of_cell().is_up and not conductor_of_cell().is_stopped

        world.end("conductor")
        assert conductor_of_cell().is_stopped and conductor_of_cell().state == "down"
