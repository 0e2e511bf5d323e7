"""The RabbitMQ node that all suites of a test run share, but for those that freeze, end or change theirs."""

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from devstack.services import rabbitmq
from messaging import access
from tests.once import one_at_a_time

SPARE_VHOSTS = 32
"""Made before the node starts, which costs nothing; one that is made later costs seconds of `rabbitmqctl`."""

HOSTS = [access.host(name) for name in ("east-1", "east-2", "west-1", "west-2", "host-1")]
"""Whose accounts every virtual host has, beside its owner's."""

_SHARED = "rabbitmq"


class SharedRabbitMQ:
    """The node as one worker uses it: like `rabbitmq.RabbitMQ`, but each virtual host is this worker's own, and nobody
    freezes or ends it."""

    def __init__(self, node: rabbitmq.RabbitMQ) -> None:
        self._node = node
        self._taken: dict[str, str] = {}

    def create_vhost(self, name: str, users: Sequence[access.User] = ()) -> str:
        """The owner's URL of a virtual host that nobody else has; the same at every later call with this name. `users`:
        of `HOSTS`."""
        assert {user.name for user in users} <= {host.name for host in HOSTS}, (
            "an account more would cost seconds of rabbitmqctl"
        )
        return self.url(name)

    def url(self, name: str, user: str | None = None) -> str:
        """The URL of this virtual host for its owner, or for a host's account."""
        if name not in self._taken:
            self._taken[name] = _take_vhost(self._node)
        return self._node.url(self._taken[name], user)

    def password(self, user: str) -> str:
        """The password of a host's account."""
        return self._node.password(user)

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl` answers; takes seconds."""
        return self._node.control(*arguments)


def shared_rabbitmq() -> SharedRabbitMQ:
    """The one node of the run, started by whoever asks first; it ends with the run."""
    skip_without_rabbitmq()
    with one_at_a_time(_SHARED) as folder:
        noted = folder / "ports.json"
        if not noted.exists():
            noted.write_text(json.dumps(_ports_of(_started_for_all(folder))))
        ports = json.loads(noted.read_text())
    return SharedRabbitMQ(_node(folder, **ports))


def skip_without_rabbitmq() -> None:
    """Skips the test where no node could run."""
    if not rabbitmq.is_installed():
        pytest.skip("RabbitMQ is not installed: apt-get install rabbitmq-server")
    if os.geteuid() != 0:
        pytest.skip("RabbitMQ's scripts of Debian run as root or as their own user only")


@functools.cache  # Kept, for an object that is forgotten while its process runs complains.
def _started_for_all(folder: Path) -> rabbitmq.RabbitMQ:
    node = _node(folder)
    for number in range(SPARE_VHOSTS):
        node.create_vhost(_spare(number), HOSTS)
    node.start()
    return node


def _node(folder: Path, **ports: int) -> rabbitmq.RabbitMQ:
    return rabbitmq.RabbitMQ(folder, **ports, name=f"tests-{folder.parent.name}")


def _ports_of(node: rabbitmq.RabbitMQ) -> dict[str, int]:
    return {
        "port": node.port,
        "distribution_port": int(node.env()["RABBITMQ_DIST_PORT"]),
        "mapper_port": node.mapper.port,
    }


def _take_vhost(node: rabbitmq.RabbitMQ) -> str:
    """A virtual host that no worker took before."""
    with one_at_a_time(_SHARED) as folder:
        taken = folder / "taken"
        number = int(taken.read_text()) if taken.exists() else 0
        taken.write_text(str(number + 1))
        if number >= SPARE_VHOSTS:
            # Another worker may have added to the accounts since this one read them.
            _node(folder, **_ports_of(node)).create_vhost(_spare(number), HOSTS)
    return _spare(number)


def _spare(number: int) -> str:
    return f"spare_{number}"
