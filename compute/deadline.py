"""Leave to go on with one piece of work: until its deadline, or until somebody takes it back."""

import threading
import time

import core.errors
from core.log import about


class Deadline:
    """What long work asks between its steps. One holder works by it; any thread may revoke it.

    `attempt` is the attempt of the server for which the work is done, `request_id` that of the user's request, if it is
    known.
    """

    def __init__(self, *, attempt: int, deadline_s: float, request_id: str = "") -> None:
        self.attempt = attempt
        self.request_id = request_id
        self._ends = time.monotonic() + deadline_s
        self._deadline_s = deadline_s
        self._revoked = threading.Event()
        self._reason = ""

    @property
    def revoked(self) -> bool:
        """Whether somebody took it back (a deadline that passed does not count)."""
        return self._revoked.is_set()

    def revoke(self, reason: str) -> None:
        """Takes it back; whoever waits by it wakes at once."""
        self._reason = reason
        self._revoked.set()

    def about(self, server: str) -> str:
        """The fields of a line in the log about the work on this server."""
        return about(server=server, attempt=self.attempt, request_id=self.request_id)

    def left_s(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self._ends - time.monotonic())

    def check(self) -> None:
        """Returns while the work may go on.

        Raises:
            Conflict: it was taken back.
            Unavailable: the deadline is over.
        """
        if self._revoked.is_set():
            raise core.errors.Conflict(self._reason)
        if self.left_s() <= 0:
            raise core.errors.Unavailable(f"It was not done within {self._deadline_s:g} s")

    def wait(self, seconds: float) -> None:
        """Waits that long, raising as `check` does as soon as there is a reason to."""
        self._revoked.wait(min(seconds, self.left_s()))
        self.check()
