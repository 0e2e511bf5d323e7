"""Soft deletes whose host is away: the mapping is carried out all the same, and the guest does not run on."""

import pytest
import sqlalchemy as sa

import api_db.instances
import cell_db.tables
from api_db.instances import SOFT_DELETED
from cells.gate.answers import value_of
from database.types import now_sql
from lifecycle import states
from tests.faults.conftest import Worlds
from tests.faults.operation_workloads import _begin_image, _running, _status
from tests.faults.process_keeper import ProcessKeeper

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def let_deadline_pass(keeper: ProcessKeeper, cell: str, uuid: str) -> None:
    rows = cell_db.tables.instances
    with keeper.world.databases[cell].transaction() as connection:
        connection.execute(sa.update(rows).where(rows.c.uuid == uuid).values(operation_deadline=now_sql(-1.0)))


def test_a_guest_that_ran_on_while_its_host_was_away_is_stopped(worlds: Worlds) -> None:
    keeper = worlds.keeper()
    world = keeper.world
    uuid = _running(keeper)
    cell, row = world.instances()[uuid]
    agent = keeper.one("agent", cell, row.host)
    keeper._end(agent, 5.0)

    world.soft_delete(uuid)
    let_deadline_pass(keeper, cell, uuid)
    keeper.wait_until(
        lambda: world.instances()[uuid][1].vm_state == states.SOFT_DELETED, "it is soft-deleted at the deadline"
    )
    now = world.instances()[uuid][1]
    assert (now.task_state, now.operation) == (None, "soft-delete") and "did not answer in time" in now.fault["message"]
    assert uuid in world.running_guests()

    keeper._start(agent.role)
    keeper.settle()

    assert uuid not in world.running_guests()
    assert value_of(world.api_db.read_now(api_db.instances.get, uuid)).deleted == SOFT_DELETED
    keeper.restore(uuid)
    keeper.wait_until(lambda: uuid in world.running_guests(), "it is restored")
    keeper.settle()
    keeper.delete(uuid)
    keeper.settle()
    keeper.tidy_up()


def test_a_guest_that_somebody_starts_while_its_server_is_soft_deleted_is_stopped(worlds: Worlds) -> None:
    keeper = worlds.keeper()
    world = keeper.world
    uuid = _running(keeper)
    keeper.soft_delete(uuid)
    keeper.settle()
    cell, row = world.instances()[uuid]
    assert row.vm_state == states.SOFT_DELETED

    hypervisor = keeper.one("agent", cell, row.host).program.host.hypervisor
    guest = hypervisor.files.get(uuid)
    hypervisor.power._context.change(guest, states.RUNNING, "boot")
    assert uuid in world.running_guests()

    keeper.wait_until(lambda: uuid not in world.running_guests(), "its host was told to stop it")
    keeper.delete(uuid)
    keeper.settle()
    keeper.tidy_up()


def test_an_image_of_a_server_that_is_soft_deleted_meanwhile_is_whole_or_not_there(worlds: Worlds) -> None:
    keeper = worlds.keeper()
    world = keeper.world
    uuid = _running(keeper)
    task = _begin_image(world, uuid)

    world.soft_delete(uuid)
    keeper.let_leases_end()
    keeper.settle()

    assert world.instances()[uuid][1].vm_state == states.SOFT_DELETED
    assert _status(world, task.image_id) in ("active", None)
    keeper.delete(uuid)
    keeper.settle()
    keeper.tidy_up()
