"""How a guest fares, before and from 2.48 on."""

from typing import Any

import pytest

import core.errors
from lifecycle import states
from messaging.verbs import cell
from objects.diagnostics import Diagnostics, Disk, Nic
from tests.api.host import host_that_answers
from tests.api.http.harness import ADMIN, ALICE, Reply
from tests.api.small_cloud import SmallCloud

REPLY = Diagnostics(
    driver="libvirt",
    hypervisor="qemu",
    power_state=states.RUNNING,
    vcpus=2,
    cpu_times_ns=[17300000000, 42],
    memory_maximum_mib=512,
    memory_used_mib=256,
    disks=[Disk(name="vda", read_bytes=262144, read_requests=112, write_bytes=5778432, write_requests=488)],
    nics=[
        Nic(
            name="tap1", mac_address="01:23:45:67:89:ab", rx_octets=2070139, rx_packets=26701, rx_errors=100,
            rx_drop=200, tx_octets=140208, tx_packets=662, tx_errors=300, tx_drop=400,
        )
    ],
    has_config_drive=True,
    uptime_s=46664,
)  # fmt: skip


def ask(cloud: SmallCloud, uuid: str, version: str, user: Any = ADMIN) -> Reply:
    return cloud.ask.get(f"/v2.1/servers/{uuid}/diagnostics", version=version, user=user)


@pytest.mark.parametrize("version", ["2.1", "2.47"])
def test_the_free_form(cloud: SmallCloud, version: str) -> None:
    uuid = cloud.running()
    with host_that_answers(cloud, cell.DIAGNOSTICS, REPLY) as asked:
        reply = ask(cloud, uuid, version)

    assert asked == [cell.ServerOnHost(uuid=uuid, host="east-1")]
    assert reply.status == 200
    assert reply.json == {
        "cpu0_time": 17300000000,
        "cpu1_time": 42,
        "memory": 524288,
        "memory-used": 262144,
        "vda_read": 262144,
        "vda_read_req": 112,
        "vda_write": 5778432,
        "vda_write_req": 488,
        "vda_errors": -1,
        "tap1_rx": 2070139,
        "tap1_rx_packets": 26701,
        "tap1_rx_errors": 100,
        "tap1_rx_drop": 200,
        "tap1_tx": 140208,
        "tap1_tx_packets": 662,
        "tap1_tx_errors": 300,
        "tap1_tx_drop": 400,
    }


@pytest.mark.parametrize("version", ["2.48", "2.96"])
def test_the_fixed_form(cloud: SmallCloud, version: str) -> None:
    uuid = cloud.running()
    with host_that_answers(cloud, cell.DIAGNOSTICS, REPLY):
        reply = ask(cloud, uuid, version)

    assert reply.json == {
        "state": "running",
        "driver": "libvirt",
        "hypervisor": "qemu",
        "hypervisor_os": "linux",
        "uptime": 46664,
        "config_drive": True,
        "num_cpus": 2,
        "num_disks": 1,
        "num_nics": 1,
        "cpu_details": [
            {"id": 0, "time": 17300000000, "utilisation": None},
            {"id": 1, "time": 42, "utilisation": None},
        ],
        "memory_details": {"maximum": 512, "used": 256},
        "disk_details": [
            {
                "read_bytes": 262144,
                "read_requests": 112,
                "write_bytes": 5778432,
                "write_requests": 488,
                "errors_count": None,
            }
        ],
        "nic_details": [
            {
                "mac_address": "01:23:45:67:89:ab",
                "rx_octets": 2070139,
                "rx_errors": 100,
                "rx_drop": 200,
                "rx_packets": 26701,
                "rx_rate": None,
                "tx_octets": 140208,
                "tx_errors": 300,
                "tx_drop": 400,
                "tx_packets": 662,
                "tx_rate": None,
            }
        ],
    }


@pytest.mark.parametrize("version", ["2.1", "2.48"])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (core.errors.WrongState("Cannot 'get-diagnostics' instance x while it is in power_state shutdown"), 409),
        (core.errors.NotFound("There is no guest"), 404),
        (core.errors.Unavailable("libvirt is away"), 503),
    ],
    ids=["off", "no guest", "hypervisor away"],
)
def test_what_the_host_refuses(cloud: SmallCloud, version: str, error: core.errors.CellplaneError, status: int) -> None:
    uuid = cloud.running()
    with host_that_answers(cloud, cell.DIAGNOSTICS, error):
        assert ask(cloud, uuid, version).status == status


def test_a_server_without_a_host_is_refused_with_its_state(cloud: SmallCloud) -> None:
    waiting, buried = cloud.created(), cloud.created()
    cloud.bury(buried)

    assert ask(cloud, waiting, "2.48").status == 409 and "scheduling" in ask(cloud, waiting, "2.48").fault
    assert ask(cloud, buried, "2.48").status == 409 and "vm_state error" in ask(cloud, buried, "2.48").fault


def test_admins_only(cloud: SmallCloud) -> None:
    assert ask(cloud, cloud.running(), "2.48", user=ALICE).status == 403
