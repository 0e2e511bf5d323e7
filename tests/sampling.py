"""Which cases of a sweep a run tries: all of them, or one of each step, drawn by a seed that repeats the draw.

A sweep is a parametrized test with the mark `sweep(*names)`. Of the cases that agree in these parameters a sampled run
tries one.
"""

import os
import random
from collections.abc import Iterable, Sequence

import pytest

SEED = "CELLPLANE_TEST_SEED"
WHOLE, SAMPLED = "whole", "sampled"
_HIGHEST_SEED = 2**32


def chosen_seed() -> int:
    """The seed that the environment names; one by chance without it.

    Raises:
        pytest.UsageError: it is not a number.
    """
    named = os.environ.get(SEED)
    if not named:
        return random.SystemRandom().randrange(_HIGHEST_SEED)
    try:
        return int(named)
    except ValueError as error:
        raise pytest.UsageError(f"{SEED} is {named!r} and not a number") from error


def left_out(items: Iterable[pytest.Item], seed: int) -> list[pytest.Item]:
    """The cases of sweeps that a run with this seed does not try. What is drawn for one step does not depend on the
    others."""
    cases: dict[tuple[object, ...], list[pytest.Item]] = {}
    for item in items:
        sweep = item.get_closest_marker("sweep")
        if sweep is not None:
            cases.setdefault(_step_of(item, sweep.args), []).append(item)
    tried = {_one_of(alike, f"{seed} {step}") for step, alike in cases.items()}
    return [item for alike in cases.values() for item in alike if item not in tried]


def _step_of(item: pytest.Item, names: Sequence[str]) -> tuple[object, ...]:
    parameters = item.callspec.params  # type: ignore[attr-defined]
    return (item.nodeid.partition("[")[0], *(parameters[name] for name in names))


def _one_of(alike: Sequence[pytest.Item], draw: str) -> pytest.Item:
    return random.Random(draw).choice(sorted(alike, key=lambda item: item.nodeid))
