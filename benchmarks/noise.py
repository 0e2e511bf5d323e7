"""How much the machine's other guests disturb: a second of CPU buys less work when somebody shares the core and its
caches."""

import time
from collections.abc import Mapping

ROUNDS = 300_000
RESULTS = 97


def yardstick_cpu_s() -> float:
    """CPU seconds of a fixed piece of Python: compare it before comparing two runs."""
    started = time.process_time()
    results: dict[str, list[int]] = {}
    for number in range(ROUNDS):
        results.setdefault(f"result {number % RESULTS}", []).append(number * number % RESULTS)
    if len(results) != RESULTS:
        raise AssertionError("the yardstick does what it does")
    return time.process_time() - started


def said(yardsticks: Mapping[str, float]) -> str:
    """A line for a person."""
    before, after = yardsticks["before"], yardsticks["after"]
    return (
        f"Yardstick (CPU s of a fixed calculation; more is a busier machine): {before:.3f} before, {after:.3f} after."
    )
