"""A soft delete and a restore in the cell: which of them counts, and what becomes of the guest."""

from typing import Any

import pytest
import sqlalchemy as sa

import cell_db.endings
import cell_db.operations
import cell_db.soft_deletes
from cell_db.tables import instances
from core.clock import utcnow
from core.context import service_context
from database.engine import Database
from lifecycle import states
from lifecycle.actions import OPERATIONS
from tests.cell_db.rows import insert_instance, update_instance

HOST = "host-1"
USER = service_context("req-1")


def ran(database: Database, **columns: Any) -> str:
    """A server that has run."""
    uuid = insert_instance(database, host=HOST)
    update_instance(database, uuid, launched_at=utcnow(), **columns)
    return uuid


def soft_delete(database: Database, uuid: str, mark: int = 1) -> bool:
    with database.transaction() as connection:
        return cell_db.soft_deletes.soft_delete(connection, uuid, mark=mark, by=USER)


def restore(database: Database, uuid: str, mark: int = 2) -> None:
    with database.transaction() as connection:
        cell_db.soft_deletes.restore(connection, uuid, mark=mark, by=USER)


def row(database: Database, uuid: str) -> sa.Row[Any]:
    with database.reading() as connection:
        return connection.execute(sa.select(instances).where(instances.c.uuid == uuid)).one()


def settle(database: Database, uuid: str, **outcome: Any) -> bool:
    """The host's answer, or its silence, to the operation under way."""
    now = row(database, uuid)
    with database.transaction() as connection:
        return cell_db.operations.settle_operation(
            connection, uuid=uuid, operation_id=now.operation_id, action=OPERATIONS[now.operation], host=HOST,
            **{"power_state": None, "fault": None, **outcome},
        )  # fmt: skip


def report(database: Database, uuid: str, power_state: int) -> bool:
    with database.transaction() as connection:
        return cell_db.operations.set_power_state(connection, uuid=uuid, attempt=1, host=HOST, power_state=power_state)


def seen(database: Database, uuid: str) -> tuple[str, str | None, str | None]:
    now = row(database, uuid)
    return now.vm_state, now.task_state, now.operation


@pytest.mark.parametrize("state", [states.BUILD, states.BUILD_ERROR])
def test_what_is_being_built_or_has_failed_cannot_be_restored(database: Database, state: str) -> None:
    uuid = ran(database, state=state)
    assert not soft_delete(database, uuid)

    restore(database, uuid)
    assert (row(database, uuid).mark, row(database, uuid).operation_id) == (2, None)


@pytest.mark.parametrize("missing", ["launched_at", "host"])
def test_nor_what_never_ran_or_has_no_host(database: Database, missing: str) -> None:
    uuid = ran(database)
    update_instance(database, uuid, **{missing: None})

    assert not soft_delete(database, uuid)
    assert row(database, uuid).operation_id is None


def test_a_server_that_its_cell_has_lost_is_deleted_for_good(database: Database) -> None:
    assert not soft_delete(database, "11111111-2222-4333-8444-555555555555")


def test_the_same_soft_delete_twice_is_one(database: Database) -> None:
    uuid = ran(database)
    assert soft_delete(database, uuid)
    first = row(database, uuid)

    assert soft_delete(database, uuid)
    assert row(database, uuid) == first


@pytest.mark.parametrize("vm_state", [states.STOPPED, states.ERROR, states.RESCUED, "teleported"])
def test_every_server_that_ran_is_soft_deleted_and_is_active_when_restored(database: Database, vm_state: str) -> None:
    uuid = ran(database, vm_state=vm_state)
    soft_delete(database, uuid)
    assert seen(database, uuid) == (vm_state, "soft-deleting", "soft-delete")
    assert settle(database, uuid, power_state=states.SHUTDOWN)
    assert seen(database, uuid) == (states.SOFT_DELETED, None, None)

    restore(database, uuid)
    assert seen(database, uuid) == (states.SOFT_DELETED, "restoring", "restore")
    assert settle(database, uuid, power_state=states.RUNNING)
    assert seen(database, uuid) == (states.ACTIVE, None, None)


def test_a_restore_takes_the_place_of_a_soft_delete_under_way(database: Database) -> None:
    uuid = ran(database)
    soft_delete(database, uuid)
    old = row(database, uuid).operation_id
    restore(database, uuid)

    assert seen(database, uuid) == (states.ACTIVE, "restoring", "restore") and row(database, uuid).operation_id != old


# ---- a host that does not answer -------------------------------------------------------------------------------------


def test_a_silent_host_is_told_until_it_answers(database: Database) -> None:
    """The server is soft-deleted all the same, and may be restored."""
    uuid = ran(database)
    soft_delete(database, uuid)
    before = row(database, uuid)

    assert settle(database, uuid, fault="host host-1 did not answer in time", answered=False)

    after = row(database, uuid)
    assert (after.vm_state, after.task_state, after.operation) == (states.SOFT_DELETED, None, "soft-delete")
    assert "did not answer" in after.fault["message"] and after.operation_id != before.operation_id
    assert not settle(database, uuid, fault="host host-1 did not answer in time", answered=False), "said once"
    assert row(database, uuid).operation_id != after.operation_id
    assert settle(database, uuid, power_state=states.SHUTDOWN)
    assert seen(database, uuid) == (states.SOFT_DELETED, None, None)


def test_an_order_that_nobody_answers_goes_out_once_a_minute(database: Database) -> None:
    uuid = ran(database)
    soft_delete(database, uuid)
    settle(database, uuid, fault="silent", answered=False)
    update_instance(database, uuid, lease_until=utcnow().replace(year=2000))

    with database.transaction() as connection:
        (sent,) = cell_db.operations.take_operations(connection, lease_s=15.0, most=10)
    with database.reading() as connection:
        left = sa.select(instances.c.lease_until).where(instances.c.uuid == uuid)
        until = connection.execute(left).scalar_one()

    assert sent.vm_state == states.SOFT_DELETED and (until - utcnow()).total_seconds() > 30


@pytest.mark.parametrize("power_state", [states.RUNNING, states.POWER_PAUSED])
def test_a_host_that_could_not_is_told_again(database: Database, power_state: int) -> None:
    uuid = ran(database)
    soft_delete(database, uuid)

    assert settle(database, uuid, fault="the hypervisor hangs", power_state=power_state)

    assert seen(database, uuid) == (states.SOFT_DELETED, None, "soft-delete")


def test_a_host_without_the_guest_is_not(database: Database) -> None:
    uuid = ran(database)
    soft_delete(database, uuid)

    assert settle(database, uuid, fault="no guest", unharmed=True)

    assert seen(database, uuid) == (states.SOFT_DELETED, None, None)


def test_a_restore_ends_what_the_host_was_still_to_do(database: Database) -> None:
    uuid = ran(database)
    soft_delete(database, uuid)
    settle(database, uuid, fault="silent", answered=False)

    restore(database, uuid)

    assert seen(database, uuid) == (states.SOFT_DELETED, "restoring", "restore")


def test_a_guest_that_runs_though_its_server_is_soft_deleted_is_stopped(database: Database) -> None:
    uuid = ran(database)
    soft_delete(database, uuid)
    settle(database, uuid, power_state=states.SHUTDOWN)

    assert report(database, uuid, states.RUNNING)

    now = row(database, uuid)
    assert (now.vm_state, now.task_state, now.power_state) == (states.SOFT_DELETED, None, states.RUNNING)
    with database.transaction() as connection:
        (sent,) = cell_db.operations.take_operations(connection, lease_s=15.0, most=10)
    assert (sent.operation, sent.is_readable) == ("soft-delete", True)
    assert settle(database, uuid, power_state=states.SHUTDOWN)
    assert (row(database, uuid).power_state, row(database, uuid).operation_id) == (states.SHUTDOWN, None)


def test_so_is_one_of_which_its_host_could_say_nothing_before(database: Database) -> None:
    """An agent of an older release does not know the order; after its restart it names all guests."""
    uuid = ran(database)
    soft_delete(database, uuid)
    settle(database, uuid, fault="This host does not know the operation", unharmed=True)
    assert row(database, uuid).power_state == states.RUNNING

    assert report(database, uuid, states.RUNNING)

    assert row(database, uuid).operation == "soft-delete"


def test_a_guest_that_is_lost_leaves_its_server_soft_deleted(database: Database) -> None:
    """Its mapping says so, and it can be deleted; a restore finds that it cannot be started."""
    uuid = ran(database)
    soft_delete(database, uuid)
    settle(database, uuid, power_state=states.SHUTDOWN)

    with database.transaction() as connection:
        assert not cell_db.operations.lost_guest(connection, uuid=uuid, attempt=1, host=HOST)
    assert not report(database, uuid, states.NO_STATE)
    assert row(database, uuid).vm_state == states.SOFT_DELETED
    restore(database, uuid)
    assert settle(database, uuid, fault="no guest", unharmed=True)
    assert seen(database, uuid) == (states.STOPPED, None, None)


def test_a_delete_for_good_ends_everything(database: Database) -> None:
    uuid = ran(database)
    soft_delete(database, uuid)
    settle(database, uuid, fault="silent", answered=False)

    with database.transaction() as connection:
        assert cell_db.endings.tombstone(connection, uuid=uuid, project_id="p", user_id="u", is_cell0=False)

    assert soft_delete(database, uuid, mark=7) and row(database, uuid).state == states.BUILD_DELETING
    assert row(database, uuid).operation_id is None
