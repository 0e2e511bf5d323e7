"""The durable steps of the build protocol, by name: the places where a test kills, freezes or deceives a worker."""

import contextlib
from collections.abc import Iterator


class CrashPoints:
    """In production a step is only its name in the code; tests hand in a subclass that acts before and after it.

    Every store that the protocol writes (API database, cell database, Placement, broker, host disk, hypervisor) is
    written inside `with steps("super.claim"):`, so the list of names in `docs/build-protocol.md` is the list of crash
    points.
    """

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        yield
