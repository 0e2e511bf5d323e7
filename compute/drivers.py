"""From the name of a driver in the settings to the driver."""

from collections.abc import Callable

from oslo_config import cfg

import core.errors
from compute.hypervisor.hypervisor import Hypervisor
from compute.libvirt.driver.hypervisor import libvirt_hypervisor
from compute.simulated.driver.hypervisor import simulated

DRIVERS: dict[str, Callable[[cfg.ConfigOpts], Hypervisor]] = {"libvirt": libvirt_hypervisor, "simulated": simulated}


def driver(conf: cfg.ConfigOpts) -> Hypervisor:
    """The driver that `[compute] driver` names, not opened yet.

    Raises:
        Invalid: there is no such driver.
    """
    name = conf.compute.driver
    if name not in DRIVERS:
        raise core.errors.Invalid(
            f"[compute] driver {name!r} is not one of: {', '.join(sorted(DRIVERS))}", field="driver"
        )
    return DRIVERS[name](conf)
