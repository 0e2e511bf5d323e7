"""The doors of a gate: what goes through one is bounded, counted, and stopped while a breaker is open."""

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import prometheus_client

import core.log
from cells.answers import Cell, Silence
from cells.breaker import Breaker
from core.clock import Clock

T = TypeVar("T")

LOG = core.log.get(__name__)


class GateMetrics:
    """What `/cellplane/metrics` shows of the gates of this process."""

    def __init__(self, registry: prometheus_client.CollectorRegistry) -> None:
        labels = ("cell", "door", "outcome")
        self.requests = prometheus_client.Counter("cellplane_gate_requests", "Requests to a cell", labels, registry=registry)
        self.seconds = prometheus_client.Histogram(
            "cellplane_gate_seconds", "Seconds that a cell took to answer", ("cell", "door"), registry=registry,
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
        )  # fmt: skip
        self.open = prometheus_client.Gauge("cellplane_gate_open", "1: the breaker is open, the cell is not asked", ("cell", "door"),
                                            registry=registry)  # fmt: skip


class Door:
    """A bounded number of threads behind one breaker; the database's and the broker's doors of a gate are alike."""

    def __init__(self, cell: Cell, name: str, *, threads: int, waiting: int, clock: Clock, metrics: GateMetrics | None) -> None:
        self.cell = cell
        self.name = name
        self.breaker = Breaker(clock)
        self._threads = threads
        self._places = threading.BoundedSemaphore(threads + waiting)
        self._metrics = metrics
        self._lock = threading.Lock()
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._closed = False
        self.used_at = float("-inf")

    def submit(self, work: Callable[[], T], *, probe: bool = False) -> "concurrent.futures.Future[T] | Silence":
        """Starts the work in one of the door's threads, unless the breaker is open or too many wait already."""
        if self.breaker.is_open and not probe:
            return self._refused("down", self.breaker.why)
        if not self._places.acquire(blocking=False):
            return self._refused("busy", "too many requests wait for it")
        try:
            future = self._executor().submit(work)
        except RuntimeError:
            self._places.release()
            return self._refused("closed", "it was removed or is being re-addressed")
        future.add_done_callback(lambda _: self._places.release())
        return future

    def finished(self, outcome: str, seconds: float) -> None:
        """Counts one request that reached the cell."""
        self.used_at = time.monotonic()
        if self._metrics:
            self._metrics.requests.labels(self.cell.name, self.name, outcome).inc()
            self._metrics.seconds.labels(self.cell.name, self.name).observe(seconds)
            self._metrics.open.labels(self.cell.name, self.name).set(self.breaker.is_open)

    def well(self) -> None:
        """It answered; whoever is on call is told once that it is back."""
        if self.breaker.succeeded():
            LOG.info("cell is back cell=%s door=%s", self.cell.name, self.name)

    def failed(self, why: str, *, unreachable: bool = False) -> None:
        """It did not answer; whoever is on call is told once that it is away."""
        if self.breaker.failed(why, unreachable=unreachable):
            LOG.warning("cell is away cell=%s door=%s why=%s", self.cell.name, self.name, why)

    def close(self) -> None:
        if self._metrics:
            with contextlib.suppress(KeyError):  # a cell that was removed while it was away is not away for ever
                self._metrics.open.remove(self.cell.name, self.name)
        with self._lock:
            self._closed = True
            if self._pool:
                self._pool.shutdown(wait=False, cancel_futures=True)

    def _refused(self, outcome: str, why: str) -> Silence:
        if self._metrics:
            self._metrics.requests.labels(self.cell.name, self.name, outcome).inc()
        return Silence(self.cell, why)

    def _executor(self) -> concurrent.futures.ThreadPoolExecutor:
        with self._lock:
            if self._closed:
                raise RuntimeError("closed")
            if self._pool is None:
                prefix = f"gate-{self.cell.name}-{self.name}"
                self._pool = concurrent.futures.ThreadPoolExecutor(self._threads, thread_name_prefix=prefix)
            return self._pool
