"""Every durable step of the build protocol × every kind of fault: afterwards all is as it must be.

A line for each profile is printed at the end of the run, and a table is written. tests/run tries a sample: see
tests/sampling.py.
"""

import collections
import time
from collections.abc import Callable

import pytest

from tests.faults import operation_workloads, outcomes, soft_delete_workloads, workloads
from tests.faults.conftest import Worlds
from tests.faults.steps import Kind, Trap
from tests.faults.workloads import Workload

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

# who comes to the step, the step, the workload that brings it about
POINTS: list[tuple[str, str, Workload]] = [
    ("agent", "agent.accept", workloads.everyday),
    ("agent", "agent.create", workloads.everyday),
    ("agent", "agent.cannot", workloads.everyday),
    ("agent", "agent.report", workloads.everyday),
    ("agent", "agent.fence", workloads.everyday),
    ("agent", "agent.destroy", workloads.everyday),
    ("agent", "agent.gone", workloads.everyday),
    ("agent", "agent.act-intent", workloads.stopped),
    ("agent", "agent.act", workloads.stopped),
    ("agent", "agent.acted", workloads.stopped),
    ("agent", "agent.act", operation_workloads.rescued),
    ("agent", "agent.acted", operation_workloads.rescued),
    ("agent", "agent.act", operation_workloads.rebuilt),
    ("agent", "agent.acted", operation_workloads.rebuilt),
    ("agent", "agent.act-intent", operation_workloads.copied),
    ("agent", "agent.act", operation_workloads.copied),
    ("agent", "agent.snapshot", operation_workloads.copied),
    ("agent", "agent.upload", operation_workloads.copied),
    ("agent", "agent.acted", operation_workloads.copied),
    ("api", "cell.create-record", operation_workloads.copied),
    ("cell", "cell.create-record", operation_workloads.copied_by_an_api_that_died),
    ("cell", "cell.check-record", operation_workloads.copied),
    ("cell", "cell.rotate-backups", operation_workloads.backed_up),
    ("cell", "cell.end-image", operation_workloads.copied),
    ("cell", "cell.look-at-record", operation_workloads.not_copied),
    ("cell", "cell.remove-record", operation_workloads.not_copied),
    ("cell", "cell.remove-record", operation_workloads.deleted_while_copied),
    ("agent", "agent.act", operation_workloads.password_set),
    ("api", "api.accept", workloads.accepted),
    ("api", "api.delete", workloads.everyday),
    ("api", "super.tombstone", workloads.everyday),
    ("api", "super.finish", workloads.everyday),
    ("super", "super.lease", workloads.everyday),
    ("super", "super.drop", workloads.everyday),
    ("super", "super.claim", workloads.everyday),
    ("super", "super.read-claim", workloads.claimed_before),
    ("super", "super.renew", workloads.claimed_before),
    ("super", "super.claim", workloads.claimed_before),
    ("super", "super.assign", workloads.everyday),
    ("super", "super.assign", workloads.nowhere_to_go),
    ("super", "super.insert", workloads.everyday),
    ("super", "super.insert", workloads.nowhere_to_go),
    ("super", "super.release", workloads.nowhere_to_go),
    ("super", "super.release", workloads.deleted_before_placed),
    ("super", "super.finish", workloads.deleted_before_placed),
    ("super", "super.tombstone", workloads.deleted_by_an_api_that_died),
    ("super", "super.finish", workloads.deleted_by_an_api_that_died),
    ("cell", "cell.take", workloads.sent_again),
    ("cell", "cell.send", workloads.everyday),
    ("cell", "cell.claim", workloads.everyday),
    ("cell", "cell.supersede", workloads.everyday),
    ("cell", "cell.supersede", workloads.refused_everywhere),
    ("cell", "cell.active", workloads.everyday),
    ("cell", "cell.tell", workloads.everyday),
    ("cell", "cell.release", workloads.everyday),
    ("cell", "cell.release", workloads.refused_everywhere),
    ("cell", "cell.gone", workloads.everyday),
    ("cell", "cell.deleted", workloads.refused_everywhere),
    ("cell", "cell.send", workloads.stopped),
    ("cell", "cell.acted", workloads.stopped),
    ("cell", "cell.send", operation_workloads.rebuilt),
    ("cell", "cell.acted", operation_workloads.copied),
    ("cell", "cell.greet", workloads.restarted_agent),
    ("api", "api.soft-delete", soft_delete_workloads.soft_deleted),
    ("api", "super.soft-delete", soft_delete_workloads.soft_deleted),
    ("api", "super.drop", soft_delete_workloads.soft_deleted),
    ("cell", "cell.send", soft_delete_workloads.soft_deleted),
    ("cell", "cell.acted", soft_delete_workloads.soft_deleted),
    ("agent", "agent.act", soft_delete_workloads.soft_deleted),
    ("agent", "agent.acted", soft_delete_workloads.soft_deleted),
    ("api", "super.make-final", soft_delete_workloads.never_ran),
    ("api", "api.restore", soft_delete_workloads.restored),
    ("api", "super.restore", soft_delete_workloads.restored),
    ("agent", "agent.act", soft_delete_workloads.restored),
    ("super", "super.soft-delete", soft_delete_workloads.soft_deleted_by_an_api_that_died),
    ("super", "super.drop", soft_delete_workloads.soft_deleted_by_an_api_that_died),
    ("super", "super.restore", soft_delete_workloads.soft_deleted_by_an_api_that_died),
    ("super", "super.make-final", soft_delete_workloads.never_ran_and_the_api_died),
    ("super", "super.reclaim", soft_delete_workloads.reclaimed),
    ("super", "super.tombstone", soft_delete_workloads.reclaimed),
    ("api", "api.delete", soft_delete_workloads.deleted_for_good),
    ("api", "super.tombstone", soft_delete_workloads.deleted_for_good),
]


@pytest.mark.sweep("worlds", "step")
@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value.replace(" ", "-"))
@pytest.mark.parametrize(("who", "step", "workload"), POINTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_fault_at_any_step_leaves_nothing_lost_and_nothing_behind(
    worlds: Worlds, who: str, step: str, workload: Workload, kind: Kind, record_property: Callable[[str, object], None]
) -> None:
    keeper = worlds.keeper()
    trap = Trap(step, kind)
    before = keeper.world.instances().keys()
    began = time.monotonic()
    try:
        workload(keeper, lambda: keeper.arm(trap, who))
        assert trap.victim is not None, "the workload never came to the step"
        keeper.settle()  # It may have struck at the workload's very end.
        keeper.disarm()
    except BaseException:
        worlds.give_up()
        raise
    rows = [row for uuid, (_, row) in keeper.world.instances().items() if uuid not in before]
    states = collections.Counter(str(row.state) for row in rows)
    if workload is workloads.everyday and who != "agent":
        assert states["ERROR"] == 0, "a fault of a conductor or the API costs nobody a server"
    ended = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    story_told = "; ".join([*keeper.workload, *(row.fault["message"] for row in rows if row.fault)])
    row = (
        worlds.profile,
        who,
        step,
        workload.__name__,
        kind.value,
        ended,
        story_told,
        f"{time.monotonic() - began:.2f}",
    )
    record_property(outcomes.PROPERTY, row)
    keeper.tidy_up()
