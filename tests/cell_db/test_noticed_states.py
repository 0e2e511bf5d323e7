"""What becomes of a server's record when its guest does something that nobody ordered."""

import pytest
import sqlalchemy as sa

import cell_db.history
import cell_db.operations
from cell_db.tables import instances
from database.engine import Database
from lifecycle import states
from tests.cell_db.rows import insert_instance, update_instance

HOST = "host-1"


def notice(database: Database, uuid: str, power_state: int, *, host: str = HOST, attempt: int = 1) -> bool:
    with database.transaction() as connection:
        return cell_db.operations.set_power_state(
            connection, uuid=uuid, attempt=attempt, host=host, power_state=power_state
        )


def state_of(database: Database, uuid: str) -> tuple[str, int]:
    with database.transaction() as connection:
        row = connection.execute(
            sa.select(instances.c.vm_state, instances.c.power_state).where(instances.c.uuid == uuid)
        ).one()
        return row.vm_state, row.power_state


def actions_of(database: Database, uuid: str) -> list[str]:
    """Newest first."""
    with database.transaction() as connection:
        done = cell_db.history.list_actions(connection, uuid)
    assert all(record.finish_time is not None and record.user_id is None and record.message is None for record in done)
    return [record.action for record in done]


def test_a_guest_that_crashes_and_comes_back_is_recorded_with_its_actions(database: Database) -> None:
    uuid = insert_instance(database, host=HOST)

    for power_state, vm_state, action in (
        (states.CRASHED, states.STOPPED, "stop"),
        (states.RUNNING, states.ACTIVE, "start"),
        (states.POWER_PAUSED, states.PAUSED, "pause"),
        (states.RUNNING, states.ACTIVE, "unpause"),
    ):
        assert notice(database, uuid, power_state)
        assert not notice(database, uuid, power_state), "the same news twice"
        assert state_of(database, uuid) == (vm_state, power_state)
        assert actions_of(database, uuid)[0] == action
    assert sorted(actions_of(database, uuid)) == ["pause", "start", "stop", "unpause"]


def test_what_was_noticed_names_the_host(database: Database) -> None:
    uuid = insert_instance(database, host=HOST)
    notice(database, uuid, states.CRASHED)

    with database.transaction() as connection:
        (record,) = cell_db.history.list_actions(connection, uuid)
        _, events = cell_db.history.get_action(connection, uuid, record.request_id)

    assert [(event.event, event.host, event.result) for event in events] == [
        ("compute_stop_instance", HOST, cell_db.history.SUCCESS)
    ]


def test_another_way_of_being_off_is_no_action(database: Database) -> None:
    uuid = insert_instance(database, host=HOST)
    notice(database, uuid, states.CRASHED)

    assert notice(database, uuid, states.SHUTDOWN)

    assert state_of(database, uuid) == (states.STOPPED, states.SHUTDOWN)
    assert actions_of(database, uuid) == ["stop"]


def test_a_guest_that_vanished_is_an_error_that_says_so(database: Database) -> None:
    uuid = insert_instance(database, host=HOST)

    assert notice(database, uuid, states.NO_STATE)

    assert state_of(database, uuid) == (states.ERROR, states.NO_STATE)
    with database.transaction() as connection:
        fault = connection.execute(sa.select(instances.c.fault).where(instances.c.uuid == uuid)).scalar_one()
    assert HOST in str(fault)


@pytest.mark.parametrize("power_state", [states.CRASHED, states.NO_STATE])
def test_only_the_host_of_the_current_attempt_is_believed(database: Database, power_state: int) -> None:
    uuid = insert_instance(database, host=HOST)

    assert not notice(database, uuid, power_state, host="host-2")
    assert not notice(database, uuid, power_state, attempt=2)

    assert state_of(database, uuid) == (states.ACTIVE, states.RUNNING)
    assert actions_of(database, uuid) == []


@pytest.mark.parametrize("power_state", [states.CRASHED, states.NO_STATE])
def test_an_operation_under_way_goes_before(database: Database, power_state: int) -> None:
    uuid = insert_instance(database, host=HOST)
    update_instance(database, uuid, operation_id="1" * 36)

    assert not notice(database, uuid, power_state)

    assert state_of(database, uuid) == (states.ACTIVE, states.RUNNING)
