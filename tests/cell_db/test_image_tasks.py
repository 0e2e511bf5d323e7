"""Images that are being made: one worker at a time, and never forgotten before the image is whole or gone."""

import uuid as uuids
from typing import Any

import pytest
import sqlalchemy as sa

import cell_db.endings
import cell_db.image_tasks
import cell_db.instances
import cell_db.operations
import core.errors
from cell_db.image_tasks import ImageTask, UnreadableTask
from cell_db.tables import image_tasks
from core.context import Context, new_request_id
from database.engine import Database
from database.types import now_sql
from lifecycle import states
from tests.cell_db.rows import insert_instance, update_instance
from workflows.definitions.create_image import CATALOG
from workflows.positions import Position

BEGUN = CATALOG.begin("create-image")
RECORDED = CATALOG.take_report(BEGUN, "cell.create-record", "created")
USER = Context(user_id="u", project_id="p", roles=("member", "reader"), request_id=new_request_id())


@pytest.fixture
def server(database: Database) -> str:
    uuid = insert_instance(database)
    with database.transaction() as connection:
        cell_db.instances.update(connection, uuid, {"launched_at": cell_db.operations.now_sql()})
    return uuid


def begin(database: Database, uuid: str, *, lease_s: float = -1.0) -> ImageTask:
    image_id = str(uuids.uuid4())
    with database.transaction() as connection:
        return cell_db.image_tasks.begin(
            connection, uuid, USER, image_id=image_id, record={"id": image_id}, position=BEGUN,
            token=str(uuids.uuid4()), lease_s=lease_s,
        )  # fmt: skip


def take(database: Database) -> list[Any]:
    with database.transaction() as connection:
        return cell_db.image_tasks.take(connection, token=str(uuids.uuid4()), lease_s=60.0, most=10)


def move(database: Database, task: ImageTask, after: Position) -> bool:
    with database.transaction() as connection:
        return cell_db.image_tasks.move(connection, task, after, token=None)


def ordered(database: Database, uuid: str) -> int:
    """Operations that the server's host is told of, or will be."""
    with database.reading() as connection:
        return len(cell_db.operations.operations(connection, [uuid]))


def test_an_image_is_left_to_whoever_began_it_while_its_lease_lasts(database: Database, server: str) -> None:
    begin(database, server, lease_s=60.0)

    assert take(database) == []


def test_an_image_whose_api_died_is_taken_by_one_conductor(database: Database, server: str) -> None:
    begun = begin(database, server)

    (taken,) = take(database)

    assert (taken.image_id, taken.position) == (begun.image_id, BEGUN)
    assert (taken.host, taken.request_id) == ("host-1", USER.request_id)
    assert take(database) == []


def test_who_lost_the_lease_writes_nothing(database: Database, server: str) -> None:
    begun = begin(database, server)
    (taken,) = take(database)

    assert not move(database, begun, RECORDED)
    assert move(database, taken, RECORDED)
    assert not move(database, taken, RECORDED)


def test_a_host_is_told_once_the_record_is_there_and_not_when_it_is_undone(database: Database, server: str) -> None:
    task = begin(database, server)
    assert ordered(database, server) == 0

    move(database, task, RECORDED)
    assert (ordered(database, server), take(database)) == (1, [])

    with database.reading() as connection:
        waiting = cell_db.image_tasks.find(connection, task.image_id)
    assert waiting is not None
    move(database, waiting, CATALOG.give_up(RECORDED))
    assert (ordered(database, server), len(take(database))) == (0, 1)


@pytest.mark.parametrize("ending", ["delete", "reset", "deadline"])
def test_an_image_outlives_the_operation_of_its_server(database: Database, server: str, ending: str) -> None:
    """Whatever ends the operation, somebody still sees to the image's record."""
    move(database, begin(database, server), RECORDED)
    if ending == "deadline":
        update_instance(database, server, operation_id=None, operation=None, task_state=None)
    with database.transaction() as connection:
        if ending == "delete":
            update = {"state": states.BUILD_DELETING, "operation_id": None, "operation": None}
            cell_db.instances.update(connection, server, update)
        if ending == "reset":
            admin = Context(user_id="u", project_id="p", roles=("admin",), is_admin=True, request_id=new_request_id())
            cell_db.instances.reset_state(connection, server, states.ACTIVE, admin)

    (taken,) = take(database)

    assert (taken.is_under_way, taken.position) == (False, RECORDED)
    with database.transaction() as connection:
        assert cell_db.image_tasks.end(connection, taken, fault="it was given up")
    assert take(database) == []


@pytest.mark.parametrize("fault", [None, "the disk is full"])
def test_the_operation_ends_with_its_image(database: Database, server: str, fault: str | None) -> None:
    begin(database, server)
    (taken,) = take(database)

    with database.transaction() as connection:
        assert cell_db.image_tasks.end(connection, taken, fault=fault)

    with database.reading() as connection:
        shown = cell_db.instances.get(connection, server)
        assert cell_db.image_tasks.find(connection, taken.image_id) is None
    assert (shown.task_state, shown.vm_state) == (None, states.ACTIVE)
    assert (shown.fault is None) == (fault is None)
    with database.transaction() as connection:
        assert not cell_db.image_tasks.end(connection, taken, fault=fault)


DAMAGES = [
    ("heading", "zz"), ("heading", "done"), ("step", "nope"), ("step", ""), ("workflow", "nope"), ("reports", "5"),
    ("reports", "null"), ("reports", "[1"), ("reports", '[["agent.upload"]]'), ("reports", '[["agent.upload", "zz"]]'),
    ("reports", '{"a":' * 3000), ("record", "[1]"), ("record", "{}"), ("record", "{"), ("record", '{"id": "another"}'),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: f"{damage[0]}={damage[1][:20]}")
def test_a_row_that_cannot_be_read_is_one_server_s_loss(
    database: Database, server: str, damage: tuple[str, str]
) -> None:
    """It stopped every image and backup of its cell: all rows were read in the transaction that leases them."""
    column, nonsense = damage
    other = insert_instance(database)
    update_instance(database, other, launched_at=cell_db.operations.now_sql())
    damaged, whole = begin(database, server), begin(database, other)
    change = sa.text(f"UPDATE image_tasks SET {column} = :nonsense WHERE image_id = :image_id")
    with database.transaction() as connection:
        connection.execute(change, {"nonsense": nonsense, "image_id": damaged.image_id})

    taken = {task.image_id: task for task in take(database)}

    assert taken[whole.image_id].position == BEGUN
    unreadable = taken[damaged.image_id]
    assert isinstance(unreadable, UnreadableTask)
    assert (unreadable.host, unreadable.request_id) == ("host-1", USER.request_id)
    with database.transaction() as connection:
        assert cell_db.image_tasks.of_operation(connection, damaged.operation_id) == unreadable
        with pytest.raises(core.errors.Unreadable):
            cell_db.image_tasks.find(connection, damaged.image_id)
        assert cell_db.image_tasks.fail_operation(connection, unreadable, fault="it cannot be read")
        shown = cell_db.instances.get(connection, server)
    assert shown.task_state is None and shown.fault is not None and "it cannot be read" in shown.fault.message


def test_images_that_wait_longest_come_first_and_those_taken_in_vain_later(database: Database) -> None:
    servers = [insert_instance(database) for _ in range(4)]
    for uuid in servers:
        update_instance(database, uuid, launched_at=cell_db.operations.now_sql())
    waiting = [begin(database, uuid, lease_s=-60.0 - number).image_id for number, uuid in enumerate(servers)]

    def next_two() -> list[str]:
        with database.transaction() as connection:
            token = str(uuids.uuid4())
            taken = cell_db.image_tasks.take(connection, token=token, lease_s=-1.0, most=2)
            return sorted(task.image_id for task in taken)

    assert next_two() == sorted(waiting[2:])
    assert next_two() == sorted(waiting[:2])


def test_a_lease_that_is_given_back_counts_as_no_try(database: Database, server: str) -> None:
    begin(database, server)

    def seconds_of_lease(*, is_given_back: bool) -> float:
        token = str(uuids.uuid4())
        with database.transaction() as connection:
            (task,) = cell_db.image_tasks.take(connection, token=token, lease_s=100.0, most=1)
            row = connection.execute(sa.select(image_tasks.c.lease_until, now_sql().label("now"))).one()
            if is_given_back:
                cell_db.image_tasks.give_back(connection, [task], token=token, wait_s=-1.0)
            else:
                connection.execute(sa.update(image_tasks).values(lease_until=now_sql(-1.0)))
        return round((row.lease_until - row.now).total_seconds(), -1)

    assert [seconds_of_lease(is_given_back=True) for _ in range(3)] == [100, 100, 100]
    assert [seconds_of_lease(is_given_back=False) for _ in range(6)] == [100, 200, 400, 800, 960, 960]


def test_only_who_holds_an_image_drops_it(database: Database, server: str) -> None:
    begun = begin(database, server)
    (taken,) = take(database)

    with database.transaction() as connection:
        assert not cell_db.image_tasks.drop(connection, begun, fault="given up")
        assert cell_db.image_tasks.drop(connection, taken, fault="given up")
        assert cell_db.image_tasks.find(connection, begun.image_id) is None
        assert cell_db.instances.get(connection, server).task_state is None
