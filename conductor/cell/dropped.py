"""What hosts said that is not theirs to say: dropped, counted, and told in the log without letting a host fill it."""

import collections
import threading
from collections.abc import Mapping

import core.log
from core.clock import Clock, SystemClock

LOG = core.log.get(__name__)
LOG_EVERY_S = 60.0
MAX_HOSTS = 10_000
OTHERS = "others"


class Dropped:
    """Counts by host and verb; the log has the first of each, and then one line a minute with their number. Safe for
    many threads."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._told: dict[tuple[str, str], tuple[int, float]] = {}

    def note(self, host: str, verb: str, why: str, count: int = 1) -> None:
        """So many rows of a host's report were dropped; `why` is the reason of one of them."""
        if not count:
            return
        with self._lock:
            key = (host if len(self._counts) < MAX_HOSTS or (host, verb) in self._counts else OTHERS, verb)
            self._counts[key] += count
            told, told_at_s = self._told.get(key, (0, float("-inf")))
            now_s = self._clock.monotonic()
            if now_s - told_at_s < LOG_EVERY_S:
                return
            self._told[key] = (self._counts[key], now_s)
            news = self._counts[key] - told
        LOG.warning("dropped %d rows of `%s` from host %s, %d in all: %s", news, verb, host, told + news, why)

    def counts(self) -> Mapping[tuple[str, str], int]:
        """(host, verb) -> how many rows of it were dropped since the start."""
        with self._lock:
            return dict(self._counts)
