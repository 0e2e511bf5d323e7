"""Blocking work in a few threads, with a bounded queue in front of them: the only place where this program makes a pool of threads.

The event loop's own executor has neither: one neighbour that does not answer fills it, and then everybody waits who needs a thread.
"""

import asyncio
import collections
import concurrent.futures
import dataclasses
import threading
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import core.context
import core.errors

P = ParamSpec("P")
T = TypeVar("T")

ANY_LANE = ""


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

    A project (`core.context.asker`) has at most its share of the places; work that no project asked for has none to keep to. Projects
    whose work waits take turns, so that a long queue of one does not stand before another's.

    Args:
        name: of its threads, and in messages.
        threads: at most.
        waiting: pieces of work that may wait for a thread.
        project_share: the part of all places (threads and waiting) that one project may have at once.
        lanes: lane -> threads at most that work of this lane may have at once. One project never has all of them, where there are several:
            work that takes long cannot be ended at any moment, so a turn may come too late.
    """

    def __init__(
        self, name: str, *, threads: int, waiting: int, project_share: float = 1.0, lanes: Mapping[str, int] | None = None
    ) -> None:
        self._name = name
        self._threads = threads
        self._places = threads + waiting
        self._most_of_project = max(1, int(self._places * project_share))
        self._lanes = {ANY_LANE: threads, **(lanes or {})}
        self._lock = threading.Lock()
        self._queues: collections.OrderedDict[tuple[str, str | None], collections.deque[_Job]] = collections.OrderedDict()
        self._taken = 0
        self._taken_by: collections.Counter[str | None] = collections.Counter()
        self._running = 0
        self._running_in: collections.Counter[str] = collections.Counter()
        self._running_of: collections.Counter[tuple[str, str | None]] = collections.Counter()
        self._executor: concurrent.futures.ThreadPoolExecutor | None = None
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
            if self._running < self._threads and self._has_room(lane, job.asker):
                self._start_thread()
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

    def close(self) -> None:
        """Cancels what waits and lets the threads go; nobody waits for one that hangs."""
        with self._lock:
            self._closed = True
            waiting = [job for queue in self._queues.values() for job in queue]
            if self._executor is not None:
                self._executor.shutdown(wait=False)
        for job in waiting:
            job.future.cancel()

    def _admit(self, job: _Job) -> None:
        if self._closed:
            raise Full(f"{self._name} is closed")
        if job.asker is not None and self._taken_by[job.asker] >= self._most_of_project:
            raise core.errors.OverShare(f"Too many requests of project {job.asker} are under way at {self._name}.")
        if self._taken >= self._places:
            raise Full(f"too many requests wait for {self._name}")

    def _has_room(self, lane: str, asker: str | None) -> bool:
        if lane == ANY_LANE or asker is None:
            return self._running_in[lane] < self._lanes[lane]
        most_of_project = max(1, self._lanes[lane] - 1)
        return self._running_in[lane] < self._lanes[lane] and self._running_of[lane, asker] < most_of_project

    def _start_thread(self) -> None:
        if self._executor is None:
            self._executor = concurrent.futures.ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)
        try:
            self._executor.submit(self._work)
        except RuntimeError as error:
            raise Full(f"{self._name}: the program ends") from error
        self._running += 1

    def _work(self) -> None:
        """Runs in a thread, for as long as there is work that it may take."""
        while (job := self._next()) is not None:
            try:
                value = job.work()
            except BaseException as error:  # As any executor: what is raised belongs to whoever waits for it.
                self._leave(job)
                job.future.set_exception(error)
            else:
                self._leave(job)
                job.future.set_result(value)
            # A thread that waits for work must not keep the last one alive.
            job = value = None

    def _next(self) -> _Job | None:
        with self._lock:
            while (job := self._taken_from_queue()) is not None:
                if job.future.set_running_or_notify_cancel():
                    self._running_in[job.lane] += 1
                    self._running_of[job.lane, job.asker] += 1
                    return job
                self._release(job)
            self._running -= 1
            return None

    def _taken_from_queue(self) -> _Job | None:
        key = next((key for key in self._queues if self._has_room(*key)), None)
        if key is None:
            return None
        queue = self._queues.pop(key)
        job = queue.popleft()
        if queue:
            self._queues[key] = queue  # At the end: the next turn is another's.
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
            queue = self._queues.get(key, ())
            if job in queue:
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
