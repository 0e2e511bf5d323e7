"""The crash points of a test run and their outcomes. A row travels with its test's report, from whichever worker ran
it."""

import collections
from collections.abc import Iterable, Iterator, Sequence

PROPERTY = "crash point"
COLUMNS = ("profile", "who", "step", "workload", "fault", "servers", "what happened", "s")
_PROFILE, _STEP, _SERVERS, _SECONDS = (COLUMNS.index(name) for name in ("profile", "step", "servers", "s"))

Point = Sequence[str]
"""A row, by `COLUMNS`."""


def points(properties: Iterable[tuple[str, object]]) -> list[Point]:
    """The crash points among the reports' properties."""
    rows = [
        [str(cell) for cell in value]
        for name, value in properties
        if name == PROPERTY and isinstance(value, list | tuple)
    ]
    return sorted(
        rows, key=lambda row: row[_PROFILE]
    )  # Each profile in the order of its points, whichever worker was quicker.


def summary(rows: Iterable[Point]) -> Iterator[str]:
    """A line for each profile."""
    of_profile: dict[str, list[Point]] = collections.defaultdict(list)
    for row in rows:
        of_profile[row[_PROFILE]].append(row)
    for profile, own in of_profile.items():
        servers: collections.Counter[str] = collections.Counter()
        for row in own:
            for number, _, state in (part.partition(" ") for part in row[_SERVERS].split(", ") if part):
                servers[state] += int(number)
        ended = ", ".join(f"{number} {state}" for state, number in sorted(servers.items()))
        longest_s = max(float(row[_SECONDS]) for row in own)
        steps = len({row[_STEP] for row in own})
        yield f"{profile}: {len(own)} faults at {steps} steps; servers: {ended}; the longest took {longest_s:.1f} s"


def table(rows: Sequence[Point]) -> Iterator[str]:
    """The lines of the whole table: wide, for a file."""
    widths = [max(len(row[column]) for row in (COLUMNS, *rows)) for column in range(len(COLUMNS))]
    for row in (COLUMNS, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
