"""Two cells of one host with real guests, through the `openstack` client; afterwards the machine is as it was."""

import contextlib
import json
import os
import re
import signal
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from devstack import identity
from devstack.waiting import wait_until
from tests.console.user import User
from tests.hypervisor.machine import objection, qemu_processes
from tests.stack import cloud as clouds
from tests.stack.client import Client
from tests.stack.cloud import Cloud

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(1200)]

DEADLINE_S = 180.0
NAMES = {"real-east": "east", "real-west": "west"}
RFB = b"RFB 003.008\n"


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
    left = [
        process for process in Path("/proc").iterdir() if process.name.isdigit() and is_left(process, path, networks)
    ]
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
    lines: list[str] = []

    def is_ready() -> bool:
        lines[:] = re.findall(r"GUEST-READY (.*)", client.ok(f"console log show {server}"))
        return len(lines) >= count

    wait_until(is_ready, what=f"ready line {count} of server {server}", deadline_s=DEADLINE_S, every_s=1.0)
    return dict(field.split("=", 1) for field in lines[-1].split())


def test_each_guest_says_that_it_is_ready_and_who_it_is(real: Cloud, servers: dict[str, str]) -> None:
    client = real.client("demo")

    for name, server in servers.items():
        ready = wait_for_boots(client, name, 1)
        assert (ready["uuid"], ready["hostname"], ready["source"]) == (server, name, "configdrive")
        assert "vda:1073741824" in ready["disks"]
        assert len(qemu_processes(server)) == 1
    hosts = {
        name: real.client("admin").json(f"server show {name}")["OS-EXT-SRV-ATTR:host"] for name in servers.values()
    }
    assert sorted(hosts.values()) == ["east-1", "west-1"]


@pytest.fixture
def user() -> Iterator[User]:
    """Somebody with a WebSocket client."""
    user = User()
    yield user
    user.close()


def websocket_of(url: str) -> str:
    """What noVNC's page does with its own address; the address of a serial console is a WebSocket's already."""
    parts = urllib.parse.urlsplit(url)
    path = dict(urllib.parse.parse_qsl(parts.query)).get("path")
    return url if path is None else f"ws://{parts.netloc}/{path}"


def test_the_screen_of_a_guest_is_opened_by_its_address(real: Cloud, servers: dict[str, str], user: User) -> None:
    for name in NAMES:
        shown = real.client("demo").json(f"console url show --novnc {name}")

        assert shown["type"] == "novnc"
        assert user.read(user.open_url(websocket_of(shown["url"])), len(RFB)) == RFB
        assert user.read(user.open_url(websocket_of(shown["url"])), len(RFB)) == RFB, (
            "a token serves as often as it is shown"
        )


def test_somebody_types_at_the_serial_console_and_the_guest_answers(
    real: Cloud, servers: dict[str, str], user: User
) -> None:
    for name, number in (("real-east", 6), ("real-west", 7)):
        shown = real.client("demo").json(f"console url show --serial {name}")
        assert shown["type"] == "serial"

        console = user.open_url(shown["url"])

        user.write(console, f"echo answer-$(({number}*7))\n".encode())
        user.read_until(console, f"answer-{number * 7}".encode(), DEADLINE_S)
        user.leave(console)


def test_each_cell_has_its_own_proxy_which_knows_no_token_of_another(
    real: Cloud, servers: dict[str, str], user: User
) -> None:
    east, west = (
        urllib.parse.urlsplit(real.client("demo").json(f"console url show --serial {name}")["url"])
        for name in ("real-east", "real-west")
    )
    assert east.netloc != west.netloc

    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        user.open_url(f"ws://{west.netloc}/?{east.query}")

    assert refusal.value.status == 403
    services = real.client("admin").json("compute service list")
    proxies = {service["Host"]: service["State"] for service in services if service["Binary"] == "nova-novncproxy"}
    assert proxies == {"console-proxy-east": "up", "console-proxy-west": "up"}


def test_how_a_guest_fares_is_told_to_admins(real: Cloud, servers: dict[str, str]) -> None:
    server = servers["real-east"]
    command = f"--os-compute-api-version 2.48 server show --diagnostics {server}"

    fixed = json.loads(real.client("admin").ok(f"{command} -f json"))

    assert (fixed["state"], fixed["driver"], fixed["num_cpus"], fixed["has_config_drive"]) == (
        "running",
        "libvirt",
        1,
        True,
    )
    assert fixed["cpu_details"][0]["time"] > 0 and fixed["memory_details"]["maximum"] > 0
    assert sum(disk["read_bytes"] for disk in fixed["disk_details"]) > 1_000_000, "it has read its own disk"
    assert "policy" in real.client("demo").refused(command).lower()
    # The client has no form for what was told before.
    headers = {"OpenStack-API-Version": "compute 2.47"}
    answer = requests.get(
        f"{real.compute}/servers/{server}/diagnostics",
        headers=headers,
        auth=("admin", real.password("admin")),
        timeout=30,
    )
    free = answer.json()
    assert free["cpu0_time"] >= fixed["cpu_details"][0]["time"] and free["vda_read"] > 0


def test_a_guest_that_is_off_shows_no_console_and_an_old_address_opens_nothing(
    real: Cloud, servers: dict[str, str], user: User
) -> None:
    demo, name = real.client("demo"), "real-west"
    old = demo.json(f"console url show --novnc {name}")["url"]
    demo.ok(f"server stop {name}")
    wait_for_status(demo, name, "SHUTOFF")

    assert "409" in demo.refused(f"console url show --novnc {name}")
    assert "power_state shutdown" in real.client("admin").refused(
        f"--os-compute-api-version 2.48 server show --diagnostics {servers[name]}"
    )
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        user.open_url(websocket_of(old))
    assert refusal.value.status == 409

    demo.ok(f"server start {name}")
    wait_for_status(demo, name, "ACTIVE")
    assert user.read(user.open_url(websocket_of(demo.json(f"console url show --novnc {name}")["url"])), len(RFB)) == RFB


def test_a_guest_is_paused_suspended_stopped_and_rebooted(real: Cloud, servers: dict[str, str]) -> None:
    client, name = real.client("demo"), "real-east"
    boots = len(re.findall("GUEST-READY", client.ok(f"console log show {name}")))

    for command, status in (
        ("pause", "PAUSED"),
        ("unpause", "ACTIVE"),
        ("suspend", "SUSPENDED"),
        ("resume", "ACTIVE"),
        ("stop", "SHUTOFF"),
    ):
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


def boots_of(client: Client, server: str) -> int:
    """How often the guest was ready."""
    return len(re.findall("GUEST-READY", client.ok(f"console log show {server}")))


def test_a_guest_is_rescued_and_is_itself_again(real: Cloud, servers: dict[str, str]) -> None:
    client, name = real.client("demo"), "real-east"
    own = wait_for_boots(client, name, 1)
    boots = boots_of(client, name)

    client.ok(f"server rescue {name}")
    wait_for_status(client, name, "RESCUE")
    rescued = wait_for_boots(client, name, boots + 1)
    assert rescued["uuid"] == servers[name]
    before, meanwhile = (dict(disk.split(":") for disk in ready["disks"].split(",")) for ready in (own, rescued))
    assert meanwhile["vda"] != before["vda"], "it runs from a disk as large as the image"
    assert len(meanwhile) == len(before) + 1 and before["vda"] in meanwhile.values(), "its own disk is beside it"

    client.ok(f"server unrescue {name}")
    wait_for_status(client, name, "ACTIVE")
    assert wait_for_boots(client, name, boots + 2)["disks"] == own["disks"]


def test_a_guest_boots_from_the_image_of_another_and_its_agent_sets_a_password(
    real: Cloud, servers: dict[str, str]
) -> None:
    client, name = real.client("demo"), "real-east"
    boots = boots_of(client, name)
    before = wait_for_boots(client, name, boots)

    client.ok(f"server image create --name copy --wait {name}")

    shown = wait_for_status(client, name, "ACTIVE")
    assert shown["OS-EXT-STS:power_state"] in (1, "Running")
    assert boots_of(client, name) == boots, "it went on while its disk was copied"
    image = client.json("image show copy")
    assert (image["status"], image["disk_format"], image["properties"]["instance_uuid"]) == (
        "active",
        "qcow2",
        servers[name],
    )
    client.ok("image set --property hw_qemu_guest_agent=yes copy")
    # In the other cell: nothing but the image service connects the two.
    twin = str(
        client.json("server create --flavor m1.tiny --image copy --nic none --availability-zone west twin")["id"]
    )
    wait_for_status(client, "twin", "ACTIVE")
    ready = wait_for_boots(client, "twin", 1)
    assert (ready["uuid"], ready["hostname"], int(ready["boot"])) == (twin, "twin", int(before["boot"]) + 1)
    client.ok("server set --password correct-horse twin")
    wait_until(
        lambda: "password-set user=root" in client.ok("console log show twin"),
        what="password",
        deadline_s=DEADLINE_S,
        every_s=0.5,
    )
    client.ok("server delete --wait twin")
    client.ok("image delete copy")
    assert_no_trace(real, {twin})


def test_a_guest_is_rebuilt_with_what_is_asked_for_now(real: Cloud, servers: dict[str, str]) -> None:
    client, name = real.client("demo"), "real-east"
    boots = boots_of(client, name)
    claims = real.claims()

    client.ok(f"--os-compute-api-version 2.90 server rebuild --image tiny --hostname anew {name}")

    ready = wait_for_boots(client, name, boots + 1)
    wait_for_status(client, name, "ACTIVE")
    assert (ready["uuid"], ready["hostname"], ready["source"], ready["boot"]) == (
        servers[name],
        "anew",
        "configdrive",
        "1",
    )
    assert len(qemu_processes(servers[name])) == 1
    assert real.claims() == claims


def test_a_stopped_guest_is_rebuilt_and_stays_stopped(real: Cloud, servers: dict[str, str]) -> None:
    client, name = real.client("demo"), "real-east"
    client.ok(f"server stop {name}")
    wait_for_status(client, name, "SHUTOFF")

    client.ok(f"server rebuild --image tiny {name}")

    wait_until(lambda: not has_task(client, name), what="end of the rebuild", deadline_s=DEADLINE_S, every_s=0.5)
    wait_for_status(client, name, "SHUTOFF")
    assert qemu_processes(servers[name]) == []
    client.ok(f"server start {name}")
    wait_for_status(client, name, "ACTIVE")


def has_task(client: Client, server: str) -> bool:
    return client.json(f"server show {server}")["OS-EXT-STS:task_state"] is not None


def test_no_password_without_an_agent_in_the_guest(real: Cloud, servers: dict[str, str]) -> None:
    client, name = real.client("demo"), "real-east"

    assert "Failed to set admin password" in client.refused(f"server set --password correct-horse {name}")

    wait_for_status(client, name, "ACTIVE")


def kill_and_await(cloud: Cloud, program: str) -> None:
    """Ends the program as the kernel does when memory is short; returns when its supervisor has started another."""
    process = identity.running(cloud.state.pid_file(program))
    assert process is not None
    identity.send(process, signal.SIGKILL)
    wait_until(lambda: is_anew(cloud, program, process), what=f"new {program}", deadline_s=60.0)


def test_an_agent_killed_in_the_midst_of_an_image_and_of_a_rebuild_ends_both(
    real: Cloud, servers: dict[str, str]
) -> None:
    client, name = real.client("demo"), "real-west"
    processes = qemu_processes(servers[name])
    client.ok(f"server image create --name torn {name}")
    wait_until(lambda: has_task(client, name), what="image under way", deadline_s=DEADLINE_S, every_s=0.05)
    kill_and_await(real, "compute-west-1")
    wait_until(lambda: not has_task(client, name), what="end of the image", deadline_s=DEADLINE_S, every_s=0.5)
    wait_for_status(client, name, "ACTIVE")
    assert client.json("image show torn")["status"] == "active"
    assert qemu_processes(servers[name]) == processes, "the guest went on"
    client.ok("image delete torn")

    boots = boots_of(client, name)
    client.ok(f"server rebuild --image tiny {name}")
    kill_and_await(real, "compute-west-1")
    wait_until(lambda: not has_task(client, name), what="end of the rebuild", deadline_s=DEADLINE_S, every_s=0.5)
    wait_for_status(client, name, "ACTIVE")
    assert wait_for_boots(client, name, boots + 1)["boot"] == "1"
    assert len(qemu_processes(servers[name])) == 1
    left = [path for path in real.state.hosts.rglob("snapshots/*") if path.is_file()]
    assert left == []


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
        kill_and_await(real, program)

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

    assert_no_trace(real, set(servers.values()))


def assert_no_trace(real: Cloud, ids: set[str]) -> None:
    """No row, claim, domain, process or file of these servers is left."""
    wait_until(lambda: not real.leftovers(ids), what="end of all traces", deadline_s=DEADLINE_S, every_s=0.5)
    for server in ids:
        assert qemu_processes(server) == []
        # Its fence stays for a week: it refuses orders that are late.
        left = [path for path in real.state.hosts.rglob(f"*{server}*") if path.parent.name != "fences"]
        assert left == []
