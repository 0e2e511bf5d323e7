"""A circuit breaker: knows whether a cell is worth asking."""

import threading

from core.clock import Clock


class Breaker:
    """Opens after `failures` errors in a row, at once when the cell cannot even be reached; a success closes it.

    While it is open nobody is let through but probes, at most one every `probe_s` seconds. It counts the cell's own
    errors, never time that a request spent in our queue.
    """

    def __init__(self, clock: Clock, *, failures: int = 2, probe_s: float = 1.0) -> None:
        self._clock = clock
        self._most = failures
        self._probe_s = probe_s
        self._lock = threading.Lock()
        self._failed = 0
        self._next_probe = 0.0
        self.opened = 0
        self.why = ""

    @property
    def is_open(self) -> bool:
        return self._failed >= self._most

    def succeeded(self) -> bool:
        """The cell answered; gives whether it was away until now."""
        with self._lock:
            was_open = self.is_open
            self._failed = 0
            self.why = ""
            return was_open

    def failed(self, why: str, *, unreachable: bool = False) -> bool:
        """The cell failed; gives whether it counts as away from now on."""
        with self._lock:
            was_open = self.is_open
            self._failed = self._most if unreachable else self._failed + 1
            self.why = why
            if self.is_open:
                self._next_probe = self._clock.monotonic() + self._probe_s
                self.opened += not was_open
            return self.is_open and not was_open

    def may_probe(self) -> bool:
        """Whether now is the time for one more probe of an open breaker; true at most once a period."""
        with self._lock:
            now = self._clock.monotonic()
            if not self.is_open or now < self._next_probe:
                return False
            self._next_probe = now + self._probe_s
            return True
