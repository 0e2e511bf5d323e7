"""How a guest is switched off, gets its own disks back, and starts."""

import dataclasses
import functools

from compute.deadline import Deadline
from compute.libvirt import domain_power, domains
from compute.libvirt.domains import Seen
from compute.libvirt.driver.context import LibvirtContext, disk_errors
from compute.libvirt.instance_dirs import InstanceDirectory


def switched_off(context: LibvirtContext, seen: Seen, deadline: Deadline) -> Seen:
    """Ends the guest's process and drops its saved memory; gives the guest as it is then, but for its power state."""
    if seen.saved:
        domain_power.drop_saved(context.libvirt, seen.uuid, deadline)
    domain_power.cut_off(context.libvirt, seen.uuid, deadline)
    return dataclasses.replace(seen, saved=False)


def boot(context: LibvirtContext, seen: Seen, deadline: Deadline) -> None:
    """Starts a guest that is off."""
    if not seen.saved:
        documents = functools.partial(domains.documents, context.libvirt, but=seen.uuid)
        mended = context.reservations.mended(seen.uuid, domains.document(context.libvirt, seen.uuid), documents)
        if mended is not None:
            domains.define(context.libvirt, seen.uuid, mended, deadline)
    domain_power.create(context.libvirt, seen.uuid, deadline)


def own_disks_again(context: LibvirtContext, directory: InstanceDirectory, uuid: str, deadline: Deadline) -> None:
    """A guest that is off is not rescued any more."""
    if directory.own_document.exists():
        domains.define(context.libvirt, uuid, directory.own_document.read_text(), deadline)
        with disk_errors():
            directory.unrescued()
