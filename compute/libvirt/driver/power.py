"""Guests run and stop."""

import core.log
from compute.deadline import Deadline
from compute.libvirt import domain_power
from compute.libvirt.driver.boot import boot, own_disks_again, switched_off
from compute.libvirt.driver.context import LibvirtContext, as_guest, wrong_state
from compute.libvirt.graceful import reboot, shut_down
from lifecycle import states
from objects.build import Guest

LOG = core.log.get(__name__)


class LibvirtPower:
    """See `compute.hypervisor.power`."""

    def __init__(self, context: LibvirtContext) -> None:
        self._context = context
        self._patience_s: float = context.settings.shutdown_timeout_s

    def start(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._context.known(uuid, deadline)
        if seen.power_state == states.POWER_PAUSED:
            domain_power.unpause(self._context.libvirt, uuid, deadline)
        elif seen.power_state != states.RUNNING:
            boot(self._context, seen, deadline)
        return self._context.as_it_is(uuid, deadline)

    def stop(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._context.known(uuid, deadline)
        if seen.saved:
            domain_power.drop_saved(self._context.libvirt, uuid, deadline)
        if seen.power_state == states.POWER_PAUSED:
            # Frozen it cannot hear the button.
            domain_power.unpause(self._context.libvirt, uuid, deadline)
        if seen.has_process and not shut_down(self._context.libvirt, uuid, deadline, patience_s=self._patience_s):
            LOG.warning("a guest did not shut down and is powered off %s", deadline.about(uuid))
            domain_power.cut_off(self._context.libvirt, uuid, deadline)
        return self._context.as_it_is(uuid, deadline)

    def reboot(self, uuid: str, *, hard: bool, deadline: Deadline) -> Guest:
        seen = self._context.known(uuid, deadline)
        if not hard and seen.power_state != states.RUNNING:
            raise wrong_state(seen, "be rebooted softly")
        if not hard and reboot(self._context.libvirt, uuid, deadline, patience_s=self._patience_s):
            return self._context.as_it_is(uuid, deadline)
        off = switched_off(self._context, seen, deadline)
        own_disks_again(self._context, self._context.directory(seen), uuid, deadline)
        boot(self._context, off, deadline)
        return self._context.as_it_is(uuid, deadline)

    def pause(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._context.known(uuid, deadline)
        if seen.power_state == states.POWER_PAUSED:
            return as_guest(seen)
        if seen.power_state != states.RUNNING:
            raise wrong_state(seen, "be paused")
        domain_power.pause(self._context.libvirt, uuid, deadline)
        return self._context.as_it_is(uuid, deadline)

    def unpause(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._context.known(uuid, deadline)
        if seen.power_state == states.RUNNING:
            return as_guest(seen)
        if seen.power_state != states.POWER_PAUSED:
            raise wrong_state(seen, "be unpaused")
        domain_power.unpause(self._context.libvirt, uuid, deadline)
        return self._context.as_it_is(uuid, deadline)

    def suspend(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._context.known(uuid, deadline)
        if seen.saved:
            return as_guest(seen)
        if not seen.has_process:
            raise wrong_state(seen, "be suspended")
        domain_power.save(self._context.libvirt, uuid, deadline)
        return self._context.as_it_is(uuid, deadline)

    def resume(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._context.known(uuid, deadline)
        if seen.power_state == states.RUNNING:
            return as_guest(seen)
        if not seen.saved:
            raise wrong_state(seen, "be resumed")
        domain_power.create(self._context.libvirt, uuid, deadline)
        return self._context.as_it_is(uuid, deadline)
