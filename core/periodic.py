"""Work that is done again and again in a thread of its own."""

import threading
from collections.abc import Callable

import core.errors
import core.log
from core.clock import Clock, jittered

LOG = core.log.get(__name__)


class Periodic:
    """Calls `work` every `period_s` seconds, give or take a tenth, until it is stopped. What it raises is logged, and
    it goes on.

    `work` may return true for "there is more": then it is called again at once. `at_once`: the first call does not wait
    for a period.
    """

    def __init__(
        self, name: str, period_s: float, work: Callable[[], object], clock: Clock, *, at_once: bool = False
    ) -> None:
        self._name = name
        self._period_s = period_s
        self._work = work
        self._clock = clock
        self._at_once = at_once
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._was_unavailable = ""

    def start(self) -> None:
        """Begins; the calls come in a thread of its own."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Lets the call under way end, for at most so long."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        again = self._at_once
        while not self._clock.wait(self._stopping, 0 if again else jittered(self._period_s, 0.9, 1.1)):
            again = self._call() is True

    def _call(self) -> object:
        try:
            result = self._work()
        except core.errors.Unavailable as error:
            if self._was_unavailable != error.message:  # said once, not at every period
                LOG.warning("%s waits: %s", self._name, error.message)
            self._was_unavailable = error.message
            return False
        except Exception:
            LOG.exception("%s failed", self._name)
            return False
        self._was_unavailable = ""
        return result
