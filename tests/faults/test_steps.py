"""The steps in the code, those that the sweep breaks, and those that the page describes are the same."""

import pathlib
import re

from tests.faults.test_sweep import POINTS
from workflows.definitions import create_image

ROOT = pathlib.Path(__file__).parents[2]
PROGRAMS = ("api", "cells", "compute", "conductor")
NAME = "(?:api|super|cell|agent)\\.[a-z-]+"
IN_CODE = re.compile(rf'(?:steps\(|\bstep(?:: [^=]+)? ?= ?)"({NAME})"')
ON_PAGE = re.compile(rf"`({NAME})`")
OTHERWISE_ON_PAGE = re.compile(rf"(?<![`\w.])({NAME})(?![`\w])")
"""In italics, or in plain text: a step that the page names and that nobody could find in the code."""


def steps_in_code() -> set[str]:
    files = (path for program in PROGRAMS for path in (ROOT / program).rglob("*.py"))
    named = {step for path in files for step in IN_CODE.findall(path.read_text())}
    # The steps of a workflow are named in its table: `steps(turn.name)`.
    return named | {turn.name for turn in create_image.CATALOG.turns()}


def page() -> str:
    return (ROOT / "docs" / "build-protocol.md").read_text()


def table_of_steps() -> str:
    """Section 2 of the page, where every step has its row."""
    return page().partition("## 2. Steps")[2].partition("## 3. Messages")[0]


def test_every_step_is_swept() -> None:
    assert {step for _, step, _ in POINTS} == steps_in_code()


def test_every_step_is_on_the_page() -> None:
    assert set(ON_PAGE.findall(page())) == steps_in_code()


def test_every_step_of_the_protocol_is_swept() -> None:
    """Whatever the page calls a step, in its tables or beside them, is one that the sweep kills, freezes and
    deceives."""
    rows = [line for line in table_of_steps().splitlines() if line.startswith("|")]
    described = {step for row in rows for step in ON_PAGE.findall(" ".join(row.split("|")[1:3]))}

    assert described == {step for _, step, _ in POINTS}
    assert OTHERWISE_ON_PAGE.findall(page()) == []
