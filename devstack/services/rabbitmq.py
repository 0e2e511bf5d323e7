"""A private RabbitMQ node: its own directory, ports and Erlang port mapper, on the loopback address only."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from core import errors
from devstack import ports
from devstack.accounts import Accounts, write_private
from devstack.child import Child
from devstack.waiting import wait_until
from messaging import access
from messaging.rabbitmq import Definitions, merged, password_hash, text, user, vhost

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
"""Debian's own place; the programs of the same names in /usr/sbin change the user first."""

READY_DEADLINE_S = 90.0
CONTROL_DEADLINE_S = 60.0
STOP_GRACE_S = 20.0


class RabbitMQ:
    """One node in one directory. Everything it does can be repeated.

    `create_vhost()` works before the node starts (a file it loads) and while it runs (it is told).
    """

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        *,
        distribution_port: int | None = None,
        mapper_port: int | None = None,
        management_port: int | None = None,
        name: str = "cellplane",
    ) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = port or ports.free_port()
        self._distribution_port = distribution_port or ports.free_port(avoid={self.port})
        self.mapper = PortMapper(
            self.directory, mapper_port or ports.free_port(avoid={self.port, self._distribution_port})
        )
        self._management_port = management_port
        self._node = f"{name}@localhost"
        self._accounts = Accounts(self.directory / "accounts.json")
        self._child = Child(self.command(), env=self.env(), log=self.directory / "rabbitmq.out", cwd=self.directory)

    def initialise(self) -> None:
        """Writes its settings and the file with its virtual hosts."""
        for folder in ("mnesia", "log", "home"):
            (self.directory / folder).mkdir(exist_ok=True)
        (self.directory / "enabled_plugins").write_text(
            "[rabbitmq_management].\n" if self._management_port else "[].\n"
        )
        (self.directory / "rabbitmq.conf").write_text(self._settings())
        if not self._definitions.exists():
            write_private(self._definitions, text(merged([{"vhosts": []}])))

    def command(self) -> list[str]:
        """The node in the foreground."""
        return [str(_script("rabbitmq-server"))]

    def env(self) -> dict[str, str]:
        """What its process, and its control program, need in their environment."""
        return {
            "HOME": str(self.directory / "home"),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 1:1 +SDcpu 1:1 +SDio 2 "
                "-kernel inet_dist_use_interface {127,0,0,1}"
            ),
            # Makes the start script replace itself by the node, so that the pid we know is the node's.
            "detached": "1",
            **self.mapper.env(),
        }

    def wait_ready(self, deadline_s: float = READY_DEADLINE_S) -> None:
        """Returns once it takes connections; it listens only after its virtual hosts are there."""
        wait_until(
            lambda: ports.answers(self.port),
            what=f"answer from RabbitMQ on port {self.port} (its files: {self.directory})",
            deadline_s=deadline_s,
        )

    def create_vhost(self, name: str, users: Sequence[access.User] = ()) -> str:
        """Makes a virtual host with its exchanges and limits, a user who owns it, and these others, as far as they are
        absent.

        Returns:
            The owner's URL for kombu; `url` gives the others'.
        """
        told = self._told()
        missing = self._missing(told, name, [access.owner(name), *users])
        if missing:
            self._tell(merged([told, *missing]))
        return self.url(name)

    def url(self, vhost: str, user: str | None = None) -> str:
        """Where a virtual host of `create_vhost` is found, for its owner or another user of it."""
        name = user or vhost
        return f"amqp://{quote(name, safe='')}:{self._accounts.password(name)}@127.0.0.1:{self.port}/{vhost}"

    def password(self, user: str) -> str:
        """The password of a user of `create_vhost`."""
        return self._accounts.password(user)

    def _missing(self, told: Definitions, name: str, users: Sequence[access.User]) -> list[Definitions]:
        vhosts = {entry["name"] for entry in told.get("vhosts", [])}
        known = {entry["name"] for entry in told.get("users", [])}
        admitted = {entry["user"] for entry in told.get("permissions", []) if entry["vhost"] == name}
        hashes = {
            one.name: None if one.name in known else password_hash(self._accounts.password(one.name)) for one in users
        }
        return [
            *([vhost(name)] if name not in vhosts else []),
            *(user(name, one, hashed=hashes[one.name]) for one in users if one.name not in admitted),
        ]

    def _tell(self, definitions: Definitions) -> None:
        fresh = self._definitions.with_name("definitions.fresh.json")
        write_private(fresh, text(definitions))
        if ports.answers(self.port):
            self.control("import_definitions", str(fresh))
        # Only now: a run that was killed before this tells the node once more.
        fresh.replace(self._definitions)

    def _management(self) -> str:
        if self._management_port is None:
            return ""
        return f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self._management_port}\n"

    def _told(self) -> Definitions:
        """What the node was told of."""
        if not self._definitions.exists():
            return {}
        told: Definitions = json.loads(self._definitions.read_text())
        return told

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl` answers; takes seconds."""
        environment = {key: value for key, value in self.env().items() if key != "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"}
        result = subprocess.run(
            [str(_script("rabbitmqctl")), "--quiet", *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=CONTROL_DEADLINE_S,
            check=False,
        )
        if result.returncode != 0:
            raise errors.Broken(f"rabbitmqctl {arguments[0]} ended with {result.returncode}: {result.stderr[-2000:]}")
        return result.stdout

    @property
    def pid(self) -> int:
        """The pid of the node that `start()` started."""
        return self._child.pid

    def start(self, deadline_s: float = READY_DEADLINE_S) -> None:
        """Starts it as a child of this process and waits until it takes connections."""
        self.initialise()
        self.mapper.start()
        self._child.start()
        wait_until(
            lambda: not self._child.is_running() or ports.answers(self.port),
            what=f"answer from RabbitMQ on port {self.port} (its files: {self.directory})",
            deadline_s=deadline_s,
        )
        _ = self._child.pid

    def stop(self) -> None:
        """Ends the child in order, and its port mapper."""
        self._child.stop(grace_s=STOP_GRACE_S)
        self.mapper.stop()

    def kill(self) -> None:
        """Ends the child as a crash would."""
        self._child.kill()

    def freeze(self) -> None:
        """Connections stay open and answer nothing."""
        self._child.freeze()

    def thaw(self) -> None:
        """Goes on after a freeze."""
        self._child.thaw()

    @property
    def _definitions(self) -> Path:
        return self.directory / "definitions.json"

    def _settings(self) -> str:
        return (
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "loopback_users = none\n"
            f"load_definitions = {self._definitions}\n"
            f"max_message_size = {access.MAX_BYTES}\n"
            "vm_memory_high_watermark.absolute = 512MiB\n"
            "disk_free_limit.absolute = 50MB\n"
            "raft.wal_max_size_bytes = 33554432\n"
            f"{self._management()}"
            "log.file.level = info\n"
            "log.file.rotation.size = 10485760\n"
            "log.file.rotation.count = 3\n"
        )


class PortMapper:
    """Erlang's port mapper (epmd), which every node needs; one may serve several nodes."""

    def __init__(self, directory: Path, port: int) -> None:
        self.port = port
        self._child = Child(self.command(), env={}, log=Path(directory) / "epmd.out", cwd=Path(directory))

    def command(self) -> list[str]:
        """The mapper in the foreground."""
        return [_program("epmd"), "-port", str(self.port), "-address", "127.0.0.1"]

    def env(self) -> dict[str, str]:
        """How nodes find it."""
        return {"ERL_EPMD_PORT": str(self.port), "ERL_EPMD_ADDRESS": "127.0.0.1"}

    def start(self) -> None:
        """Starts it as a child of this process, unless one answers."""
        if not ports.answers(self.port):
            self._child.start()
            wait_until(
                lambda: ports.answers(self.port),
                what=f"answer from epmd on port {self.port}",
                deadline_s=READY_DEADLINE_S,
            )

    def stop(self) -> None:
        """Ends the child."""
        self._child.stop(grace_s=STOP_GRACE_S)


def is_installed() -> bool:
    """Whether this machine could run a node."""
    return (SCRIPTS / "rabbitmq-server").exists() and shutil.which("epmd") is not None


def _script(name: str) -> Path:
    path = SCRIPTS / name
    if not path.exists():
        raise errors.Unavailable(f"{path} is not installed: apt-get install rabbitmq-server")
    return path


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise errors.Unavailable(f"{name} is not installed: apt-get install rabbitmq-server")
    return path


