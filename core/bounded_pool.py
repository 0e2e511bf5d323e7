"""Blocking work in a few threads, with a bounded queue in front of them: the only place where this program makes a pool
of threads.

The event loop's own executor has neither: one neighbour that does not answer fills it, and then everybody waits who
needs a thread.
"""

import asyncio
import collections
import concurrent.futures
import dataclasses
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import core.context
import core.errors

P = ParamSpec("P")
T = TypeVar("T")

ANY_LANE = ""

IDLE_S = 10.0
"""So long a thread without work is kept: to start one costs more than most of the work that it is started for."""


class Full(core.errors.Unavailable):
    """All places of the pool are taken, or it is closed; nothing was started."""

    @property
    def code(self) -> str:
        return "Unavailable"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Job:
    work: Callable[[], Any]
    future: concurrent.futures.Future[Any]
    lane: str
    asker: str | None


class BoundedPool:
    """Threads, started when they are needed, and a queue of a fixed length. May be used by any thread.

    A project (`core.context.asker`) has at most its share of the places; work that no project asked for has none to
    keep to. Projects whose work waits take turns, so that a long queue of one does not stand before another's.

    Args:
        name: of its threads, and in messages.
        threads: at most.
        waiting: pieces of work that may wait for a thread.
        project_share: the part of all places (threads and waiting) that one project may have at once.
        lanes: lane -> threads at most that work of this lane may have at once. One project never has all of them, where
            there are several: work that takes long cannot be ended at any moment, so a turn may come too late.
    """

    def __init__(
        self,
        name: str,
        *,
        threads: int,
        waiting: int,
        project_share: float = 1.0,
        lanes: Mapping[str, int] | None = None,
    ) -> None:
        self._name = name
        self._threads = threads
        self._most = threads + waiting
        self._most_of_project = max(1, int(self._most * project_share))
        self._lanes = {ANY_LANE: threads, **(lanes or {})}
        self._lock = threading.Lock()
        self._queues: collections.OrderedDict[tuple[str, str | None], collections.deque[_Job]] = (
            collections.OrderedDict()
        )
        self._taken = 0
        self._taken_by: collections.Counter[str | None] = collections.Counter()
        self._started = 0
        self._idle = 0
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._running_in: collections.Counter[str] = collections.Counter()
        self._running_of: collections.Counter[tuple[str, str | None]] = collections.Counter()
        self._closed = False

    def submit(self, work: Callable[[], T], *, lane: str = ANY_LANE) -> "concurrent.futures.Future[T]":
        """Starts the work, or puts it in the queue. Its future can be cancelled until a thread has taken it.

        Raises:
            Full: all places are taken.
            OverShare: the project that asks has as many places as it may have.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        job = _Job(work, future, lane, core.context.asker())
        with self._lock:
            self._admit(job)
            if self._has_room(lane, job.asker):
                self._have_a_thread()
            self._taken += 1
            self._taken_by[job.asker] += 1
            self._queues.setdefault((job.lane, job.asker), collections.deque()).append(job)
        future.add_done_callback(lambda done: self._forget(job) if done.cancelled() else None)
        return future

    async def run(self, fn: Callable[P, T], deadline_s: float, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `fn(*args)` gives, from one of the threads.

        Raises:
            Unavailable: the pool is full, or the deadline is over; `fn` may still run then.
        """
        return await result_within(self.submit(lambda: fn(*args, **kwargs)), deadline_s, self._name)

    @property
    def busy_threads(self) -> int:
        """How many threads do not wait for work now."""
        return self._started - self._idle

    def close(self) -> None:
        """Cancels what waits and lets the threads go; nobody waits for one that hangs."""
        with self._lock:
            self._closed = True
            waiting = [job for jobs in self._queues.values() for job in jobs]
            while self._idle:
                self._wake()
        for job in waiting:
            job.future.cancel()

    def _admit(self, job: _Job) -> None:
        if self._closed:
            raise Full(f"{self._name} is closed")
        if job.asker is not None and self._taken_by[job.asker] >= self._most_of_project:
            raise core.errors.OverShare(f"Too many requests of project {job.asker} are under way at {self._name}.")
        if self._taken >= self._most:
            raise Full(f"too many requests wait for {self._name}")

    def _has_room(self, lane: str, asker: str | None) -> bool:
        if lane == ANY_LANE or asker is None:
            return self._running_in[lane] < self._lanes[lane]
        most_of_project = max(1, self._lanes[lane] - 1)
        return self._running_in[lane] < self._lanes[lane] and self._running_of[lane, asker] < most_of_project

    def _have_a_thread(self) -> None:
        """Wakes one that is idle, or starts one, as far as there may be more."""
        if self._idle:
            self._wake()
        elif self._started < self._threads:
            # Not a thread that the program's end waits for: the work may hang.
            thread = threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise Full(f"{self._name}: no thread can be started: {error}") from error
            self._started += 1

    def _wake(self) -> None:
        self._idle -= 1
        self._wakes.put(None)

    def _work(self) -> None:
        """Runs in a thread: does what it may take, and waits for more."""
        while (job := self._next()) is not None or self._is_woken():
            if job is not None:
                self._do(job)
            # A thread that waits for work must not keep the last one alive.
            job = None

    def _do(self, job: _Job) -> None:
        try:
            value = job.work()
        except BaseException as error:  # As any executor: what is raised belongs to whoever waits for it.
            self._leave(job)
            job.future.set_exception(error)
        else:
            self._leave(job)
            job.future.set_result(value)

    def _next(self) -> _Job | None:
        """The next piece of work; None: there is none that may begin now, and the thread counts as idle."""
        with self._lock:
            while (job := self._taken_from_queue()) is not None:
                if job.future.set_running_or_notify_cancel():
                    self._running_in[job.lane] += 1
                    self._running_of[job.lane, job.asker] += 1
                    return job
                self._release(job)
            self._idle += 1
            return None

    def _is_woken(self) -> bool:
        """Waits until the idle thread is woken; False: it ends, for nobody needed it for so long, or the pool is
        closed."""
        if self._closed:
            return False
        try:
            self._wakes.get(timeout=IDLE_S)
        except queue.Empty:
            return not self._is_let_go()
        return not self._closed

    def _is_let_go(self) -> bool:
        with self._lock:
            try:
                self._wakes.get_nowait()  # Somebody needs it after all, in this very moment.
            except queue.Empty:
                self._idle -= 1
                self._started -= 1
                return True
            return False

    def _taken_from_queue(self) -> _Job | None:
        key = next((key for key in self._queues if self._has_room(*key)), None)
        if key is None:
            return None
        jobs = self._queues.pop(key)
        job = jobs.popleft()
        if jobs:
            self._queues[key] = jobs  # At the end: the next turn is another's.
        return job

    def _leave(self, job: _Job) -> None:
        with self._lock:
            self._running_in[job.lane] -= 1
            self._running_of[job.lane, job.asker] -= 1
            if not self._running_of[job.lane, job.asker]:
                del self._running_of[job.lane, job.asker]
            self._release(job)

    def _forget(self, job: _Job) -> None:
        """It was cancelled: if it still waits, its place is free."""
        key = (job.lane, job.asker)
        with self._lock:
            if job in self._queues.get(key, ()):
                self._queues[key].remove(job)
                if not self._queues[key]:
                    del self._queues[key]
                self._release(job)

    def _release(self, job: _Job) -> None:
        self._taken -= 1
        self._taken_by[job.asker] -= 1
        if not self._taken_by[job.asker]:
            del self._taken_by[job.asker]


async def result_within(future: "concurrent.futures.Future[T]", deadline_s: float, name: str) -> T:
    """The future's result, awaited without a thread.

    Raises:
        Unavailable: it is not there within the deadline, or was cancelled by somebody else.
    """
    try:
        async with asyncio.timeout(deadline_s):
            return await asyncio.wrap_future(future)
    except TimeoutError:
        raise core.errors.Unavailable(f"{name}: no answer within {deadline_s:g} s") from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not future.cancelled() or (task is not None and task.cancelling()):
            raise  # Whoever asked has gone.
        raise core.errors.Unavailable(f"{name} was closed") from None
