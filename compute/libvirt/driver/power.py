"""Guests run and stop."""

import core.log
from compute.deadline import Deadline
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
            self._context.libvirt.unpause(uuid, deadline)
        elif seen.power_state != states.RUNNING:
            boot(self._context, seen, deadline)
        return self._context.as_it_is(uuid, deadline)

    def stop(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._context.known(uuid, deadline)
        if seen.saved:
            self._context.libvirt.drop_saved(uuid, deadline)
        if seen.power_state == states.POWER_PAUSED:
            # Frozen it cannot hear the button.
            self._context.libvirt.unpause(uuid, deadline)
        if seen.has_process and not shut_down(self._context.libvirt, uuid, deadline, patience_s=self._patience_s):
            LOG.warning("a guest did not shut down and is powered off %s", deadline.about(uuid))
            self._context.libvirt.cut_off(uuid, deadline)
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
        self._context.libvirt.pause(uuid, deadline)
        return self._context.as_it_is(uuid, deadline)

    def unpause(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._context.known(uuid, deadline)
        if seen.power_state == states.RUNNING:
            return as_guest(seen)
        if seen.power_state != states.POWER_PAUSED:
            raise wrong_state(seen, "be unpaused")
        self._context.libvirt.unpause(uuid, deadline)
        return self._context.as_it_is(uuid, deadline)

    def suspend(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._context.known(uuid, deadline)
        if seen.saved:
            return as_guest(seen)
        if not seen.has_process:
            raise wrong_state(seen, "be suspended")
        self._context.libvirt.save(uuid, deadline)
        return self._context.as_it_is(uuid, deadline)

    def resume(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._context.known(uuid, deadline)
        if seen.power_state == states.RUNNING:
            return as_guest(seen)
        if not seen.saved:
            raise wrong_state(seen, "be resumed")
        self._context.libvirt.create(uuid, deadline)
        return self._context.as_it_is(uuid, deadline)
