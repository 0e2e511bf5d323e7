"""The image of a server, with the conductor's own functions and client: whole or not there, whatever dies."""

import contextlib
import pathlib
import uuid as uuids
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import cell_db.endings
import cell_db.image_tasks
import cell_db.instances
import cell_db.tables
import core.errors
from cell_db.image_tasks import ImageTask
from clients.glance import Images
from conductor.cell.image_tasks import ImageTasks
from core.context import Context, new_request_id
from core.crash_points import CrashPoints
from database.engine import OwnDatabase
from database.types import now_sql
from devstack.ports import free_port
from devstack.services.images import ImageEndpoint
from tests.cell_db.rows import insert_instance
from workflows.definitions.create_image import CATALOG, UPLOAD
from workflows.positions import Position, Turn
from workflows.testing import (
    Subject,
    a_fault_at_each_step_ends_undone_or_goes_on,
    each_step_done_twice_succeeds,
)

USER = Context(user_id="u", project_id="p", roles=("member", "reader"), request_id=new_request_id())


class Service:
    """One image service for all worlds: each has an image of its own."""

    def __init__(self, folder: pathlib.Path) -> None:
        port = free_port()
        self._endpoint = ImageEndpoint(folder / "images", port)
        self._endpoint.start()
        self.client = Images(f"http://127.0.0.1:{port}", timeout_s=20.0)
        self.bytes = folder / "bytes"
        self.bytes.write_bytes(b"a disk")

    def close(self) -> None:
        self.client.close()
        self._endpoint.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with contextlib.closing(Service(tmp_path_factory.mktemp("service"))) as service:
        yield service


class Making:
    """An image that is being made.

    Args:
        cannot: the host has no copy to upload.
        lies: the host says that it has uploaded what it has not.
        is_refused: the image service takes no record.
    """

    def __init__(self, service: Service, *, cannot: bool = False, lies: bool = False, is_refused: bool = False) -> None:
        self._service = service
        self._cannot = cannot
        self._lies = lies
        image_id = str(uuids.uuid4())
        visibility = "nobody's" if is_refused else "private"
        record = {"id": image_id, "disk_format": "qcow2", "container_format": "bare", "visibility": visibility}
        self._task = ImageTask(
            image_id=image_id, uuid=str(uuids.uuid4()), operation_id=str(uuids.uuid4()), record=record,
            position=CATALOG.begin("create-image"), token=None,
        )  # fmt: skip
        nobody: Any = None
        self._conductor = ImageTasks(nobody, nobody, service.client, steps=CrashPoints())

    def show(self) -> Any:
        try:
            return self._service.client.look(self._task.image_id).status
        except core.errors.NotFound:
            return None

    def check(self) -> None:
        """There is nothing that may never be."""

    def call_of(self, name: str, position: Position) -> Callable[[], str]:
        if name == UPLOAD:
            return self._upload
        turn = next(turn for turn in CATALOG.turns() if turn.name == name)
        return lambda: self._report_of(turn)

    def _report_of(self, turn: Turn) -> str:
        return self._conductor.do(turn, self._task)

    def _upload(self) -> str:
        """As the agent: an image that is active is done."""
        client, image_id = self._service.client, self._task.image_id
        with contextlib.suppress(core.errors.CellplaneError):
            if self._lies or client.look(image_id).status == "active":
                return "uploaded"
            if not self._cannot:
                client.upload(image_id, self._service.bytes)
                return "uploaded"
        return "failed"


CASES = {
    "made": {},
    "the host cannot": {"cannot": True},
    "the host lies": {"lies": True},
    "refused": {"is_refused": True},
}


def _subject(service: Service, case: str) -> Subject:
    return Subject(catalog=CATALOG, workflow="create-image", make=lambda: Making(service, **CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_each_step_done_twice_succeeds(service: Service, case: str) -> None:
    assert each_step_done_twice_succeeds(_subject(service, case)) > 1


@pytest.mark.parametrize("case", CASES)
def test_a_fault_at_each_step_ends_undone_or_goes_on(service: Service, case: str) -> None:
    faults = 2 if case == "made" else 1
    assert a_fault_at_each_step_ends_undone_or_goes_on(_subject(service, case), faults=faults) > 5


@pytest.mark.parametrize("arrived", [True, False])
def test_a_server_that_goes_leaves_a_whole_image_or_none(
    service: Service, tmp_path: pathlib.Path, arrived: bool
) -> None:
    database = OwnDatabase(f"sqlite:///{tmp_path}/cell.sqlite")
    cell_db.tables.metadata.create_all(database.engine)
    server = insert_instance(database)
    record = {"id": str(uuids.uuid4()), "disk_format": "qcow2", "container_format": "bare"}
    with contextlib.closing(database):
        with database.transaction() as connection:
            cell_db.instances.update(connection, server, {"launched_at": now_sql()})
            task = cell_db.image_tasks.begin(
                connection, server, USER, image_id=record["id"], record=record, position=CATALOG.begin("create-image"),
                token=str(uuids.uuid4()), lease_s=-1.0,
            )  # fmt: skip
        nobody: Any = SimpleNamespace(act=lambda _: None)
        conductor = ImageTasks(database, nobody, service.client, steps=CrashPoints())
        conductor.sweep()
        if arrived:
            service.client.upload(task.image_id, service.bytes)
        with database.transaction() as connection:
            cell_db.endings.tombstone(connection, uuid=server, project_id="p", user_id="u", is_cell0=False)

        conductor.sweep()

        with database.reading() as connection:
            assert cell_db.image_tasks.find(connection, task.image_id) is None
    with contextlib.suppress(core.errors.NotFound):
        assert (service.client.look(task.image_id).status, arrived) == ("active", True)


def test_a_record_that_is_made_late_is_refused(service: Service) -> None:
    """An API was slow: the conductor had given the image up, without ever seeing its record."""
    making = Making(service)
    making.call_of("cell.remove-record", CATALOG.begin("create-image"))()

    assert making.call_of("cell.create-record", CATALOG.begin("create-image"))() == "refused"
    assert making.show() is None


def test_a_cell_in_which_nothing_is_done_is_asked_nothing() -> None:
    asked: list[str] = []
    database: Any = SimpleNamespace(run=lambda _, **more: asked.append("images") or [])
    nobody: Any = None
    conductor = ImageTasks(database, nobody, None, steps=CrashPoints())

    assert not conductor.sweep_if_woken() and asked == []
    conductor.wake()
    assert not conductor.sweep_if_woken() and not conductor.sweep_if_woken()
    assert asked == ["images"]
