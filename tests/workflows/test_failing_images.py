"""Images whose rows are damaged, or that the image service refuses or fails: each is one server's loss, and ends."""

import contextlib
import pathlib
import uuid as uuids
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

import cell_db.endings
import cell_db.image_tasks
import cell_db.instances
import core.errors
from cell_db.image_tasks import ImageTask
from cell_db.tables import image_tasks, instances, metadata
from clients.glance import ImageStatus
from conductor.cell.image_tasks import ImageTasks
from core.context import Context, new_request_id
from core.crash_points import CrashPoints
from database.engine import OwnDatabase
from database.types import now_sql
from tests.cell_db.rows import insert_instance
from workflows.definitions.create_image import CATALOG, UPLOAD
from workflows.positions import Position

USER = Context(user_id="u", project_id="p", roles=("member", "reader"), request_id=new_request_id())


class Shelf:
    """An image service. `failures`: what it raises for an image; `is_down`: it answers nothing."""

    def __init__(self) -> None:
        self.statuses: dict[str, str] = {}
        self.failures: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.is_down = False

    def create_once(self, record: Any) -> ImageStatus:
        self._ask(record["id"])
        self.statuses.setdefault(record["id"], "queued")
        return self.look(record["id"])

    def void(self, record: Any) -> None:
        self._ask(record["id"])
        self.statuses.pop(record["id"], None)

    def look(self, image_id: str) -> ImageStatus:
        if image_id not in self.statuses:
            raise core.errors.NotFound("no image")
        return ImageStatus(id=image_id, status=self.statuses[image_id], size_bytes=None, checksum=None)

    def check(self) -> None:
        if self.is_down:
            raise core.errors.Unavailable("nobody answers")

    def _ask(self, image_id: str) -> None:
        self.asked.append(image_id)
        self.check()
        if image_id in self.failures:
            raise self.failures[image_id]


class Cell:
    """A conductor with its database, and servers of which images are made."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.database = OwnDatabase(f"sqlite:///{folder}/cell.sqlite")
        metadata.create_all(self.database.engine)
        self.shelf: Any = Shelf()
        nobody: Any = SimpleNamespace(act=lambda _: None)
        self.conductor = ImageTasks(self.database, nobody, self.shelf, steps=CrashPoints())

    def begin(self, position: Position | None = None) -> ImageTask:
        """An image of a new server, which nobody works on."""
        server, image_id = insert_instance(self.database), str(uuids.uuid4())
        with self.database.transaction() as connection:
            cell_db.instances.update(connection, server, {"launched_at": now_sql()})
            return cell_db.image_tasks.begin(
                connection, server, USER, image_id=image_id, record={"id": image_id},
                position=position or CATALOG.begin("create-image"), token=str(uuids.uuid4()), lease_s=-1.0,
            )  # fmt: skip

    def change(self, task: ImageTask, **columns: Any) -> None:
        with self.database.transaction() as connection:
            mine = sa.update(image_tasks).where(image_tasks.c.image_id == task.image_id)
            connection.execute(mine.values(**columns))

    def let_leases_end(self) -> None:
        with self.database.transaction() as connection:
            connection.execute(sa.update(image_tasks).values(lease_until=now_sql(-1.0)))

    def row_of(self, task: ImageTask) -> Any:
        """What is left of the image's row; None: it has gone."""
        wanted = image_tasks.c.heading, image_tasks.c.step, image_tasks.c.tries
        with self.database.reading() as connection:
            return connection.execute(sa.select(*wanted).where(image_tasks.c.image_id == task.image_id)).first()

    def server_of(self, task: ImageTask) -> Any:
        wanted = instances.c.task_state, instances.c.fault
        with self.database.reading() as connection:
            return connection.execute(sa.select(*wanted).where(instances.c.uuid == task.uuid)).one()

    def wait_s(self, task: ImageTask) -> float:
        """How long nobody else may work on it from now on."""
        seconds = sa.func.julianday(image_tasks.c.lease_until) - sa.func.julianday(now_sql())
        with self.database.reading() as connection:
            days = connection.execute(sa.select(seconds).where(image_tasks.c.image_id == task.image_id)).scalar_one()
            return float(days) * 86400


@pytest.fixture
def cell(tmp_path: pathlib.Path) -> Iterator[Cell]:
    cell = Cell(tmp_path)
    with contextlib.closing(cell.database):
        yield cell


UNDONE = CATALOG.give_up(CATALOG.begin("create-image"))
UPLOADED = CATALOG.take_report(
    CATALOG.take_report(CATALOG.begin("create-image"), "cell.create-record", "created"), UPLOAD, "uploaded"
)


@pytest.mark.parametrize("damage", [{"heading": "zz"}, {"reports": 5}, {"step": "nope"}, {"record": [1]}], ids=str)
def test_a_row_that_cannot_be_read_ends_its_server_s_operation_and_no_other_s(
    cell: Cell, damage: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    damaged, whole = cell.begin(), cell.begin(UPLOADED)
    cell.shelf.statuses[whole.image_id] = "active"
    cell.change(damaged, **damage)

    cell.conductor.sweep()

    assert (cell.row_of(whole), tuple(cell.server_of(whole))) == (None, (None, None))
    assert cell.server_of(damaged).task_state is None
    assert "cannot be read" in cell.server_of(damaged).fault["message"]
    assert f"image task cannot be read server={damaged.uuid}" in caplog.text


def test_a_row_that_is_mended_ends_undone(cell: Cell) -> None:
    task = cell.begin()
    cell.change(task, heading="zz")
    cell.conductor.sweep()

    cell.change(task, heading="forward")
    cell.let_leases_end()
    cell.conductor.sweep()

    assert cell.row_of(task) is None
    assert cell.shelf.statuses == {}


@pytest.mark.parametrize("refusal", [core.errors.Forbidden("it is protected"), core.errors.Conflict("it is in use")])
@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_record_that_the_service_refuses_to_remove_ends_the_image(
    cell: Cell, refusal: core.errors.CellplaneError, is_deleted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A member protects the image while it is being made: its row was tried again for ever."""
    task = cell.begin(UNDONE)
    cell.shelf.statuses[task.image_id] = "queued"
    cell.shelf.failures[task.image_id] = refusal
    if is_deleted:
        with cell.database.transaction() as connection:
            cell_db.endings.tombstone(connection, uuid=task.uuid, project_id="p", user_id="u", is_cell0=False)

    cell.conductor.sweep()

    assert cell.row_of(task) is None
    assert f"image record kept server={task.uuid}" in caplog.text and refusal.message in caplog.text
    assert cell.shelf.statuses == {task.image_id: "queued"}
    if not is_deleted:
        assert cell.server_of(task).task_state is None
        assert "createImage failed" in cell.server_of(task).fault["message"]


ODD = core.errors.Unavailable("the image service answered 500")
BUG = TypeError("nobody has thought of that")


@pytest.mark.parametrize("failure", [ODD, BUG])
def test_an_image_that_the_service_fails_for_keeps_no_other_and_frees_its_server(
    cell: Cell, failure: Exception
) -> None:
    """A record whose removal failed kept its server, and the images that were taken with it lost their lease."""
    failing = [cell.begin(UNDONE) for _ in range(9)]
    whole = cell.begin(UPLOADED)
    cell.shelf.statuses[whole.image_id] = "active"
    cell.shelf.failures = {task.image_id: failure for task in failing}

    while cell.conductor.sweep():
        pass

    assert cell.row_of(whole) is None
    assert len(cell.shelf.asked) == len(failing)
    assert [cell.row_of(task).tries for task in failing] == [1] * len(failing)
    servers = [cell.server_of(task) for task in failing]
    assert all(server.task_state is None and "createImage failed" in server.fault["message"] for server in servers)

    cell.shelf.failures.clear()
    cell.let_leases_end()
    while cell.conductor.sweep():
        pass
    assert [cell.row_of(task) for task in failing] == [None] * len(failing)


def test_a_wake_goes_on_with_all_that_wait(cell: Cell) -> None:
    """An image behind four others waited for the sweep."""
    tasks = [cell.begin(UNDONE) for _ in range(9)]

    cell.conductor.wake()
    while cell.conductor.sweep_if_woken():
        pass

    assert [cell.row_of(task) for task in tasks] == [None] * len(tasks)


def test_an_image_that_fails_again_and_again_waits_longer_each_time(cell: Cell) -> None:
    task = cell.begin(UNDONE)
    cell.shelf.failures[task.image_id] = ODD
    waits = []
    for _ in range(8):
        cell.let_leases_end()
        cell.conductor.sweep()
        waits.append(round(cell.wait_s(task), -1))

    assert waits == [30, 60, 120, 240, 480, 960, 960, 960]


def test_an_image_service_that_is_down_counts_against_no_image(cell: Cell) -> None:
    """After an outage of hours all images go on within a lease, as after one of seconds."""
    tasks = [cell.begin(UNDONE) for _ in range(3)]
    cell.shelf.is_down = True
    for _ in range(5):
        cell.let_leases_end()
        with pytest.raises(core.errors.Unavailable):
            cell.conductor.sweep()

    assert [cell.row_of(task).tries for task in tasks] == [0, 0, 0]
    assert max(cell.wait_s(task) for task in tasks) <= 30.5
    cell.shelf.is_down = False
    cell.let_leases_end()
    cell.conductor.sweep()
    assert [cell.row_of(task) for task in tasks] == [None, None, None]


@pytest.mark.parametrize("damage", [{}, {"heading": "zz"}], ids=str)
def test_after_a_day_an_image_that_cannot_end_is_given_up(
    cell: Cell, damage: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    task, young = cell.begin(UNDONE), cell.begin(UNDONE)
    cell.shelf.failures = {task.image_id: ODD, young.image_id: ODD}
    cell.change(task, created_at=now_sql(-cell_db.image_tasks.GIVE_UP_S - 1.0), **damage)
    cell.change(young, created_at=now_sql(-cell_db.image_tasks.GIVE_UP_S + 600.0))

    cell.conductor.sweep()

    assert cell.row_of(task) is None and cell.row_of(young) is not None
    assert cell.server_of(task).task_state is None
    assert f"image given up server={task.uuid}" in caplog.text
