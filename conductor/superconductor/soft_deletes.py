"""Soft deletes and restores that their cell has not heard of, and soft deletes whose time is over. Steps
`super.soft-delete`, `super.make-final`, `super.restore` and `super.reclaim` of the build protocol
(docs/build-protocol.md, section 11)."""

from collections.abc import Iterable, Iterator, Sequence

import api_db.journal
import api_db.soft_deletes
import cell_db.soft_deletes
import core.errors
import core.log
from api_db.instances import SOFT_DELETED
from api_db.journal import Entry, Kind
from cells.gate.answers import Answer, Silence, Unknown, value_of
from cells.gate.gate import Gate
from cells.gate.registry import Cells
from cells.soft_delete import hint_operation
from conductor.superconductor.outcome import GiveBack, HandedOver, Outcome, Refused, worked_on
from core.context import Context, service_context
from core.crash_points import CrashPoints
from core.log import about

LOG = core.log.get(__name__)
MOST = 100


class SoftDeleteHandler:
    """Works on the rows of soft deletes."""

    kind = Kind.SOFT_DELETE

    def __init__(self, api: Gate, cells: Cells, *, steps: CrashPoints) -> None:
        self._api = api
        self._cells = cells
        self._steps = steps

    def work(self, entries: Sequence[Entry]) -> Iterator[Outcome]:
        """Tells each server's cell; a row that cannot be worked on holds up no other."""
        for entry in entries:
            yield from worked_on([entry], self._soft_delete)

    def fail(self, entries: Sequence[Entry], why: str) -> Iterator[Outcome]:
        """As `work`: a soft delete is never given up."""
        return self.work(entries)

    def _soft_delete(self, entries: Sequence[Entry]) -> Iterable[Outcome]:
        return [self._tell(entry) for entry in entries]

    def _tell(self, entry: Entry) -> Outcome:
        """A server of which nothing could be restored is deleted for good: the handler of deletes goes on with it."""
        gate = self._cells.find_gate_now(str(entry.target))
        with self._steps("super.soft-delete"):
            told = gate.write_now(cell_db.soft_deletes.soft_delete, entry.uuid, mark=_mark(entry), by=_by(entry))
        if not isinstance(told, Answer) or told.value:
            return _outcome(gate, entry, told)
        with self._steps("super.make-final"):
            value_of(self._api.write_now(api_db.soft_deletes.make_final, entry))
        return Refused(entry)


class RestoreHandler:
    """Works on the rows of restores."""

    kind = Kind.RESTORE

    def __init__(self, cells: Cells, *, steps: CrashPoints) -> None:
        self._cells = cells
        self._steps = steps

    def work(self, entries: Sequence[Entry]) -> Iterator[Outcome]:
        """Tells each server's cell; a row that cannot be worked on holds up no other."""
        for entry in entries:
            yield from worked_on([entry], self._restore)

    def fail(self, entries: Sequence[Entry], why: str) -> Iterator[Outcome]:
        """As `work`: a restore is never given up."""
        return self.work(entries)

    def _restore(self, entries: Sequence[Entry]) -> Iterable[Outcome]:
        return [self._tell(entry) for entry in entries]

    def _tell(self, entry: Entry) -> Outcome:
        gate = self._cells.find_gate_now(str(entry.target))
        with self._steps("super.restore"):
            told = gate.write_now(cell_db.soft_deletes.restore, entry.uuid, mark=_mark(entry), by=_by(entry))
        return _outcome(gate, entry, told)


class Reclaim:
    """Deletes servers for good that have been soft-deleted for long enough.

    Args:
        interval_s: seconds that they can be restored; 0: for as long as nobody deletes them.
    """

    def __init__(self, api: Gate, *, interval_s: float, steps: CrashPoints) -> None:
        self._api = api
        self._interval_s = interval_s
        self._steps = steps

    def sweep(self) -> bool:
        """Each server's delete is a commit of its own, whose row the journal's sweep takes up; gives whether there may
        be more.

        Raises:
            Unavailable: the API database does not answer.
        """
        if not self._interval_s:
            return False
        due = value_of(self._api.read_now(api_db.soft_deletes.due, after_s=self._interval_s, most=MOST))
        for uuid, mark in due:
            self._delete(uuid, mark)
        return len(due) == MOST

    def _delete(self, uuid: str, mark: int) -> None:
        was = (SOFT_DELETED,)
        try:
            with self._steps("super.reclaim"):
                value_of(self._api.write_now(api_db.journal.request_delete, uuid=uuid, lease_s=0.0, was=was, mark=mark))
        except core.errors.NotFound:  # It was restored, or deleted, a moment ago.
            return
        LOG.info("server is reclaimed %s", about(server=uuid))


def _mark(entry: Entry) -> int:
    assert entry.mark is not None, entry.uuid  # Its row says so from the start.
    return entry.mark


def _by(entry: Entry) -> Context:
    return entry.asked_by or service_context()


def _outcome(gate: Gate, entry: Entry, told: Answer[object] | Silence | Unknown) -> Outcome:
    if not isinstance(told, Answer):
        return GiveBack(entry)
    LOG.info(
        "%s handed over %s cell=%s",
        entry.kind.value,
        about(server=entry.uuid, request_id=entry.request_id),
        gate.cell.name,
    )
    hint_operation(gate, entry, service_context(entry.request_id or None))
    return HandedOver(entry)
