"""What a run tells at its end is short."""

from pathlib import Path

from tests import suites
from tests.faults import outcomes

WIDEST = 100


def test_the_table_of_suites_is_short_however_many_there_are() -> None:
    lines = list(suites.table({f"tests/suite_{number}": float(number) for number in range(40)}))

    assert len(lines) == suites.MAX_LINES
    assert max(len(line) for line in lines) <= WIDEST
    assert lines[1].startswith("tests/suite_39") and "780.0" in lines[-1]
    assert lines[-2].startswith("23 others") and "253.0" in lines[-2]


def test_the_parts_of_a_run_are_added_up(tmp_path: Path) -> None:
    file = tmp_path / "seconds"
    suites.note(file, {"tests/api": 1.5, "tests/cells": 1.0})
    suites.note(file, {"tests/api": 2.0})

    assert suites.noted(file) == {"tests/api": 3.5, "tests/cells": 1.0}


def test_crash_points_are_told_in_a_line_for_each_profile() -> None:
    rows = [
        ("full", "agent", "agent.act", "stopped", "killed before", "1 DELETED", "a long story " * 20, "1.50"),
        ("embedded", "agent", "agent.act", "stopped", "killed before", "1 ACTIVE, 2 DELETED", "", "0.50"),
        ("embedded", "cell", "cell.send", "everyday", "frozen after", "2 DELETED", "", "2.25"),
    ]
    points = outcomes.points([("something else", 1), *((outcomes.PROPERTY, row) for row in rows)])

    assert list(outcomes.summary(points)) == [
        "embedded: 2 faults at 2 steps; servers: 1 ACTIVE, 4 DELETED; the longest took 2.2 s",
        "full: 1 faults at 1 steps; servers: 1 DELETED; the longest took 1.5 s",
    ]
    assert len(list(outcomes.table(points))) == 1 + len(rows)
