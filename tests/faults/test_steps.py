"""The steps in the code, those that the sweep breaks, and those that the page describes are the same."""

import pathlib
import re

from tests.faults.test_sweep import POINTS

ROOT = pathlib.Path(__file__).parents[2]
PROGRAMS = ("api", "cells", "compute", "conductor")
IN_CODE = re.compile(r'(?:steps\(|\bstep(?:: [^=]+)? ?= ?)"((?:api|super|cell|agent)\.[a-z-]+)"')
ON_PAGE = re.compile(r"`((?:api|super|cell|agent)\.[a-z-]+)`")


def steps_in_code() -> set[str]:
    files = (path for program in PROGRAMS for path in (ROOT / program).rglob("*.py"))
    return {step for path in files for step in IN_CODE.findall(path.read_text())}


def test_every_step_is_swept() -> None:
    assert {step for _, step, _ in POINTS} == steps_in_code()


def test_every_step_is_on_the_page() -> None:
    assert set(ON_PAGE.findall((ROOT / "docs" / "build-protocol.md").read_text())) == steps_in_code()
