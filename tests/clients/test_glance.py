"""The image client against a small image service that can be told to misbehave."""

import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import stat
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import core.errors
from clients.glance import Images
from core.context import Context
from devstack.waiting import wait_until
from objects.build import ImageRef
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
ORDERED = ImageRef(
    image_id=IMAGE_ID,
    size_bytes=IMAGE["size"],
    checksum=IMAGE["checksum"],
    hash_algorithm=IMAGE["os_hash_algo"],
    hash_value=IMAGE["os_hash_value"],
)
UNHASHED = ImageRef(image_id=IMAGE_ID, size_bytes=IMAGE["size"])
BLUE, RED = Context("b", "blue"), Context("r", "red")


class ImageService(http.server.ThreadingHTTPServer):
    """Serves one image; what it says, sends and how slowly can be set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.image = dict(IMAGE)
        self.members: dict[str, Any] = {}
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
        member = path.removeprefix(f"/v2/images/{IMAGE_ID}/members/")
        if self.server.status != 200:
            self.answer(self.server.status, b"<html>no</html>")
        elif path == "/v2/images":
            self.answer(200, json.dumps({"images": [self.server.image]}).encode())
        elif path == f"/v2/images/{IMAGE_ID}":
            self.answer(200, json.dumps(self.server.image).encode())
        elif member in self.server.members:
            self.answer(200, json.dumps(self.server.members[member]).encode())
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
    image = images.show(IMAGE_ID, RED)

    assert (image.id, image.name, image.status, image.size_bytes) == (IMAGE_ID, "cirros", "active", len(BYTES))
    assert (image.min_disk_gib, image.min_ram_mib, image.disk_format) == (1, 64, "raw")
    assert image.properties == {"hw_architecture": "x86_64"}


def test_an_active_image_is_asked_for_once(images: Images, service: ImageService) -> None:
    assert images.show(IMAGE_ID, RED) == images.show(IMAGE_ID, RED)
    assert len(service.asked) == 1

    images.show(IMAGE_ID, BLUE)
    assert len(service.asked) == 2, "what one project saw is not taken for seen by another"


def test_an_image_still_being_uploaded_is_asked_for_again(images: Images, service: ImageService) -> None:
    service.image.update(
        status="queued", size=None, checksum=None, os_hash_algo=None, os_hash_value=None, min_disk=None
    )

    image = images.show(IMAGE_ID, RED)
    service.image["status"] = "active"

    assert (image.status, image.size_bytes, image.min_disk_gib) == ("queued", None, 0)
    assert images.show(IMAGE_ID, RED).status == "active"


@pytest.mark.parametrize(
    "image_id",
    [
        "8f1b6b2e-0000-0000-0000-000000000000",
        "no uuid",
        "../../etc/passwd",
        "ü",
        "",
        ".",
        "..",
        "\udce9",
        "8f1b6b2e6f0e4c1e9f436a1d8b0a0001",
    ],
)
def test_an_unknown_image_is_not_found(images: Images, image_id: str) -> None:
    with pytest.raises(core.errors.NotFound):
        images.show(image_id, RED)


@pytest.mark.parametrize(
    ("status", "error"), [(400, core.errors.NotFound), (403, core.errors.NotFound), (500, core.errors.Unavailable)]
)
def test_what_other_answers_mean(images: Images, service: ImageService, status: int, error: type[Exception]) -> None:
    service.status = status

    with pytest.raises(error):
        images.show(IMAGE_ID, RED)


def test_an_answer_that_is_no_json_is_unavailable(images: Images, service: ImageService) -> None:
    service.image = ["no", "image"]  # type: ignore[assignment]

    with pytest.raises(core.errors.Unavailable):
        images.show(IMAGE_ID, RED)


def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(core.errors.Unavailable):
        Images(f"http://127.0.0.1:{free_port()}", 1.0).show(IMAGE_ID, RED)


def test_silence_is_unavailable_within_the_time_out(silent_port: int) -> None:
    with pytest.raises(core.errors.Unavailable):
        Images(f"http://127.0.0.1:{silent_port}", 0.2).show(IMAGE_ID, RED)


def test_a_download_is_whole_and_leaves_no_other_file(images: Images, tmp_path: pathlib.Path) -> None:
    images.download(ORDERED, tmp_path / "image")

    assert (tmp_path / "image").read_bytes() == BYTES
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_a_download_is_checked_by_the_older_checksum_if_there_is_no_other(
    images: Images, tmp_path: pathlib.Path
) -> None:
    older = msgspec.structs.replace(ORDERED, hash_algorithm=None, hash_value=None)
    images.download(older, tmp_path / "image")

    with pytest.raises(core.errors.Unavailable, match="damaged"):
        images.download(msgspec.structs.replace(older, checksum="0" * 32), tmp_path / "image")


@pytest.mark.parametrize("algorithm", ["shake_128", "crc32", ""])
def test_a_hash_that_nobody_can_compute_is_not_relied_on(
    images: Images, tmp_path: pathlib.Path, algorithm: str
) -> None:
    odd = msgspec.structs.replace(ORDERED, hash_algorithm=algorithm, hash_value="0" * 32)
    images.download(odd, tmp_path / "image")

    with pytest.raises(core.errors.Unavailable, match="damaged"):
        images.download(msgspec.structs.replace(odd, checksum="0" * 32), tmp_path / "image")


def test_an_id_that_names_other_bytes_by_now_does_not_give_them(
    images: Images, service: ImageService, tmp_path: pathlib.Path
) -> None:
    """Deleted and made anew under the same id: the service's own word for it is not the order's."""
    service.sent = bytes(reversed(BYTES))
    service.image.update(
        checksum=hashlib.md5(service.sent).hexdigest(), os_hash_value=hashlib.sha512(service.sent).hexdigest()
    )

    with pytest.raises(core.errors.Unavailable, match="was changed"):
        images.download(ORDERED, tmp_path / "image")

    assert list(tmp_path.iterdir()) == []


def test_a_download_ends_where_its_declared_size_does(
    images: Images, service: ImageService, tmp_path: pathlib.Path
) -> None:
    """What is larger than it was said to be must not reach the host's disk."""
    service.sent = BYTES * 64
    service.image.update(size=len(service.sent))

    with pytest.raises(core.errors.Unavailable, match="more than the"):
        images.download(UNHASHED, tmp_path / "image")

    assert list(tmp_path.iterdir()) == []


def test_a_download_is_for_its_owner_s_eyes_only_whatever_the_umask(images: Images, tmp_path: pathlib.Path) -> None:
    before = os.umask(0)
    try:
        images.download(ORDERED, tmp_path / "image")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "image").stat().st_mode) == 0o600


def test_a_damaged_download_leaves_what_was_there(
    images: Images, service: ImageService, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "image").write_bytes(b"before")
    service.sent = b"x" + BYTES[1:]

    with pytest.raises(core.errors.Unavailable, match="damaged"):
        images.download(ORDERED, tmp_path / "image")

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("image", b"before")]


def test_a_download_that_breaks_off_leaves_nothing(
    images: Images, service: ImageService, tmp_path: pathlib.Path
) -> None:
    service.length = len(BYTES)
    service.sent = BYTES[:1000]

    with pytest.raises(core.errors.Unavailable):
        images.download(ORDERED, tmp_path / "image")

    assert list(tmp_path.iterdir()) == []


def test_a_short_download_without_a_checksum_is_noticed(
    images: Images, service: ImageService, tmp_path: pathlib.Path
) -> None:
    service.sent = BYTES[:1000]

    with pytest.raises(core.errors.Unavailable, match="1000 of"):
        images.download(UNHASHED, tmp_path / "image")


@pytest.mark.alone
def test_a_download_that_drips_ends_at_its_deadline(
    images: Images, service: ImageService, tmp_path: pathlib.Path
) -> None:
    service.pause_s = 0.05
    begun = time.monotonic()

    with pytest.raises(core.errors.Unavailable):
        images.download(ORDERED, tmp_path / "image", deadline_s=0.3)

    assert time.monotonic() - begun < 5
    assert list(tmp_path.iterdir()) == []


def test_an_image_without_bytes_is_not_found(images: Images, tmp_path: pathlib.Path) -> None:
    with pytest.raises(core.errors.NotFound):
        images.download(
            msgspec.structs.replace(ORDERED, image_id="8f1b6b2e-0000-0000-0000-000000000000"), tmp_path / "image"
        )


# ---- for whom --------------------------------------------------------------------------------------------------------


def member(status: str = "accepted", **changes: str) -> dict[str, str]:
    return {"image_id": IMAGE_ID, "member_id": "red", "status": status, "schema": "/v2/schemas/member", **changes}


@pytest.mark.parametrize(
    ("visibility", "members", "is_seen"),
    [
        ("public", {}, True),
        ("community", {}, True),
        ("private", {}, False),
        ("private", {"red": member()}, False),
        ("shared", {}, False),
        ("shared", {"red": member("pending")}, False),
        ("shared", {"red": member("rejected")}, False),
        ("shared", {"red": member(member_id="green")}, False),
        ("shared", {"red": member(image_id="8f1b6b2e-6f0e-4c1e-9f43-6a1d8b0a0002")}, False),
        ("shared", {"red": member()}, True),
        ("PUBLIC", {}, False),
        ("galactic", {"red": member()}, False),
        ("", {}, False),
        (None, {}, False),
    ],
)
def test_another_project_s_image_is_shown_to_its_audience_only(
    images: Images, service: ImageService, visibility: str | None, members: dict[str, Any], is_seen: bool
) -> None:
    service.image["visibility"] = visibility
    service.members = members

    assert images.show(IMAGE_ID, BLUE).id == images.show(IMAGE_ID, Context("a", "gold", is_admin=True)).id == IMAGE_ID
    if is_seen:
        assert images.show(IMAGE_ID, RED).id == IMAGE_ID
    else:
        with pytest.raises(core.errors.NotFound) as refused:
            images.show(IMAGE_ID, RED)
        assert refused.value.message == f"there is no image {IMAGE_ID}"


@pytest.mark.parametrize("owner", [None, ""])
def test_an_image_without_an_owner_is_nobody_s(images: Images, service: ImageService, owner: str | None) -> None:
    service.image.update(owner=owner, visibility="private")

    for caller in (BLUE, Context("n", None), Context("n", "")):
        with pytest.raises(core.errors.NotFound):
            images.show(IMAGE_ID, caller)


@pytest.mark.parametrize("change", [{"visibility": "private"}, {"visibility": "shared"}, {"status": "deleted"}])
def test_what_is_withdrawn_is_gone_soon(service: ImageService, change: dict[str, str]) -> None:
    with contextlib.closing(Images(service.url, 5.0, remember_s=0.05)) as images:
        images.show(IMAGE_ID, RED)
        service.image.update(change)

        def is_gone() -> bool:
            try:
                images.show(IMAGE_ID, RED)
            except core.errors.NotFound:
                return True
            return False

        wait_until(is_gone, what="the end of what was remembered", deadline_s=5.0, every_s=0.01)


def test_a_membership_that_cannot_be_found_out_is_none(images: Images, service: ImageService) -> None:
    service.image["visibility"] = "shared"
    service.members = {"red": ["no", "member"]}

    with pytest.raises(core.errors.Unavailable):
        images.show(IMAGE_ID, RED)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "8f1b6b2e-6f0e-4c1e-9f43-6a1d8b0a0002"}, {"id": None}, {"status": None}, {"status": 1},
        {"owner": {"any": "body"}}, {"owner": ["red"]}, {"visibility": ["public"]}, {"size": -1}, {"size": "many"},
        {"min_ram": 1.5}, {"checksum": "../../etc/passwd"}, {"os_hash_value": "x"}, {"name": {}},
    ],
)  # fmt: skip
def test_an_answer_of_another_shape_is_no_image(images: Images, service: ImageService, change: dict[str, Any]) -> None:
    service.image.update(change)

    with pytest.raises(core.errors.Unavailable):
        images.show(IMAGE_ID, RED)


def test_properties_have_a_size(images: Images, service: ImageService) -> None:
    """They travel with every order of a server."""
    service.image["hw_filler"] = "x" * 70_000

    with pytest.raises(core.errors.Invalid, match="properties"):
        images.show(IMAGE_ID, RED)
