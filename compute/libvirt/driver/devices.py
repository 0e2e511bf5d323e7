"""Disks and network cards come to a guest and go."""

import core.errors
from compute.deadline import Deadline
from compute.hypervisor.devices import DiskToAttach, NicToAttach
from compute.libvirt import hotplug
from compute.libvirt.domain_xml_edits import attached_disk, attached_nic
from compute.libvirt.domains import Seen
from compute.libvirt.driver.context import LibvirtContext


class LibvirtDevices:
    """See `compute.hypervisor.devices`."""

    def __init__(self, context: LibvirtContext) -> None:
        self._context = context

    def attach_disk(self, uuid: str, disk: DiskToAttach, *, deadline: Deadline) -> str:
        seen = self._changeable(uuid, deadline)
        return hotplug.attach_disk(self._context.libvirt, seen, disk, deadline, is_live=seen.has_process)

    def detach_disk(self, uuid: str, volume_id: str, *, deadline: Deadline) -> None:
        self._detach(uuid, lambda document: attached_disk(document, volume_id), deadline)

    def attach_nic(self, uuid: str, nic: NicToAttach, *, deadline: Deadline) -> None:
        seen = self._changeable(uuid, deadline)
        hotplug.attach_nic(self._context.libvirt, seen, nic, deadline, is_live=seen.has_process)

    def detach_nic(self, uuid: str, mac: str, *, deadline: Deadline) -> None:
        self._detach(uuid, lambda document: attached_nic(document, mac), deadline)

    def _changeable(self, uuid: str, deadline: Deadline) -> Seen:
        """The guest, if devices can be attached to it and detached."""
        seen = self._context.known(uuid, deadline)
        if seen.saved:
            raise core.errors.WrongState("The devices of a guest whose state is saved cannot change", server=uuid)
        if self._context.directory(seen).own_document.exists():
            raise core.errors.WrongState("The devices of a rescued guest cannot change", server=uuid)
        return seen

    def _detach(self, uuid: str, find: hotplug.Find, deadline: Deadline) -> None:
        seen = self._changeable(uuid, deadline)
        patience_s = self._context.settings.detach_timeout_s
        hotplug.detach(self._context.libvirt, seen, find, deadline, is_live=seen.has_process, patience_s=patience_s)
