"""A workflow: a table of named steps that reads from top to bottom. Pure data, which is checked when it is made."""

import dataclasses
import enum
from collections.abc import Iterator, Mapping
from types import MappingProxyType


class Program(enum.Enum):
    """A program that registers functions for its steps."""

    API = "api"
    SUPER_CONDUCTOR = "super-conductor"
    CELL_CONDUCTOR = "cell-conductor"
    AGENT = "agent"


class Actor(enum.Enum):
    """Who does a step. A step of a host is ordered by the conductor of that host's cell, and answered with a report."""

    API = "API"
    SUPER_CONDUCTOR = "super-conductor"
    CELL_CONDUCTOR = "cell conductor"
    HOST = "host of the server"
    DESTINATION_HOST = "destination host"

    @property
    def program(self) -> Program:
        return _PROGRAMS[self]

    @property
    def is_host(self) -> bool:
        return self.program is Program.AGENT


_PROGRAMS = {
    Actor.API: Program.API,
    Actor.SUPER_CONDUCTOR: Program.SUPER_CONDUCTOR,
    Actor.CELL_CONDUCTOR: Program.CELL_CONDUCTOR,
    Actor.HOST: Program.AGENT,
    Actor.DESTINATION_HOST: Program.AGENT,
}


class Then(enum.Enum):
    """What follows a report.

    ONWARD: the next step; of an undo, the undo of the step before. UNDO: all steps so far are undone, this one first.
    FORWARD, of an undo alone: it is too late to undo this step; the work goes on after it.
    """

    ONWARD = "onward"
    UNDO = "undo"
    FORWARD = "forward"


@dataclasses.dataclass(frozen=True, slots=True)
class Continue:
    """The report begins another workflow on the same row, which takes the place of this one."""

    workflow: str


Reports = Mapping[str, Then | Continue]

DONE = "done"
UNDONE = "undone"


def _only(report: str) -> Reports:
    return MappingProxyType({report: Then.ONWARD})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """How a step is taken back. It may find nothing to undo, and may be repeated.

    It also keeps the step out: a slow worker that does the step afterwards finds that it must not. An undo that may
    come too late (a report of it leads FORWARD) is asked before all others of its workflow. Until it has answered,
    nothing is undone; afterwards all is, also of steps that were not reached.

    Attributes:
        name: its crash point.
        does: what is written or ordered, for readers.
        actor: who does it; None: who does the step.
        reports: what it may end with, and what follows.
    """

    name: str
    does: str
    actor: Actor | None = None
    reports: Reports = dataclasses.field(default_factory=lambda: _only(UNDONE))

    @property
    def may_be_too_late(self) -> bool:
        return Then.FORWARD in self.reports.values()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of the table. It may be repeated: what is done already is found, and reported again.

    Attributes:
        name: its crash point, and what the row says while it is to be done.
        actor: who does it.
        at_once: who does it without waiting for the actor's sweep, if it lives long enough; the actor goes on.
        does: what is written or ordered, for readers.
        reports: what it may end with, and what follows.
        may_come_early: its report may come unasked, while an earlier step is under way. It is kept until its turn.
        undo: how it is taken back; None: it leaves nothing that an earlier step's undo does not take back.
    """

    name: str
    actor: Actor
    does: str
    at_once: Actor | None = None
    reports: Reports = dataclasses.field(default_factory=lambda: _only(DONE))
    may_come_early: bool = False
    undo: Undo | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """Steps in order.

    Attributes:
        point_of_no_return: the step after which nothing is undone. What it writes and where the work stands change in
            one commit, so no process sees the one without the other. None: it goes forward only, from its first step.
        back_to: (workflow, step) where the row stands again once all is undone; None: the work is over.

    Raises:
        ValueError: the table contradicts itself.
    """

    name: str
    steps: tuple[Step, ...]
    point_of_no_return: str | None
    back_to: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        defects = list(_defects(self))
        if defects:
            raise ValueError(f"workflow {self.name}: {'; '.join(defects)}")

    def index(self, step: str) -> int:
        """Where the step stands in the table."""
        return next(index for index, each in enumerate(self.steps) if each.name == step)

    def is_past_return(self, step: str) -> bool:
        """Whether the point of no return is behind, when this step is to be done."""
        return self.point_of_no_return is None or self.index(step) > self.index(self.point_of_no_return)


def _defects(workflow: Workflow) -> Iterator[str]:
    names = [name for step in workflow.steps for name in (step.name, *([step.undo.name] if step.undo else []))]
    yield from (f"{name} stands there twice" for name in sorted(set(names)) if names.count(name) > 1)
    point = workflow.point_of_no_return
    if point is not None and point not in names:
        yield f"its point of no return {point} is no step"
        return
    late = [step.undo.name for step in workflow.steps if step.undo is not None and step.undo.may_be_too_late]
    if len(late) > 1:
        yield f"{' and '.join(late)} may each be too late; one of them can be asked first"
    for step in workflow.steps:
        is_point = step.name == point
        yield from _defects_of_step(
            step, can_be_undone=not is_point and not workflow.is_past_return(step.name), is_point=is_point
        )


def _defects_of_step(step: Step, *, can_be_undone: bool, is_point: bool) -> Iterator[str]:
    follows = set(step.reports.values())
    if Then.FORWARD in follows:
        yield f"{step.name} goes forward in any case"
    if step.undo is not None and not can_be_undone:
        yield f"{step.name} is at or after the point of no return and has an undo"
    if Then.UNDO in follows and not (can_be_undone or is_point):
        yield f"{step.name} is after the point of no return and its report leads to an undo"
    if is_point and step.actor.is_host:
        yield f"{step.name} is the point of no return and a host's; a host cannot write the row"
    if step.undo is not None and not {Then.ONWARD} <= set(step.undo.reports.values()) <= {Then.ONWARD, Then.FORWARD}:
        yield f"{step.undo.name} may end undone or forward only"
