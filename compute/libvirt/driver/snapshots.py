"""Images of a guest's root disk."""

import pathlib

from compute.deadline import Deadline
from compute.libvirt.driver.context import LibvirtContext, disk_errors
from compute.libvirt.snapshots import live_snapshot


class LibvirtSnapshots:
    """See `compute.hypervisor.snapshots`."""

    def __init__(self, context: LibvirtContext) -> None:
        self._context = context

    def take(self, uuid: str, *, target: pathlib.Path, deadline: Deadline) -> None:
        seen = self._context.known(uuid, deadline)
        directory = self._context.directory(seen)
        with disk_errors():
            if seen.has_process:
                live_snapshot(self._context.libvirt, directory, target=target, deadline=deadline)
            else:
                directory.drop_snapshot()
                directory.copy_root_disk(target, deadline)
