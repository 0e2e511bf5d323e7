"""One simulated host, from its facets."""

import pathlib
from collections.abc import Callable

from oslo_config import cfg

import core.errors
from compute.hypervisor.consoles import Consoles
from compute.hypervisor.devices import Devices
from compute.hypervisor.disks import Disks
from compute.hypervisor.guests import Guests
from compute.hypervisor.hypervisor import Capacity
from compute.hypervisor.operating_system import OperatingSystem
from compute.hypervisor.power import Power
from compute.hypervisor.snapshots import Snapshots
from compute.simulated.driver.consoles import SimulatedConsoles
from compute.simulated.driver.context import SimulatedContext
from compute.simulated.driver.devices import SimulatedDevices
from compute.simulated.driver.disks import SimulatedDisks
from compute.simulated.driver.guests import SimulatedGuests
from compute.simulated.driver.operating_system import SimulatedOperatingSystem
from compute.simulated.driver.power import SimulatedPower
from compute.simulated.driver.snapshots import SimulatedSnapshots

_HYPERVISOR_VERSION = 1000000


def simulated(conf: cfg.ConfigOpts) -> "SimulatedHypervisor":
    """The driver as the settings describe it."""
    settings = conf.simulated
    root = pathlib.Path(settings.path) if settings.path else pathlib.Path(conf.state_path) / "simulated"
    return SimulatedHypervisor(
        root / conf.host,
        vcpus=settings.vcpus,
        memory_mib=settings.memory_mib,
        disk_gib=settings.disk_gib,
        spawn_s=settings.spawn_s,
        wants_image_files=settings.fetch_images,
    )


class SimulatedHypervisor:
    """One host's guests below `directory`; `directory/dial.json` sets latencies and faults."""

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        vcpus: int = 64,
        memory_mib: int = 262144,
        disk_gib: int = 4096,
        spawn_s: float = 0.0,
        wants_image_files: bool = False,
    ) -> None:
        context = SimulatedContext(directory)
        self.directory = directory
        self.files = context.files
        self.wants_image_files = wants_image_files
        self.guests: Guests = SimulatedGuests(context, spawn_s=spawn_s)
        self.power: Power = SimulatedPower(context)
        self.disks: Disks = SimulatedDisks(context)
        self.devices: Devices = SimulatedDevices(context)
        self.snapshots: Snapshots = SimulatedSnapshots(context)
        self.consoles: Consoles = SimulatedConsoles(context)
        self.operating_system: OperatingSystem = SimulatedOperatingSystem(context)
        self._context = context
        self._capacity = Capacity(
            hypervisor_type="simulated",
            hypervisor_version=_HYPERVISOR_VERSION,
            vcpus=vcpus,
            memory_mib=memory_mib,
            disk_gib=disk_gib,
            cpu_info={
                "vendor": "Cellplane",
                "model": "simulated",
                "arch": "x86_64",
                "topology": {"sockets": 1, "cores": vcpus, "threads": 1},
                "features": [],
            },
            traits=("COMPUTE_IMAGE_TYPE_QCOW2", "COMPUTE_IMAGE_TYPE_RAW", "COMPUTE_NODE"),
        )

    def open(self, changed: Callable[[], None]) -> None:
        try:
            self.files.prepare()
        except OSError as error:
            message = f"[simulated] path: {self.directory} cannot be made: {error.strerror or error}"
            raise core.errors.Invalid(message, field="path") from error

    def close(self) -> None:
        pass

    def capacity(self) -> Capacity:
        self._context.setting()
        return self._capacity
