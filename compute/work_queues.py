"""A bounded number of threads for work that comes in lines: one line per server, each line in order, the lines side by
side."""

import collections
import threading
from collections.abc import Callable

import core.log

LOG = core.log.get(__name__)

Job = Callable[[], None]


class WorkQueues:
    """Threads that are there only while there is work: an idle agent keeps none.

    A job handles its own errors; what it raises all the same is logged here.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._lines: dict[str, collections.deque[Job]] = {}
        self._ready: collections.deque[str] = collections.deque()
        self._running = 0
        self._closed = False

    def submit(self, line: str, job: Job) -> bool:
        """Puts the job at the end of its line; False if the slots are closed: nothing will be done."""
        with self._lock:
            if self._closed:
                return False
            if line in self._lines:
                self._lines[line].append(job)
                return True
            self._lines[line] = collections.deque((job,))
            self._ready.append(line)
            if self._running < self._most:
                self._running += 1
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
            return True

    def has(self, line: str) -> bool:
        """Whether a job of this line waits or is under way."""
        with self._lock:
            return line in self._lines

    def close(self) -> None:
        """Takes no more jobs and drops those that wait; those under way go on."""
        with self._lock:
            self._closed = True
            self._ready.clear()
            for jobs in self._lines.values():
                jobs.clear()

    def join(self, timeout_s: float) -> bool:
        """Waits until nothing is under way; False if that took too long."""
        with self._lock:
            return self._ended.wait_for(lambda: not self._running, timeout_s)

    def _work(self) -> None:
        try:
            while (taken := self._take()) is not None:
                line, job = taken
                try:
                    job()
                except Exception:
                    LOG.exception("a job failed line=%s", line)
                finally:
                    self._put_back(line)
        finally:
            with self._lock:
                self._running -= 1
                self._ended.notify_all()

    def _take(self) -> tuple[str, Job] | None:
        with self._lock:
            if not self._ready:
                return None
            line = self._ready.popleft()
            return line, self._lines[line].popleft()

    def _put_back(self, line: str) -> None:
        with self._lock:
            if self._lines[line]:
                self._ready.append(line)
            else:
                del self._lines[line]
