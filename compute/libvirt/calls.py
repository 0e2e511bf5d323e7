"""Calls that may hang: each has a deadline, and one that misses it is left behind in its thread."""

import collections
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import core.errors
import core.log
from compute.deadline import Deadline

LOG = core.log.get(__name__)

_LOOK_S = 0.1

Result = TypeVar("Result")


class Calls:
    """Runs functions that block, as many at a time as `most`, those that were left behind included.

    A library's call cannot be interrupted, only not be waited for. When the hypervisor comes back, or its connection is
    closed, the threads left behind end.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._room = threading.BoundedSemaphore(most)
        self._ended = threading.Condition()
        self._about: collections.Counter[str] = collections.Counter()

    def run(
        self,
        what: str,
        function: Callable[[], Result],
        *,
        deadline_s: float,
        deadline: Deadline | None = None,
        about: str = "",
    ) -> Result:
        """What the function gives.

        Args:
            what: for messages.
            permit: asked meanwhile; its deadline counts too.
            about: the server that the call changes, for `wait_for`.

        Raises:
            Unavailable: it did not end in time, or could not begin because all calls hang.
            Conflict: the deadline was taken back.
        """
        ends = time.monotonic() + deadline_s
        self._enter(what, ends, deadline)
        call = _Call(function)
        with self._ended:
            self._about[about] += 1
        threading.Thread(target=self._carry_out, args=(call, about), name="libvirt call", daemon=True).start()
        while not call.ended.wait(max(0.0, min(_LOOK_S, ends - time.monotonic()))):
            if deadline is not None:
                deadline.check()
            if time.monotonic() >= ends:
                said = f"server={about or '-'}" if deadline is None else deadline.about(about or "-")
                LOG.warning("a call is abandoned %s call=%s after_s=%g", said, what, deadline_s)
                raise core.errors.Unavailable(f"The hypervisor did not answer within {deadline_s:g} s ({what})")
        if call.error is not None:
            raise call.error
        return call.result[0]

    def wait_for(self, about: str, deadline_s: float) -> bool:
        """Whether all calls about the server have ended within this time."""
        with self._ended:
            return self._ended.wait_for(lambda: not self._about[about], deadline_s)

    def _enter(self, what: str, ends: float, deadline: Deadline | None) -> None:
        while not self._room.acquire(timeout=max(0.0, min(_LOOK_S, ends - time.monotonic()))):
            if deadline is not None:
                deadline.check()
            if time.monotonic() >= ends:
                raise core.errors.Unavailable(f"The hypervisor answers none of {self._most} calls ({what})")

    def _carry_out(self, call: "_Call[Result]", about: str) -> None:
        try:
            call.result.append(call.function())
        except BaseException as error:
            call.error = error
        finally:
            with self._ended:
                self._about[about] -= 1
                if not self._about[about]:
                    del self._about[about]
                self._ended.notify_all()
            self._room.release()
            call.ended.set()


class _Call(Generic[Result]):
    def __init__(self, function: Callable[[], Result]) -> None:
        self.function = function
        self.ended = threading.Event()
        self.result: list[Result] = []
        self.error: BaseException | None = None
