"""The doors of a gate: what goes through one is bounded, counted, and stopped while a breaker is open.

What opens a breaker is a ping that fails, never a question that does (docs/decisions/0016): a question may be too dear,
too large or wrong, and that says nothing about the other side. The image service has a bulkhead of the same kind.
"""

import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

import prometheus_client

import core.errors
import core.log
from cells.gate.breaker import Breaker
from cells.gate.ping import Ping
from core.bounded_pool import ANY_LANE, BoundedPool, result_within
from core.clock import Clock

P = ParamSpec("P")
T = TypeVar("T")

LOG = core.log.get(__name__)


class GateMetrics:
    """What `/cellplane/metrics` shows of the gates of this process."""

    def __init__(self, registry: prometheus_client.CollectorRegistry) -> None:
        labels = ("cell", "target", "outcome")
        self.requests = prometheus_client.Counter(
            "cellplane_gate_requests", "Requests to a cell", labels, registry=registry
        )
        self.seconds = prometheus_client.Histogram(
            "cellplane_gate_seconds", "Seconds that a cell took to answer", ("cell", "target"), registry=registry,
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
        )  # fmt: skip
        self.open = prometheus_client.Gauge("cellplane_gate_open", "1: the breaker is open, the cell is not asked",
            ("cell", "target"),
                                            registry=registry)  # fmt: skip
        self.unreadable = prometheus_client.Counter(
            "cellplane_unreadable_servers",
            "Rows of servers that could not be read, each time",
            ("cell",),
            registry=registry,
        )


class Down(core.errors.Unavailable):
    """The breaker is open: nobody was asked."""

    @property
    def code(self) -> str:
        return "Unavailable"


class Bulkhead:
    """A bounded number of threads behind one breaker; those of a gate, to database and broker, are alike.

    Args:
        cell: its name, in metrics and logs.
        name: what the bulkhead leads to.
        ping: raises something if nobody answers there; takes longer than `ping_s` only if nobody does.
        lanes, project_share: as of a `BoundedPool`.
    """

    def __init__(
        self,
        cell: str,
        name: str,
        *,
        ping: Callable[[], None],
        ping_s: float,
        threads: int,
        waiting: int,
        clock: Clock,
        project_share: float = 1.0,
        lanes: Mapping[str, int] | None = None,
        metrics: GateMetrics | None = None,
    ) -> None:
        self.cell = cell
        self.name = name
        self.breaker = Breaker(clock)
        self._ping = Ping(f"gate-{cell}-{name}", ping, within_s=ping_s)
        self._pool = BoundedPool(
            f"gate-{cell}-{name}", threads=threads, waiting=waiting, project_share=project_share, lanes=lanes
        )
        self._metrics = metrics
        self.used_at = float("-inf")

    def submit(
        self, work: Callable[[], T], *, lane: str = ANY_LANE, probe: bool = False
    ) -> "concurrent.futures.Future[T]":
        """Starts the work in one of the bulkhead's threads, unless the breaker is open or too many wait already.

        Raises:
            Down, Full, OverShare: nothing was started.
        """
        if self._ping.is_overdue:
            self.failed("a ping gets no answer", unreachable=True)
        if self.breaker.is_open and not probe:
            self._refused("down")
            raise Down(self.breaker.why)
        try:
            return self._pool.submit(work, lane=lane)
        except core.errors.Unavailable:
            self._refused("busy")
            raise

    async def run(self, fn: Callable[P, T], deadline_s: float, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `fn(*args)` gives, which raises `Unavailable` when there is no answer, or none that it can use.

        Raises:
            Unavailable: that; or nobody is asked, because nobody answers there or too many ask.
            CellplaneError: what `fn` raised.
        """
        self.probe()
        return await result_within(
            self.submit(lambda: self._measured(lambda: fn(*args, **kwargs))), deadline_s, self.name
        )

    def probe(self) -> None:
        """If the breaker is open and it is time, pings once more; nobody waits for it. Whoever owns the bulkhead calls
        it again and again, so that one that is back is known to be back before somebody asks."""
        if not self._ping.is_under_way and self.breaker.may_probe():
            self.look()

    def look(self, then: Callable[[], None] | None = None) -> None:
        """Pings, unless one is under way already, and tells the breaker; nobody waits for it. `then` is called, in any
        thread, if there was no answer."""

        def pinged(done: "concurrent.futures.Future[str | None]") -> None:
            if not done.cancelled() and not self._pinged(done.result(), started) and then is not None:
                then()

        started = time.monotonic()
        with contextlib.suppress(core.errors.Unavailable):  # It is closed.
            self._ping.start().add_done_callback(pinged)

    def answers(self) -> bool:
        """Whether a ping is answered now; tells the breaker. For a thread of the bulkhead, after a question failed."""
        started = time.monotonic()
        try:
            return self._pinged(self._ping.failure(), started)
        except core.errors.Unavailable:
            return False

    def _pinged(self, failure: str | None, started: float) -> bool:
        if failure is None:
            self.well()
        else:
            self.failed(core.log.masked(failure), unreachable=True)
        self.finished("answer" if failure is None else "error", time.monotonic() - started)
        return failure is None

    def finished(self, outcome: str, seconds: float) -> None:
        """Counts one request that reached the cell."""
        self.used_at = time.monotonic()
        if self._metrics:
            self._metrics.requests.labels(self.cell, self.name, outcome).inc()
            self._metrics.seconds.labels(self.cell, self.name).observe(seconds)
            self._metrics.open.labels(self.cell, self.name).set(self.breaker.is_open)

    def well(self) -> None:
        """It answered; whoever is on call is told once that it is back."""
        if self.breaker.succeeded():
            LOG.info("cell reachable again cell=%s target=%s", self.cell, self.name)

    def failed(self, why: str, *, unreachable: bool = False) -> None:
        """It did not answer; whoever is on call is told once that it is away."""
        if self.breaker.failed(why, unreachable=unreachable):
            LOG.warning("cell unreachable cell=%s target=%s why=%s", self.cell, self.name, why)

    def close(self) -> None:
        if self._metrics:
            with contextlib.suppress(KeyError):  # a cell that was removed while it was away is not away for ever
                self._metrics.open.remove(self.cell, self.name)
        self._ping.close()
        self._pool.close()

    def _measured(self, work: Callable[[], T]) -> T:
        started = time.monotonic()
        try:
            value = work()
        except core.errors.Unavailable:
            self.finished("error", time.monotonic() - started)
            self.answers()
            raise
        except core.errors.CellplaneError:
            self._answered(started)
            raise
        self._answered(started)
        return value

    def _answered(self, started: float) -> None:
        self.well()
        self.finished("answer", time.monotonic() - started)

    def _refused(self, outcome: str) -> None:
        if self._metrics:
            self._metrics.requests.labels(self.cell, self.name, outcome).inc()
