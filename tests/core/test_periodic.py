"""Work that is done again and again."""

import threading

import pytest

from core.clock import SystemClock
from core.periodic import Periodic

DEADLINE_S = 10.0


@pytest.mark.parametrize(("at_once", "period_s"), [(True, 3600.0), (False, 0.01)])
def test_the_first_call_comes_at_once_or_after_a_period(at_once: bool, period_s: float) -> None:
    called = threading.Event()
    periodic = Periodic("work", period_s, called.set, SystemClock(), at_once=at_once)

    periodic.start()

    assert called.wait(DEADLINE_S)
    periodic.stop(DEADLINE_S)


def test_what_fails_is_tried_again() -> None:
    tries: list[int] = []
    enough = threading.Event()

    def work() -> None:
        tries.append(1)
        if len(tries) == 3:
            enough.set()
        raise ValueError("a defect")

    periodic = Periodic("work", 0.01, work, SystemClock())
    periodic.start()

    assert enough.wait(DEADLINE_S)
    periodic.stop(DEADLINE_S)
