"""Two tests that hold every workflow: each step done twice succeeds; a fault ends undone, or the work goes on.

They play all programs at once: they ask whose turn it is, call that step's function in a world that the caller makes,
and write the next position, as the programs do with their rows.
"""

import dataclasses
import enum
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from workflows.positions import Catalog, Heading, Position, Turn

MAX_TURNS = 500
"""More than any run takes that ends."""


class World(Protocol):
    """All that the steps read and write, in memory or real, except where the work stands."""

    def call_of(self, name: str, position: Position) -> Callable[[], str]:
        """What the step or undo of this name does, whichever program does it; it gives its report.

        It does what the rows say at this moment. It may be called more than once, and also later, when the rows say
        something else: so does an order that a broker had kept, and a worker that was slow. What it writes then has to
        name what it replaces.
        """

    def show(self) -> Any:
        """What is there: equal to that of another world exactly if the same is there.

        Fences, and records of what was tried, do not count.
        """

    def check(self) -> None:
        """
        Raises:
            AssertionError: something is so that never may be, not even for a moment.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """Work that is tested: its workflow, and how to make a world in which it has not begun."""

    catalog: Catalog
    workflow: str
    make: Callable[[], World]


class Fault(enum.Enum):
    """What goes wrong with one call of a function.

    KILLED: it took effect, and the process dies before it writes the position; FAILED: it takes no effect, and says so;
    UNKNOWN: it took effect, and its caller sees an error; ABORTED: before it, a user or a deadline gives the work up;
    LATE: it is done once more, some turns later, by what was read now: an order that turns up again, or a worker that
    was slow and has lost its lease.
    """

    KILLED = "killed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    ABORTED = "aborted"
    LATE = "late"


@dataclasses.dataclass(frozen=True, slots=True)
class Disruption:
    """A fault at the call of this number; `later`: of what is late, how many calls later."""

    call: int
    fault: Fault
    later: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """How a run went: the names of what was called, where it ended, and what is there."""

    calls: tuple[str, ...]
    position: Position
    is_past_return: bool
    shown: Any


def each_step_done_twice_succeeds(subject: Subject) -> int:
    """Forward, and given up before each call; gives the number of runs.

    Raises:
        AssertionError: a step that is done twice says something else the second time, or does more than once.
    """
    plain = course(subject)
    aborts = [(), *((Disruption(call, Fault.ABORTED),) for call in range(len(plain.calls)))]
    for disruptions in aborts:
        _assert_ended(subject, plain, course(subject, *disruptions, twice=True), disruptions)
    return len(aborts)


def a_fault_at_each_step_ends_undone_or_goes_on(subject: Subject, *, faults: int = 2) -> int:
    """Every combination of up to so many faults; gives the number of runs.

    Raises:
        AssertionError: a run does not end, ends half done, or is undone after its point of no return.
    """
    plain = course(subject)
    runs = 1
    frontier: list[tuple[tuple[Disruption, ...], Run]] = [((), plain)]
    for _ in range(faults):
        following = []
        for before, run in frontier:
            for disruption in _disruptions(subject, run, after=before[-1].call if before else -1):
                disrupted = course(subject, *before, disruption)
                _assert_ended(subject, plain, disrupted, (*before, disruption))
                following.append(((*before, disruption), disrupted))
        runs, frontier = runs + len(following), following
    return runs


def _disruptions(subject: Subject, run: Run, *, after: int) -> Iterator[Disruption]:
    """All single ones that a run can have after this call."""
    points = {workflow.point_of_no_return for workflow in subject.catalog.workflows()}
    for call in range(after + 1, len(run.calls)):
        for fault in (Fault.KILLED, Fault.FAILED, Fault.UNKNOWN, Fault.ABORTED):
            yield Disruption(call, fault)
        if run.calls[call] not in points:
            yield from (Disruption(call, Fault.LATE, later) for later in range(1, len(run.calls) - call + 1))


def course(subject: Subject, *disruptions: Disruption, twice: bool = False) -> Run:
    """One run, with what goes wrong in it."""
    return _Programs(subject, disruptions, twice=twice).run()


class _Programs:
    """All programs: whoever's turn it is acts."""

    def __init__(self, subject: Subject, disruptions: tuple[Disruption, ...], *, twice: bool) -> None:
        self._subject = subject
        self._catalog = subject.catalog
        self._faults = {each.call: each for each in disruptions}
        self._twice = twice
        self._of_hosts = {turn.name for turn in self._catalog.turns() if turn.actor.is_host}
        self._world = subject.make()
        self._position = self._catalog.begin(subject.workflow)
        self._is_past_return = False
        self._calls: list[str] = []
        self._late: list[tuple[int, str, Callable[[], str]]] = []

    def run(self) -> Run:
        for number in itertools.count():
            self._deliver_late(number)
            turn = self._catalog.turn(self._position)
            if turn is None:
                break
            assert self._catalog.knows(self._position), f"a row that says so could not be read: {self._position}"
            assert number < MAX_TURNS, f"it does not end: {self._calls[-20:]}"
            self._calls.append(turn.name)
            self._take(turn, self._faults.get(number))
        self._deliver_late(MAX_TURNS)
        return Run(
            calls=tuple(self._calls),
            position=self._position,
            is_past_return=self._is_past_return,
            shown=self._world.show(),
        )

    def _take(self, turn: Turn, disruption: Disruption | None) -> None:
        """One turn, with what goes wrong in it."""
        fault = None if disruption is None else disruption.fault
        is_point = self._catalog.is_at_point_of_no_return(self._position)
        if fault in (Fault.ABORTED, Fault.FAILED):
            self._position = self._catalog.give_up(self._position)
            return
        before, call = self._position, self._world.call_of(turn.name, self._position)
        report = self._made(call, turn)
        if disruption is not None and fault is Fault.LATE:
            self._late.append((disruption.call + disruption.later, turn.name, call))
        # What the point of no return writes, and the position, are one commit: whoever looks afterwards sees both.
        if fault is Fault.UNKNOWN and not is_point:
            self._position = self._catalog.give_up(before)
        elif fault is not Fault.KILLED or is_point:
            self._position = self._catalog.take_report(before, turn.name, report)
            self._is_past_return = self._is_past_return or (is_point and self._position.heading is not Heading.UNDO)

    def _made(self, call: Callable[[], str], turn: Turn) -> str:
        report = self._checked(call)
        if self._twice and not self._catalog.is_at_point_of_no_return(self._position):
            once = self._world.show()
            again = self._checked(self._world.call_of(turn.name, self._position))
            assert again == report, f"{turn.name} reports {report}, done again {again}"
            assert self._world.show() == once, f"{turn.name} done twice does more than done once"
        return report

    def _checked(self, call: Callable[[], str]) -> str:
        report = call()
        self._world.check()
        return report

    def _deliver_late(self, number: int) -> None:
        """What was begun a while ago; reports of orders find the work elsewhere, or at the same place still."""
        due = [late for late in self._late if late[0] <= number]
        self._late = [late for late in self._late if late[0] > number]
        for _, name, call in due:
            report = self._checked(call)
            # A worker that was slow has lost its lease: what it did stays, and the position that it writes is refused.
            if name in self._of_hosts:
                self._position = self._catalog.take_report(self._position, name, report)


def _assert_ended(subject: Subject, plain: Run, run: Run, disruptions: tuple[Disruption, ...]) -> None:
    """It is done as without faults, or all is undone; the latter only if the point of no return was not passed."""
    told = f"{disruptions}: {run.calls} -> {run.position}"
    if run.position.heading is Heading.UNDONE:
        assert not run.is_past_return, f"undone after the point of no return: {told}"
        assert run.shown == subject.make().show(), f"something is left: {run.shown} {told}"
    else:
        assert run.position.heading is Heading.DONE, f"not ended: {told}"
        assert run.shown == plain.shown, f"half done: {run.shown}, not {plain.shown}: {told}"
