"""A whole cell with a host of real guests whose libvirtd hangs or dies: the host counts as down, builds go elsewhere,
and it comes back."""

import pathlib
import signal
from collections.abc import Callable, Iterator

import pytest

import compute.main
from compute.agent import Agent
from lifecycle import states
from tests.faults.world import World, wait_until
from tests.hypervisor.machine import Machine

pytestmark = [
    pytest.mark.libvirt,
    # Placement's own libraries, called in this process, use what Python is about to drop.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CELL, REAL, OTHER = "east", "east-1", "east-2"


@pytest.fixture
def world(libvirt_machine: Machine, tmp_path: pathlib.Path) -> Iterator[World]:
    """One cell: a host with libvirt, and one whose guests are simulated."""
    world = World(tmp_path, (CELL,))
    text = f"""
[DEFAULT]
host = {REAL}
state_path = {tmp_path}/{REAL}
transport_url = {world.at.of_host(REAL, world.at.brokers[CELL])}
[compute]
driver = libvirt
report_interval_s = 0.5
[libvirt]
uri = {libvirt_machine.host.uri}
log_path = {libvirt_machine.host.log_path}
virt_type = qemu
call_deadline_s = 1
"""
    try:
        world.start("conductor", world.cell_conductor(CELL))
        world.start("real", Agent(world.configure(f"compute-{REAL}", compute.main.options(), text)))
        world.start("other", world.agent(CELL, OTHER))
        world.start("super", world.super_conductor())
        yield world
    finally:
        world.stop()


def hosts_up(world: World) -> set[str]:
    return {host.host for host in world.programs["super"].view.snapshot() if host.up}


def freeze(machine: Machine) -> None:
    assert machine.daemon is not None
    machine.daemon.send_signal(signal.SIGSTOP)


def thaw(machine: Machine) -> None:
    assert machine.daemon is not None
    machine.daemon.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("leave", "come_back"), [(freeze, thaw), (Machine.kill_daemon, Machine.start_daemon)], ids=["frozen", "killed"]
)
def test_a_host_whose_libvirtd_is_away_is_down_until_it_is_back(
    world: World, libvirt_machine: Machine, leave: Callable[[Machine], None], come_back: Callable[[Machine], None]
) -> None:
    wait_until(lambda: hosts_up(world) == {REAL, OTHER}, "every host is up")

    leave(libvirt_machine)
    try:
        wait_until(lambda: hosts_up(world) == {OTHER}, "the host is taken for down")
        servers = world.accept("one", "two")
        world.wait_for(servers, states.BUILD_ACTIVE)
        assert {row.host for _, row in world.instances().values()} == {OTHER}
    finally:
        come_back(libvirt_machine)

    wait_until(lambda: hosts_up(world) == {REAL, OTHER}, "the host is up again")
