"""The form: tables that contradict themselves are refused, and positions change as the tables say."""

import dataclasses
from typing import Any

import pytest

import core.errors
from workflows.functions import Functions
from workflows.positions import Catalog, Heading, Position
from workflows.workflow import Actor, Continue, Program, Step, Then, Undo, Workflow

API, CELL, HOST = Actor.API, Actor.CELL_CONDUCTOR, Actor.HOST
CUT = Step(name="cut", actor=HOST, does="", reports={"cut": Then.ONWARD, "blunt": Then.UNDO},
           undo=Undo(name="glue", does="", reports={"whole": Then.ONWARD, "eaten": Then.FORWARD}))  # fmt: skip
TASTE = Step(name="taste", actor=HOST, does="", may_come_early=True, reports={"good": Then.ONWARD, "bad": Then.UNDO})
ORDER = Step(name="order", actor=CELL, at_once=API, does="", undo=Undo(name="cancel", does=""))
SALT = Step(name="salt", actor=CELL, does="", undo=Undo(name="rinse", does=""))
PAY = Step(name="pay", actor=CELL, does="")
EAT = Step(name="eat", actor=HOST, does="", reports={"eaten": Then.ONWARD})


def _meal(*steps: Step, point: str | None = "pay") -> Workflow:
    return Workflow(name="meal", steps=steps, point_of_no_return=point)


CATALOG = Catalog([_meal(ORDER, CUT, TASTE, PAY, EAT)])


def _after(*reports: tuple[str, str]) -> Position:
    position = CATALOG.begin("meal")
    for name, report in reports:
        position = CATALOG.take_report(position, name, report)
    return position


def _at(position: Position) -> tuple[str, str]:
    return position.heading.value, position.step


@pytest.mark.parametrize(
    ("defect", "steps", "point"),
    [
        ("cut stands there twice", [CUT, CUT, PAY], "pay"),
        ("is no step", [CUT], "pay"),
        (
            "pay is at or after the point of no return and has an undo",
            [dataclasses.replace(PAY, undo=Undo(name="refund", does=""))],
            "pay",
        ),
        (
            "cut is after the point of no return and its report leads to an undo",
            [PAY, dataclasses.replace(CUT, undo=None)],
            "pay",
        ),
        ("a host cannot write the row", [EAT], "eat"),
        ("eat goes forward", [PAY, dataclasses.replace(EAT, reports={"eaten": Then.FORWARD})], "pay"),
        (
            "may end undone or forward only",
            [dataclasses.replace(CUT, undo=Undo(name="glue", does="", reports={"late": Then.FORWARD})), PAY],
            "pay",
        ),
        ("cut is at or after the point of no return and has an undo", [CUT], None),
        (
            "glue and rinse may each be too late",
            [CUT, dataclasses.replace(SALT, undo=dataclasses.replace(CUT.undo, name="rinse")), PAY],
            "pay",
        ),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(defect: str, steps: list[Step], point: str | None) -> None:
    with pytest.raises(ValueError, match=defect):
        _meal(*steps, point=point)


def test_a_catalog_names_only_what_is_there() -> None:
    astray = _meal(dataclasses.replace(PAY, reports={"dear": Continue("theft")}))

    with pytest.raises(ValueError, match="pay begins theft, which is not there"):
        Catalog([astray])
    with pytest.raises(ValueError, match="two workflows have the same name"):
        Catalog([_meal(PAY), _meal(PAY)])
    with pytest.raises(ValueError, match="goes back to"):
        Catalog([dataclasses.replace(_meal(PAY), back_to=("meal", "wash"))])


def test_steps_follow_each_other_to_the_end() -> None:
    done = _after(("order", "done"), ("cut", "cut"), ("taste", "good"), ("pay", "done"), ("eat", "eaten"))

    assert (done.heading, CATALOG.turn(done)) == (Heading.DONE, None)


def test_what_is_undone_is_undone_backwards() -> None:
    tasted = _after(("order", "done"), ("cut", "cut"), ("taste", "bad"))

    assert _at(tasted) == ("undo", "cut")
    assert _at(CATALOG.take_report(tasted, "glue", "whole")) == ("undo", "order")
    assert (
        CATALOG.take_report(CATALOG.take_report(tasted, "glue", "whole"), "cancel", "undone").heading is Heading.UNDONE
    )


def test_an_undo_that_comes_too_late_lets_the_work_go_on() -> None:
    assert _at(_after(("order", "done"), ("cut", "blunt"), ("glue", "eaten"))) == ("forward", "taste")


SALTED = Catalog([_meal(ORDER, CUT, SALT, TASTE, PAY, EAT)])


def _salted(*reports: tuple[str, str]) -> Position:
    """Given up while it is tasted, and then these reports."""
    position = SALTED.begin("meal")
    for name, report in (("order", "done"), ("cut", "cut"), ("salt", "done")):
        position = SALTED.take_report(position, name, report)
    position = SALTED.give_up(position)
    for name, report in reports:
        position = SALTED.take_report(position, name, report)
    return position


def test_nothing_is_undone_before_the_undo_that_may_be_too_late_has_answered() -> None:
    assert _at(_salted()) == ("undo", "cut")
    assert _at(_salted(("glue", "whole"))) == ("undo", "salt")
    assert _at(_salted(("glue", "whole"), ("rinse", "undone"))) == ("undo", "order")
    assert _salted(("glue", "whole"), ("rinse", "undone"), ("cancel", "undone")).heading is Heading.UNDONE


def test_where_it_was_too_late_what_later_steps_have_reported_counts() -> None:
    assert _at(_salted(("glue", "eaten"))) == ("forward", "taste")


def test_a_report_that_comes_early_is_kept_until_its_turn() -> None:
    assert _at(_after(("order", "done"), ("taste", "good"))) == ("forward", "cut")
    assert _at(_after(("order", "done"), ("taste", "good"), ("cut", "cut"))) == ("forward", "pay")
    assert _at(_after(("order", "done"), ("taste", "bad"))) == ("undo", "cut")


@pytest.mark.parametrize("report", [("order", "done"), ("eat", "eaten"), ("glue", "whole"), ("nothing", "done")])
def test_a_report_that_is_not_awaited_changes_nothing(report: tuple[str, str]) -> None:
    position = _after(("order", "done"))

    assert CATALOG.take_report(position, *report) == position


def test_only_the_answer_to_the_undo_counts_once_it_is_ordered() -> None:
    given_up = CATALOG.give_up(_after(("order", "done")))

    assert CATALOG.take_report(given_up, "cut", "cut") == given_up
    assert _at(CATALOG.take_report(given_up, "glue", "whole")) == ("undo", "order")


def test_a_report_that_the_table_does_not_have_is_refused() -> None:
    with pytest.raises(core.errors.Invalid, match="cut has no report 'lost'"):
        _after(("order", "done"), ("cut", "lost"))


def test_work_is_given_up_before_the_point_of_no_return_only() -> None:
    paid = _after(("order", "done"), ("cut", "cut"), ("taste", "good"), ("pay", "done"))

    assert not CATALOG.may_be_undone(paid)
    assert CATALOG.give_up(paid) == paid
    assert CATALOG.may_be_undone(_after(("order", "done"), ("cut", "cut"), ("taste", "good")))


def _does(_: Any) -> str:
    return "done"


def test_a_step_without_a_function_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match="cell-conductor has no function for cancel, pay"):
        Functions(Program.CELL_CONDUCTOR, CATALOG, {"order": _does})
    with pytest.raises(ValueError, match="api acts in no step cancel"):
        Functions(Program.API, CATALOG, {"order": _does, "cancel": _does})


def test_each_program_finds_its_own_functions_only() -> None:
    functions = Functions(Program.API, CATALOG, {"order": _does})
    begun = CATALOG.turn(CATALOG.begin("meal"))
    given_up = CATALOG.turn(CATALOG.give_up(CATALOG.begin("meal")))

    assert begun is not None and functions.find(begun) is _does
    assert given_up is not None and functions.find(given_up) is None
