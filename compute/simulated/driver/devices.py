"""Disks and network cards of simulated guests: their names in the guest's file."""

import string

import msgspec

import core.errors
from compute.deadline import Deadline
from compute.hypervisor.devices import DiskToAttach, NicToAttach
from compute.simulated.driver.context import SimulatedContext
from compute.simulated.guests import SimulatedGuest
from lifecycle import states

_LETTERS = len(string.ascii_lowercase)


class SimulatedDevices:
    """See `compute.hypervisor.devices`."""

    def __init__(self, context: SimulatedContext) -> None:
        self._context = context

    def attach_disk(self, uuid: str, disk: DiskToAttach, *, deadline: Deadline) -> str:
        guest = self._changeable(uuid, deadline)
        if disk.volume_id not in guest.disks:
            guest = msgspec.structs.replace(guest, disks=(*guest.disks, disk.volume_id))
            self._context.files.put(guest)
        return disk_name(guest.disks.index(disk.volume_id) + 1)

    def detach_disk(self, uuid: str, volume_id: str, *, deadline: Deadline) -> None:
        guest = self._changeable(uuid, deadline)
        if volume_id in guest.disks:
            self._let_go(guest)
            disks = tuple(disk for disk in guest.disks if disk != volume_id)
            self._context.files.put(msgspec.structs.replace(guest, disks=disks))

    def attach_nic(self, uuid: str, nic: NicToAttach, *, deadline: Deadline) -> None:
        guest = self._changeable(uuid, deadline)
        if nic.mac not in guest.nics:
            self._context.files.put(msgspec.structs.replace(guest, nics=(*guest.nics, nic.mac)))

    def detach_nic(self, uuid: str, mac: str, *, deadline: Deadline) -> None:
        guest = self._changeable(uuid, deadline)
        if mac in guest.nics:
            self._let_go(guest)
            nics = tuple(nic for nic in guest.nics if nic != mac)
            self._context.files.put(msgspec.structs.replace(guest, nics=nics))

    def _changeable(self, uuid: str, deadline: Deadline) -> SimulatedGuest:
        guest = self._context.ready(uuid, deadline)
        if guest.saved or guest.rescued:
            raise core.errors.WrongState("The devices of a guest that is saved or rescued cannot change", server=uuid)
        return guest

    def _let_go(self, guest: SimulatedGuest) -> None:
        is_running = guest.power_state == states.RUNNING
        is_stubborn = is_running and self._context.setting(guest.uuid, guest.name).keeps_devices
        # A guest that is frozen hears nothing.
        if is_stubborn or guest.power_state == states.POWER_PAUSED:
            raise core.errors.Conflict("The guest does not release the device", server=guest.uuid)


def disk_name(number: int) -> str:
    """The name under which the guest is offered its disk of this number; 0 is the root disk."""
    return f"vd{string.ascii_lowercase[number % _LETTERS]}"
