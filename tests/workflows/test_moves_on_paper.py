"""The form fits the move protocol: its resize and its move between cells are workflows that end well whatever dies."""

from collections.abc import Callable

import pytest

from tests.workflows import move_between_cells, resize
from tests.workflows.move_between_cells import TwoCells
from tests.workflows.resize import OneCell
from workflows.positions import Heading
from workflows.testing import (
    Disruption,
    Fault,
    Subject,
    World,
    a_fault_at_each_step_ends_undone_or_goes_on,
    course,
    each_step_done_twice_succeeds,
)

pytestmark = pytest.mark.slow


def _resize(make: Callable[[], World]) -> Subject:
    return Subject(catalog=resize.CATALOG, workflow="resize", make=make)


def _move(make: Callable[[], World]) -> Subject:
    return Subject(catalog=move_between_cells.CATALOG, workflow="move-between-cells", make=make)


SUBJECTS = {
    "resize": _resize(OneCell),
    "resize, reverted": _resize(lambda: OneCell("revert")),
    "resize without a host": _resize(lambda: OneCell(no_host=True)),
    "resize, the destination cannot prepare": _resize(lambda: OneCell(refuses="prepare")),
    "resize, the destination cannot fetch": _resize(lambda: OneCell(refuses="fetch")),
    "resize, the destination cannot start": _resize(lambda: OneCell(refuses="activate")),
    "move between cells": _move(TwoCells),
    "move between cells, the destination cannot prepare": _move(lambda: TwoCells(refuses="prepare")),
    "move between cells, the destination loses the guest": _move(lambda: TwoCells(loses=True)),
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_each_step_done_twice_succeeds(name: str) -> None:
    assert each_step_done_twice_succeeds(SUBJECTS[name]) > 1


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_fault_at_each_step_ends_undone_or_goes_on(name: str) -> None:
    assert a_fault_at_each_step_ends_undone_or_goes_on(SUBJECTS[name], faults=1) > 5


@pytest.mark.long
@pytest.mark.parametrize("name", SUBJECTS)
def test_two_faults_at_any_steps_end_undone_or_go_on(name: str) -> None:
    assert a_fault_at_each_step_ends_undone_or_goes_on(SUBJECTS[name]) > 50


def test_a_move_that_its_source_cannot_take_back_goes_on() -> None:
    plain = course(SUBJECTS["move between cells"])
    sent = plain.calls.index("agent.send")

    aborted = course(SUBJECTS["move between cells"], Disruption(sent + 1, Fault.ABORTED))

    assert aborted.position.heading is Heading.DONE
    assert "agent.cancel" in aborted.calls


def test_a_revert_that_is_given_up_waits_for_the_user_again() -> None:
    plain = course(SUBJECTS["resize, reverted"])
    parked = plain.calls.index("agent.park-back")

    aborted = course(SUBJECTS["resize, reverted"], Disruption(parked, Fault.ABORTED))

    assert aborted.calls.count("api.verify") == 2
    assert aborted.position == plain.position
