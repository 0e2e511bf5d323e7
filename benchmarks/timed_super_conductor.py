#!/usr/bin/env python3
"""A super-conductor whose steps are timed: it runs as any other, and writes what it saw when it is stopped."""

import argparse
import collections
import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import orjson

import core.process
from conductor.superconductor.main import NAME, SuperConductor, options
from core.crash_points import CrashPoints

LEASE, CLAIM = "super.lease", "super.claim"
DECISION = "decision"
"""From the orders in hand to the claim that is sent: reading their requests, choosing hosts for all of them, waiting
for the claim before."""


class TimedSteps(CrashPoints):
    """Seconds of each step, by name; and of the decisions between a lease and its claim."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = collections.defaultdict(list)
        self._lock = threading.Lock()
        self._leased = threading.local()

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began_s = time.monotonic()
        if name == CLAIM and getattr(self._leased, "at_s", None) is not None:
            self._note(DECISION, began_s - self._leased.at_s)
            self._leased.at_s = None
        yield
        ended_s = time.monotonic()
        if name == LEASE:
            self._leased.at_s = ended_s
        self._note(name, ended_s - began_s)

    def _note(self, name: str, seconds: float) -> None:
        with self._lock:
            self.seconds[name].append(seconds)


def main(argv: list[str] | None = None) -> int:
    """Runs until SIGTERM, then writes the times."""
    parser = argparse.ArgumentParser(prog="benchmarks/timed_super_conductor.py")
    parser.add_argument(
        "--times", type=Path, required=True, help="where the times go: step -> list of seconds, as JSON"
    )
    arguments, others = parser.parse_known_args(argv)
    steps = TimedSteps()
    code = core.process.run(NAME, others, options(), lambda conf: SuperConductor(conf, steps=steps))
    arguments.times.write_bytes(orjson.dumps(steps.seconds))
    return code


if __name__ == "__main__":
    sys.exit(main())
