"""Images of a guest's disk."""

import pathlib
from typing import Protocol

from compute.deadline import Deadline


class Snapshots(Protocol):
    """Images of the disks of one host's guests."""

    def take(self, uuid: str, *, target: pathlib.Path, deadline: Deadline) -> None:
        """`target` is a qcow2 image of the guest's root disk, as it is when the call begins, that needs no other file.

        A guest that runs goes on meanwhile, whatever becomes of the call and of the agent. Where its agent answers, its
        file systems are in order in the image.
        """
