"""The model of the build protocol holds, and each of its rules is needed. `model.py` by itself goes deeper; it takes
half a minute."""

import pytest

from tests.protocol import soft_delete
from tests.protocol.model import BREAKS, KINDS, check

# Variants that one fault does not bring down: how many it takes, and of which kinds.
DEEPER = {"keep-claim-on-takeover": (2, ("expire",)), "refused-is-gone": (2, ("dup", "lose"))}


def test_the_protocol_holds_under_any_one_fault() -> None:
    verdict, trace, _, _, ends = check(None, 1)

    assert verdict is None, "\n".join([verdict, *trace, str(ends)])
    assert set(ends) == {"ACTIVE", "ERROR", "deleted"}


def test_the_protocol_holds_when_leases_run_out_and_workers_are_killed_twice() -> None:
    verdict, trace, _, _, ends = check(None, 2, ("crash", "expire"))

    assert verdict is None, "\n".join([verdict, *trace, str(ends)])


@pytest.mark.parametrize("rule", BREAKS)
def test_without_the_rule_the_model_shows_how_it_goes_wrong(rule: str) -> None:
    faults, kinds = DEEPER.get(rule, (1, KINDS))

    verdict, trace, *_ = check(rule, faults, kinds)

    assert verdict is not None, f"{rule}: {BREAKS[rule]}, and nothing goes wrong"
    assert trace


# Of soft delete, variants that three requests do not bring down.
NEEDS_FOUR = {"reclaim-unmarked"}

# ---- soft delete -----------------------------------------------------------------------------------------------------


def test_soft_delete_restore_and_reclaim_agree_in_the_end() -> None:
    found, steps, states = soft_delete.check(asked=3)

    assert found == "", "\n".join([found, *steps])
    assert states > 10_000


@pytest.mark.parametrize("rule", soft_delete.BREAKS)
def test_without_its_rule_soft_delete_goes_wrong(rule: str) -> None:
    found, steps, _ = soft_delete.check(rule, asked=4 if rule in NEEDS_FOUR else 3)

    assert found, f"{rule}: {soft_delete.BREAKS[rule]}, and nothing goes wrong"
    assert steps
