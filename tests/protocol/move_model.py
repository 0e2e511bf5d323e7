"""An exhaustive check of moves between cells in the form of workflows: every interleaving, every crash point.

One server on host A of cell X moves to host B of cell Y, by the workflow of `tests/workflows/move_between_cells.py` and
the form's own positions. What `workflows/testing.py` does not play is here: two super-conductors, of which one has lost
its lease and does not know it; conductors that send orders again; messages that are doubled, lost or late; a user, or a
deadline, that gives the move up at any moment, and once more after it went on.

A state is a tuple. A breadth-first search visits all states that so many faults lead to. The first broken invariant is
given with the shortest way there. Then liveness: from every state a good end is reachable without further faults, and a
state in which nothing but a fault can happen is a good end.
"""

import dataclasses
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from tests.workflows.move_between_cells import MOVE_BETWEEN_CELLS, SWITCH
from workflows.positions import Catalog, Heading, Position, _undo_last
from workflows.workflow import Step

MAX_GIVEN_UP = 2
LIMITS = {"crash": 2, "expire": 2, "dup": 1, "lose": 1, "refuse": 1, "fails": 1, "full": 1}
"""Of each kind of fault in one run: a super-conductor is killed, or its lease runs out while it works; a message is
handled twice, or never; host B refuses; the migration fails; no host has room."""
KINDS = tuple(LIMITS)

BREAKS = {
    "switch-uncompared": "the mapping is switched without comparing where the move stands",
    "close-uncompared": "the row is closed whatever it says",
    "ask-uncompared": "the row says that the source is asked, whether the move is open or not",
    "no-void": "the undo of the opening leaves nothing that keeps a late opening out",
    "no-record": "the undo of the admission leaves nothing that keeps a late admission out",
    "no-generation": "claims are written without the consumer's generation",
    "no-renew": "the lease is not compared between reading a claim's generation and writing it",
    "unasked": "what is under way at the source is undone without its word",
    "cancel-believes-parked": "the word of the order before the cancel is taken for the answer to it",
    "number-not-refused": "a source whose guest stays does not remember that this move is over",
    "undone-before-asked": "later steps are undone before the source has said whether the guest has left",
}
"""Rules that the protocol needs, each with what is left out."""

MOVE = 2
"""The move's number, which is the attempt that it makes."""


class Row(NamedTuple):
    """A cell's row of the server: what its host is asked for the move, and the host's word."""

    state: str
    phase: str | None = None
    word: str | None = None


class Host(NamedTuple):
    """`guests`: (attempt, made | full | kept | run | off | left), kept: complete, and said to be so; `refused`:
    attempts and moves that it does nothing for."""

    guests: tuple[tuple[int, str], ...] = ()
    refused: frozenset[int] = frozenset()

    def run_of(self, attempt: int) -> str | None:
        return dict(self.guests).get(attempt)

    def having(self, attempt: int, run: str | None) -> "Host":
        others = [each for each in self.guests if each[0] != attempt]
        return self._replace(guests=tuple(sorted([*others, (attempt, run)] if run else others)))

    def refusing(self, number: int) -> "Host":
        return self._replace(refused=self.refused | {number})


class World(NamedTuple):
    """All stores but the move's own row. `claims`: what the server claims, and what the move claims."""

    mapping: str = "X"
    x: Row = Row("LIVE")
    y: Row | None = None
    was_admitted: bool = False
    claims: tuple[str, str | None] = ("A", None)
    a: Host = Host(((1, "run"),))
    b: Host = Host()
    has_cleanup: bool = False


class Worker(NamedTuple):
    """A super-conductor at a step: where it has read that the move stands, and how its step has ended.

    `holds`: whether its token is the lease's; `claim`: whether the generation that it has read is the last one.
    """

    position: Position
    report: str | None = None
    holds: bool = True
    claim: bool | None = None


class Message(NamedTuple):
    """An order of a phase to its host; or, with a word, the answer."""

    phase: str
    word: str | None = None


class State(NamedTuple):
    position: Position
    is_leased: bool = False
    workers: tuple[Worker, ...] = ()
    world: World = World()
    messages: frozenset[Message] = frozenset()
    given_up: int = 0
    faults: tuple[int, ...] = (0,) * len(KINDS)


Next = Iterator[tuple[str, bool, State]]
"""What happens; whether it need not happen (a fault, a user); the state after it."""

CLAIMS: dict[str, tuple[tuple[str, str | None], str]] = {
    "super.claim": (("B", "A"), "claimed"),
    "super.unclaim": (("A", None), "undone"),
    "super.end": (("B", None), "done"),
}
"""Who writes claims: what the server and the move claim then, and the step's report."""
ORDERED = ("send", "cancel", "unpark", "destroy", "prepare", "fetch", "activate")
CLEAN = "clean"
"""The order of a cleanup, which is beside the move."""


class UndoneBackwards(Catalog):
    """The order without the rule: what comes last is undone first, also if an earlier step's undo may be too late."""

    def _undo_from(self, position: Position, step: str) -> Position:
        return self._last_of(position, MOVE_BETWEEN_CELLS.index(step) + 1)

    def _undo_after(self, position: Position, step: Step) -> Position:
        return self._last_of(position, MOVE_BETWEEN_CELLS.index(step.name))

    def _onward(self, position: Position, step: str) -> Position:
        """Too late: the steps after it that were undone have to report anew."""
        if position.heading is Heading.UNDO:
            later = MOVE_BETWEEN_CELLS.steps[MOVE_BETWEEN_CELLS.index(step) + 1 :]
            undone = {each.name for each in later if each.undo is not None}
            kept = tuple(each for each in position.reports if each[0] not in undone)
            position = dataclasses.replace(position, reports=kept)
        return super()._onward(position, step)

    def _last_of(self, position: Position, steps: int) -> Position:
        return _undo_last(position, MOVE_BETWEEN_CELLS, MOVE_BETWEEN_CELLS.steps[:steps])


class Model:
    """What may happen next.

    Args:
        broken: the rule of `BREAKS` that is left out.
        faults, kinds: how many in one run, and of which kinds.
        live: a live migration, whose source may say that the guest has left; else a cold one, whose source stops it.
    """

    def __init__(
        self, broken: str | None = None, *, faults: int = 1, kinds: tuple[str, ...] = KINDS, live: bool = True
    ) -> None:
        self._broken = broken
        self._faults = faults
        self._limits = [LIMITS[kind] if kind in kinds else 0 for kind in KINDS]
        self._live = live
        self._catalog = (UndoneBackwards if broken == "undone-before-asked" else Catalog)([MOVE_BETWEEN_CELLS])

    def first(self) -> State:
        return State(self._catalog.begin(MOVE_BETWEEN_CELLS.name))

    def next(self, state: State) -> Next:
        yield from self._give_up(state)
        yield from self._leases(state)
        for worker in set(state.workers):
            yield from self._work(state, worker)
        yield from self._send(state)
        for message in state.messages:
            yield from self._deliver(state, message)

    def _fault(self, state: State, kind: str) -> State | None:
        """The state with this fault counted; None: there were enough."""
        index = KINDS.index(kind)
        if sum(state.faults) >= self._faults or state.faults[index] >= self._limits[index]:
            return None
        return state._replace(faults=(*state.faults[:index], state.faults[index] + 1, *state.faults[index + 1 :]))

    # ---- users, leases -----------------------------------------------------------------------------------------------

    def _give_up(self, state: State) -> Next:
        if self._catalog.may_be_undone(state.position) and state.given_up < MAX_GIVEN_UP:
            after = self._catalog.give_up(state.position)
            yield "give up", True, state._replace(position=after, given_up=state.given_up + 1)

    def _leases(self, state: State) -> Next:
        lost = tuple(each._replace(holds=False) for each in state.workers)
        if not state.is_leased and not state.position.is_over and len(state.workers) < 2:
            yield "lease", False, state._replace(is_leased=True, workers=_bag(*lost, Worker(state.position)))
        if state.is_leased and not any(each.holds for each in state.workers):
            yield "the lease runs out", False, state._replace(is_leased=False)
        elif state.is_leased and (slow := self._fault(state, "expire")):
            yield "the lease runs out under a slow worker", True, slow._replace(is_leased=False, workers=_bag(*lost))
        if killed := self._fault(state, "crash"):
            for worker in set(state.workers):
                yield f"killed at {worker.position.step}", True, _with(killed, worker, None)

    # ---- super-conductors --------------------------------------------------------------------------------------------

    def _work(self, state: State, worker: Worker) -> Next:
        """A worker does the step that it has read of, whatever has happened since; then it writes how it ended."""
        turn = self._catalog.turn(worker.position)
        assert turn is not None
        if worker.report is not None:
            yield f"write {turn.name}", False, self._written(state, worker, turn.name)
        elif turn.name == SWITCH:
            yield SWITCH, False, self._switched(state, worker)
        elif turn.name in CLAIMS:
            yield from self._claim(state, worker, turn.name)
        else:
            world, report = self._act(state.world, worker.position, turn.name)
            done = state._replace(world=world)
            if report is not None:
                yield turn.name, False, _with(done, worker, worker._replace(report=report))
            else:  # A host has to answer. Whoever comes next looks for its word.
                left = _with(done, worker, None)
                yield f"ask {turn.name}", False, left._replace(is_leased=left.is_leased and not worker.holds)

    def _written(self, state: State, worker: Worker, name: str) -> State:
        """The next position, if the worker's token and the position that it has read are still there."""
        if not _is_current(state, worker):
            return _with(state, worker, None)
        assert worker.report is not None
        after = self._catalog.take_report(state.position, name, worker.report)
        if after.is_over:
            return _with(state, worker, None)._replace(position=after, is_leased=False)
        return _with(state, worker, Worker(after))._replace(position=after)

    def _switched(self, state: State, worker: Worker) -> State:
        """The point of no return: what it writes, and the position, are one commit."""
        switched = state._replace(world=state.world._replace(mapping="Y"))
        if _is_current(state, worker):
            done = worker._replace(report="done")
            return self._written(_with(switched, worker, done), done, SWITCH)
        return _with(switched if self._broken == "switch-uncompared" else state, worker, None)

    def _claim(self, state: State, worker: Worker, name: str) -> Next:
        """The generation is read first, then the lease is compared, then the claim is written."""
        if worker.claim is None:
            is_renewed = _is_current(state, worker) or self._broken == "no-renew"
            yield f"read for {name}", False, _with(state, worker, worker._replace(claim=True) if is_renewed else None)
        elif not worker.claim and self._broken != "no-generation":
            yield f"{name} refused", False, _with(state, worker, worker._replace(claim=None))
        else:
            claims, report = CLAIMS[name]
            world = state.world._replace(claims=claims)
            if name == "super.end" and world.y is not None:
                world = world._replace(y=Row(world.y.state))
            done = _with(state._replace(world=world), worker, worker._replace(report=report))
            yield name, False, done._replace(workers=_bag(*map(_outdated, done.workers)))
            if name == "super.claim" and (full := self._fault(state, "full")):
                yield "no host has room", True, _with(full, worker, worker._replace(report="no-host"))

    def _act(self, world: World, position: Position, name: str) -> tuple[World, str | None]:
        """What a step or undo writes where the row is as it expects, and its report.

        An undo leaves the row so that its step, done late by a slow worker, does not find what it expects.
        """
        x, y = world.x, world.y
        if name == "super.admit":
            if x == Row("LIVE") and not world.was_admitted:
                return world._replace(x=Row("LIVE", "asked"), was_admitted=True), "admitted"
            return world, "admitted" if x.phase == "asked" else "refused"
        if name == "super.undo-source":
            return world._replace(x=Row(x.state), was_admitted=self._broken != "no-record"), "undone"
        if name == "super.open":
            return (world._replace(y=Row("ARRIVING", "prepare")) if y is None else world), "done"
        if name == "super.undo-destination":
            return world._replace(y=None if self._broken == "no-void" else Row("VOID"), has_cleanup=True), "undone"
        if name == "super.go":
            return (world._replace(x=Row("LIVE", "send")) if x == Row("LIVE", "asked") else world), "done"
        if name == "super.close":
            has_left = x in (Row("LIVE", "send", "parked"), Row("LIVE", "cancel", "left"))
            has_left = has_left or self._broken == "close-uncompared"
            return (world._replace(x=x._replace(state="LEAVING")) if has_left else world), "done"
        if name == "super.reopen":
            return (world._replace(x=x._replace(state="LIVE")) if x.state == "LEAVING" else world), "undone"
        if name == "super.unhide":
            is_here = y is not None and y.state == "ARRIVING"
            return (world._replace(y=Row("LIVE", "activate")) if is_here else world), "done"
        if name == "super.hide":
            return (world._replace(x=Row("AWAY", "destroy")) if x.state == "LEAVING" else world), "done"
        if name.startswith("agent."):
            return self._ask(world, position, name.removeprefix("agent."))
        return world, "done"  # It writes nothing but the move's row, or (`super.copy`) what nobody compares.

    def _ask(self, world: World, position: Position, name: str) -> tuple[World, str | None]:
        """The row of the host's cell says what the host is asked; later it has the host's word."""
        x, y = world.x, world.y
        if name == "cancel":
            if self._broken == "unasked":
                return world._replace(x=Row(x.state, "cancel", "stays")), "stays"
            # B has nothing, and never will: the guest goes on at A in any case.
            phase = "unpark" if position.report_of("agent.fetch") == "refused" else "cancel"
            is_open = x.phase is not None or self._broken == "ask-uncompared"
            if x.state in ("LIVE", "LEAVING") and x.phase != phase and is_open:
                return world._replace(x=Row(x.state, phase)), None
            return world, x.word if x.phase == phase else None
        if name == "send" and (x.phase, x.word) == ("cancel", "left"):
            return world, "parked"
        if name == "fetch" and y == Row("ARRIVING", "prepare", "prepared"):
            return world._replace(y=Row("ARRIVING", "fetch")), None
        rows = [row for row in (x, y) if row is not None and row.phase == name]
        return world, rows[0].word if rows else None

    # ---- cells' conductors -------------------------------------------------------------------------------------------

    def _send(self, state: State) -> Next:
        """Orders follow from rows alone, again and again until they are answered."""
        rows = [row for row in (state.world.x, state.world.y) if row is not None and row.word is None]
        phases = [str(row.phase) for row in rows if row.phase in ORDERED]
        for phase in [*phases, *([CLEAN] if state.world.has_cleanup else [])]:
            if not any(message.phase == phase for message in state.messages):
                yield f"send {phase}", False, state._replace(messages=state.messages | {Message(phase)})

    def _deliver(self, state: State, message: Message) -> Next:
        """Handled; or handled, and it comes again; or lost."""
        handled = self._obey(state, message.phase) if message.word is None else self._hear(state, message)
        for name, need_not, after in handled:
            yield name, need_not, after._replace(messages=after.messages - {message})
            if again := self._fault(after, "dup"):
                yield f"{name}, to come again", True, again._replace(messages=again.messages | {message})
        if lost := self._fault(state, "lose"):
            yield f"{message} is lost", True, lost._replace(messages=lost.messages - {message})

    def _hear(self, state: State, message: Message) -> Next:
        """The row notes the word that it waits for, and no other."""
        world, word = state.world, message.word
        if message.phase == CLEAN:
            world = world._replace(has_cleanup=False)
        elif world.x.word is None and world.x.phase == message.phase:
            world = world._replace(x=world.x._replace(word=word))
        elif world.y is not None and world.y.word is None and world.y.phase == message.phase:
            world = world._replace(y=world.y._replace(word=word))
        elif self._broken == "cancel-believes-parked" and (world.x.phase, word) == ("cancel", "parked"):
            world = world._replace(x=world.x._replace(word="left"))
        yield f"hear {word}", False, state._replace(world=world)

    # ---- hosts -------------------------------------------------------------------------------------------------------

    def _obey(self, state: State, phase: str) -> Next:
        """An order is done, or was done already; the word says what is so."""
        world = state.world
        if phase in ("send", "cancel", "unpark", "destroy"):
            (a, b), word = self._at_source(world, phase)
            yield f"A {word}", False, _told(state, world._replace(a=a, b=b), phase, word)
            if phase == "send" and word == "parked" and world.a != a and (failed := self._fault(state, "fails")):
                yield "the migration fails", True, _told(failed, world._replace(a=self._over(world.a)), phase, "stays")
            return
        b, word = self._at_destination(world, phase)
        yield f"B {word}", False, _told(state, world._replace(b=b), phase, word)
        is_news = phase in ("prepare", "fetch") and word != "refused" and b != world.b
        if is_news and (cannot := self._fault(state, "refuse")):
            yield f"B cannot {phase}", True, _told(cannot, world._replace(b=_without(world.b, MOVE)), phase, "refused")

    def _at_source(self, world: World, phase: str) -> tuple[tuple[Host, Host], str | None]:
        a, b, run = world.a, world.b, world.a.run_of(1)
        if phase == "destroy":
            return (_without(a, 1), b), "gone"
        if MOVE in a.refused:
            return (a, b), "stays"
        if phase == "cancel" and run == "left":
            return (a, b), "left"
        if phase in ("cancel", "unpark"):
            return (self._over(a.having(1, "run") if run else a), b), "stays"
        if run != "run":
            return (a, b), "parked" if run else None
        if not self._live:
            return (a.having(1, "off"), b), "parked"
        if b.run_of(MOVE) != "made":
            return (self._over(a), b), "stays"
        return (a.having(1, "left"), b.having(MOVE, "full")), "parked"

    def _over(self, a: Host) -> Host:
        """Nothing is done for this move any more."""
        return a if self._broken == "number-not-refused" else a.refusing(MOVE)

    def _at_destination(self, world: World, phase: str) -> tuple[Host, str | None]:
        b, run = world.b, world.b.run_of(MOVE)
        if phase == CLEAN:
            return _without(b, MOVE), "gone"
        if MOVE in b.refused:
            return b, "refused"
        if phase == "prepare":
            return (b if run else b.having(MOVE, "made")), "prepared"
        if phase == "activate":
            return b.having(MOVE, "run"), "active"
        if run in ("kept", "run"):
            return b, "ready"
        if run is None or (self._live and run == "made"):
            return _without(b, MOVE), "refused"
        # Cold: it copies the disks of a guest that is off.
        return (b.having(MOVE, "kept"), "ready") if self._live or world.a.run_of(1) == "off" else (b, None)

    # ---- what must hold ----------------------------------------------------------------------------------------------

    def wrong(self, state: State) -> str | None:
        """The invariant that is broken."""
        world = state.world
        rows = {"X": world.x.state, "Y": world.y.state if world.y else None}
        runs = [run for host in (world.a, world.b) for _, run in host.guests]
        if runs.count("run") > 1:
            return "two guests of the server run"
        if list(rows.values()).count("LIVE") > 1:
            return "two cells take writes for the server"
        if rows[world.mapping] not in ("LIVE", "LEAVING", "ARRIVING"):
            return "the cell that the mapping names does not hold the server"
        if rows["X" if world.mapping == "Y" else "Y"] == "LIVE":
            return "a cell that the mapping does not name takes writes for the server"
        if not {"LIVE", "LEAVING"} & set(rows.values()):
            return "no list shows the server"
        if world.mapping == "Y" and (world.claims[0], world.b.run_of(MOVE)) not in {("B", "kept"), ("B", "run")}:
            return "the server was handed to a host that has no guest, or no claim"
        if world.a.guests and "A" not in world.claims:
            return "the room of the guest at the source is not claimed"
        return None

    def good_end(self, state: State) -> str | None:
        """How it has ended well; None: it has not."""
        world = state.world
        if state.workers or state.messages or world.has_cleanup:
            return None
        hosts = (world.a.guests, world.b.guests)
        rows = (world.mapping, world.x, None if world.y and world.y.state == "VOID" else world.y)
        if state.position.heading is Heading.UNDONE:
            is_good = (rows, hosts) == (("X", Row("LIVE"), None), (((1, "run"),), ()))
            return "stayed" if is_good and world.claims == ("A", None) else None
        if state.position.heading is Heading.DONE:
            is_good = (rows[0], rows[1].state, rows[2], hosts) == ("Y", "AWAY", Row("LIVE"), ((), ((MOVE, "run"),)))
            return "moved" if is_good and world.claims == ("B", None) else None
        return None


def _bag(*workers: Worker) -> tuple[Worker, ...]:
    """Workers are alike: their order does not count."""
    return tuple(sorted(workers, key=repr))


def _with(state: State, worker: Worker, after: Worker | None) -> State:
    """The worker has become another, or is gone."""
    workers = list(state.workers)
    workers.remove(worker)
    return state._replace(workers=_bag(*workers, *([] if after is None else [after])))


def _is_current(state: State, worker: Worker) -> bool:
    return worker.holds and worker.position == state.position


def _outdated(worker: Worker) -> Worker:
    """Somebody has written claims: a generation that was read before is not the last one any more."""
    return worker._replace(claim=False) if worker.claim and worker.report is None else worker


def _without(host: Host, attempt: int) -> Host:
    """Nothing of the attempt is there, now or later."""
    return host.having(attempt, None).refusing(attempt)


def _told(state: State, world: World, phase: str, word: str | None) -> State:
    words = set() if word is None else {Message(phase, word)}
    return state._replace(world=world, messages=state.messages | words)


# ---- the search ------------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """`verdict`: what is wrong, None: nothing; `trace`: how it comes to that; `ends`: how often which good end."""

    verdict: str | None
    trace: list[str]
    states: int
    ends: Counter[str]


class Search:
    """All states of a model, each with how it was first reached, and what leads where without a fault."""

    def __init__(self, model: Model) -> None:
        self._model = model
        first = model.first()
        self._states, self._ids = [first], {first: 0}
        self._parents, self._how = array("q", [-1]), [""]
        self._from, self._to = array("L"), array("L")
        self._good: list[int] = []
        self._ends: Counter[str] = Counter()

    def run(self) -> Outcome:
        at = 0
        while at < len(self._states):
            verdict = self._visit(at)
            if verdict is not None:
                return verdict
            at += 1
        trap = self._trap()
        if trap is not None:
            return self._outcome("no good end can be reached any more", trap)
        return Outcome(None, [], len(self._states), self._ends)

    def _visit(self, at: int) -> Outcome | None:
        state, is_quiet = self._states[at], True
        for name, need_not, after in self._model.next(state):
            reached = self._ids.get(after)
            if reached is None:
                reached = self._note(at, name, after)
                wrong = self._model.wrong(after)
                if wrong is not None:
                    return self._outcome(wrong, reached)
            if not need_not:
                is_quiet = is_quiet and after == state
                self._from.append(at)
                self._to.append(reached)
        end = self._model.good_end(state)
        if end is not None:
            self._good.append(at)
            self._ends[end] += 1
        return self._outcome("nothing is left to do, and it is no good end", at) if is_quiet and end is None else None

    def _note(self, at: int, name: str, after: State) -> int:
        self._ids[after] = reached = len(self._states)
        self._states.append(after)
        self._parents.append(at)
        self._how.append(name)
        return reached

    def _outcome(self, verdict: str, at: int) -> Outcome:
        trace = [str(self._states[at])]
        while self._parents[at] >= 0:
            trace.append(self._how[at])
            at = self._parents[at]
        return Outcome(verdict, trace[::-1], len(self._states), self._ends)

    def _trap(self) -> int | None:
        """A state from which only faults lead to a good end: backwards from the good ends, all others are reached."""
        before: list[list[int]] = [[] for _ in self._states]
        for start, end in zip(self._from, self._to, strict=True):
            before[end].append(start)
        left, todo = set(range(len(self._states))), list(self._good)
        while todo:
            at = todo.pop()
            if at in left:
                left.remove(at)
                todo.extend(before[at])
        return min(left, default=None)


def check(
    broken: str | None = None, *, faults: int = 1, kinds: tuple[str, ...] = KINDS, live: bool = True
) -> Outcome:
    """Searches all states."""
    return Search(Model(broken, faults=faults, kinds=kinds, live=live)).run()
