"""What the stack itself asks of the Compute API and the image service, over HTTP as any user would."""

import time
from collections.abc import Iterator
from typing import Any

import requests

from core import errors
from devstack.token_auth import TokenAuth
from devstack.waiting import wait_until

MICROVERSION = "2.90"
TIMEOUT_S = 30.0
POLL_S = 0.2


class ApiClient:
    """One user of the cloud.

    Every method raises Unavailable when there is no answer, NotFound for a 404, and Broken with the API's own words for
    any other refusal. With `identity`, the address of Keystone's v3, it asks with a token, else with HTTP basic.
    """

    def __init__(self, compute: str, *, image: str, user: str, password: str, identity: str | None = None) -> None:
        self._compute = compute
        self._image = image
        self._session = requests.Session()
        self._session.auth = TokenAuth(identity, user=user, password=password) if identity else (user, password)
        self._session.headers["OpenStack-API-Version"] = f"compute {MICROVERSION}"
        # Nothing of the environment (a proxy, a netrc) comes between a stack and its own machine.
        self._session.trust_env = False

    def get(self, path: str, **query: str) -> Any:
        """The answer's document."""
        return self._ask("GET", self._compute + path, params=query)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer's document, None without one."""
        return self._ask("POST", self._compute + path, json=body)

    def delete(self, path: str) -> None:
        """Deletes; a thing that is gone already is fine."""
        self._ask("DELETE", self._compute + path, may_be_missing=True)

    def pages(self, path: str, noun: str, **query: str) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page."""
        marker: dict[str, str] = {}
        while True:
            document = self.get(path, **query, **marker)
            yield from document[noun]
            if f"{noun}_links" not in document or not document[noun]:
                return
            marker = {"marker": document[noun][-1]["id"]}

    def image_named(self, name: str, content: bytes, disk_format: str = "raw", **properties: str) -> str:
        """The id of the image with this name, made of these bytes if there is none."""
        images = self._ask("GET", f"{self._image}/v2/images", params={"name": name, "status": "active"})["images"]
        if images:
            return str(images[0]["id"])
        wanted = {
            "name": name,
            "disk_format": disk_format,
            "container_format": "bare",
            "visibility": "public",
            "min_disk": 0,
            "min_ram": 0,
            **properties,
        }
        image_id = str(self._ask("POST", f"{self._image}/v2/images", json=wanted)["id"])
        self._ask(
            "PUT",
            f"{self._image}/v2/images/{image_id}/file",
            data=content,
            headers={"Content-Type": "application/octet-stream"},
        )
        return image_id

    def wait_for_server(self, server_id: str, *, deadline_s: float) -> dict[str, Any]:
        """The server once it is ACTIVE or ERROR."""
        seen: list[dict[str, Any]] = []

        def has_ended() -> bool:
            seen[:] = [self.get(f"/servers/{server_id}")["server"]]
            return seen[0]["status"] in ("ACTIVE", "ERROR")

        wait_until(has_ended, what=f"end of the build of server {server_id}", deadline_s=deadline_s, every_s=POLL_S)
        return seen[0]

    def answers(self) -> bool:
        """Whether the API serves an authenticated request."""
        try:
            self._ask("GET", self._compute + "/flavors")
        except errors.CellplaneError:
            return False
        return True

    def _ask(self, method: str, url: str, *, may_be_missing: bool = False, **arguments: Any) -> Any:
        started = time.monotonic()
        try:
            response = self._session.request(method, url, timeout=TIMEOUT_S, **arguments)
        except requests.RequestException as error:
            raise errors.Unavailable(
                f"no answer to {method} {url} after {time.monotonic() - started:.1f} s: {type(error).__name__}"
            ) from error
        if response.status_code == 404 and may_be_missing:
            return None
        if response.status_code == 404:
            raise errors.NotFound(f"{method} {url} finds nothing: {response.text[:500]}")
        if response.status_code >= 400:
            raise errors.Broken(
                f"{method} {url} is refused with {response.status_code}: {response.text[:500]}",
                status=response.status_code,
            )
        return response.json() if response.content else None
