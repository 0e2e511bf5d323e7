"""The journal's worker: leases rows, gives them to the handler of their kind of work, and writes what became of them.

Whoever dies in between leaves rows whose lease runs out; the sweep takes them up from their phase
(docs/build-protocol.md, section 2). A new kind of work is one handler more.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import api_db.journal
import core.errors
from api_db.journal import LEASE_S, Entry, Kind
from cells.gate.answers import value_of
from cells.gate.gate import Gate
from conductor.superconductor.outcome import GiveBack, HandedOver, Outcome, Refused, worked_on
from core.crash_points import CrashPoints
from database.engine import Connection
from messaging.listener import Delivery

MAX_LEASED = 50
AGAIN_S = 1.0


class Handler(Protocol):
    """Works on the rows of one kind. Safe for several threads: each has leased its rows itself."""

    @property
    def kind(self) -> Kind:
        """Which rows it works on."""
        ...

    def work(self, entries: Sequence[Entry]) -> Iterable[Outcome]:
        """Goes on with leased rows from where they are. A row for which an error leaves no outcome is tried again.

        Raises:
            Unavailable: a part that is needed does not answer.
        """
        ...

    def fail(self, entries: Sequence[Entry], why: str) -> Iterable[Outcome]:
        """Ends leased rows that cannot be handled, as far as they are not under way already; as `work` otherwise."""
        ...


class JournalWorker:
    """Works the journal. Safe for several threads: each works on what it has leased itself.

    Args:
        handlers: one for each kind of work.
        hint_s: seconds that the sweep leaves a new row to its hint.
    """

    def __init__(self, api: Gate, handlers: Sequence[Handler], *, steps: CrashPoints, hint_s: float = 0.0) -> None:
        self._api = api
        self._handlers = {handler.kind: handler for handler in handlers}
        self._steps = steps
        self._hint_s = hint_s
        self._to_drop: list[Entry] = []
        self._lock = threading.Lock()

    # ---- ways in -----------------------------------------------------------------------------------------------------

    def on_place(self, deliveries: list[Delivery]) -> None:
        """The hint: leases the rows that it names, acks, and works on them."""
        wanted = [uuid for delivery in deliveries for uuid in delivery.arguments.uuids]
        entries = self.lease(wanted, most=len(wanted))
        for delivery in deliveries:
            delivery.ack()
        self.work(entries)

    def sweep(self) -> bool:
        """Takes up rows whose lease is over; gives whether there may be more."""
        entries = self.lease(None, most=MAX_LEASED)
        self.work(entries)
        return len(entries) == MAX_LEASED

    def flush(self) -> None:
        """Drops the rows whose cell holds the work, when no lease came along to do that in the same commit."""
        with self._lock:
            any_left = bool(self._to_drop)
        if any_left:
            self.lease([], most=0)

    def fail(self, wanted: Sequence[str], why: str) -> None:
        """Ends rows whose message nobody could handle, with the fault. Rows that somebody works on are left to them."""
        self._work(self.lease(wanted, most=len(wanted)), lambda handler, entries: handler.fail(entries, why))

    def work(self, entries: Sequence[Entry]) -> None:
        """Goes on with leased rows from where they are; what fails is tried again after its lease."""
        self._work(entries, lambda handler, entries: handler.work(entries))

    def _work(self, entries: Sequence[Entry], work: Callable[[Handler, Sequence[Entry]], Iterable[Outcome]]) -> None:
        for kind, handler in self._handlers.items():
            of_kind = [entry for entry in entries if entry.kind is kind]
            self._write(worked_on(of_kind, lambda entries, handler=handler: work(handler, entries)))  # type: ignore[misc]

    # ---- super.lease, with the drops of the round before -------------------------------------------------------------

    def lease(self, wanted: Sequence[str] | None, *, most: int) -> list[Entry]:
        """Leases rows; drops, in the same commit, what earlier rounds have handed over.

        Raises:
            Unavailable: the API database does not answer.
        """
        with self._lock:
            dropping, self._to_drop = self._to_drop, []
        try:
            with self._steps("super.drop") if dropping else contextlib.nullcontext(), self._steps("super.lease"):
                dropped, entries = value_of(self._api.write_now(_drop_and_lease, dropping, wanted, most, self._hint_s))
        except core.errors.Unavailable:
            with self._lock:
                self._to_drop += dropping
            raise
        self._work_deleted(entry for entry in dropping if entry.uuid not in dropped)
        return entries

    # ---- outcomes ----------------------------------------------------------------------------------------------------

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        """An answer that does not come is no harm: these rows are worked on again when their lease is over."""
        given_back = [outcome for outcome in outcomes if isinstance(outcome, GiveBack)]
        if given_back:
            self._api.write_now(_give_back, given_back)
        with self._lock:
            self._to_drop += [outcome.entry for outcome in outcomes if isinstance(outcome, HandedOver)]
        self._work_deleted(outcome.entry for outcome in outcomes if isinstance(outcome, Refused))

    def _work_deleted(self, refused: Iterable[Entry]) -> None:
        """Rows whose compare-and-set was refused: those that are still leased by this worker were deleted meanwhile."""
        leased = {entry.uuid: entry.token for entry in refused}
        if leased:
            now = value_of(self._api.read_now(_entries, list(leased)))
            self.work([entry for entry in now if entry.kind is Kind.DELETE and entry.token == leased[entry.uuid]])


def _drop_and_lease(
    connection: Connection, dropping: Sequence[Entry], wanted: Sequence[str] | None, most: int, hint_s: float
) -> tuple[set[str], list[Entry]]:
    dropped = api_db.journal.drop(connection, [entry.lease for entry in dropping])
    if most == 0:
        return dropped, []
    wait_s = hint_s if wanted is None else 0.0
    return dropped, api_db.journal.lease(connection, seconds=LEASE_S, most=most, uuids_wanted=wanted, hint_s=wait_s)


def _give_back(connection: Connection, outcomes: Sequence[GiveBack]) -> None:
    for outcome in outcomes:
        if outcome.fault is not None:
            uuid, token = outcome.entry.lease
            api_db.journal.set_fault(connection, uuid=uuid, token=token, fault=outcome.fault)
    explained = {each.entry.uuid: each.explanations for each in outcomes if each.explanations is not None}
    leases = [outcome.entry.lease for outcome in outcomes]
    api_db.journal.give_back(connection, leases, wait_s=AGAIN_S, explained=explained)


def _entries(connection: Connection, uuids: Sequence[str]) -> list[Entry]:
    entries = (api_db.journal.find(connection, uuid) for uuid in uuids)
    return [entry for entry in entries if entry is not None]
