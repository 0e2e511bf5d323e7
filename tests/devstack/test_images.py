"""The image service, asked over HTTP."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from devstack.ports import free_port
from devstack.services.images import PATCH_TYPES, ImageEndpoint

CONTENT = b"bytes of an image " * 100_000


class Service:
    """The service and one who asks it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.session = requests.Session()
        self.session.trust_env = False

    def ask(self, method: str, path: str, **arguments: Any) -> requests.Response:
        return self.session.request(method, self.url + path, timeout=10, **arguments)

    def create(self, name: str, content: bytes | None = CONTENT, **properties: object) -> str:
        wanted = {"name": name, "disk_format": "raw", "container_format": "bare", "visibility": "public", **properties}
        image_id = str(self.ask("POST", "/v2/images", json=wanted).json()["id"])
        if content is not None:
            assert (
                self.ask(
                    "PUT",
                    f"/v2/images/{image_id}/file",
                    data=content,
                    headers={"Content-Type": "application/octet-stream"},
                ).status_code
                == 204
            )
        return image_id

    def names(self, query: str = "") -> list[str]:
        return [image["name"] for image in self.ask("GET", f"/v2/images{query}").json()["images"]]


def _endpoints() -> int:
    """How many there are in this process: other tests may have some running."""
    return sum(thread.name == "image-endpoint" for thread in threading.enumerate())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    before = _endpoints()
    port = free_port()
    endpoint = ImageEndpoint(tmp_path / "images", port)
    endpoint.start()
    service = Service(port)
    yield service
    service.session.close()
    endpoint.stop()
    assert _endpoints() == before


def test_an_image_is_active_once_its_bytes_are_there(service: Service) -> None:
    image_id = service.create("tiny", content=None)
    assert service.ask("GET", f"/v2/images/{image_id}").json()["status"] == "queued"
    assert service.ask("GET", f"/v2/images/{image_id}/file").status_code == 204

    service.ask("PUT", f"/v2/images/{image_id}/file", data=CONTENT)

    image = service.ask("GET", f"/v2/images/{image_id}").json()
    assert (image["status"], image["size"]) == ("active", len(CONTENT))
    assert image["checksum"] == hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    assert image["os_hash_value"] == hashlib.sha512(CONTENT).hexdigest()
    assert service.ask("GET", f"/v2/images/{image_id}/file").content == CONTENT


def test_bytes_are_given_once(service: Service) -> None:
    image_id = service.create("tiny")

    assert service.ask("PUT", f"/v2/images/{image_id}/file", data=b"others").status_code == 409
    assert service.ask("GET", f"/v2/images/{image_id}/file").content == CONTENT


def test_lists_are_filtered(service: Service) -> None:
    ids = [service.create(name, content=b"x", owner=owner) for name, owner in (("a", "1"), ("b", "1"), ("c", "2"))]

    assert service.names("?name=b") == ["b"]
    assert sorted(service.names(f"?id=in:{ids[0]},{ids[2]}")) == ["a", "c"]
    assert service.names("?id=in:") == []
    assert sorted(service.names("?owner=1")) == ["a", "b"]
    assert service.names("?status=queued") == []
    assert service.names("?sort=name:asc") == ["a", "b", "c"]
    assert service.names("?sort_key=name&sort_dir=desc") == ["c", "b", "a"]


def test_lists_come_in_pages(service: Service) -> None:
    for name in "abcde":
        service.create(name, content=None)
    seen, path = [], "/v2/images?limit=2&sort=name:asc"
    while path:
        page = service.ask("GET", path).json()
        seen.append([image["name"] for image in page["images"]])
        path = page.get("next")

    assert seen == [["a", "b"], ["c", "d"], ["e"]]


def test_properties_are_patched(service: Service) -> None:
    image_id = service.create("tiny", hw_disk_bus="virtio")
    patch = [
        {"op": "replace", "path": "/name", "value": "small"},
        {"op": "remove", "path": "/hw_disk_bus"},
        {"op": "add", "path": "/os~1type", "value": "x"},
    ]

    answer = service.ask("PATCH", f"/v2/images/{image_id}", json=patch, headers={"Content-Type": PATCH_TYPES[0]})

    assert answer.status_code == 200
    image = service.ask("GET", f"/v2/images/{image_id}").json()
    assert (image["name"], image["os/type"]) == ("small", "x")
    assert "hw_disk_bus" not in image


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("GET", "/v2/images/../../etc", None, 404),
        ("GET", "/v2/images/%2e%2e%2fsecret", None, 404),
        ("GET", "/v2/images/00000000-0000-0000-0000-000000000000", None, 404),
        ("DELETE", "/v2/images/00000000-0000-0000-0000-000000000000", None, 404),
        ("GET", "/v2/images?limit=many", None, 400),
        ("GET", "/v2/images?marker=unknown", None, 400),
        ("POST", "/v2/images", {"id": "no uuid"}, 400),
        ("POST", "/v2/images", {"min_ram": "much"}, 400),
        ("POST", "/v2/images", {"min_ram": True}, 400),
        ("POST", "/v2/images", {"visibility": "odd"}, 400),
        ("POST", "/v2/images", {"status": "active"}, 403),
        ("POST", "/v2/images", ["no object"], 400),
    ],
)
def test_what_is_wrong_is_refused(service: Service, method: str, path: str, body: object, code: int) -> None:
    assert service.ask(method, path, **({} if body is None else {"json": body})).status_code == code


def test_a_protected_image_stays(service: Service) -> None:
    image_id = service.create("tiny", protected=True)
    assert service.ask("DELETE", f"/v2/images/{image_id}").status_code == 403

    service.ask(
        "PATCH",
        f"/v2/images/{image_id}",
        json=[{"op": "replace", "path": "/protected", "value": False}],
        headers={"Content-Type": PATCH_TYPES[0]},
    )

    assert service.ask("DELETE", f"/v2/images/{image_id}").status_code == 204
    assert service.names() == []


def test_clients_find_version_and_schema(service: Service) -> None:
    versions = service.ask("GET", "/")

    assert versions.status_code == 300
    assert versions.json()["versions"][0]["status"] == "CURRENT"
    assert service.ask("GET", "/v2/schemas/image").json()["name"] == "image"
