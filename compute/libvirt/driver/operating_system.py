"""What a guest's agent and its kernel are asked for."""

import core.errors
from compute.deadline import Deadline
from compute.libvirt import domain_power, guest_agent
from compute.libvirt.driver.context import LibvirtContext, wrong_state
from lifecycle import states


class LibvirtOperatingSystem:
    """See `compute.hypervisor.operating_system`."""

    def __init__(self, context: LibvirtContext) -> None:
        self._context = context

    def set_password(self, uuid: str, *, user: str, password: str, deadline: Deadline) -> None:
        seen = self._context.known(uuid, deadline)
        if seen.power_state != states.RUNNING:
            raise wrong_state(seen, "be given a password")
        if not guest_agent.set_password(self._context.libvirt, uuid, user, password, deadline):
            raise core.errors.Conflict("The guest's agent does not answer", server=uuid)

    def inject_nmi(self, uuid: str, *, deadline: Deadline) -> None:
        seen = self._context.known(uuid, deadline)
        if seen.power_state != states.RUNNING:
            raise wrong_state(seen, "be interrupted")
        domain_power.inject_nmi(self._context.libvirt, uuid, deadline)
