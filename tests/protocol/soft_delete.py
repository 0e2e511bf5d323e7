#!/usr/bin/env python3
"""An exhaustive check of soft delete, restore, reclaim and delete for good (docs/build-protocol.md, section 11): every
interleaving, every crash point, no sampling.

One server that was handed over to its cell and may still be being built, two workers (the API's request or a
super-conductor), one that reclaims, a cell that may be dark. Breadth-first search visits all states that users reach
with at most ASKED requests and FAULTS faults; the first state that is wrong is printed with a shortest trace. Then
liveness: from every state a good end is reachable without further faults and requests.

    soft_delete.py                 the protocol, then every broken variant; exit 1 if any answer is not the expected one
    soft_delete.py --break NAME    one broken variant, with its trace
"""

import argparse
import sys
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

ASKED, FAULTS = 4, 2
BREAKS = {
    "no-mark": "the cell obeys a soft delete or a restore whatever its mark",
    "no-token": "a journal row is dropped without comparing its lease token",
    "restore-unchecked": "a restore does not compare what the mapping says",
    "reclaim-by-cell": "a cell reclaims by itself",
    "reclaim-unmarked": "a reclaim does not compare the mark that it found overdue",
    "final-unmarked": "a soft delete is made final without comparing mapping and token",
    "reset-state": "an operator may set the state of a server while it is soft-deleted or restored",
    "fault-leaves-it": "a host that cannot power the guest off leaves the server as it was",
}
LIVING, DELETED, SOFT = 0, 1, 2
NEVER_RAN, ACTIVE, SOFT_DELETING, SOFT_DELETED, RESTORING = (
    "never ran",
    "active",
    "soft-deleting",
    "soft-delete",
    "restoring",
)


class Journal(NamedTuple):
    """The row of the journal."""

    kind: str
    mark: int
    token: int


class Worker(NamedTuple):
    """Who holds, or held, a lease: what its row said, and how far it is."""

    at: str
    kind: str
    mark: int
    token: int


class State(NamedTuple):
    """Every store, and who is at work."""

    deleted: int = LIVING  # API db: the mapping
    mark: int = 0
    journal: Journal | None = None
    is_tombstone: bool = False  # cell db
    vm_state: str = ACTIVE
    row_mark: int = 0
    is_dark: bool = False
    workers: tuple[Worker, ...] = ()
    overdue: int | None = None  # the mark of the soft delete whose time is over
    found: int | None = None  # what the one that reclaims has read
    tokens: int = 1
    asked: int = 0
    faults: int = 0
    wrong: str = ""


Step = tuple[str, bool, State]
"""Its name, whether it is a fault or a request, and where it leads."""


class Model:
    """The protocol, or what is left of it without one rule."""

    def __init__(self, broken: str | None = None, *, asked: int = ASKED) -> None:
        self.broken = broken
        self.most = asked

    def steps(self, s: State) -> Iterator[Step]:
        """All that may happen next."""
        yield from self._requests(s)
        yield from self._faults(s)
        yield from self._leases(s)
        for worker in set(s.workers):
            yield from self._work(s, worker)
        yield from self._host(s)
        yield from self._reclaim(s)

    # ---- users and operators -----------------------------------------------------------------------------------------

    def _requests(self, s: State) -> Iterator[Step]:
        if s.asked == self.most:
            return
        t = s._replace(asked=s.asked + 1)
        if s.deleted == LIVING:
            soft = t._replace(deleted=SOFT, mark=s.mark + 1, overdue=None)
            yield "api.soft-delete", True, self._tell(soft, "soft-delete")
        is_admitted = s.is_dark or s.vm_state == SOFT_DELETED
        if is_admitted and (s.deleted == SOFT or (self.broken == "restore-unchecked" and s.deleted == DELETED)):
            restored = t._replace(deleted=LIVING, mark=s.mark + 1, overdue=None)
            yield "api.restore", True, self._tell(restored, "restore")
        if s.deleted != DELETED:
            yield "api.delete (forceDelete)", True, self._delete(t)
        can_reset = self.broken == "reset-state" or s.vm_state in (ACTIVE, NEVER_RAN)
        if can_reset and s.vm_state != NEVER_RAN and not (s.is_dark or s.is_tombstone):
            yield "resetState", True, t._replace(vm_state=ACTIVE)

    @staticmethod
    def _tell(s: State, kind: str) -> State:
        """The row takes the place of an older one; the API goes on with it."""
        return s._replace(
            journal=Journal(kind, s.mark, s.tokens), tokens=s.tokens + 1,
            workers=(*s.workers, Worker("cell", kind, s.mark, s.tokens))
        )  # fmt: skip

    def _delete(self, s: State) -> State:
        s = s._replace(deleted=DELETED)
        if s.journal is not None:
            return s._replace(journal=s.journal._replace(kind="delete"))
        return self._tell(s, "delete")

    # ---- faults ------------------------------------------------------------------------------------------------------

    def _faults(self, s: State) -> Iterator[Step]:
        if s.is_dark:
            yield "the cell returns", False, s._replace(is_dark=False)
        if s.faults == FAULTS:
            return
        t = s._replace(faults=s.faults + 1)
        if not s.is_dark:
            yield "the cell goes dark", True, t._replace(is_dark=True)
        for worker in set(s.workers):
            yield f"killed at {worker.at}", True, _without(t, worker)

    # ---- workers -----------------------------------------------------------------------------------------------------

    def _leases(self, s: State) -> Iterator[Step]:
        """A lease may run out under a slow holder."""
        if s.journal is None or len(s.workers) >= 2:
            return
        journal = s.journal._replace(token=s.tokens)
        worker = Worker("cell", journal.kind, journal.mark, journal.token)
        yield "super.lease", False, s._replace(journal=journal, tokens=s.tokens + 1, workers=(*s.workers, worker))

    def _work(self, s: State, worker: Worker) -> Iterator[Step]:
        if worker.at == "cell" and not s.is_dark:
            yield from self._tell_cell(s, worker)
        elif worker.at == "drop":
            yield self._drop(s, worker)
        elif worker.at == "make-final":
            yield self._make_final(s, worker)

    def _tell_cell(self, s: State, worker: Worker) -> Iterator[Step]:
        done = _moved(s, worker, worker._replace(at="drop"))
        is_newer = worker.mark > s.row_mark or self.broken == "no-mark"
        if worker.kind == "delete":
            yield "super.tombstone", False, done._replace(is_tombstone=True)
        elif s.is_tombstone or not is_newer:
            yield f"super.{worker.kind} comes late", False, done
        elif worker.kind == "soft-delete" and s.vm_state == NEVER_RAN:
            yield (
                "super.soft-delete finds that it never ran",
                False,
                _moved(s, worker, worker._replace(at="make-final")),
            )
        elif worker.kind == "soft-delete":
            yield "super.soft-delete", False, done._replace(row_mark=worker.mark, vm_state=SOFT_DELETING)
        else:
            is_off = s.vm_state in (SOFT_DELETING, SOFT_DELETED)
            vm_state = RESTORING if is_off else s.vm_state
            yield "super.restore", False, done._replace(row_mark=worker.mark, vm_state=vm_state)

    def _drop(self, s: State, worker: Worker) -> Step:
        journal = s.journal
        is_mine = journal is not None and journal.token == worker.token
        if journal is not None and is_mine and journal.kind != worker.kind:
            deleted = worker._replace(at="cell", kind="delete")
            return "super.drop refused (deleted)", False, _moved(s, worker, deleted)
        if is_mine or self.broken == "no-token":
            return "super.drop", False, _without(s, worker)._replace(journal=None)
        return "super.drop refused (lease lost)", False, _without(s, worker)

    def _make_final(self, s: State, worker: Worker) -> Step:
        journal = s.journal
        is_as_it_was = s.deleted == SOFT and s.mark == worker.mark and journal is not None
        is_mine = journal is not None and journal.token == worker.token and journal.kind == worker.kind
        if (is_as_it_was and is_mine) or (self.broken == "final-unmarked" and journal is not None):
            final = _moved(s, worker, worker._replace(at="cell", kind="delete"))
            final = final._replace(deleted=DELETED, journal=journal._replace(kind="delete"))
            unasked = "a server is deleted for good that was restored" if s.deleted == LIVING else ""
            return "super.make-final", False, final._replace(wrong=unasked)
        if journal is not None and journal.token == worker.token and journal.kind == "delete":
            return (
                "super.make-final refused (deleted)",
                False,
                _moved(s, worker, worker._replace(at="cell", kind="delete")),
            )
        return "super.make-final refused", False, _without(s, worker)

    # ---- hosts, clocks -----------------------------------------------------------------------------------------------

    def _host(self, s: State) -> Iterator[Step]:
        """It builds, or answers, or its time is over: `cell.acted`."""
        if s.is_tombstone or s.is_dark:
            return
        after = {NEVER_RAN: ACTIVE, SOFT_DELETING: SOFT_DELETED, RESTORING: ACTIVE}.get(s.vm_state)
        if after is not None:
            yield f"{s.vm_state} ends", False, s._replace(vm_state=after)
        if s.vm_state == SOFT_DELETING and self.broken == "fault-leaves-it":
            yield "soft-deleting fails", True, s._replace(vm_state=ACTIVE)

    def _reclaim(self, s: State) -> Iterator[Step]:
        if s.deleted == SOFT and s.overdue is None:
            yield "its time is over", False, s._replace(overdue=s.mark)
        if s.found is None and s.overdue is not None and s.asked < self.most:
            yield "super.reclaim looks", True, s._replace(found=s.overdue, asked=s.asked + 1)
        if s.found is not None:
            t = s._replace(found=None)
            is_it = s.deleted == SOFT and (s.mark == s.found or self.broken == "reclaim-unmarked")
            early = "" if s.overdue == s.mark else "reclaimed before its time"
            yield "super.reclaim", False, self._delete(t)._replace(wrong=early) if is_it else t
        if self.broken == "reclaim-by-cell" and s.vm_state == SOFT_DELETED and not s.is_dark:
            yield "the cell reclaims by itself", True, s._replace(is_tombstone=True)


def _without(s: State, worker: Worker) -> State:
    workers = list(s.workers)
    workers.remove(worker)
    return s._replace(workers=tuple(workers))


def _moved(s: State, worker: Worker, after: Worker) -> State:
    s = _without(s, worker)
    return s._replace(workers=(*s.workers, after))


def _normal(s: State) -> State:
    """Workers are alike, and of tokens only counts which are equal: so there are finitely many states."""
    used = sorted({worker.token for worker in s.workers} | ({s.journal.token} if s.journal else set()))
    names = {token: number for number, token in enumerate(used, 1)}
    workers = sorted(worker._replace(token=names[worker.token]) for worker in s.workers)
    journal = s.journal and s.journal._replace(token=names[s.journal.token])
    return s._replace(workers=tuple(workers), journal=journal, tokens=len(used) + 1)


def is_at_rest(s: State) -> bool:
    """Whether nobody has anything left to do."""
    under_way = s.vm_state in (SOFT_DELETING, RESTORING) and not s.is_tombstone
    return s.journal is None and not s.workers and not s.is_dark and s.found is None and not under_way


def wrong(s: State) -> str:
    """What must not be; empty: nothing."""
    if s.is_tombstone and s.deleted != DELETED:
        return "a tombstone of a server that is not deleted for good"
    if is_at_rest(s):
        fits = {
            LIVING: not s.is_tombstone and s.vm_state in (ACTIVE, NEVER_RAN),
            SOFT: not s.is_tombstone and s.vm_state == SOFT_DELETED,
            DELETED: s.is_tombstone,
        }
        if not fits[s.deleted]:
            return "at rest mapping and row differ"
    return s.wrong


def check(broken: str | None = None, *, asked: int = ASKED) -> tuple[str, list[str], int]:
    """(what is wrong, the shortest way there, number of states) with at most so many requests."""
    model = Model(broken, asked=asked)
    starts = [State(), State(vm_state=NEVER_RAN)]
    came: dict[State, tuple[State, str] | None] = dict.fromkeys(starts)
    back: dict[State, list[State]] = {}
    todo = deque(starts)
    while todo:
        s = todo.popleft()
        for name, is_asked, after in model.steps(s):
            t = _normal(after)
            if not is_asked:
                back.setdefault(t, []).append(s)
            if t in came:
                continue
            came[t] = (s, name)
            if found := wrong(t):
                return found, _trace(came, t), len(came)
            todo.append(t)
    trapped = _trapped(came, back)
    if trapped is not None:
        return "no good end can be reached any more", _trace(came, trapped), len(came)
    return "", [], len(came)


def _trapped(states: dict[State, tuple[State, str] | None], back: dict[State, list[State]]) -> State | None:
    ends = [s for s in states if is_at_rest(s)]
    seen, todo = set(ends), ends
    while todo:
        for s in back.get(todo.pop(), ()):
            if s not in seen:
                seen.add(s)
                todo.append(s)
    return next((s for s in states if s not in seen), None)


def _trace(came: dict[State, tuple[State, str] | None], s: State) -> list[str]:
    steps = []
    while (step := came[s]) is not None:
        s, name = step
        steps.append(name)
    return steps[::-1]


def main() -> int:
    """Checks what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--break", dest="broken", choices=BREAKS)
    named = parser.parse_args().broken
    failed = False
    for broken in [named] if named else [None, *BREAKS]:
        found, steps, states = check(broken)
        failed |= bool(found) != bool(broken)
        print(f"{broken or 'the protocol':20} {found or 'holds':60} {len(steps) or '':>4} {states:>8}", flush=True)
        if found and (named or not broken):
            print("\n".join(f"    {step}" for step in steps))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
