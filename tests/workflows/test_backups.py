"""Backups of a server: the newest of a type are kept, nobody else's image is touched, and no failure harms the new
one."""

import contextlib
import pathlib
import uuid as uuids
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import cell_db.image_tasks
import cell_db.instances
import cell_db.tables
import conductor.cell.rotation
import core.errors
from cell_db.image_tasks import ImageTask
from clients.glance import Images, ListedImage
from conductor.cell.image_tasks import ImageTasks
from conductor.cell.rotation import rotate
from core.context import Context, new_request_id
from core.crash_points import CrashPoints
from database.engine import OwnDatabase
from database.types import now_sql
from devstack.ports import free_port
from devstack.services.images import ImageEndpoint
from tests.cell_db.rows import insert_instance
from workflows.definitions.create_image import CATALOG, UPLOAD
from workflows.positions import Position
from workflows.testing import Subject, a_fault_at_each_step_ends_undone_or_goes_on, each_step_done_twice_succeeds

USER = Context(user_id="u", project_id="p", roles=("member", "reader"), request_id=new_request_id())
ROTATION = 2


def alike(server: str, **more: Any) -> dict[str, Any]:
    return {
        "disk_format": "qcow2", "container_format": "bare", "visibility": "private", "owner": "p",
        "image_type": "backup", "backup_type": "daily", "instance_uuid": server, **more,
    }  # fmt: skip


def task_of(server: str, *, rotation: int | None = ROTATION) -> ImageTask:
    image_id = str(uuids.uuid4())
    return ImageTask(
        image_id=image_id, uuid=server, operation_id=str(uuids.uuid4()), record=alike(server, id=image_id),
        position=CATALOG.begin("create-backup"), token=None, rotation=rotation,
    )  # fmt: skip


# ---- the whole workflow ----------------------------------------------------------------------------------------------


class Service:
    """The stack's image service."""

    def __init__(self, folder: pathlib.Path) -> None:
        port = free_port()
        self._endpoint = ImageEndpoint(folder / "images", port)
        self._endpoint.start()
        self.client = Images(f"http://127.0.0.1:{port}", timeout_s=20.0)
        self.bytes = folder / "bytes"
        self.bytes.write_bytes(b"a disk")

    def put(self, **record: Any) -> str:
        image_id = self.client.create(record).id
        self.client.upload(image_id, self.bytes)
        return image_id

    def has(self, image_id: str) -> bool:
        try:
            return self.client.look(image_id).status == "active"
        except core.errors.NotFound:
            return False

    def close(self) -> None:
        self.client.close()
        self._endpoint.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with contextlib.closing(Service(tmp_path_factory.mktemp("service"))) as service:
        yield service


class BackingUp:
    """A backup that is being made, of a server that has as many as are kept, and one of another type.

    Args:
        cannot: the host has no copy to upload.
    """

    def __init__(self, service: Service, *, cannot: bool = False) -> None:
        server = str(uuids.uuid4())
        self._service = service
        self._cannot = cannot
        self._task = task_of(server)
        self._older = [service.put(**alike(server)) for _ in range(ROTATION)]
        self._other = service.put(**alike(server, backup_type="weekly"))
        nobody: Any = None
        self._conductor = ImageTasks(nobody, nobody, service.client, steps=CrashPoints())

    def show(self) -> Any:
        has = self._service.has
        return has(self._task.image_id), sum(map(has, self._older)), has(self._other)

    def check(self) -> None:
        """No older backup goes before the new one is there."""
        is_made, older, other = self.show()
        assert other and older >= (1 if is_made else ROTATION)

    def call_of(self, name: str, position: Position) -> Callable[[], str]:
        if name == UPLOAD:
            return self._upload
        turn = next(turn for turn in CATALOG.turns() if turn.name == name)
        return lambda: self._conductor.do(turn, self._task)

    def _upload(self) -> str:
        with contextlib.suppress(core.errors.CellplaneError):
            if self._service.has(self._task.image_id):
                return "uploaded"
            if not self._cannot:
                self._service.client.upload(self._task.image_id, self._service.bytes)
                return "uploaded"
        return "failed"


def subject(service: Service, *, cannot: bool = False) -> Subject:
    return Subject(catalog=CATALOG, workflow="create-backup", make=lambda: BackingUp(service, cannot=cannot))


@pytest.mark.parametrize("cannot", [False, True])
def test_each_step_done_twice_succeeds(service: Service, cannot: bool) -> None:
    assert each_step_done_twice_succeeds(subject(service, cannot=cannot)) > 1


def test_a_fault_at_each_step_ends_undone_or_goes_on(service: Service) -> None:
    assert a_fault_at_each_step_ends_undone_or_goes_on(subject(service), faults=1) > 10


# ---- what is removed -------------------------------------------------------------------------------------------------


class Shelf:
    """Images of one server as lists name them; deletions may fail."""

    def __init__(self, *listed: ListedImage) -> None:
        self.listed = list(listed)
        self.removed: list[str] = []
        self.deletions: list[str] = []
        self.refusals: dict[str, core.errors.CellplaneError] = {}
        self.is_down = False
        self.list_fails = False

    def list_active(self, **_: Any) -> list[ListedImage]:
        if self.is_down or self.list_fails:
            raise core.errors.Unavailable("the answer is too long")
        return [image for image in self.listed if image.id not in self.removed]

    def delete(self, image_id: str) -> None:
        self.deletions.append(image_id)
        if self.is_down:
            raise core.errors.Unavailable("nobody answers")
        if image_id in self.refusals:
            raise self.refusals[image_id]
        self.removed.append(image_id)

    def check(self) -> None:
        if self.is_down:
            raise core.errors.Unavailable("nobody answers")


def days(*numbers: int) -> list[ListedImage]:
    return [ListedImage(id=f"day-{number:04}", created_at=f"2030-01-01T{number:06}Z") for number in numbers]


def rotated(shelf: Shelf, *, rotation: int | None = ROTATION) -> list[str]:
    images: Any = shelf
    rotate(images, task_of("server", rotation=rotation), said="server=server")
    return shelf.removed


def test_the_oldest_go_first_in_whatever_order_they_are_listed() -> None:
    assert rotated(Shelf(*days(3, 5, 1, 4, 2))) == ["day-0001", "day-0002", "day-0003"]


@pytest.mark.parametrize(("rotation", "left"), [(0, 0), (1, 1), (3, 3), (4, 3), (2_147_483_647, 3)])
def test_as_many_are_kept_as_the_user_says(rotation: int, left: int) -> None:
    """A rotation of 0 keeps none, the new one neither: as Nova."""
    assert 3 - len(rotated(Shelf(*days(1, 2, 3)), rotation=rotation)) == left


@pytest.mark.parametrize("rotation", [None, -1])
def test_a_damaged_row_removes_nothing(rotation: int | None) -> None:
    assert rotated(Shelf(*days(1, 2, 3)), rotation=rotation) == []


def test_of_the_same_second_the_new_one_is_the_newest() -> None:
    task = task_of("server", rotation=1)
    shelf = Shelf(*(ListedImage(id=name, created_at="2030") for name in (task.image_id, "00000000", "zzzzzzzz")))
    images: Any = shelf

    rotate(images, task, said="")

    assert sorted(shelf.removed) == ["00000000", "zzzzzzzz"]


REFUSALS = {
    "protected": core.errors.Forbidden("it is protected"),
    "in use": core.errors.Conflict("it is in use"),
    "gone": core.errors.NotFound("no image"),
    "broken": core.errors.Unavailable("the image service answered 500"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_backup_that_cannot_be_removed_stops_no_other(case: str, caplog: pytest.LogCaptureFixture) -> None:
    shelf = Shelf(*days(1, 2, 3, 4))
    shelf.refusals["day-0001"] = REFUSALS[case]

    assert rotated(shelf) == ["day-0002"]
    assert "backup not removed" in caplog.text and "day-0001" in caplog.text


def test_an_image_service_that_is_down_is_waited_for() -> None:
    shelf = Shelf(*days(1, 2, 3))
    shelf.is_down = True

    with pytest.raises(core.errors.Unavailable):
        rotated(shelf)

    shelf.is_down = False
    assert rotated(shelf) == ["day-0001"]
    assert rotated(shelf) == ["day-0001"]


def test_a_list_that_cannot_be_read_ends_the_rotation(caplog: pytest.LogCaptureFixture) -> None:
    """A user may make its images as large as the answer that holds them; others' images do not wait for that."""
    shelf = Shelf(*days(1, 2, 3))
    shelf.list_fails = True

    assert rotated(shelf) == []
    assert "backups not listed" in caplog.text


def test_a_rotation_is_bounded() -> None:
    shelf = Shelf(*days(*range(500)))
    assert len(rotated(shelf)) == conductor.cell.rotation.MAX_REMOVED

    shelf.deletions.clear()
    shelf.refusals = {image.id: REFUSALS["broken"] for image in shelf.listed}
    rotated(shelf)
    assert len(shelf.deletions) == conductor.cell.rotation.MAX_FAILURES


# ---- with its row ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", [0, 1, ROTATION])
def test_a_backup_ends_its_operation_once_the_older_ones_are_gone(
    service: Service, tmp_path: pathlib.Path, rotation: int
) -> None:
    database = OwnDatabase(f"sqlite:///{tmp_path}/cell.sqlite")
    cell_db.tables.metadata.create_all(database.engine)
    server = insert_instance(database)
    foreign = [service.put(**alike(server, owner="q")), service.put(**alike(server, backup_type="weekly"))]
    older = [service.put(**alike(server)) for _ in range(3)]
    record = alike(server, id=str(uuids.uuid4()))
    nobody: Any = SimpleNamespace(act=lambda _: None)
    conductor = ImageTasks(database, nobody, service.client, steps=CrashPoints())
    with contextlib.closing(database):
        with database.transaction() as connection:
            cell_db.instances.update(connection, server, {"launched_at": now_sql()})
            cell_db.image_tasks.begin(
                connection, server, USER, image_id=record["id"], record=record,
                position=CATALOG.begin("create-backup"), token=str(uuids.uuid4()), lease_s=-1.0, rotation=rotation,
            )  # fmt: skip
        conductor.sweep()
        service.client.upload(record["id"], service.bytes)
        with database.transaction() as connection:
            waiting = cell_db.image_tasks.find(connection, record["id"])
            assert waiting is not None and waiting.position.workflow == "create-backup"
            uploaded = CATALOG.take_report(waiting.position, UPLOAD, "uploaded")
            cell_db.image_tasks.move(connection, waiting, uploaded, token=None)

        conductor.sweep()

        with database.reading() as connection:
            assert cell_db.image_tasks.find(connection, record["id"]) is None
            shown = cell_db.instances.get(connection, server)
    assert (shown.task_state, shown.vm_state, shown.fault) == (None, "active", None)
    left = [service.has(image_id) for image_id in [*older, record["id"]]]
    assert sum(left) == rotation and left[-1] == (rotation > 0)
    assert all(map(service.has, foreign))
