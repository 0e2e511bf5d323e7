"""Deleting and restoring with the `openstack` client, in a cloud whose operator has set an interval for it."""

import configparser
import contextlib
import io
from collections.abc import Iterator, Mapping

from devstack.accounts import write_private
from devstack.waiting import wait_until
from tests.stack.client import Client
from tests.stack.cloud import Cloud
from tests.stack.test_client import TINY, wait_for_status

PROGRAMS = ("api", "super-conductor")
DEADLINE_S = 60.0


@contextlib.contextmanager
def interval(cloud: Cloud, seconds: int) -> Iterator[None]:
    """Meanwhile deleted servers can be restored for so long, and are looked for every second."""
    before = {name: cloud.state.config(name).read_text() for name in PROGRAMS}
    values = {"DEFAULT": {"reclaim_instance_interval": str(seconds)}}
    try:
        restart(cloud, "api", with_values(before["api"], values))
        swift = {**values, "conductor": {"reclaim_sweep_s": "1"}}
        restart(cloud, "super-conductor", with_values(before["super-conductor"], swift))
        yield
    finally:
        for name, text in before.items():
            restart(cloud, name, text)


def with_values(text: str, values: Mapping[str, Mapping[str, str]]) -> str:
    settings = configparser.ConfigParser(interpolation=None)
    settings.read_string(text)
    settings.read_dict(values)
    written = io.StringIO()
    settings.write(written)
    return written.getvalue()


def restart(cloud: Cloud, name: str, text: str) -> None:
    write_private(cloud.state.config(name), text)
    cloud.control.restart(name)
    wait_until(cloud.api("demo").answers, what="answer of the API", deadline_s=DEADLINE_S)


def listed(client: Client, *options: str) -> set[str]:
    return {server["ID"] for server in client.json(" ".join(["server list", *options]))}


def test_a_server_is_deleted_restored_deleted_by_force_and_reclaimed(full: Cloud) -> None:
    client = full.client("demo")
    with interval(full, 3600):
        ids = [client.json(f"server create {TINY} --nic none soft-{number}")["id"] for number in range(2)]
        for uuid in ids:
            wait_for_status(client, uuid, "ACTIVE")
        first, second = ids

        client.ok(f"server delete {first} {second}")
        for uuid in ids:
            wait_for_status(client, uuid, "SOFT_DELETED")
        assert not listed(client) & set(ids)
        assert listed(client, "--status", "SOFT_DELETED") >= set(ids)

        client.ok(f"server restore {first}")
        wait_for_status(client, first, "ACTIVE")
        assert listed(client) & set(ids) == {first}
        client.ok(f"server delete --force {first}")
        wait_until(lambda: client.run(f"server show {first}").status, what="it is gone", deadline_s=DEADLINE_S)

    with interval(full, 1):
        wait_until(lambda: client.run(f"server show {second}").status, what="reclaim", deadline_s=DEADLINE_S)
        wait_until(lambda: not full.leftovers(set(ids)), what="nothing is left", deadline_s=DEADLINE_S)
