"""The way of each request in docs/architecture.md is a list of files and functions that exist."""

import re

import pytest

from tests.docs.test_names import defined_in
from tests.docs.test_pages import REPOSITORY

TEXT = (REPOSITORY / "docs" / "architecture.md").read_text()
STEP = re.compile(r"^\d+\. ", re.MULTILINE)
FILE = re.compile(r"`((?:\w+/)+\w+\.py)(?:: (\w+))?`")
LEAST = {"Create": 15, "List": 8, "Stop": 10, "Delete": 10, "Console": 10}


def way(request: str) -> list[str]:
    """The steps of the section, one text each."""
    section = re.split(r"^#{2,3} ", TEXT.split(f"\n### {request}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    return [" ".join(step.split()) for step in STEP.split(section)[1:]]


@pytest.mark.parametrize("request_name", LEAST)
def test_each_step_names_a_file_that_is_there(request_name: str) -> None:
    named = [FILE.findall(step) for step in way(request_name)]

    assert len(named) >= LEAST[request_name]
    assert [files for files in named if not files] == []
    assert [path for files in named for path, _ in files if not (REPOSITORY / path).exists()] == []


@pytest.mark.parametrize("request_name", LEAST)
def test_the_names_in_a_step_are_defined_in_its_file(request_name: str) -> None:
    named = [(path, name) for step in way(request_name) for path, name in FILE.findall(step) if name]

    assert [f"{path}: {name}" for path, name in named if name not in defined_in(REPOSITORY / path)] == []


@pytest.mark.parametrize("request_name", LEAST)
def test_a_step_is_short(request_name: str) -> None:
    words = {step: len(FILE.sub("", step).split()) for step in way(request_name)}

    assert {step: count for step, count in words.items() if count > 25} == {}
