"""Waiting for a condition, with a deadline."""

import time
from collections.abc import Callable

from core import errors


def wait_until(condition: Callable[[], bool], *, what: str, deadline_s: float, every_s: float = 0.05) -> None:
    """Returns once the condition holds.

    Raises:
        Unavailable: it still did not hold after `deadline_s`.
    """
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise errors.Unavailable(f"no {what} within {deadline_s:.0f} s")
        time.sleep(every_s)
