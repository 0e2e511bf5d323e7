"""The power of a domain: started, stopped, frozen, saved. Each call is about one server, which its caller holds."""

from typing import Any

from compute.deadline import Deadline
from compute.libvirt.connection import Libvirt, domain_of
from compute.libvirt.library import libvirt


def create(host: Libvirt, uuid: str, deadline: Deadline) -> None:
    """Starts the domain; from its saved memory, if there is one."""
    host.work("start a guest", uuid, deadline, lambda connection: domain_of(connection, uuid).create())


def press_power_button(host: Libvirt, uuid: str, deadline: Deadline) -> None:
    """Asks the guest to shut itself down; returns before it does."""
    flag = libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
    host.work("shut a guest down", uuid, deadline, lambda connection: domain_of(connection, uuid).shutdownFlags(flag))


def ask_to_reboot(host: Libvirt, uuid: str, deadline: Deadline) -> None:
    """Asks the guest to shut itself down, upon which it starts again; returns before it does."""
    flag = libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
    host.work("reboot a guest", uuid, deadline, lambda connection: domain_of(connection, uuid).reboot(flag))


def cut_off(host: Libvirt, uuid: str, deadline: Deadline) -> None:
    """Ends the domain's process, if it has one."""
    host.work("cut a guest off", uuid, deadline, lambda connection: _cut_off(domain_of(connection, uuid)))


def pause(host: Libvirt, uuid: str, deadline: Deadline) -> None:
    """Freezes the domain."""
    host.work("pause a guest", uuid, deadline, lambda connection: domain_of(connection, uuid).suspend())


def unpause(host: Libvirt, uuid: str, deadline: Deadline) -> None:
    """Lets the domain go on."""
    host.work("unpause a guest", uuid, deadline, lambda connection: domain_of(connection, uuid).resume())


def save(host: Libvirt, uuid: str, deadline: Deadline) -> None:
    """Writes the domain's memory to disk and ends its process.

    It will go on running, whether it is paused now or not.
    """
    flag = libvirt.VIR_DOMAIN_SAVE_RUNNING
    host.work("suspend a guest", uuid, deadline, lambda connection: domain_of(connection, uuid).managedSave(flag))


def drop_saved(host: Libvirt, uuid: str, deadline: Deadline) -> None:
    """Forgets the saved memory, if there is one."""
    host.work("drop a guest's saved state", uuid, deadline, lambda connection: _drop_saved(domain_of(connection, uuid)))


def inject_nmi(host: Libvirt, uuid: str, deadline: Deadline) -> None:
    """Interrupts the guest."""
    host.work("interrupt a guest", uuid, deadline, lambda connection: domain_of(connection, uuid).injectNMI())


def _cut_off(domain: Any) -> None:
    if domain.isActive():
        domain.destroy()


def _drop_saved(domain: Any) -> None:
    if domain.hasManagedSaveImage():
        domain.managedSaveRemove()
