"""Whether the agent's disk takes what it must remember. A host that cannot remember a build must not take one."""

import threading
import time
from collections.abc import Callable

import core.log

LOG = core.log.get(__name__)
MAX_TRIES = 3
MAX_TROUBLE_S = 15.0


class Disk:
    """Counts failed writes in a row. After so many tries, or seconds since the first of them, the host refuses builds
    until one succeeds.

    Safe for many threads.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._failures = 0
        self._since_s = 0.0
        self._refuses: str | None = None

    @property
    def refuses(self) -> str | None:
        """Why the host takes no builds; None: it takes them."""
        return self._refuses

    def failed(self, why: str) -> bool:
        """A write failed; gives whether that was once too often."""
        with self._lock:
            if not self._failures:
                self._since_s = self._now()
            self._failures += 1
            if self._refuses is None and (self._failures >= MAX_TRIES or self._now() - self._since_s >= MAX_TROUBLE_S):
                LOG.error("this host takes no builds until its disk can be written again why=%s", why)
                self._refuses = why
            return self._refuses is not None

    def succeeded(self) -> None:
        """A write succeeded."""
        with self._lock:
            if self._refuses is not None:
                LOG.info("this host takes builds again")
            self._failures, self._refuses = 0, None
