"""Where a piece of long work stands, who acts next, and what a report makes of it. Pure.

Rows hold positions, programs write them. Beside the position a row holds who works on it: a random token with a lease,
and a deadline. A program takes the lease, does the step whose turn it is, and writes the next position only where token
and position are still those that it read.
"""

import dataclasses
import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence

import core.errors
from workflows.workflow import Actor, Continue, Reports, Step, Then, Undo, Workflow


class Heading(enum.Enum):
    """Which way the work goes, or how it has ended."""

    FORWARD = "forward"
    UNDO = "undo"
    DONE = "done"
    UNDONE = "undone"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What a row says of its work.

    `step`: the step that is to be done or undone, or was the last one; `reports`: (step, report) of the steps so far
    and of those whose report came early.
    """

    workflow: str
    step: str
    heading: Heading = Heading.FORWARD
    reports: tuple[tuple[str, str], ...] = ()

    @property
    def is_over(self) -> bool:
        return self.heading in (Heading.DONE, Heading.UNDONE)

    def report_of(self, step: str) -> str | None:
        """What the step has reported; None: nothing yet."""
        return dict(self.reports).get(step)


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """What is to be done next: `what` is the step, or the undo of the step."""

    step: Step
    what: Step | Undo

    @property
    def name(self) -> str:
        return self.what.name

    @property
    def actor(self) -> Actor:
        return self.what.actor or self.step.actor

    @property
    def actors(self) -> tuple[Actor, ...]:
        """Who may do it: the actor, and who does the step at once."""
        at_once = self.step.at_once if self.what is self.step else None
        return (self.actor,) if at_once is None else (self.actor, at_once)


class Catalog:
    """Workflows by name, and how positions change.

    Raises:
        ValueError: a name stands there twice, or names a workflow or a step that is not there.
    """

    def __init__(self, workflows: Iterable[Workflow]) -> None:
        listed = list(workflows)
        self._workflows: Mapping[str, Workflow] = {workflow.name: workflow for workflow in listed}
        defects = list(_defects(listed))
        if defects:
            raise ValueError("; ".join(defects))
        self._reports = {each.name: {step.name: set(_all_reports(step)) for step in each.steps} for each in listed}

    def workflows(self) -> Iterator[Workflow]:
        """In no order that counts."""
        return iter(self._workflows.values())

    def begin(self, workflow: str) -> Position:
        """At the first step."""
        return Position(workflow=workflow, step=self._workflows[workflow].steps[0].name)

    def turns(self) -> Iterator[Turn]:
        """All that is to be done by anybody: each step and each undo."""
        for workflow in self._workflows.values():
            for step in workflow.steps:
                yield Turn(step, step)
                if step.undo is not None:
                    yield Turn(step, step.undo)

    def turn(self, position: Position) -> Turn | None:
        """What is to be done next; None: it is over."""
        if position.is_over:
            return None
        workflow = self._workflows[position.workflow]
        step = workflow.steps[workflow.index(position.step)]
        if position.heading is Heading.FORWARD:
            return Turn(step, step)
        return Turn(step, step.undo) if step.undo is not None else None

    def knows(self, position: Position) -> bool:
        """Whether work can stand there: at a step, or the undo of one, and with reports that those steps have."""
        reports = self._reports.get(position.workflow, {})
        is_there = position.step in reports and self.turn(position) is not None
        return is_there and all(report in reports.get(step, ()) for step, report in position.reports)

    def may_be_undone(self, position: Position) -> bool:
        """Whether a user's abort, or a deadline, can still turn it back."""
        workflow = self._workflows[position.workflow]
        return position.heading is Heading.FORWARD and not workflow.is_past_return(position.step)

    def is_at_point_of_no_return(self, position: Position) -> bool:
        """Whether this is the step whose writing and the next position are one commit."""
        point = self._workflows[position.workflow].point_of_no_return
        return position.heading is Heading.FORWARD and position.step == point

    def give_up(self, position: Position) -> Position:
        """Turned back, if it may be; the same otherwise."""
        return self._undo_from(position, position.step) if self.may_be_undone(position) else position

    def take_report(self, position: Position, name: str, report: str) -> Position:
        """Where the work stands after a report of a step or an undo; the same if that is not awaited (any more).

        Raises:
            Invalid: there is no such report.
        """
        turn = self.turn(position)
        if turn is not None and turn.name == name:
            return self._after(position, turn, report)
        early = self._early(position, name)
        if early is None:
            return position
        then = _checked(early.reports, early.name, report)
        noted = dataclasses.replace(position, reports=_noted(position, name, report))
        return self.give_up(noted) if then is Then.UNDO else noted

    def _after(self, position: Position, turn: Turn, report: str) -> Position:
        then = _checked(turn.what.reports, turn.name, report)
        if isinstance(then, Continue):
            return self.begin(then.workflow)
        if isinstance(turn.what, Undo):
            if then is Then.FORWARD:
                # Nothing else was undone: what later steps have reported counts on.
                noted = dataclasses.replace(position, reports=_noted(position, turn.step.name, report))
                return self._onward(noted, turn.step.name)
            return self._undo_after(position, turn.step)
        noted = dataclasses.replace(position, reports=_noted(position, turn.name, report))
        return self._undo_from(noted, turn.name) if then is Then.UNDO else self._onward(noted, turn.name)

    def _early(self, position: Position, name: str) -> Step | None:
        if position.heading is not Heading.FORWARD:
            return None
        workflow = self._workflows[position.workflow]
        later = workflow.steps[workflow.index(position.step) + 1 :]
        return next((step for step in later if step.name == name and step.may_come_early), None)

    def _onward(self, position: Position, step: str) -> Position:
        """After this step; those that have reported already are passed."""
        workflow = self._workflows[position.workflow]
        index = workflow.index(step)
        if index + 1 == len(workflow.steps):
            return dataclasses.replace(position, step=step, heading=Heading.DONE)
        following = workflow.steps[index + 1]
        there = dataclasses.replace(position, step=following.name, heading=Heading.FORWARD)
        report = position.report_of(following.name)
        return there if report is None else self._after(there, Turn(following, following), report)

    def _undo_from(self, position: Position, step: str) -> Position:
        """Turned back at this step, which is undone first; but an undo that may come too late is asked before that."""
        workflow = self._workflows[position.workflow]
        steps = workflow.steps[: workflow.index(step) + 1]
        return _undo_last(position, workflow, [each for each in steps if _may_be_too_late(each)] or steps)

    def _undo_after(self, position: Position, step: Step) -> Position:
        """This step is undone. Others follow from the last to the first, also those that were not reached."""
        workflow = self._workflows[position.workflow]
        steps = workflow.steps if _may_be_too_late(step) else workflow.steps[: workflow.index(step.name)]
        return _undo_last(position, workflow, [each for each in steps if not _may_be_too_late(each)])


def _all_reports(step: Step) -> Iterator[str]:
    """What may be noted of the step: an undo that came too late is."""
    yield from step.reports
    yield from step.undo.reports if step.undo is not None else ()


def _may_be_too_late(step: Step) -> bool:
    return step.undo is not None and step.undo.may_be_too_late


def _undo_last(position: Position, workflow: Workflow, steps: Sequence[Step]) -> Position:
    """The last of these steps that has an undo is undone next; there is none: all is undone."""
    left = [step for step in steps if step.undo is not None]
    if left:
        return dataclasses.replace(position, step=left[-1].name, heading=Heading.UNDO)
    if workflow.back_to is not None:
        return Position(workflow=workflow.back_to[0], step=workflow.back_to[1])
    return dataclasses.replace(position, step=workflow.steps[0].name, heading=Heading.UNDONE)


def _noted(position: Position, step: str, report: str) -> tuple[tuple[str, str], ...]:
    return (*(each for each in position.reports if each[0] != step), (step, report))


def _checked(reports: Reports, name: str, report: str) -> Then | Continue:
    if report not in reports:
        raise core.errors.Invalid(f"{name} has no report {report!r}")
    return reports[report]


def _defects(workflows: Iterable[Workflow]) -> Iterator[str]:
    listed = list(workflows)
    steps = {workflow.name: [step.name for step in workflow.steps] for workflow in listed}
    if len(steps) < len(listed):
        yield "two workflows have the same name"
    for workflow in listed:
        if workflow.back_to is not None and workflow.back_to[1] not in steps.get(workflow.back_to[0], []):
            yield f"{workflow.name} goes back to {workflow.back_to}, which is not there"
        for step in workflow.steps:
            for then in step.reports.values():
                if isinstance(then, Continue) and then.workflow not in steps:
                    yield f"{step.name} begins {then.workflow}, which is not there"
