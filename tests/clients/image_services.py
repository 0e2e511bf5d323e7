"""Image services to test against, and their users: the stack's own, and Glance itself where it is installed."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
from collections.abc import Mapping
from typing import Any

import requests

from api.http.caller import Identity
from clients.glance import Images
from core.context import Context
from devstack.ports import free_port
from devstack.services.images import ImageEndpoint
from devstack.waiting import wait_until

MEMBER = ("member", "reader")
BLUE, RED = Context("blue-user", "b1e0" * 8, roles=MEMBER), Context("red-user", "4ed0" * 8, roles=MEMBER)
ADMIN = Context("admin-user", "ad01" * 8, roles=("admin", *MEMBER), is_admin=True)
START_S = 60.0
DB_SYNC_S = 120.0
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
            "X-Identity-Status": "Confirmed", "X-User-Id": str(user.user_id), "X-Project-Id": str(user.project_id),
            "X-Roles": ",".join(user.roles),
        }  # fmt: skip

    def ask(self, user: Context, method: str, path: str, json: Any = None, **more: Any) -> requests.Response:
        headers = {**self.headers(user), **more.pop("headers", {})}
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                method, f"{self.url}/v2/images{path}", json=json, headers=headers, timeout=30, **more
            )

    def create(self, user: Context, content: bytes | None = CONTENT, **properties: object) -> str:
        """An image of this user's."""
        wanted = {"name": "own", "disk_format": "raw", "container_format": "bare", **properties}
        reply = self.ask(user, "POST", "", wanted)
        assert reply.status_code == 201, reply.text
        image_id = str(reply.json()["id"])
        if content is not None:
            reply = self.ask(
                user, "PUT", f"/{image_id}/file", data=content, headers={"Content-Type": "application/octet-stream"}
            )
            assert reply.status_code == 204, reply.text
        return image_id

    def change(self, user: Context, image_id: str, name: str, value: object) -> requests.Response:
        kind = "application/openstack-images-v2.1-json-patch"
        return self.ask(
            user,
            "PATCH",
            f"/{image_id}",
            [{"op": "replace", "path": f"/{name}", "value": value}],
            headers={"Content-Type": kind},
        )


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


class GlanceService(ImageService):
    """Glance itself on a SQLite file, from an environment of its own. It believes the headers that Keystone's filter
    would pass on."""

    def __init__(self, directory: pathlib.Path, programs: pathlib.Path) -> None:
        paste = (programs.parent / "etc" / "glance" / "glance-api-paste.ini").read_text()
        (directory / "paste.ini").write_text(paste.replace(" authtoken context rootapp", " context rootapp"))
        settings = directory / "glance-api.conf"
        settings.write_text(_GLANCE.format(directory=directory))
        for folder in ("store", "staging", "tasks"):
            (directory / folder).mkdir()
        port = free_port()
        self._log = (directory / "log").open("wb")
        _run([programs / "glance-manage", "--config-file", settings, "db_sync"], self._log)
        server = directory / "gunicorn.conf.py"
        server.write_text(
            f'wsgi_app = "glance.wsgi.api:application"\nbind = "127.0.0.1:{port}"\nthreads = 4\ncontrol_socket_disable '
            '= True\n'
        )
        # Glance reads the arguments of the command as its own.
        environment = {**os.environ, "OS_GLANCE_CONFIG_DIR": str(directory), "GUNICORN_CMD_ARGS": f"-c {server}"}
        self._server = subprocess.Popen(
            [programs / "gunicorn"],
            env=environment,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        url = f"http://127.0.0.1:{port}"
        super().__init__(url, Images(url, 10.0, remember_s=0.01, headers=lambda *, renew=False: self.headers(ADMIN)))
        try:
            wait_until(self._answers, what="Glance's answer", deadline_s=START_S, every_s=0.1)
        except BaseException:
            self.close()
            raise

    def _answers(self) -> bool:
        try:
            return self.ask(ADMIN, "GET", "").status_code == 200
        except requests.RequestException:
            return False

    def close(self) -> None:
        self.images.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait(10)
        self._log.close()


_GLANCE = """\
[DEFAULT]
enabled_backends = file:file
node_staging_uri = file://{directory}/staging
[database]
connection = sqlite:///{directory}/glance.sqlite
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = {directory}/store
[os_glance_staging_store]
filesystem_store_datadir = {directory}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {directory}/tasks
[paste_deploy]
flavor = keystone
config_file = {directory}/paste.ini
[oslo_messaging_notifications]
driver = noop
"""


def _run(command: list[Any], log: Any) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=DB_SYNC_S, check=True)
