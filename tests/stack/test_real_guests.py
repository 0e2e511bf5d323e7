"""Two cells of one host with real guests, through the `openstack` client; afterwards the machine is as it was."""

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack import identity
from devstack.waiting import wait_until
from tests.hypervisor.machine import objection, qemu_processes
from tests.stack import cloud as clouds
from tests.stack.client import Client
from tests.stack.cloud import Cloud

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(1200)]

DEADLINE_S = 180.0
NAMES = {"real-east": "east", "real-west": "west"}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The stack, without the servers that it was proved with."""
    why_not = objection()
    if why_not is not None:
        pytest.skip(why_not)
    path = tmp_path_factory.mktemp("real") / "state"
    options = ("--profile", "full", "--driver", "libvirt", "--cells", "2", "--hosts", "1")
    with clouds.running(path, *options) as cloud:
        networks = {network_of(cloud.control.pid(f"namespaces-{host}")) for host in cloud.shape.all_hosts}
        assert len(networks) == 2 and network_of(os.getpid()) not in networks
        cloud.client("demo").ok("server delete --wait hello-east hello-west")
        yield cloud
    assert not path.exists()
    left = [process for process in Path("/proc").iterdir() if process.name.isdigit() and is_left(process, path, networks)]
    assert not left, [(process / "cmdline").read_bytes() for process in left]
    assert str(path) not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture(scope="module")
def servers(real: Cloud) -> dict[str, str]:
    """A server in each cell, ready, by name."""
    client = real.client("demo")
    for name, zone in NAMES.items():
        client.ok(f"server create --flavor m1.tiny --image tiny --nic none --availability-zone {zone} {name}")
    ids = {name: wait_for_status(client, name, "ACTIVE")["id"] for name in NAMES}
    for name in NAMES:
        wait_for_boots(client, name, 1)
    return ids


def network_of(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def is_left(process: Path, path: Path, networks: set[str]) -> bool:
    """Whether the process has to do with the stack at the path, or lives in one of these network namespaces."""
    with contextlib.suppress(OSError):
        is_alive = identity.process_of(int(process.name)) is not None
        command = (process / "cmdline").read_bytes()
        return is_alive and (os.fsencode(path) in command or network_of(int(process.name)) in networks)
    return False


def wait_for_status(client: Client, server: str, status: str) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    def has_it() -> bool:
        seen[:] = [client.json(f"server show {server}")]
        assert seen[0]["status"] != "ERROR" or status == "ERROR", seen[0].get("fault")
        return bool(seen[0]["status"] == status)

    wait_until(has_it, what=f"status {status} of server {server}", deadline_s=DEADLINE_S, every_s=0.5)
    return seen[0]


def wait_for_boots(client: Client, server: str, count: int) -> dict[str, str]:
    """The fields of the guest's last ready line, once it was ready so often."""
    found: list[str] = []

    def is_ready() -> bool:
        found[:] = re.findall(r"GUEST-READY (.*)", client.ok(f"console log show {server}"))
        return len(found) >= count

    wait_until(is_ready, what=f"ready line {count} of server {server}", deadline_s=DEADLINE_S, every_s=1.0)
    return dict(field.split("=", 1) for field in found[-1].split())


def test_each_guest_says_that_it_is_ready_and_who_it_is(real: Cloud, servers: dict[str, str]) -> None:
    client = real.client("demo")

    for name, server in servers.items():
        ready = wait_for_boots(client, name, 1)
        assert (ready["uuid"], ready["hostname"], ready["source"]) == (server, name, "configdrive")
        assert "vda:1073741824" in ready["disks"]
        assert len(qemu_processes(server)) == 1
    hosts = {name: real.client("admin").json(f"server show {name}")["OS-EXT-SRV-ATTR:host"] for name in servers.values()}
    assert sorted(hosts.values()) == ["east-1", "west-1"]


def test_a_guest_is_paused_suspended_stopped_and_rebooted(real: Cloud, servers: dict[str, str]) -> None:
    client, name = real.client("demo"), "real-east"
    boots = len(re.findall("GUEST-READY", client.ok(f"console log show {name}")))

    for command, status in (("pause", "PAUSED"), ("unpause", "ACTIVE"), ("suspend", "SUSPENDED"), ("resume", "ACTIVE"), ("stop", "SHUTOFF")):
        client.ok(f"server {command} {name}")
        wait_for_status(client, name, status)
    assert qemu_processes(servers[name]) == []
    assert "GUEST-DOWN" in client.ok(f"console log show {name}"), "it was cut off"

    client.ok(f"server start {name}")
    wait_for_status(client, name, "ACTIVE")
    assert wait_for_boots(client, name, boots + 1)["boot"] == "2"
    client.ok(f"server reboot {name}")
    assert wait_for_boots(client, name, boots + 2)["boot"] == "3"
    wait_for_status(client, name, "ACTIVE")
    client.ok(f"server reboot --hard {name}")
    wait_for_boots(client, name, boots + 3)
    wait_for_status(client, name, "ACTIVE")


def test_a_guest_that_dies_is_noticed_and_can_be_started(real: Cloud, servers: dict[str, str]) -> None:
    client, name = real.client("demo"), "real-west"
    (process,) = qemu_processes(servers[name])

    identity.send(process, signal.SIGKILL)

    wait_for_status(client, name, "SHUTOFF")
    client.ok(f"server start {name}")
    wait_for_status(client, name, "ACTIVE")


def test_guests_outlive_libvirtd_and_the_agent(real: Cloud, servers: dict[str, str]) -> None:
    client, name = real.client("demo"), "real-west"
    before = qemu_processes(servers[name])

    for program in ("libvirtd-west-1", "compute-west-1"):
        process = identity.running(real.state.pid_file(program))
        assert process is not None
        identity.send(process, signal.SIGKILL)
        wait_until(lambda program=program, process=process: is_anew(real, program, process), what=f"new {program}", deadline_s=60.0)

    assert qemu_processes(servers[name]) == before
    client.ok(f"server pause {name}")
    wait_for_status(client, name, "PAUSED")
    client.ok(f"server unpause {name}")
    wait_for_status(client, name, "ACTIVE")


def is_anew(cloud: Cloud, program: str, process: identity.Process) -> bool:
    now = identity.running(cloud.state.pid_file(program))
    return now is not None and now != process


def test_nothing_is_left_of_deleted_servers(real: Cloud, servers: dict[str, str]) -> None:
    client = real.client("demo")

    client.ok(f"server delete --wait {' '.join(NAMES)}")

    ids = set(servers.values())
    wait_until(lambda: not real.leftovers(ids), what="end of all traces", deadline_s=DEADLINE_S, every_s=0.5)
    for server in ids:
        assert qemu_processes(server) == []
        # Its fence stays for a week: it refuses orders that are late.
        left = [path for path in real.state.hosts.rglob(f"*{server}*") if path.parent.name != "fences"]
        assert left == []
