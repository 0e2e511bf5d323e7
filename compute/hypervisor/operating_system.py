"""What is asked of the operating system in a guest."""

from typing import Protocol

from compute.deadline import Deadline


class OperatingSystem(Protocol):
    """The operating systems of one host's guests."""

    def set_password(self, uuid: str, *, user: str, password: str, deadline: Deadline) -> None:
        """The user of the guest has this password; the guest's agent sees to it.

        Raises:
            WrongState: it does not run.
            Conflict: no agent answers in the guest.
        """

    def inject_nmi(self, uuid: str, *, deadline: Deadline) -> None:
        """The guest's kernel gets the interrupt that makes it dump itself, if it is set up so.

        Raises:
            WrongState: it does not run.
        """
