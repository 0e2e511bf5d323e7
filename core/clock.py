"""Time, so that it can be handed in."""

import datetime
import random
import threading
import time
from typing import Protocol


def utcnow() -> datetime.datetime:
    """This moment in UTC, without a zone, in microseconds: as the databases keep it."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def iso(moment: datetime.datetime | None) -> str | None:
    """`YYYY-MM-DDTHH:MM:SSZ`, the form of the Compute API; None stays None."""
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def jittered(seconds: float, least: float, most: float) -> float:
    """The time, times a random factor between `least` and `most`: so that what waits does not come back all at once."""
    return seconds * random.SystemRandom().uniform(least, most)


class Clock(Protocol):
    """What periodic work needs of time."""

    def now(self) -> datetime.datetime: ...

    def monotonic(self) -> float: ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Waits until the event is set or the time is over; true if it was set."""


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime.datetime:
        return utcnow()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)
