"""What simulated guests are asked for inside: noted only."""

from compute.deadline import Deadline
from compute.simulated.driver.context import SimulatedContext, wrong_state
from compute.simulated.guests import with_event
from lifecycle import states


class SimulatedOperatingSystem:
    """See `compute.hypervisor.operating_system`."""

    def __init__(self, context: SimulatedContext) -> None:
        self._context = context

    def set_password(self, uuid: str, *, user: str, password: str, deadline: Deadline) -> None:
        guest = self._context.ready(uuid, deadline)
        if guest.power_state != states.RUNNING:
            raise wrong_state(guest, "be given a password")
        self._context.files.put(with_event(guest, "password"))

    def inject_nmi(self, uuid: str, *, deadline: Deadline) -> None:
        guest = self._context.ready(uuid, deadline)
        if guest.power_state != states.RUNNING:
            raise wrong_state(guest, "be interrupted")
        self._context.files.put(with_event(guest, "nmi"))
