"""The power of a guest: whether it runs."""

from typing import Protocol

from compute.deadline import Deadline
from objects.build import Guest


class Power(Protocol):
    """The power of one host's guests."""

    def start(self, uuid: str, *, deadline: Deadline) -> Guest:
        """The guest runs, from whatever state it was in."""

    def stop(self, uuid: str, *, deadline: Deadline) -> Guest:
        """The guest is off: asked first, as a power button does, and cut off well before the deadline ends.

        A saved state is dropped.
        """

    def reboot(self, uuid: str, *, hard: bool, deadline: Deadline) -> Guest:
        """The guest has started anew and runs.

        Soft: it is asked first and must run; a guest that does not react is reset. Hard: from any state, and from its
        own disks, even if it is rescued.

        Raises:
            WrongState: soft, and it does not run.
        """

    def pause(self, uuid: str, *, deadline: Deadline) -> Guest:
        """The guest is frozen in memory.

        Raises:
            WrongState: it does not run.
        """

    def unpause(self, uuid: str, *, deadline: Deadline) -> Guest:
        """The guest goes on after `pause`.

        Raises:
            WrongState: it is neither paused nor running.
        """

    def suspend(self, uuid: str, *, deadline: Deadline) -> Guest:
        """The guest's memory is saved on disk and the guest is off.

        Raises:
            WrongState: it is off, and no state is saved.
        """

    def resume(self, uuid: str, *, deadline: Deadline) -> Guest:
        """The guest goes on after `suspend`.

        Raises:
            WrongState: it is off, and no state is saved.
        """
