"""Images made and filled: the client against the image service of a stack."""

import contextlib
import hashlib
import http.client
import pathlib
import socket
import threading
import uuid
from collections.abc import Iterator

import pytest

import core.errors
from clients.glance import Images
from core.context import Context
from devstack.ports import free_port
from devstack.services.images import ImageEndpoint
from objects.build import ImageRef

BYTES = bytes(range(256)) * 8192
ADMIN = Context("admin", "admin", is_admin=True)
RECORD = {
    "name": "copy",
    "disk_format": "qcow2",
    "container_format": "bare",
    "visibility": "private",
    "hw_disk_bus": "virtio",
    "min_disk": 1,
}


class Service:
    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.endpoint = ImageEndpoint(directory, self.port)
        self.endpoint.start()
        self.images = Images(f"http://127.0.0.1:{self.port}", timeout_s=5.0)


@pytest.fixture
def service(tmp_path: pathlib.Path) -> Iterator[Service]:
    service = Service(tmp_path / "images")
    yield service
    service.images.close()
    service.endpoint.stop()


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "bytes"
    path.write_bytes(BYTES)
    return path


def test_an_image_is_made_filled_and_removed(service: Service, file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    made = service.images.create(RECORD)
    assert (made.status, made.size_bytes) == ("queued", None)

    filled = service.images.upload(made.id, file)

    assert (filled.status, filled.size_bytes, filled.checksum) == ("active", len(BYTES), hashlib.md5(BYTES).hexdigest())
    shown = service.images.show(made.id, ADMIN)
    assert (shown.properties, shown.min_disk_gib, shown.size_bytes) == ({"hw_disk_bus": "virtio"}, 1, len(BYTES))
    service.images.download(
        ImageRef(image_id=made.id, size_bytes=len(BYTES), hash_algorithm="sha512", hash_value=shown.os_hash_value),
        tmp_path / "back",
    )
    assert (tmp_path / "back").read_bytes() == BYTES
    service.images.delete(made.id)
    service.images.delete(made.id)
    with pytest.raises(core.errors.NotFound):
        service.images.look(made.id)


def test_an_image_takes_its_bytes_once(service: Service, file: pathlib.Path) -> None:
    image_id = service.images.create(RECORD).id
    service.images.upload(image_id, file)

    with pytest.raises(core.errors.Conflict):
        service.images.upload(image_id, file)


def test_bytes_for_no_image_are_refused(service: Service, file: pathlib.Path) -> None:
    with pytest.raises(core.errors.NotFound):
        service.images.upload("0c7f3f0e-6b1a-4f6e-9a44-2f9b3b1f7f10", file)


@pytest.mark.parametrize("record", [{**RECORD, "min_disk": "many"}, {**RECORD, "visibility": "secret"}])
def test_a_record_that_the_service_does_not_take(service: Service, record: dict[str, object]) -> None:
    with pytest.raises(core.errors.Invalid, match="refuses"):
        service.images.create(record)


def test_an_upload_can_be_ended_and_begun_afresh(service: Service, file: pathlib.Path) -> None:
    image_id = service.images.create(RECORD).id
    left = iter([None, None])

    def check() -> None:
        if next(left, "over") == "over":
            raise core.errors.Conflict("not wanted any more")

    with pytest.raises(core.errors.Conflict, match="not wanted"):
        service.images.upload(image_id, file, check=check)

    assert service.images.look(image_id).status == "queued"
    assert service.images.upload(image_id, file).size_bytes == len(BYTES)
    assert list(service.directory.glob("*.part")) == []


def test_a_sender_that_dies_leaves_an_image_without_bytes(service: Service, file: pathlib.Path) -> None:
    image_id = service.images.create(RECORD).id
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=5)
    connection.putrequest("PUT", f"/v2/images/{image_id}/file")
    connection.putheader("Content-Length", str(len(BYTES)))
    connection.endheaders(BYTES[:100_000])
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()

    assert service.images.look(image_id).status == "queued"
    assert service.images.upload(image_id, file).status == "active"


def test_an_upload_keeps_its_deadline(file: pathlib.Path) -> None:
    """Somebody listens who takes a little and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as taken:
        taker = threading.Thread(target=lambda: taken.enter_context(listener.accept()[0]))
        taker.start()
        images = Images(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.5)

        with contextlib.closing(images), pytest.raises(core.errors.Unavailable):
            images.upload("0c7f3f0e-6b1a-4f6e-9a44-2f9b3b1f7f10", file, deadline_s=1.0)
        taker.join()


def test_a_service_that_says_no_answers_and_one_that_is_down_does_not(service: Service) -> None:
    service.images.check()

    nobody = Images(f"http://127.0.0.1:{free_port()}", timeout_s=5.0)
    with contextlib.closing(nobody), pytest.raises(core.errors.Unavailable):
        nobody.check()


def test_a_record_that_was_protected_meanwhile_is_not_voided(service: Service) -> None:
    record = {"id": str(uuid.uuid4()), "disk_format": "raw", "container_format": "bare", "protected": True}
    service.images.create(record)

    with pytest.raises(core.errors.Forbidden):
        service.images.void(record)
    assert service.images.look(record["id"]).status == "queued"
