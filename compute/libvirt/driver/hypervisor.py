"""One host with libvirt, from its facets."""

import pathlib
from collections.abc import Callable

from oslo_config import cfg

from compute.hypervisor.consoles import Consoles
from compute.hypervisor.devices import Devices
from compute.hypervisor.disks import Disks
from compute.hypervisor.guests import Guests
from compute.hypervisor.hypervisor import Capacity
from compute.hypervisor.operating_system import OperatingSystem
from compute.hypervisor.power import Power
from compute.hypervisor.snapshots import Snapshots
from compute.libvirt.driver.consoles import LibvirtConsoles
from compute.libvirt.driver.context import LibvirtContext
from compute.libvirt.driver.devices import LibvirtDevices
from compute.libvirt.driver.disks import LibvirtDisks
from compute.libvirt.driver.guests import LibvirtGuests
from compute.libvirt.driver.operating_system import LibvirtOperatingSystem
from compute.libvirt.driver.power import LibvirtPower
from compute.libvirt.driver.snapshots import LibvirtSnapshots


def libvirt_hypervisor(conf: cfg.ConfigOpts) -> "LibvirtHypervisor":
    """The driver as the settings describe it."""
    path = pathlib.Path(conf.libvirt.instances_path or pathlib.Path(conf.state_path) / "instances")
    return LibvirtHypervisor(conf.libvirt, path.absolute())


class LibvirtHypervisor:
    """One host with libvirt.

    Args:
        settings: the group `libvirt`.
        instances: directory of the guests' files.

    Raises:
        Invalid: the settings contradict each other.
    """

    wants_image_files = True

    def __init__(self, settings: cfg.ConfigOpts, instances: pathlib.Path) -> None:
        context = LibvirtContext(settings, instances)
        power = LibvirtPower(context)
        self.context = context
        self.guests: Guests = LibvirtGuests(context)
        self.power: Power = power
        self.disks: Disks = LibvirtDisks(context, power)
        self.devices: Devices = LibvirtDevices(context)
        self.snapshots: Snapshots = LibvirtSnapshots(context)
        self.consoles: Consoles = LibvirtConsoles(context)
        self.operating_system: OperatingSystem = LibvirtOperatingSystem(context)

    def open(self, changed: Callable[[], None]) -> None:
        self.context.open(changed)

    def close(self) -> None:
        self.context.close()

    def capacity(self) -> Capacity:
        return self.context.facts.capacity(self.context.libvirt)
