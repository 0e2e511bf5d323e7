"""Simulated guests run and stop."""

import msgspec

from compute.deadline import Deadline
from compute.simulated.driver.context import SimulatedContext, wrong_state
from compute.simulated.guests import with_event
from lifecycle import states
from objects.build import Guest


class SimulatedPower:
    """See `compute.hypervisor.power`."""

    def __init__(self, context: SimulatedContext) -> None:
        self._context = context

    def start(self, uuid: str, *, deadline: Deadline) -> Guest:
        guest = self._context.ready(uuid, deadline)
        if guest.power_state == states.RUNNING:
            return guest.as_guest()
        event = "unpause" if guest.power_state == states.POWER_PAUSED else "restore" if guest.saved else "boot"
        return self._context.change(guest, states.RUNNING, event)

    def stop(self, uuid: str, *, deadline: Deadline) -> Guest:
        guest = self._context.ready(uuid, deadline)
        if guest.power_state == states.SHUTDOWN and not guest.saved:
            return guest.as_guest()
        return self._context.change(guest, states.SHUTDOWN, "drop" if guest.saved else "shutdown")

    def reboot(self, uuid: str, *, hard: bool, deadline: Deadline) -> Guest:
        guest = self._context.ready(uuid, deadline)
        if not hard and guest.power_state != states.RUNNING:
            raise wrong_state(guest, "be rebooted softly")
        if not hard:
            return self._context.change(with_event(guest, "shutdown"), states.RUNNING, "reset")
        return self._context.change(msgspec.structs.replace(guest, rescued=False), states.RUNNING, "reset")

    def pause(self, uuid: str, *, deadline: Deadline) -> Guest:
        guest = self._context.ready(uuid, deadline)
        if guest.power_state == states.POWER_PAUSED:
            return guest.as_guest()
        if guest.power_state != states.RUNNING:
            raise wrong_state(guest, "be paused")
        return self._context.change(guest, states.POWER_PAUSED, "pause")

    def unpause(self, uuid: str, *, deadline: Deadline) -> Guest:
        guest = self._context.ready(uuid, deadline)
        if guest.power_state == states.RUNNING:
            return guest.as_guest()
        if guest.power_state != states.POWER_PAUSED:
            raise wrong_state(guest, "be unpaused")
        return self._context.change(guest, states.RUNNING, "unpause")

    def suspend(self, uuid: str, *, deadline: Deadline) -> Guest:
        guest = self._context.ready(uuid, deadline)
        if guest.saved:
            return guest.as_guest()
        if guest.power_state not in (states.RUNNING, states.POWER_PAUSED):
            raise wrong_state(guest, "be suspended")
        return self._context.change(guest, states.SHUTDOWN, "save", saved=True)

    def resume(self, uuid: str, *, deadline: Deadline) -> Guest:
        guest = self._context.ready(uuid, deadline)
        if guest.power_state == states.RUNNING:
            return guest.as_guest()
        if not guest.saved:
            raise wrong_state(guest, "be resumed")
        return self._context.change(guest, states.RUNNING, "restore")
