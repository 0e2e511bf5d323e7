"""How a guest is switched off, gets its own disks back, and starts."""

import dataclasses
import functools

from compute.deadline import Deadline
from compute.libvirt.connection import Seen
from compute.libvirt.driver.context import LibvirtContext, disk_errors
from compute.libvirt.instance_dirs import InstanceDirectory


def switched_off(context: LibvirtContext, seen: Seen, deadline: Deadline) -> Seen:
    """Ends the guest's process and drops its saved memory; gives the guest as it is then, but for its power state."""
    if seen.saved:
        context.libvirt.drop_saved(seen.uuid, deadline)
    context.libvirt.cut_off(seen.uuid, deadline)
    return dataclasses.replace(seen, saved=False)


def boot(context: LibvirtContext, seen: Seen, deadline: Deadline) -> None:
    """Starts a guest that is off."""
    if not seen.saved:
        documents = functools.partial(context.libvirt.documents, but=seen.uuid)
        mended = context.reservations.mended(seen.uuid, context.libvirt.document(seen.uuid), documents)
        if mended is not None:
            context.libvirt.define(seen.uuid, mended, deadline)
    context.libvirt.create(seen.uuid, deadline)


def own_disks_again(context: LibvirtContext, directory: InstanceDirectory, uuid: str, deadline: Deadline) -> None:
    """A guest that is off is not rescued any more."""
    if directory.own_document.exists():
        context.libvirt.define(uuid, directory.own_document.read_text(), deadline)
        with disk_errors():
            directory.unrescued()
