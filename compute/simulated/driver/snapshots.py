"""Empty images of simulated guests."""

import pathlib
import struct

from compute import private
from compute.deadline import Deadline
from compute.simulated.driver.context import SimulatedContext


class SimulatedSnapshots:
    """See `compute.hypervisor.snapshots`."""

    def __init__(self, context: SimulatedContext) -> None:
        self._context = context

    def take(self, uuid: str, *, target: pathlib.Path, deadline: Deadline) -> None:
        guest = self._context.ready(uuid, deadline)
        # The header of an empty qcow2 image of this size: what checks formats takes it.
        size_bytes = (guest.disk_gib or 1) * 1024**3
        private.write(target, struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, size_bytes, 0, 0, 0, 0, 0, 0, 0))
