"""The two tests that hold every workflow find what they are there to find."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.workflows import resize
from tests.workflows.move_between_cells import CATALOG as MOVES
from tests.workflows.move_between_cells import TwoCells
from tests.workflows.resize import RESIZE, OneCell
from workflows.positions import Catalog, Position
from workflows.testing import Subject, a_fault_at_each_step_ends_undone_or_goes_on, each_step_done_twice_succeeds


class Changed(OneCell):
    """A cell in which one step is done differently."""

    def __init__(self, name: str, change: Callable[[OneCell], str], **options: Any) -> None:
        super().__init__(**options)
        self._name = name
        self._change = change

    def call_of(self, name: str, position: Position) -> Callable[[], str]:
        return (lambda: self._change(self)) if name == self._name else super().call_of(name, position)


def _changed(name: str, change: Callable[[OneCell], str]) -> Subject:
    return Subject(catalog=resize.CATALOG, workflow="resize", make=lambda: Changed(name, change))


def _without_undo_of(step: str) -> Catalog:
    steps = tuple(dataclasses.replace(each, undo=None) if each.name == step else each for each in RESIZE.steps)
    return Catalog([dataclasses.replace(RESIZE, steps=steps), resize.REVERT, resize.GO_BACK])


def _opens_and_closes(cell: OneCell) -> str:
    cell.row.is_moving = not cell.row.is_moving
    return "admitted"


def _unparks_without_a_fence(cell: OneCell) -> str:
    cell.hosts["A"].guests[1] = "run"
    cell.hosts["A"].parked_for = None
    return "stays"


def _says_what_it_did_not_say_before(cell: OneCell) -> str:
    return "refused" if 2 in cell.hosts["B"].guests else cell.hosts["B"].prepare(2)


def test_a_step_that_does_more_the_second_time_is_found() -> None:
    with pytest.raises(AssertionError, match=r"super\.admit done twice does more than done once"):
        each_step_done_twice_succeeds(_changed("super.admit", _opens_and_closes))


def test_a_step_that_does_not_find_what_it_did_is_found() -> None:
    with pytest.raises(AssertionError, match=r"agent\.prepare reports prepared, done again refused"):
        each_step_done_twice_succeeds(_changed("agent.prepare", _says_what_it_did_not_say_before))


@pytest.mark.parametrize("step", ["super.admit", "agent.prepare", "agent.park"])
def test_a_step_that_is_not_undone_is_found(step: str) -> None:
    with pytest.raises(AssertionError, match="something is left"):
        a_fault_at_each_step_ends_undone_or_goes_on(
            Subject(catalog=_without_undo_of(step), workflow="resize", make=OneCell)
        )


def test_an_order_that_turns_up_after_its_undo_is_found() -> None:
    with pytest.raises(AssertionError, match=r"something is left|two guests run"):
        a_fault_at_each_step_ends_undone_or_goes_on(_changed("agent.cancel", _unparks_without_a_fence))


def test_an_undo_that_does_not_ask_the_source_is_found() -> None:
    """The guest has left its source already: started there again, it runs twice or from old memory."""

    class Careless(TwoCells):
        def call_of(self, name: str, position: Position) -> Callable[[], str]:
            return (lambda: self.hosts["A"].unpark(2, 1)) if name == "agent.cancel" else super().call_of(name, position)

        def check(self) -> None:
            super().check()
            assert (self.hosts["A"].running, self.hosts["B"].guests.get(2)) != (1, "full"), (
                "the source runs, its guest has left"
            )

    with pytest.raises(AssertionError, match="its guest has left"):
        a_fault_at_each_step_ends_undone_or_goes_on(
            Subject(catalog=MOVES, workflow="move-between-cells", make=Careless)
        )


def test_work_that_does_not_end_is_found() -> None:
    steps = tuple(each for each in RESIZE.steps if each.name != "super.collect")
    loop = dataclasses.replace(resize.REVERT, back_to=("resize", "api.verify"), point_of_no_return="cell.hand-back")
    catalog = Catalog([dataclasses.replace(RESIZE, steps=steps), loop, resize.GO_BACK])

    class Stubborn(OneCell):
        def call_of(self, name: str, position: Position) -> Callable[[], str]:
            return (lambda: "stays") if name == "agent.park-back" else super().call_of(name, position)

    with pytest.raises(AssertionError, match="it does not end"):
        each_step_done_twice_succeeds(Subject(catalog=catalog, workflow="resize", make=lambda: Stubborn("revert")))


def test_a_slow_worker_that_writes_without_comparing_is_found() -> None:
    def admits_whatever_the_row_says(cell: OneCell) -> str:
        cell.row.is_moving = True
        return "admitted"

    with pytest.raises(AssertionError, match=r"half done|something is left"):
        a_fault_at_each_step_ends_undone_or_goes_on(_changed("super.admit", admits_whatever_the_row_says), faults=1)
