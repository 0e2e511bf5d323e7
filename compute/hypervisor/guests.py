"""The guests of a host: which there are, how one comes and goes, and how it fares."""

import pathlib
from typing import Protocol

from compute.deadline import Deadline
from objects.build import BuildSpec, Guest
from objects.diagnostics import Diagnostics


class Guests(Protocol):
    """One host's guests."""

    def all(self) -> list[Guest]:
        """Every guest that the driver made here, with its attempt. Called every few seconds: it must be cheap.

        A guest of which `spawn` has not returned may or may not be among them.
        """

    def get(self, uuid: str) -> Guest | None:
        """One guest, or None."""

    def spawn(self, spec: BuildSpec, attempt: int, *, image: pathlib.Path | None, deadline: Deadline) -> Guest:
        """Makes the guest and starts it.

        What an earlier call of the same attempt left half done is completed or begun afresh. `image` is a file of the
        format `spec.image.disk_format`, checked, not to be changed, shared by all guests of the image. It asks the
        deadline between its steps. When it raises, leftovers may remain: the caller follows with `destroy`.

        Raises:
            Conflict: a guest of another attempt is here; or the deadline was taken back.
            Invalid: the specification asks for what this hypervisor can not do.
        """

    def destroy(self, uuid: str, up_to_attempt: int, *, deadline: Deadline) -> None:
        """Afterwards there is no guest of this uuid with an attempt up to this one, nor anything that was made for it.

        That is disks, logs, half-built remains. A guest of a later attempt is not touched. Nothing there: a success.
        """

    def diagnostics(self, uuid: str) -> Diagnostics:
        """How it fares.

        Raises:
            WrongState: it does not run.
        """
