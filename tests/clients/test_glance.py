"""The image client against a small image service that can be told to misbehave."""

import hashlib
import http.server
import json
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import core.errors
from clients.glance import Images
from tests.clients.conftest import free_port

BYTES = bytes(range(256)) * 4096
IMAGE: dict[str, Any] = {
    "id": "8f1b6b2e-6f0e-4c1e-9f43-6a1d8b0a0001",
    "name": "cirros",
    "status": "active",
    "size": len(BYTES),
    "checksum": hashlib.md5(BYTES).hexdigest(),
    "os_hash_algo": "sha512",
    "os_hash_value": hashlib.sha512(BYTES).hexdigest(),
    "disk_format": "raw",
    "container_format": "bare",
    "min_disk": 1,
    "min_ram": 64,
    "owner": "blue",
    "visibility": "public",
    "protected": False,
    "tags": ["small"],
    "hw_architecture": "x86_64",
    "img_hide_hypervisor_id": None,
    "created_at": "2030-01-01T00:00:00Z",
    "updated_at": "2030-01-01T00:00:00Z",
    "self": "/v2/images/8f1b6b2e-6f0e-4c1e-9f43-6a1d8b0a0001",
    "file": "/v2/images/8f1b6b2e-6f0e-4c1e-9f43-6a1d8b0a0001/file",
    "schema": "/v2/schemas/image",
}
IMAGE_ID: str = IMAGE["id"]


class ImageService(http.server.ThreadingHTTPServer):
    """Serves one image; what it says, sends and how slowly can be set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.image = dict(IMAGE)
        self.sent = BYTES
        self.length: int | None = None
        self.status = 200
        self.pause_s = 0.0
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ImageService

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0]
        if self.server.status != 200:
            self.answer(self.server.status, b"<html>no</html>")
        elif path == "/v2/images":
            self.answer(200, json.dumps({"images": [self.server.image]}).encode())
        elif path == f"/v2/images/{IMAGE_ID}":
            self.answer(200, json.dumps(self.server.image).encode())
        elif path == f"/v2/images/{IMAGE_ID}/file":
            self.answer(200, self.server.sent, self.server.length)
        else:
            self.answer(404, b"")

    def answer(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if not self.server.pause_s:
            self.wfile.write(body)
        else:
            self.drip(body)
        if length is not None:
            self.close_connection = True

    def drip(self, body: bytes) -> None:
        try:
            for start in range(0, len(body), 4096):
                self.wfile.write(body[start : start + 4096])
                self.wfile.flush()
                time.sleep(self.server.pause_s)
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return None


@pytest.fixture
def service() -> Iterator[ImageService]:
    with ImageService() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


@pytest.fixture
def images(service: ImageService) -> Iterator[Images]:
    client = Images(service.url, 5.0)
    yield client
    client.close()


def test_an_image_is_shown_with_its_properties(images: Images) -> None:
    image = images.show(IMAGE_ID)

    assert (image.id, image.name, image.status, image.size_bytes) == (IMAGE_ID, "cirros", "active", len(BYTES))
    assert (image.min_disk_gib, image.min_ram_mib, image.disk_format, image.container_format) == (1, 64, "raw", "bare")
    assert (image.owner, image.visibility, image.tags) == ("blue", "public", ("small",))
    assert image.properties == {"hw_architecture": "x86_64"}


def test_an_active_image_is_asked_for_once(images: Images, service: ImageService) -> None:
    assert images.show(IMAGE_ID) == images.show(IMAGE_ID)
    assert len(service.asked) == 1

    images.forget(IMAGE_ID)
    images.show(IMAGE_ID)
    assert len(service.asked) == 2


def test_an_image_still_being_uploaded_is_asked_for_again(images: Images, service: ImageService) -> None:
    service.image.update(status="queued", size=None, checksum=None, os_hash_algo=None, os_hash_value=None, min_disk=None)

    image = images.show(IMAGE_ID)
    service.image["status"] = "active"

    assert (image.status, image.size_bytes, image.min_disk_gib) == ("queued", None, 0)
    assert images.show(IMAGE_ID).status == "active"


def test_images_come_in_pages(images: Images, service: ImageService) -> None:
    assert [image.id for image in images.page(limit=2, marker=IMAGE_ID, filters={"status": "active"})] == [IMAGE_ID]
    assert service.asked == [f"/v2/images?limit=2&marker={IMAGE_ID}&status=active"]


@pytest.mark.parametrize("image_id", ["8f1b6b2e-0000-0000-0000-000000000000", "no uuid", "../../etc/passwd", "ü"])
def test_an_unknown_image_is_not_found(images: Images, image_id: str) -> None:
    with pytest.raises(core.errors.NotFound):
        images.show(image_id)


@pytest.mark.parametrize(("status", "error"), [(400, core.errors.NotFound), (403, core.errors.NotFound), (500, core.errors.Unavailable)])
def test_what_other_answers_mean(images: Images, service: ImageService, status: int, error: type[Exception]) -> None:
    service.status = status

    with pytest.raises(error):
        images.show(IMAGE_ID)


def test_an_answer_that_is_no_json_is_unavailable(images: Images, service: ImageService) -> None:
    service.image = ["no", "image"]  # type: ignore[assignment]

    with pytest.raises(core.errors.Unavailable):
        images.show(IMAGE_ID)


def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(core.errors.Unavailable):
        Images(f"http://127.0.0.1:{free_port()}", 1.0).show(IMAGE_ID)


def test_silence_is_unavailable_within_the_time_out(silent_port: int) -> None:
    with pytest.raises(core.errors.Unavailable):
        Images(f"http://127.0.0.1:{silent_port}", 0.2).show(IMAGE_ID)


def test_a_download_is_whole_and_leaves_no_other_file(images: Images, tmp_path: pathlib.Path) -> None:
    image = images.download(IMAGE_ID, tmp_path / "image")

    assert (tmp_path / "image").read_bytes() == BYTES
    assert [path.name for path in tmp_path.iterdir()] == ["image"]
    assert image.name == "cirros"


def test_a_download_is_checked_by_the_older_checksum_if_there_is_no_other(
    images: Images, service: ImageService, tmp_path: pathlib.Path
) -> None:
    service.image.update(os_hash_algo=None, os_hash_value=None)
    images.download(IMAGE_ID, tmp_path / "image")

    service.image.update(checksum="0" * 32)
    with pytest.raises(core.errors.Unavailable, match="damaged"):
        images.download(IMAGE_ID, tmp_path / "image")


def test_a_damaged_download_leaves_what_was_there(images: Images, service: ImageService, tmp_path: pathlib.Path) -> None:
    (tmp_path / "image").write_bytes(b"before")
    service.sent = b"x" + BYTES[1:]

    with pytest.raises(core.errors.Unavailable, match="damaged"):
        images.download(IMAGE_ID, tmp_path / "image")

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("image", b"before")]


def test_a_download_that_breaks_off_leaves_nothing(images: Images, service: ImageService, tmp_path: pathlib.Path) -> None:
    service.length = len(BYTES)
    service.sent = BYTES[:1000]

    with pytest.raises(core.errors.Unavailable):
        images.download(IMAGE_ID, tmp_path / "image")

    assert list(tmp_path.iterdir()) == []


def test_a_short_download_without_a_checksum_is_noticed(images: Images, service: ImageService, tmp_path: pathlib.Path) -> None:
    service.image.update(os_hash_algo=None, os_hash_value=None, checksum=None)
    service.sent = BYTES[:1000]

    with pytest.raises(core.errors.Unavailable, match="1000 of"):
        images.download(IMAGE_ID, tmp_path / "image")


def test_a_download_that_drips_ends_at_its_deadline(images: Images, service: ImageService, tmp_path: pathlib.Path) -> None:
    service.pause_s = 0.05
    begun = time.monotonic()

    with pytest.raises(core.errors.Unavailable):
        images.download(IMAGE_ID, tmp_path / "image", deadline_s=0.3)

    assert time.monotonic() - begun < 5
    assert list(tmp_path.iterdir()) == []


def test_an_image_without_bytes_is_not_found(images: Images, service: ImageService, tmp_path: pathlib.Path) -> None:
    service.image["id"] = "8f1b6b2e-0000-0000-0000-000000000000"

    with pytest.raises(core.errors.NotFound):
        images.download(IMAGE_ID, tmp_path / "image")
