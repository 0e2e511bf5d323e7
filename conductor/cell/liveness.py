"""Whether the silence of a host may be believed: a conductor that was itself cut off has heard nobody."""

import threading

import core.log
from core.clock import Clock

LOG = core.log.get(__name__)


class ConductorLiveness:
    """Believes a host's silence only after the conductor itself has listened without a gap for as long as a host may be
    silent.

    A gap is a turn of the watch that came much too late (the process was frozen) or a time without any heartbeat at all
    while hosts are known (the broker was away).
    """

    def __init__(self, clock: Clock, *, down_after_s: float) -> None:
        self._clock = clock
        self._down_after_s = down_after_s
        self._lock = threading.Lock()
        self._since = clock.monotonic()
        self._turn = clock.monotonic()
        self._news = True

    def heard(self, *, any_new: bool) -> None:
        """A heartbeat was written; `any_new`: from a host that is new or has started again."""
        with self._lock:
            self._news = self._news or any_new

    def turn(self, *, expected_s: float, listening: bool) -> None:
        """One turn of the sweeps; `expected_s` since the last one, `listening` whether the broker lets us hear the
        hosts."""
        with self._lock:
            now = self._clock.monotonic()
            if now - self._turn > expected_s + self._down_after_s / 4 or not listening:
                if now - self._since > self._down_after_s:
                    LOG.warning("this conductor was disconnected; time without heartbeats counts from now on")
                self._since = now
            self._turn = now

    def can_declare_hosts_down(self) -> bool:
        """Whether a host that was not heard may be taken for down."""
        with self._lock:
            return self._clock.monotonic() - self._since > self._down_after_s

    def take_changes(self) -> bool:
        """Whether there was news of hosts since the last time this was asked."""
        with self._lock:
            news, self._news = self._news, False
            return news
