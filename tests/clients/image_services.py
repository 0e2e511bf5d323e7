"""Image services to test against, and their users: the stack's own, and Glance itself where it is installed."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import requests

from api.http.caller import Identity
from clients.glance import Images
from core.context import Context
from devstack.ports import free_port
from devstack.services.images import ImageEndpoint

BLUE, RED = Context("blue-user", "b1e0" * 8, roles=("member",)), Context("red-user", "4ed0" * 8, roles=("member",))
ADMIN = Context("admin-user", "ad01" * 8, roles=("admin", "member"), is_admin=True)
CONTENT = bytes(range(256)) * 64


class Believing:
    """Believes a token that names user, project and roles."""

    discovery_needs_credentials = False

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        user_id, project_id, roles = headers["X-Auth-Token"].split(":")
        return Identity(user_id, project_id, tuple(roles.split(",")))

    def close(self) -> None:
        """Holds nothing."""


@dataclasses.dataclass
class ImageService:
    """A service as its users reach it, and Cellplane's own client of it."""

    url: str
    images: Images

    def headers(self, user: Context) -> Mapping[str, str]:
        return {
            "X-Auth-Token": f"{user.user_id}:{user.project_id}:{','.join(user.roles)}",
            # What Keystone's filter passes on to Glance.
            "X-Identity-Status": "Confirmed", "X-User-Id": str(user.user_id), "X-Project-Id": str(user.project_id), "X-Roles": ",".join(user.roles),
        }  # fmt: skip

    def ask(self, user: Context, method: str, path: str, json: Any = None, **more: Any) -> requests.Response:
        headers = {**self.headers(user), **more.pop("headers", {})}
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, f"{self.url}/v2/images{path}", json=json, headers=headers, timeout=30, **more)

    def create(self, user: Context, content: bytes | None = CONTENT, **properties: object) -> str:
        """An image of this user's."""
        wanted = {"name": "own", "disk_format": "raw", "container_format": "bare", **properties}
        reply = self.ask(user, "POST", "", wanted)
        assert reply.status_code == 201, reply.text
        image_id = str(reply.json()["id"])
        if content is not None:
            reply = self.ask(user, "PUT", f"/{image_id}/file", data=content, headers={"Content-Type": "application/octet-stream"})
            assert reply.status_code == 204, reply.text
        return image_id

    def change(self, user: Context, image_id: str, name: str, value: object) -> requests.Response:
        kind = "application/openstack-images-v2.1-json-patch"
        return self.ask(user, "PATCH", f"/{image_id}", [{"op": "replace", "path": f"/{name}", "value": value}], headers={"Content-Type": kind})


class OwnService(ImageService):
    """The image service of a stack."""

    def __init__(self, directory: pathlib.Path) -> None:
        port = free_port()
        self._endpoint = ImageEndpoint(directory, port, Believing())
        self._endpoint.start()
        url = f"http://127.0.0.1:{port}"
        super().__init__(url, Images(url, 10.0, remember_s=0.01))

    def close(self) -> None:
        self.images.close()
        self._endpoint.stop()
