"""The disks that a guest is made with, and the images below them."""

import pathlib
from typing import Protocol

from compute.deadline import Deadline
from objects.build import BuildSpec, Guest


class Disks(Protocol):
    """The disks of one host's guests."""

    def images_in_use(self) -> set[pathlib.Path]:
        """The images that were given to `Guests.spawn`, `rebuild` and `rescue` and that a guest's disks still need."""

    def rebuild(self, spec: BuildSpec, *, image: pathlib.Path | None, deadline: Deadline) -> Guest:
        """The guest of the same attempt runs with disks made anew of this specification; its console log goes on.

        Raises:
            Invalid: as for `Guests.spawn`; the guest is as it was.
        """

    def rescue(self, uuid: str, *, image: pathlib.Path | None, disk_format: str, deadline: Deadline) -> Guest:
        """The guest runs from a fresh disk made of the image; its own root disk is its last one."""

    def unrescue(self, uuid: str, *, deadline: Deadline) -> Guest:
        """The guest runs from its own disks again; what `rescue` made is gone."""
