"""Every durable step of the build protocol × every kind of fault: afterwards all is as it must be.

A line for each profile is printed at the end of the run, and a table is written. tests/run tries a sample: see tests/sampling.py.
"""

import collections
import time
from collections.abc import Callable

import pytest

from tests.faults import operation_stories, outcomes, stories
from tests.faults.conftest import Worlds
from tests.faults.steps import Kind, Trap
from tests.faults.stories import Story

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

# who comes to the step, the step, the story that brings it about
POINTS: list[tuple[str, str, Story]] = [
    ("agent", "agent.accept", stories.everyday),
    ("agent", "agent.create", stories.everyday),
    ("agent", "agent.cannot", stories.everyday),
    ("agent", "agent.report", stories.everyday),
    ("agent", "agent.fence", stories.everyday),
    ("agent", "agent.destroy", stories.everyday),
    ("agent", "agent.gone", stories.everyday),
    ("agent", "agent.act-intent", stories.stopped),
    ("agent", "agent.act", stories.stopped),
    ("agent", "agent.acted", stories.stopped),
    ("agent", "agent.act", operation_stories.rescued),
    ("agent", "agent.acted", operation_stories.rescued),
    ("agent", "agent.act", operation_stories.rebuilt),
    ("agent", "agent.acted", operation_stories.rebuilt),
    ("agent", "agent.act-intent", operation_stories.copied),
    ("agent", "agent.act", operation_stories.copied),
    ("agent", "agent.snapshot", operation_stories.copied),
    ("agent", "agent.upload", operation_stories.copied),
    ("agent", "agent.acted", operation_stories.copied),
    ("agent", "agent.undo", operation_stories.not_copied),
    ("agent", "agent.act", operation_stories.password_set),
    ("api", "api.accept", stories.accepted),
    ("api", "api.delete", stories.everyday),
    ("api", "super.tombstone", stories.everyday),
    ("api", "super.finish", stories.everyday),
    ("super", "super.lease", stories.everyday),
    ("super", "super.drop", stories.everyday),
    ("super", "super.claim", stories.everyday),
    ("super", "super.read-claim", stories.claimed_before),
    ("super", "super.renew", stories.claimed_before),
    ("super", "super.claim", stories.claimed_before),
    ("super", "super.assign", stories.everyday),
    ("super", "super.assign", stories.nowhere_to_go),
    ("super", "super.insert", stories.everyday),
    ("super", "super.insert", stories.nowhere_to_go),
    ("super", "super.release", stories.nowhere_to_go),
    ("super", "super.release", stories.deleted_before_placed),
    ("super", "super.finish", stories.deleted_before_placed),
    ("super", "super.tombstone", stories.deleted_by_an_api_that_died),
    ("super", "super.finish", stories.deleted_by_an_api_that_died),
    ("cell", "cell.take", stories.sent_again),
    ("cell", "cell.send", stories.everyday),
    ("cell", "cell.claim", stories.everyday),
    ("cell", "cell.supersede", stories.everyday),
    ("cell", "cell.supersede", stories.refused_everywhere),
    ("cell", "cell.active", stories.everyday),
    ("cell", "cell.tell", stories.everyday),
    ("cell", "cell.release", stories.everyday),
    ("cell", "cell.release", stories.refused_everywhere),
    ("cell", "cell.gone", stories.everyday),
    ("cell", "cell.deleted", stories.refused_everywhere),
    ("cell", "cell.send", stories.stopped),
    ("cell", "cell.acted", stories.stopped),
    ("cell", "cell.send", operation_stories.rebuilt),
    ("cell", "cell.acted", operation_stories.copied),
    ("cell", "cell.greet", stories.restarted_agent),
]


@pytest.mark.sweep("worlds", "step")
@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value.replace(" ", "-"))
@pytest.mark.parametrize(("who", "step", "story"), POINTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_fault_at_any_step_leaves_nothing_lost_and_nothing_behind(
    worlds: Worlds, who: str, step: str, story: Story, kind: Kind, record_property: Callable[[str, object], None]
) -> None:
    caretaker = worlds.caretaker()
    trap = Trap(step, kind)
    before = caretaker.world.instances().keys()
    began = time.monotonic()
    try:
        story(caretaker, lambda: caretaker.arm(trap, who))
        assert trap.victim is not None, "the story never came to the step"
        caretaker.settle()  # It may have struck at the story's very end.
        caretaker.disarm()
    except BaseException:
        worlds.give_up()
        raise
    rows = [row for uuid, (_, row) in caretaker.world.instances().items() if uuid not in before]
    states = collections.Counter(str(row.state) for row in rows)
    if story is stories.everyday and who != "agent":
        assert states["ERROR"] == 0, "a fault of a conductor or the API costs nobody a server"
    ended = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    story_told = "; ".join([*caretaker.story, *(row.fault["message"] for row in rows if row.fault)])
    row = (worlds.profile, who, step, story.__name__, kind.value, ended, story_told, f"{time.monotonic() - began:.2f}")
    record_property(outcomes.PROPERTY, row)
    caretaker.tidy_up()
