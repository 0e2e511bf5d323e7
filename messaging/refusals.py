"""Messages that were refused because the broker does not vouch for who they say they are from: counted, and told now
and then."""

import threading
import time

from core import log

LOG = log.get(__name__)

TOLD_EVERY_S = 60.0
MAX_SENDERS = 1000


class Refusals:
    """What one listener refused. For any thread."""

    def __init__(self, queue: str) -> None:
        self.count = 0
        self._queue = queue
        self._lock = threading.Lock()
        self._untold: dict[str, int] = {}
        self._told_at: dict[str, float] = {}

    def note(self, sender: str | None, verb: str) -> None:
        """Counts one; logs a line for each sender once in `TOLD_EVERY_S`."""
        name = sender or "nobody that the broker vouches for"
        with self._lock:
            self.count += 1
            if name not in self._told_at and len(self._told_at) >= MAX_SENDERS:
                name = "others"
            self._untold[name] = self._untold.get(name, 0) + 1
            now = time.monotonic()
            if now - self._told_at.get(name, -TOLD_EVERY_S) < TOLD_EVERY_S:
                return
            self._told_at[name] = now
            untold = self._untold.pop(name)
        LOG.warning(
            "messages refused: not of the host that they name queue=%s sender=%s verb=%s count=%d",
            self._queue,
            name,
            verb,
            untold,
        )
