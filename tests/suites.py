"""The seconds of each suite (each directory below tests/), as a table that ends a run.

`python -m tests.suites FILE` prints the table of a run of several parts, each of which has added its seconds to the
file.
"""

import collections
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

NOTED_IN = "CELLPLANE_TEST_SECONDS"
"""The environment variable that names the file."""
MAX_LINES = 20
_SHARE_WIDTH = 30

Seconds = Mapping[str, float]


def seconds_of(reports: Iterable[pytest.TestReport]) -> dict[str, float]:
    """Suite -> seconds of its tests, setup and teardown included. Workers run side by side: the sum is longer than the
    run."""
    seconds: dict[str, float] = collections.defaultdict(float)
    for report in reports:
        seconds["/".join(report.nodeid.partition("::")[0].split("/")[:2])] += report.duration
    return dict(seconds)


def table(seconds: Seconds) -> Iterator[str]:
    """The lines of the table, the longest suite first; the shortest share the last line if there are too many."""
    rows = sorted(seconds.items(), key=lambda row: -row[1])
    most = MAX_LINES - 2  # a heading and the sum
    if len(rows) > most:
        rows = [*rows[: most - 1], (f"{len(rows) - most + 1} others", sum(value for _, value in rows[most - 1 :]))]
    total = sum(seconds.values())
    width = max([len("all together"), *(len(suite) for suite, _ in rows)])
    yield f"{'suite'.ljust(width)}  seconds"
    for suite, value in rows:
        yield f"{suite.ljust(width)}  {value:7.1f}  {'#' * round(_SHARE_WIDTH * value / (total or 1))}".rstrip()
    yield f"{'all together'.ljust(width)}  {total:7.1f}"


def note(path: Path, seconds: Seconds) -> None:
    """Adds the seconds of one part of a run to the file."""
    with path.open("a") as file:
        file.write(json.dumps(seconds) + "\n")


def noted(path: Path) -> dict[str, float]:
    """The seconds of all parts in the file."""
    total: collections.Counter[str] = collections.Counter()
    for line in path.read_text().splitlines():
        total.update(json.loads(line))
    return dict(total)


def main(arguments: list[str]) -> int:
    """Prints the table of the file."""
    print(*table(noted(Path(arguments[0]))), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
