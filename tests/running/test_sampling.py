"""A sampled sweep tries each step once, the same cases with the same seed."""

import itertools
import types
from typing import Any

import pytest

from tests import sampling

PROFILES, STEPS, KINDS = ("embedded", "full"), ("accept", "create", "delete"), range(5)


class Case:
    """What sampling needs of a collected test."""

    def __init__(self, nodeid: str, *, is_swept: bool = True, **parameters: Any) -> None:
        self.nodeid = nodeid
        self.callspec = types.SimpleNamespace(params=parameters)
        self._marker = pytest.mark.sweep("worlds", "step").mark if is_swept else None

    def get_closest_marker(self, _: str) -> pytest.Mark | None:
        return self._marker


SWEPT = [
    Case(f"test_x.py::test_swept[{profile}-{step}-{kind}]", worlds=profile, step=step, kind=kind)
    for profile, step, kind in itertools.product(PROFILES, STEPS, KINDS)
]
OTHERS = [Case(f"test_x.py::test_other[{number}]", is_swept=False, number=number) for number in range(4)]


def tried(seed: int) -> list[Case]:
    """The cases that a run with this seed tries."""
    left_out = {id(item) for item in sampling.left_out([*SWEPT, *OTHERS], seed)}  # type: ignore[list-item]
    return [case for case in (*SWEPT, *OTHERS) if id(case) not in left_out]


def test_each_step_is_tried_once_in_each_profile_and_other_tests_whole() -> None:
    cases = tried(1)

    swept = [case.callspec.params for case in cases if case not in OTHERS]
    assert [(each["worlds"], each["step"]) for each in swept] == list(itertools.product(PROFILES, STEPS))
    assert [case for case in cases if case in OTHERS] == OTHERS


def test_a_seed_repeats_its_draw_and_another_draws_anew() -> None:
    assert tried(1) == tried(1)
    assert len({tuple(case.nodeid for case in tried(seed)) for seed in range(5)}) > 1


def test_the_environment_names_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sampling.SEED, "42")
    assert sampling.chosen_seed() == 42

    monkeypatch.setenv(sampling.SEED, "forty-two")
    with pytest.raises(pytest.UsageError, match="forty-two"):
        sampling.chosen_seed()


def test_without_one_it_is_drawn_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sampling.SEED, raising=False)

    assert sampling.chosen_seed() != sampling.chosen_seed()
