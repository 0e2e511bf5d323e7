"""The journal's story: lease, claim, assign, insert, drop; and what becomes of orders that cannot be placed or were
deleted.

The steps and their order are those of the build protocol (docs/build-protocol.md, section 2). Whoever dies in between
leaves rows whose lease runs out; the sweep takes them up from their phase.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime
import threading
from collections.abc import Callable, Iterable, Sequence

import api_db.instances
import api_db.journal
import api_db.server_group_leases
import cell_db.builds
import cell_db.history
import core.errors
import core.log
import messaging.verbs.cell as cell_verbs
from api_db.journal import Assignment, Entry
from api_db.server_group_leases import GroupLease
from cells.delete_server import PendingDelete, send_tombstone
from cells.gate.answers import CELL0_UUID, Answer, value_of
from cells.gate.gate import Gate
from cells.gate.registry import Cells
from clients.placement import GenerationConflict, Placement
from conductor.superconductor.host_selector import HostSelector, RequestBuilds
from conductor.superconductor.server_groups import OtherServers, names_others
from core.clock import Clock
from core.context import context_of_rows, service_context
from core.crash_points import CrashPoints
from core.log import about, requests
from database.engine import Connection
from messaging.listener import Delivery
from objects.candidate import Candidate
from objects.fault import Fault

LOG = core.log.get(__name__)
LEASE_S = 15.0
MAX_LEASED = 50
MAX_TRIES = 10
AGAIN_S = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Assigned:
    """An entry with where it goes, from `super.assign` on."""

    entry: Entry
    cell_uuid: str
    candidates: list[Candidate]
    fault: Fault | None

    @property
    def lease(self) -> tuple[str, str]:
        return self.entry.uuid, str(self.entry.token)

    def about(self) -> str:
        """For the log."""
        host = self.candidates[0].host if self.candidates else None
        return about(server=self.entry.uuid, host=host, request_id=_request_id(self.entry))


class BuildPlacer:
    """Works the journal. Safe for several threads: each works on what it has leased itself.

    Args:
        build_deadline_s: seconds that one attempt may take on a host; written with the row.
        unread_cell_wait_s: seconds that a build without a host waits, from its acceptance, for cells that this process
            never read.
        hint_s: seconds that the sweep leaves a new order to its hint.
    """

    def __init__(
        self,
        api: Gate,
        cells: Cells,
        placement: Placement,
        selector: HostSelector,
        *,
        steps: CrashPoints,
        clock: Clock,
        build_deadline_s: float,
        unread_cell_wait_s: float = 0.0,
        hint_s: float = 0.0,
    ) -> None:
        self._api = api
        self._cells = cells
        self._placement = placement
        self._selector = selector
        self._other_servers = OtherServers(api, cells, selector.view)
        self._steps = steps
        self._clock = clock
        self._build_deadline_s = build_deadline_s
        self._unread_cell_wait = datetime.timedelta(seconds=unread_cell_wait_s)
        self._hint_s = hint_s
        self._to_drop: list[_Assigned] = []
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
        """Ends orders whose message nobody could handle: to cell0, with the fault. What somebody works on is left to
        him."""
        entries = self.lease(wanted, most=len(wanted))
        new = [entry for entry in entries if entry.phase == api_db.journal.NEW and not entry.deleting]
        self._framed(new, lambda entries: self._fail_in_cell0(entries, why))
        self.work([entry for entry in entries if entry not in new])

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
        kept = [assigned for assigned in dropping if assigned.entry.uuid not in dropped]
        if kept:
            self._end_deleted(assigned.entry for assigned in kept)
        return entries

    # ---- the frame ---------------------------------------------------------------------------------------------------

    def work(self, entries: Sequence[Entry]) -> None:
        """Goes on with leased rows from where they are; what fails is tried again after its lease."""
        new = [entry for entry in entries if entry.phase == api_db.journal.NEW and not entry.deleting]
        self._framed(new, self._place)
        assigned = [entry for entry in entries if entry.phase == api_db.journal.ASSIGNED and not entry.deleting]
        self._framed(assigned, self._resume)
        for entry in entries:
            if entry.deleting:
                self._framed([entry], self._delete)

    def _framed(self, entries: Sequence[Entry], work: Callable[[Sequence[Entry]], None]) -> None:
        if not entries:
            return
        try:
            work(entries)
        except core.errors.Unavailable as error:
            LOG.warning("journal rows are put off %s count=%d why=%s", _requests(entries), len(entries), error.message)
            self._give_back(entries)
        except Exception:
            LOG.exception("journal rows could not be worked on %s count=%d", _requests(entries), len(entries))

    def _give_back(self, entries: Iterable[Entry]) -> None:
        assigned = [(entry.uuid, str(entry.token)) for entry in entries]
        self._api.write_now(api_db.journal.give_back, assigned, wait_s=AGAIN_S)

    # ---- phase new: claim, assign ------------------------------------------------------------------------------------

    def _place(self, entries: Sequence[Entry]) -> None:
        expired = [entry for entry in entries if entry.tries > MAX_TRIES or entry.not_after <= self._clock.now()]
        self._fail_in_cell0(expired, "The build was not placed in time, after many tries.")
        groups = self._groups([entry for entry in entries if entry not in expired])
        self._place_together([group for group in groups if not names_others(group.request)])
        for group in groups:
            if names_others(group.request):
                self._framed(group.entries, lambda _, group=group: self._place_with_members(group))  # type: ignore[misc]

    def _place_together(self, groups: Sequence[RequestBuilds]) -> None:
        try:
            self._selector.place(groups)
        except GenerationConflict:
            for group in groups:
                self._framed(group.entries, lambda entries, group=group: self._place_again(group))  # type: ignore[misc]
            return
        self._hand_over(groups)

    def _place_with_members(self, group: RequestBuilds) -> None:
        """Servers whose request names others; members of a server group while nobody else chooses hosts for it, handed
        over before the next one looks.
        """
        with self._other_servers.assigned(group.request.server_group) as taken:
            group.members = self._other_servers.members(group.request, taken)
            try:
                self._selector.place([group])
            except GenerationConflict:
                self._selector.forget(group)
                for entry in group.entries:
                    members = self._other_servers.members(group.request, taken)
                    self._place_one_again(RequestBuilds(group.request, [entry], members=members))
                return
            self._hand_over([group])

    def _groups(self, entries: Sequence[Entry]) -> list[RequestBuilds]:
        by_request: dict[str, list[Entry]] = collections.defaultdict(list)
        for entry in entries:
            by_request[entry.request_uuid].append(entry)
        if not by_request:
            return []
        requests = value_of(self._api.read_now(api_db.instances.request_specs_of, list(by_request)))
        return [RequestBuilds(requests[request_uuid], entries) for request_uuid, entries in by_request.items()]

    def _place_again(self, group: RequestBuilds) -> None:
        """Somebody claimed before (step 3a): its generation first, then the lease, then the claim, even for the same
        host."""
        self._selector.forget(group)
        for entry in group.entries:
            self._place_one_again(RequestBuilds(group.request, [entry]))

    def _place_one_again(self, group: RequestBuilds) -> None:
        entry = group.entries[0]
        with self._steps("super.read-claim"):
            claimed = self._placement.read_claim(entry.uuid)
        with self._steps("super.renew"):
            renewed = value_of(
                self._api.write_now(api_db.journal.renew, uuid=entry.uuid, token=str(entry.token), seconds=LEASE_S)
            )
        if not renewed:
            return
        try:
            self._selector.place_again(group, claimed.generation)
        except GenerationConflict:
            self._selector.forget(group)
            self._give_back(group.entries)
            return
        self._hand_over([group])

    def _hand_over(self, groups: Sequence[RequestBuilds]) -> None:
        placed = [
            _Assigned(entry, group.choices[number].host.cell_uuid, group.candidates(number), None)
            for group in groups
            if group.fault is None
            for number, entry in enumerate(group.entries)
        ]
        group_lease = groups[0].members.group_lease if groups else None
        self._insert(self._assign(placed, group_lease))
        for group in groups:
            if group.fault is not None and group.waits:
                LOG.info("request waits for cells that are cut off %s why=%s", group.fields, group.fault)
                self._give_back(group.entries)
            elif group.fault is not None and group.unread and self._may_wait_for_unread(group):
                LOG.info(
                    "request waits for cells that were never read %s cells=%s", group.fields, ",".join(group.unread)
                )
                self._give_back(group.entries)
            elif group.fault is not None:
                silent = f" Cells that have not answered: {', '.join(group.unread)}." if group.unread else ""
                LOG.info("request has no valid host %s why=%s%s", group.fields, group.fault, silent)
                self._fail_in_cell0(group.entries, group.fault + silent)

    def _may_wait_for_unread(self, group: RequestBuilds) -> bool:
        return group.entries[0].created_at + self._unread_cell_wait > self._clock.now()

    def _assign(self, assigned: Sequence[_Assigned], group_lease: GroupLease | None = None) -> list[_Assigned]:
        """The hand-over. Gives what is assigned now; of the rest, what was deleted meanwhile is undone, what was lost
        is left.

        `group_lease`: on the server group whose members these are, all of them; without it they must not be handed
        over.
        """
        if not assigned:
            return []
        assignments = [
            Assignment(
                uuid=one.entry.uuid, token=str(one.entry.token), project_id=one.entry.project_id, cell_uuid=one.cell_uuid,
                host=one.candidates[0].host if one.candidates else None, alternates=one.candidates, fault=one.fault,
            )
            for one in assigned
        ]  # fmt: skip
        with self._steps("super.assign"):
            if group_lease is None:
                done = value_of(self._api.write_now(api_db.journal.assign, assignments))
            else:
                done = value_of(self._api.write_now(api_db.server_group_leases.assign, assignments, group_lease))
        refused = [one.entry for one in assigned if one.entry.uuid not in done]
        self._end_deleted(refused)
        return [one for one in assigned if one.entry.uuid in done]

    # ---- phase assigned: insert, hint, drop --------------------------------------------------------------------------

    def _resume(self, entries: Sequence[Entry]) -> None:
        assigned = [_Assigned(entry, str(entry.target), entry.alternates or [], entry.fault) for entry in entries]
        failed = [one for one in assigned if one.cell_uuid == CELL0_UUID]
        self._insert_failed(failed)
        self._insert([one for one in assigned if one.cell_uuid != CELL0_UUID])

    def _insert(self, assigned: Sequence[_Assigned]) -> None:
        by_cell: dict[str, list[_Assigned]] = collections.defaultdict(list)
        for one in assigned:
            by_cell[one.cell_uuid].append(one)
        if len(by_cell) > 1:
            # Side by side: a cell that turns out to be away holds up nobody's build in another.
            with concurrent.futures.ThreadPoolExecutor(len(by_cell)) as threads:
                list(threads.map(self._insert_framed, by_cell.keys(), by_cell.values()))
        else:
            for cell_uuid, mine in by_cell.items():
                self._insert_framed(cell_uuid, mine)

    def _insert_framed(self, cell_uuid: str, assigned: Sequence[_Assigned]) -> None:
        self._framed([one.entry for one in assigned], lambda _: self._insert_in(cell_uuid, assigned))

    def _insert_in(self, cell_uuid: str, assigned: Sequence[_Assigned]) -> None:
        gate = self._cells.find_gate_now(cell_uuid)
        rows = [_placed(one) for one in assigned if one.entry.build_request is not None]
        with self._steps("super.insert"):
            told = gate.write_now(cell_db.builds.insert, rows, build_deadline_s=self._build_deadline_s)
        if not isinstance(told, Answer):
            self._wait_for_cell(gate, assigned, told.why)
            return
        if not gate.cell.is_cell0:
            uuids = cell_verbs.Uuids([one.entry.uuid for one in assigned])
            gate.hint(
                cell_verbs.QUEUE, cell_verbs.START, uuids, context_of_rows(_request_id(one.entry) for one in assigned)
            )
        for one in assigned:
            why = f" why={one.fault.message}" if one.fault else ""
            LOG.info("server handed over %s cell=%s%s", one.about(), gate.cell.name, why)
        with self._lock:
            self._to_drop += assigned

    def _wait_for_cell(self, gate: Gate, assigned: Sequence[_Assigned], why: str) -> None:
        """The row may have landed, so no other cell may have it: it waits, and past its time shows a fault until the
        cell returns."""
        said = _requests(one.entry for one in assigned)
        LOG.warning("builds wait for their cell %s cell=%s count=%d why=%s", said, gate.cell.name, len(assigned), why)
        for one in assigned:
            if one.fault is None and one.entry.not_after <= self._clock.now():
                fault = cell_db.history.fault(500, f"Cell {gate.cell.name} has not answered in time for this build")
                self._api.write_now(
                    api_db.journal.set_fault, uuid=one.entry.uuid, token=str(one.entry.token), fault=fault
                )
        self._give_back(one.entry for one in assigned)

    # ---- no valid host -----------------------------------------------------------------------------------------------

    def _fail_in_cell0(self, entries: Sequence[Entry], why: str) -> None:
        """Step 4b: first assign to cell0, then release, then the row with its fault."""
        fault = cell_db.history.fault(500, why)
        self._insert_failed(self._assign([_Assigned(entry, CELL0_UUID, [], fault) for entry in entries]))

    def _insert_failed(self, assigned: Sequence[_Assigned]) -> None:
        for one in assigned:
            self._release(one.entry.uuid)
        if assigned:
            self._framed([one.entry for one in assigned], lambda _: self._insert_in(CELL0_UUID, assigned))

    # ---- deletes -----------------------------------------------------------------------------------------------------

    def _end_deleted(self, entries: Iterable[Entry]) -> None:
        """Rows whose compare-and-set was refused: mine and deleted meanwhile are ended; others have a new holder."""
        refused = {entry.uuid: entry for entry in entries}
        if not refused:
            return
        now = value_of(self._api.read_now(_entries, list(refused)))
        for entry in now:
            if entry.deleting and entry.token == refused[entry.uuid].token:
                self._framed([entry], self._delete)

    def _delete(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._send_tombstone(entry)

    def _send_tombstone(self, entry: Entry) -> None:
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
            by=entry.deleted_by,
            build_request=entry.build_request,
        )
        told = send_tombstone(self._api, gate, pending, service_context(_request_id(entry) or None), self._steps)
        if isinstance(told, Answer):
            LOG.info(
                "delete handed over %s cell=%s", about(server=entry.uuid, request_id=_request_id(entry)), gate.cell.name
            )
        else:
            self._give_back([entry])

    def _release(self, uuid: str) -> None:
        with self._steps("super.release"):
            self._placement.release(uuid)


def _drop_and_lease(
    connection: Connection, dropping: Sequence[_Assigned], wanted: Sequence[str] | None, most: int, hint_s: float
) -> tuple[set[str], list[Entry]]:
    dropped = api_db.journal.drop(connection, [assigned.lease for assigned in dropping])
    if most == 0:
        return dropped, []
    wait_s = hint_s if wanted is None else 0.0
    return dropped, api_db.journal.lease(connection, seconds=LEASE_S, most=most, uuids_wanted=wanted, hint_s=wait_s)


def _entries(connection: Connection, uuids: Sequence[str]) -> list[Entry]:
    found = (api_db.journal.find(connection, uuid) for uuid in uuids)
    return [entry for entry in found if entry is not None]


def _placed(assigned: _Assigned) -> cell_db.builds.NewInstance:
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
    )


def _request_id(entry: Entry) -> str:
    """Of the request that this is done for: the delete, once there is one."""
    if entry.deleting:
        return entry.deleted_by.request_id if entry.deleted_by else ""
    return entry.build_request.request_id if entry.build_request else ""


def _requests(entries: Iterable[Entry]) -> str:
    return requests(_request_id(entry) for entry in entries)
