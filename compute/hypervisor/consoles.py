"""The consoles of a guest, and what it wrote to them."""

import dataclasses
import pathlib
from typing import Protocol

MAX_CONSOLE_BYTES = 128 * 1024
"""In a message, where a character may take six bytes, it stays below `messaging.access.MAX_BYTES`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsoleAddress:
    """Where a guest's console is served on its host: an address and port, or a UNIX socket.

    `kind`: vnc (the Compute API's novnc) or serial.
    """

    kind: str
    host: str | None = None
    port: int | None = None
    path: pathlib.Path | None = None


class Consoles(Protocol):
    """The consoles of one host's guests."""

    def addresses(self, uuid: str) -> list[ConsoleAddress]:
        """Where its consoles are served.

        Raises:
            WrongState: it does not run.
        """

    def log(self, uuid: str) -> str:
        """What the guest wrote to its console, at most the last `MAX_CONSOLE_BYTES`.

        Bytes that are no UTF-8 are replaced.
        """
