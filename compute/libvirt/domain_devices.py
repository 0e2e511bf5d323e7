"""Devices that a domain gets and gives back. Each call is about one server, which its caller holds."""

from compute.deadline import Deadline
from compute.libvirt.connection import Libvirt, domain_of
from compute.libvirt.library import libvirt


def attach_device(host: Libvirt, uuid: str, document: str, deadline: Deadline, *, live: bool) -> None:
    """Gives the domain the device: as it runs now, or as it starts next time."""
    flag = _affected(live)
    host.work(
        "attach a device",
        uuid,
        deadline,
        lambda connection: domain_of(connection, uuid).attachDeviceFlags(document, flag),
    )


def detach_device(host: Libvirt, uuid: str, document: str, deadline: Deadline, *, live: bool) -> None:
    """Takes the device from the domain; of one that runs, asks for it: it may take until later, or never happen."""
    flag = _affected(live)
    host.work(
        "detach a device",
        uuid,
        deadline,
        lambda connection: domain_of(connection, uuid).detachDeviceFlags(document, flag),
    )


def _affected(live: bool) -> int:
    return int(libvirt.VIR_DOMAIN_AFFECT_LIVE if live else libvirt.VIR_DOMAIN_AFFECT_CONFIG)
