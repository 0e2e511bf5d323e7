"""Scheduler hints as users of the `openstack` client give them, on both profiles."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.stack.client import Client
from tests.stack.cloud import Cloud

TIMES = 6


class Servers:
    """Servers of one user; all are deleted at the end."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._made: list[str] = []

    def make(self, *hints: str) -> str:
        """An ACTIVE server; its id."""
        options = [f"--hint {hint}" for hint in hints]
        made = self._client.json(
            f"server create --flavor m1.tiny --image tiny --nic none --wait {' '.join(options)} hinted"
        )
        self._made.append(str(made["id"]))
        assert made["status"] == "ACTIVE", made
        return self._made[-1]

    def delete(self) -> None:
        if self._made:
            self._client.ok(f"server delete --wait {' '.join(self._made)}")


@contextlib.contextmanager
def servers_of(client: Client) -> Iterator[Servers]:
    servers = Servers(client)
    try:
        yield servers
    finally:
        servers.delete()


@pytest.fixture
def mine(cloud: Cloud) -> Iterator[Servers]:
    with servers_of(cloud.client("demo")) as servers:
        yield servers


def _host(cloud: Cloud, server: str) -> str:
    return str(cloud.client("admin").json(f"server show {server}")["OS-EXT-SRV-ATTR:host"])


def test_different_host_and_same_host_hold_every_time(cloud: Cloud, mine: Servers) -> None:
    first = mine.make()
    home = _host(cloud, first)

    assert home not in {_host(cloud, mine.make(f"different_host={first}")) for _ in range(TIMES)}
    assert {_host(cloud, mine.make(f"same_host={first}")) for _ in range(3)} == {home}


def test_another_projects_server_is_none(cloud: Cloud, mine: Servers) -> None:
    with servers_of(cloud.client("admin")) as theirs:
        foreign = theirs.make()
        refusal = cloud.client("demo").refused(
            f"server create --flavor m1.tiny --image tiny --nic none --hint same_host={foreign} hinted"
        )
        mine.make(f"different_host={foreign}")

    assert "400" in refusal and foreign in refusal
