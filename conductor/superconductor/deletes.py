"""Deletes that their cell has not heard of: the cell is told. Steps `super.release`, `super.tombstone` and
`super.finish` of the build protocol (docs/build-protocol.md, section 2)."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import api_db.instances
import core.log
from api_db.journal import Entry, Kind
from cells.delete_server import PendingDelete, send_tombstone
from cells.gate.answers import CELL0_UUID, Answer, value_of
from cells.gate.gate import Gate
from cells.gate.registry import Cells
from conductor.superconductor.outcome import Finished, GiveBack, Outcome, worked_on
from core.context import service_context
from core.crash_points import CrashPoints
from core.log import about

LOG = core.log.get(__name__)


class DeleteHandler:
    """Works on the rows of deletes.

    Args:
        release: gives up the claim of a server that no cell has.
    """

    kind = Kind.DELETE

    def __init__(self, api: Gate, cells: Cells, release: Callable[[str], None], *, steps: CrashPoints) -> None:
        self._api = api
        self._cells = cells
        self._release = release
        self._steps = steps

    def work(self, entries: Sequence[Entry]) -> Iterator[Outcome]:
        """Tells each server's cell; a row that cannot be worked on holds up no other."""
        for entry in entries:
            yield from worked_on([entry], self._delete)

    def fail(self, entries: Sequence[Entry], why: str) -> Iterator[Outcome]:
        """As `work`: a delete is never given up."""
        return self.work(entries)

    def _delete(self, entries: Sequence[Entry]) -> Iterable[Outcome]:
        return [self._send_tombstone(entry) for entry in entries]

    def _send_tombstone(self, entry: Entry) -> Outcome:
        """Its cell is told; of a server that was never given to any, cell0 keeps the history."""
        mapping = value_of(self._api.read_now(api_db.instances.get, entry.uuid))
        gate = self._cells.find_gate_now(entry.target or CELL0_UUID)
        if gate.cell.is_cell0:
            self._release(entry.uuid)
        pending = PendingDelete(
            entry.uuid,
            str(entry.token),
            mapping.project_id,
            mapping.user_id,
            gate.cell.uuid,
            by=entry.asked_by,
            build_request=entry.build_request,
        )
        told = send_tombstone(self._api, gate, pending, service_context(entry.request_id or None), self._steps)
        if not isinstance(told, Answer):
            return GiveBack(entry)
        said = about(server=entry.uuid, request_id=entry.request_id)
        LOG.info("delete handed over %s cell=%s", said, gate.cell.name)
        return Finished(entry)
