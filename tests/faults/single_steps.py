"""Workers that a test lets go one step at a time: only one of them runs at any moment, so that every interleaving can
be repeated."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import core.errors
from compute.deadline import Deadline
from core.crash_points import CrashPoints
from tests.faults.steps import Killed

ANSWER_S = 20.0
WAITING = "waiting for the server"


class Worker:
    """One piece of work in a thread of its own, which stands still before and after each of its steps.

    `at` says where it stands; None: it has ended. `failed` is what ended it, if not its work's end.
    """

    def __init__(self, steps: "SingleSteps", name: str, work: Callable[[], object], *, owner: object = None) -> None:
        self.name = name
        self.owner = owner
        self.at: str | None = "the start"
        self.failed: BaseException | None = None
        self._work = work
        self._is_killed = False
        self._go = threading.Semaphore(0)
        self._stands = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        steps.workers[self._thread] = self
        self._forget = lambda: steps.workers.pop(self._thread)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        return self.at is None

    def step(self) -> None:
        """Goes on to where it stands next, or to its end."""
        self._go.release()
        if not self._stands.acquire(timeout=ANSWER_S):
            raise AssertionError(f"{self.name} does not come from {self.at} to its next step")
        if self.failed is not None and not isinstance(self.failed, core.errors.CellplaneError | Killed):
            raise AssertionError(f"{self.name} failed") from self.failed

    def run(self) -> None:
        """Goes on to its end."""
        while not self.has_ended:
            self.step()

    def kill(self) -> None:
        """Ends it where it stands."""
        if not self.has_ended:
            self._is_killed = True
            self.step()

    def stand(self, at: str) -> None:
        """Called in its own thread: waits until the test lets it go on."""
        self.at = at
        self._stands.release()
        self._go.acquire()
        if self._is_killed:
            raise Killed(self.name)

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._is_killed:
                self._work()
        except (Exception, Killed) as error:
            self.failed = error
        finally:
            self.at = None
            self._forget()
            self._stands.release()


class SingleSteps(CrashPoints):
    """CrashPoints at which workers stand; any other thread passes them."""

    def __init__(self) -> None:
        self.workers: dict[threading.Thread, Worker] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.stand(f"before {name}")
        yield
        self.stand(f"after {name}")

    def stand(self, at: str) -> None:
        """The calling worker stands here."""
        worker = self.workers.get(threading.current_thread())
        if worker is not None:
            worker.stand(at)


class SteppedServers:
    """As `compute.agent_context.ServerLocks`, but who waits for a server stands at a step meanwhile."""

    closed = False

    def __init__(self, steps: SingleSteps) -> None:
        self._steps = steps
        self._permits: dict[str, Deadline] = {}

    @contextlib.contextmanager
    def lock(self, uuid: str, deadline: Deadline) -> Iterator[Deadline]:
        """The server is ours inside the `with`."""
        while uuid in self._permits:
            if threading.current_thread() not in self._steps.workers:
                raise core.errors.Unavailable(f"server {uuid} is held by a worker that stands still")
            self._steps.stand(WAITING)
        self._permits[uuid] = deadline
        try:
            yield deadline
        finally:
            del self._permits[uuid]

    def interrupt(self, uuid: str, up_to_attempt: int, reason: str) -> None:
        """Takes back the permit of whoever works on one of these attempts."""
        deadline = self._permits.get(uuid)
        if deadline is not None and deadline.attempt <= up_to_attempt:
            deadline.revoke(reason)

    def is_busy(self, uuid: str) -> bool:
        """Whether somebody works on the server."""
        return uuid in self._permits
