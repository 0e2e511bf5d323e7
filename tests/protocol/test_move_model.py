"""A move between cells in the form of workflows holds, and each of its rules is needed."""

import pytest

from tests.protocol.move_model import BREAKS, KINDS, check

COLD = ("switch-uncompared", "cancel-believes-parked")
"""What only a cold move shows: its source may run on after it had parked the guest."""
MANNERS = pytest.mark.parametrize("live", [True, False], ids=["live", "cold"])


def assert_holds(*, live: bool, faults: int, kinds: tuple[str, ...]) -> None:
    result = check(faults=faults, kinds=kinds, live=live)

    assert result.verdict is None, "\n".join([result.verdict, *result.trace])
    assert set(result.ends) == {"stayed", "moved"}


@MANNERS
@pytest.mark.parametrize("kinds", [("crash", "expire"), ("dup", "lose"), ("refuse", "fails", "full")], ids=",".join)
def test_a_move_holds_under_one_fault(live: bool, kinds: tuple[str, ...]) -> None:
    assert_holds(live=live, faults=1, kinds=kinds)


@pytest.mark.long
@MANNERS
def test_a_move_holds_under_any_two_faults(live: bool) -> None:
    assert_holds(live=live, faults=2, kinds=KINDS)


@pytest.mark.parametrize("rule", BREAKS)
def test_without_the_rule_the_model_shows_how_it_goes_wrong(rule: str) -> None:
    result = check(rule, kinds=("expire",), live=rule not in COLD)

    assert result.verdict is not None, f"{rule}: {BREAKS[rule]}, and nothing goes wrong"
    assert result.trace
