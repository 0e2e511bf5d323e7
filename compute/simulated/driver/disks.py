"""Simulated guests are rebuilt and rescued; they have no disks."""

import pathlib

import msgspec

from compute.deadline import Deadline
from compute.simulated.driver.context import SimulatedContext
from compute.simulated.guests import new_guest
from lifecycle import states
from objects.build import BuildSpec, Guest


class SimulatedDisks:
    """See `compute.hypervisor.disks`."""

    def __init__(self, context: SimulatedContext) -> None:
        self._context = context

    def images_in_use(self) -> set[pathlib.Path]:
        return set()

    def rebuild(self, spec: BuildSpec, *, image: pathlib.Path | None, deadline: Deadline) -> Guest:
        guest = self._context.ready(spec.uuid, deadline)
        fresh = new_guest(spec, guest.attempt)
        rebuilt = msgspec.structs.replace(fresh, events=guest.events, disks=guest.disks, nics=guest.nics)
        return self._context.change(rebuilt, states.RUNNING, "boot")

    def rescue(self, uuid: str, *, image: pathlib.Path | None, disk_format: str, deadline: Deadline) -> Guest:
        guest = self._context.ready(uuid, deadline)
        if guest.rescued and guest.power_state == states.RUNNING:
            return guest.as_guest()
        return self._context.change(msgspec.structs.replace(guest, rescued=True), states.RUNNING, "boot")

    def unrescue(self, uuid: str, *, deadline: Deadline) -> Guest:
        guest = self._context.ready(uuid, deadline)
        if not guest.rescued and guest.power_state == states.RUNNING:
            return guest.as_guest()
        return self._context.change(msgspec.structs.replace(guest, rescued=False), states.RUNNING, "boot")
