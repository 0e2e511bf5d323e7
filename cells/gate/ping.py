"""Whether somebody answers at all, asked apart from any question that somebody has."""

import concurrent.futures
import threading
import time
from collections.abc import Callable

from core.bounded_pool import BoundedPool


class Ping:
    """In a thread of its own, one at a time: whoever wants to know meanwhile gets the answer of the one under way.

    Args:
        ask: raises something if nobody answers.
        within_s: a ping that takes longer counts as one without an answer, even if it cannot be ended (a resolver of
            names that is silent).
    """

    def __init__(self, name: str, ask: Callable[[], None], *, within_s: float) -> None:
        self._ask = ask
        self._within_s = within_s
        self._pool = BoundedPool(f"{name}-ping", threads=1, waiting=1)
        self._lock = threading.Lock()
        self._under_way: concurrent.futures.Future[str | None] | None = None
        self._since = 0.0

    @property
    def is_under_way(self) -> bool:
        return self._under_way is not None

    @property
    def is_overdue(self) -> bool:
        """Whether the one under way takes too long."""
        return self._under_way is not None and time.monotonic() - self._since > self._within_s

    def start(self) -> "concurrent.futures.Future[str | None]":
        """Why there was no answer, as soon as that is known; None: there was one.

        Raises:
            Unavailable: this is closed.
        """
        with self._lock:
            if self._under_way is None:
                self._since = time.monotonic()
                self._under_way = self._pool.submit(self._asked)
            return self._under_way

    def failure(self) -> str | None:
        """Waits for a ping; as `start`."""
        try:
            return self.start().result(self._within_s)
        except TimeoutError:
            return f"a ping got no answer within {self._within_s:g} s"

    def close(self) -> None:
        self._pool.close()

    def _asked(self) -> str | None:
        try:
            self._ask()
        except Exception as error:  # Whatever it is: there was no answer.
            return f"{type(error).__name__}: {error}"
        finally:
            with self._lock:
                self._under_way = None
        return None
