"""The drivers that the contract holds for: a new one adds a bed here, and the suite is its."""

import pathlib
import uuid
from collections.abc import Iterator
from typing import Protocol

import msgspec
import pytest

from compute.deadline import Deadline
from compute.hypervisor.hypervisor import Hypervisor
from compute.simulated import fault_injection
from compute.simulated.driver.hypervisor import SimulatedHypervisor
from lifecycle import states
from objects.build import BuildSpec, Flavor
from tests.hypervisor.machine import LibvirtBed, Machine, machine, objection


class Bed(Protocol):
    """A hypervisor under test, and what a test must be able to do to it from outside.

    Attributes:
        hypervisor: opened.
        console_kinds: of a guest that runs.
    """

    hypervisor: Hypervisor
    console_kinds: tuple[str, ...]

    def restart(self) -> None:
        """Another agent's driver over the same guests takes the place of the first, which is simply forgotten."""

    def spec(self) -> BuildSpec:
        """A fresh server that this hypervisor can build."""

    def image(self, spec: BuildSpec) -> pathlib.Path | None:
        """The image's file, if the driver wants one."""

    def remains(self, uuid: str) -> list[str]:
        """Whatever of the server is still here: files, definitions, networks."""

    def wait_until_up(self, uuid: str) -> None:
        """The guest has booted."""

    def attached(self, uuid: str) -> set[str]:
        """The volumes and addresses of what is attached, as the hypervisor itself knows it, now and after the next
        start."""

    def slow_down(self) -> None:
        """From now on a spawn takes so long that it can be interrupted."""

    def fail_spawns(self) -> None:
        """From now on a spawn fails at its end."""

    def recover(self) -> None:
        """Ends `slow_down` and `fail_spawns`."""

    def crash(self, uuid: str) -> None:
        """The guest ends by itself."""


class SimulatedBed:
    console_kinds = ()

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self.hypervisor = self._open()

    def restart(self) -> None:
        self.hypervisor = self._open()

    def spec(self) -> BuildSpec:
        name = f"guest-{uuid.uuid4().hex[:6]}"
        flavor = Flavor(flavor_id="1", name="tiny", vcpus=1, memory_mib=96, root_gib=1, swap_mib=1)
        return BuildSpec(uuid=str(uuid.uuid4()), project_id="p", user_id="u", name=name, hostname=name, flavor=flavor)

    def image(self, spec: BuildSpec) -> pathlib.Path | None:
        return None

    def remains(self, uuid: str) -> list[str]:
        return [str(path) for path in self._directory.rglob(f"{uuid}*")]

    def wait_until_up(self, uuid: str) -> None:
        assert "GUEST-READY" in self.hypervisor.consoles.log(uuid)

    def attached(self, uuid: str) -> set[str]:
        guest = self.hypervisor.files.get(uuid)
        assert guest is not None
        return {*guest.disks, *guest.nics}

    def slow_down(self) -> None:
        self._turn(spawn_s=60.0)

    def fail_spawns(self) -> None:
        self._turn(spawn_error="the guest did not come up")

    def recover(self) -> None:
        self._turn()

    def crash(self, uuid: str) -> None:
        files = self.hypervisor.files
        guest = files.get(uuid)
        assert guest is not None
        files.put(msgspec.structs.replace(guest, power_state=states.CRASHED))

    def _turn(self, **settings: object) -> None:
        fault_injection.turn(self._directory, **settings)

    def _open(self) -> SimulatedHypervisor:
        driver = SimulatedHypervisor(self._directory, vcpus=8, memory_mib=4096, disk_gib=100)
        driver.open(lambda: None)
        return driver


@pytest.fixture(scope="session")
def libvirt_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A host's libvirtd in namespaces of its own, shared by all tests."""
    why_not = objection()
    if why_not is not None:
        pytest.skip(why_not)
    with machine(tmp_path_factory.mktemp("libvirt")) as running:
        yield running


@pytest.fixture(params=["simulated", pytest.param("libvirt", marks=pytest.mark.libvirt)])
def bed(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Bed]:
    if request.param == "simulated":
        yield SimulatedBed(tmp_path / "host")
        return
    made = LibvirtBed(request.getfixturevalue("libvirt_machine"), tmp_path / "instances")
    try:
        yield made
    finally:
        made.clear()


@pytest.fixture
def deadline() -> Deadline:
    return Deadline(attempt=1, deadline_s=60.0)
