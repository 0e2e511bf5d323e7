"""What an agent that crashed had begun, and the next one removes once, when it first looks at the guests."""

import threading

import core.errors
import core.log
from compute.deadline import Deadline
from compute.libvirt.domains import Seen
from compute.libvirt.driver.context import LibvirtContext, disk_errors
from compute.libvirt.instance_dirs import InstanceDirectory
from compute.libvirt.snapshots import drop_leftovers
from core.log import about

LOG = core.log.get(__name__)


class Leftovers:
    """Finds and removes them.

    They are directories of guests that were never given to libvirt; snapshots that nobody finishes.

    Attributes:
        is_swept: whether this agent has removed them.
    """

    def __init__(self, context: LibvirtContext) -> None:
        self.is_swept = False
        self._context = context
        self._sweeping = threading.Lock()
        self._begun: set[InstanceDirectory] = set()

    def begin(self, directory: InstanceDirectory) -> None:
        """Begins a guest in its directory; a sweep that runs at the same time leaves it alone."""
        with self._sweeping:
            self._begun.add(directory)
        directory.begin()

    def sweep(self, guests: list[Seen]) -> None:
        """Removes what an agent that crashed had begun: guests never given to libvirt, snapshots."""
        uuids = {seen.uuid for seen in guests}
        with self._sweeping, disk_errors():
            for directory in self._context.directories.all():
                if directory.is_building and directory.uuid not in uuids and directory not in self._begun:
                    LOG.info("a leftover is removed %s", about(server=directory.uuid, attempt=directory.attempt))
                    directory.clear()
            for directory in map(self._context.directory, guests):
                self._end_snapshot(directory)
            self.is_swept = True
            self._begun.clear()

    def _end_snapshot(self, directory: InstanceDirectory) -> None:
        deadline = Deadline(attempt=directory.attempt, deadline_s=self._context.settings.call_deadline_s)
        try:
            drop_leftovers(self._context.libvirt, directory, deadline)
        except core.errors.CellplaneError as error:
            # One guest that does not answer must not make the host fall silent; the next snapshot tries again.
            LOG.warning("files of a snapshot are not removed yet %s why=%s", deadline.about(directory.uuid), error)
