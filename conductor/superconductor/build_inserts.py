"""Builds that have a cell: their rows in its database, and the hint to its conductor. Step `super.insert` of the build
protocol (docs/build-protocol.md, section 2)."""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import cell_db.builds
import cell_db.history
import core.log
import messaging.verbs.cell as cell_verbs
from api_db.journal import Entry
from cells.gate.answers import Answer
from cells.gate.gate import Gate
from cells.gate.registry import Cells
from conductor.superconductor.outcome import Explanations, GiveBack, HandedOver, Outcome, apart, request_ids, worked_on
from core.clock import Clock
from core.context import context_of_rows
from core.crash_points import CrashPoints
from core.log import about
from objects.candidate import Candidate
from objects.fault import Fault

LOG = core.log.get(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class AssignedBuild:
    """An entry with where it goes, from `super.assign` on."""

    entry: Entry
    cell_uuid: str
    candidates: list[Candidate]
    fault: Fault | None
    explanations: Explanations | None = None

    def about(self) -> str:
        """For the log."""
        host = self.candidates[0].host if self.candidates else None
        return about(server=self.entry.uuid, host=host, request_id=self.entry.request_id)


class BuildInserts:
    """Inserts builds into their cells' databases.

    Args:
        build_deadline_s: seconds that one attempt may take on a host; written with the row.
    """

    def __init__(self, cells: Cells, *, steps: CrashPoints, clock: Clock, build_deadline_s: float) -> None:
        self._cells = cells
        self._steps = steps
        self._clock = clock
        self._build_deadline_s = build_deadline_s

    def insert(self, assigned: Sequence[AssignedBuild]) -> list[Outcome]:
        """Inserts builds, all of a cell in one commit, the cells side by side: none waits for another that is away."""
        by_cell: dict[str, list[AssignedBuild]] = collections.defaultdict(list)
        for one in assigned:
            by_cell[one.cell_uuid].append(one)
        if len(by_cell) <= 1:
            return [outcome for cell_uuid, some in by_cell.items() for outcome in self._insert(cell_uuid, some)]
        with concurrent.futures.ThreadPoolExecutor(len(by_cell)) as threads:
            return [outcome for some in threads.map(self._insert, by_cell.keys(), by_cell.values()) for outcome in some]

    def _insert(self, cell_uuid: str, assigned: Sequence[AssignedBuild]) -> list[Outcome]:
        def insert(_entries: Sequence[Entry]) -> Iterator[Outcome]:
            parts = apart(assigned, lambda some: list(self._insert_in(cell_uuid, some)), about=AssignedBuild.about)
            for _, outcomes in parts:
                yield from outcomes

        return worked_on([one.entry for one in assigned], insert)

    def _insert_in(self, cell_uuid: str, assigned: Sequence[AssignedBuild]) -> Iterator[Outcome]:
        gate = self._cells.find_gate_now(cell_uuid)
        rows = [_new_instance(one) for one in assigned if one.entry.build_request is not None]
        with self._steps("super.insert"):
            told = gate.write_now(cell_db.builds.insert, rows, build_deadline_s=self._build_deadline_s)
        if not isinstance(told, Answer):
            yield from self._wait_for_cell(gate, assigned, told.why)
            return
        if not gate.cell.is_cell0:
            uuids = cell_verbs.Uuids([one.entry.uuid for one in assigned])
            gate.hint(
                cell_verbs.QUEUE, cell_verbs.START, uuids, context_of_rows(one.entry.request_id for one in assigned)
            )
        for one in assigned:
            why = f" why={one.fault.message}" if one.fault else ""
            LOG.info("server handed over %s cell=%s%s", one.about(), gate.cell.name, why)
            yield HandedOver(one.entry)

    def _wait_for_cell(self, gate: Gate, assigned: Sequence[AssignedBuild], why: str) -> Iterable[Outcome]:
        """The row may have landed, so no other cell may have it: it waits, and past its time shows a fault until the
        cell returns."""
        said = request_ids(one.entry for one in assigned)
        LOG.warning("builds wait for their cell %s cell=%s count=%d why=%s", said, gate.cell.name, len(assigned), why)
        for one in assigned:
            overdue = one.fault is None and one.entry.not_after <= self._clock.now()
            late = f"Cell {gate.cell.name} has not answered in time for this build"
            yield GiveBack(one.entry, fault=cell_db.history.fault(500, late) if overdue else None)


def _new_instance(assigned: AssignedBuild) -> cell_db.builds.NewInstance:
    build_request = assigned.entry.build_request
    assert build_request is not None
    first = assigned.candidates[0] if assigned.candidates else None
    return cell_db.builds.NewInstance(
        build_request=build_request,
        host=first.host if first else None,
        node_uuid=first.node_uuid if first else None,
        hypervisor_hostname=first.hypervisor_hostname if first else None,
        availability_zone=first.availability_zone if first else None,
        alternates=assigned.candidates[1:],
        resources=first.resources if first else {},
        not_after=assigned.entry.not_after,
        fault=assigned.fault,
        explanations=assigned.explanations,
    )
