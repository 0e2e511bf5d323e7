"""Threads that do what is put before them, now or later."""

import heapq
import itertools
import queue as queues
import threading
import time
from collections.abc import Callable

from core import log

LOG = log.get(__name__)

AT_LEISURE_S = 60.0
"""How long one may sleep when nothing is planned."""


class DelayQueue:
    """What is to be done at a time. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sequence = itertools.count()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []

    def add(self, at: float, action: Callable[[], None]) -> None:
        with self._lock:
            heapq.heappush(self._heap, (at, next(self._sequence), action))

    def due(self, now: float) -> list[Callable[[], None]]:
        with self._lock:
            actions = []
            while self._heap and self._heap[0][0] <= now:
                actions.append(heapq.heappop(self._heap)[2])
            return actions

    def wait_s(self, now: float) -> float:
        with self._lock:
            return max(0.0, self._heap[0][0] - now) if self._heap else AT_LEISURE_S


class WorkerPool:
    """Worker threads, started when all others are busy. What waits for them is bounded by the consumer's prefetch."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._waiting: queues.SimpleQueue[Callable[[], None] | None] = queues.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._stopping = False

    def put(self, action: Callable[[], None]) -> None:
        """Has it done by the next free worker. Only one thread puts."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif len(self._threads) < self._most and not self._stopping:
                thread = threading.Thread(target=self._work, name=f"{self._name} {len(self._threads) + 1}", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._waiting.put(action)

    def stop(self, timeout_s: float) -> bool:
        """Lets what is being done end; whether it did so in time."""
        ends_at = time.monotonic() + timeout_s
        with self._lock:  # every thread in the list is started
            self._stopping = True
            threads = list(self._threads)
        for _ in threads:
            self._waiting.put(None)
        for thread in threads:
            thread.join(max(0.0, ends_at - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _work(self) -> None:
        while (action := self._waiting.get()) is not None:
            try:
                action()
            except Exception:  # The frame of the thread: the message stays unacked and comes again with its connection.
                LOG.exception("worker failed name=%s", self._name)
            with self._lock:
                self._idle += 1
