"""Builds: hosts are chosen and claimed, the cell is assigned, and its row inserted; or cell0 keeps the fault.

Steps `super.claim` to `super.assign` of the build protocol (docs/build-protocol.md, section 2); `build_inserts.py` has
`super.insert`.
"""

import collections
import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence

import api_db.instances
import api_db.journal
import api_db.server_group_leases
import cell_db.history
import core.log
from api_db.journal import LEASE_S, Assignment, Entry, Kind
from api_db.server_group_leases import GroupLease
from cells.gate.answers import CELL0_UUID, value_of
from cells.gate.gate import Gate
from cells.gate.registry import Cells
from clients.placement import GenerationConflict
from conductor.superconductor.build_inserts import AssignedBuild, BuildInserts
from conductor.superconductor.host_selector import HostSelector, RequestBuilds
from conductor.superconductor.outcome import (
    Explanations,
    Finished,
    GiveBack,
    Outcome,
    Refused,
    apart,
    request_ids,
    worked_on,
)
from conductor.superconductor.server_groups import OtherServers, names_others
from core.clock import Clock
from core.crash_points import CrashPoints

LOG = core.log.get(__name__)
MAX_TRIES = 10


class BuildHandler:
    """Works on the rows of builds.

    Args:
        unread_cell_wait_s: seconds that a build without a host waits, from its acceptance, for cells that this process
            never read.
    """

    kind = Kind.BUILD

    def __init__(
        self,
        api: Gate,
        cells: Cells,
        selector: HostSelector,
        inserts: BuildInserts,
        *,
        steps: CrashPoints,
        clock: Clock,
        unread_cell_wait_s: float = 0.0,
    ) -> None:
        self._api = api
        self._selector = selector
        self._inserts = inserts
        self._other_servers = OtherServers(api, cells, selector.view)
        self._steps = steps
        self._clock = clock
        self._unread_cell_wait = datetime.timedelta(seconds=unread_cell_wait_s)

    def work(self, entries: Sequence[Entry]) -> Iterator[Outcome]:
        """Finds hosts for what is new, and goes on with what has its cell."""
        new, assigned = _by_phase(entries)
        yield from worked_on(new, self._place)
        yield from worked_on(assigned, self._resume)

    def fail(self, entries: Sequence[Entry], why: str) -> Iterator[Outcome]:
        """Ends what is new: to cell0, with the fault."""
        new, assigned = _by_phase(entries)
        yield from worked_on(new, lambda entries: self._fail_in_cell0(entries, why))
        yield from worked_on(assigned, self._resume)

    # ---- phase new: claim, assign ------------------------------------------------------------------------------------

    def _place(self, entries: Sequence[Entry]) -> Iterator[Outcome]:
        expired = [entry for entry in entries if entry.tries > MAX_TRIES or entry.not_after <= self._clock.now()]
        yield from self._fail_in_cell0(expired, "The build was not placed in time, after many tries.")
        groups = self._groups([entry for entry in entries if entry not in expired])
        yield from self._place_together([group for group in groups if not names_others(group.request)])
        for group in groups:
            if names_others(group.request):
                yield from worked_on(group.entries, lambda _, group=group: self._place_with_members(group))  # type: ignore[misc]

    def _groups(self, entries: Sequence[Entry]) -> list[RequestBuilds]:
        """By request. Entries without a readable one are left to their lease, and end with a fault like any that is
        tried too often."""
        by_request: dict[str, list[Entry]] = collections.defaultdict(list)
        for entry in entries:
            by_request[entry.request_uuid].append(entry)
        if not by_request:
            return []
        requests = value_of(self._api.read_now(api_db.instances.request_specs_of, list(by_request)))
        for request_uuid in by_request.keys() - requests.keys():
            said = request_ids(by_request[request_uuid])
            LOG.error("a request spec is not kept or cannot be read %s request_spec=%s", said, request_uuid)
        return [RequestBuilds(requests[uuid], entries) for uuid, entries in by_request.items() if uuid in requests]

    def _place_together(self, groups: Sequence[RequestBuilds]) -> Iterator[Outcome]:
        if not groups:
            return
        for some, is_claimed in apart(groups, self._claim, about=lambda group: group.fields):
            if is_claimed:
                yield from self._hand_over(some)
            else:
                for group in some:
                    yield from self._place_again(group)

    def _claim(self, groups: Sequence[RequestBuilds]) -> bool:
        """Whether all have what they can have; false: somebody claimed for one of their servers before."""
        try:
            self._selector.place(groups)
        except GenerationConflict:
            return False
        return True

    def _place_with_members(self, group: RequestBuilds) -> Iterator[Outcome]:
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
                    yield from self._place_one_again(RequestBuilds(group.request, [entry], members=members))
            else:
                yield from self._hand_over([group])

    def _place_again(self, group: RequestBuilds) -> Iterator[Outcome]:
        """Somebody claimed for these servers before: each is placed alone."""
        self._selector.forget(group)
        for entry in group.entries:
            alone = RequestBuilds(group.request, [entry])
            yield from worked_on([entry], lambda _, alone=alone: self._place_one_again(alone))  # type: ignore[misc]

    def _place_one_again(self, group: RequestBuilds) -> Iterator[Outcome]:
        """Step 3a: the claim's generation first, then the lease, then the claim, even for the same host."""
        entry = group.entries[0]
        generation = self._selector.read_generation(entry.uuid)
        if not self._renew(entry):
            yield Finished(entry)
            return
        try:
            self._selector.place_again(group, generation)
        except GenerationConflict:
            self._selector.forget(group)
            yield GiveBack(entry)
        else:
            yield from self._hand_over([group])

    def _renew(self, entry: Entry) -> bool:
        uuid, token = entry.lease
        with self._steps("super.renew"):
            return value_of(self._api.write_now(api_db.journal.renew, uuid=uuid, token=token, seconds=LEASE_S))

    def _hand_over(self, groups: Sequence[RequestBuilds]) -> Iterator[Outcome]:
        now = self._clock.now()
        placed = [
            AssignedBuild(
                entry,
                group.choices[number].host.cell_uuid,
                group.candidates(number),
                None,
                group.explanations(number, now),
            )
            for group in groups
            if group.fault is None
            for number, entry in enumerate(group.entries)
        ]
        group_lease = groups[0].members.group_lease if groups else None
        yield from self._assign_and_insert(placed, group_lease)
        for group in groups:
            if group.fault is not None:
                yield from self._put_off_or_fail(group, group.fault)

    def _put_off_or_fail(self, group: RequestBuilds, fault: str) -> Iterable[Outcome]:
        explained = group.explained(self._clock.now())
        put_off = [GiveBack(entry, explanations=explained[entry.uuid]) for entry in group.entries]
        if group.waits:
            LOG.info("request waits for cells that are cut off %s why=%s", group.fields, fault)
            return put_off
        if group.unread and self._may_wait_for_unread(group):
            unread = ",".join(group.unread)
            LOG.info("request waits for cells that were never read %s cells=%s", group.fields, unread)
            return put_off
        silent = f" Cells that have not answered: {', '.join(group.unread)}." if group.unread else ""
        LOG.info("request has no valid host %s why=%s%s", group.fields, fault, silent)
        return self._fail_in_cell0(group.entries, fault + silent, explained)

    def _may_wait_for_unread(self, group: RequestBuilds) -> bool:
        return group.entries[0].created_at + self._unread_cell_wait > self._clock.now()

    # ---- the hand-over -----------------------------------------------------------------------------------------------

    def _fail_in_cell0(
        self, entries: Sequence[Entry], why: str, explained: Mapping[str, Explanations] | None = None
    ) -> Iterable[Outcome]:
        """Step 4b: first assign to cell0, then release, then the row with its fault, and with what explains it."""
        fault, known = cell_db.history.fault(500, why), explained or {}
        return self._assign_and_insert(
            [
                AssignedBuild(entry, CELL0_UUID, [], fault, known.get(entry.uuid, entry.explanations))
                for entry in entries
            ]
        )

    def _assign_and_insert(
        self, builds: Sequence[AssignedBuild], group_lease: GroupLease | None = None
    ) -> Iterator[Outcome]:
        """`group_lease`: on the server group whose members these are, all of them; without it they must not be handed
        over."""
        if not builds:
            return
        for some, done in apart(builds, lambda some: self._assign(some, group_lease), about=AssignedBuild.about):
            yield from (Refused(one.entry) for one in some if one.entry.uuid not in done)
            yield from self._insert([one for one in some if one.entry.uuid in done])

    def _assign(self, builds: Sequence[AssignedBuild], group_lease: GroupLease | None) -> set[str]:
        """The hand-over. Gives what is assigned now; the rest was deleted meanwhile, or lost."""
        assignments = [_assignment(one) for one in builds]
        with self._steps("super.assign"):
            if group_lease is None:
                return value_of(self._api.write_now(api_db.journal.assign, assignments))
            return value_of(self._api.write_now(api_db.server_group_leases.assign, assignments, group_lease))

    # ---- phase assigned: insert --------------------------------------------------------------------------------------

    def _resume(self, entries: Sequence[Entry]) -> Iterable[Outcome]:
        return self._insert(
            [
                AssignedBuild(entry, str(entry.target), entry.alternates or [], entry.fault, entry.explanations)
                for entry in entries
            ]
        )

    def _insert(self, assigned: Sequence[AssignedBuild]) -> Iterator[Outcome]:
        failed = [one for one in assigned if one.cell_uuid == CELL0_UUID]
        yield from worked_on([one.entry for one in failed], lambda _: self._insert_failed(failed))
        yield from self._inserts.insert([one for one in assigned if one.cell_uuid != CELL0_UUID])

    def _insert_failed(self, failed: Sequence[AssignedBuild]) -> Iterable[Outcome]:
        for one in failed:
            self._selector.release(one.entry.uuid)
        return self._inserts.insert(failed)


def _by_phase(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    new = [entry for entry in entries if entry.phase == api_db.journal.NEW]
    return new, [entry for entry in entries if entry.phase == api_db.journal.ASSIGNED]


def _assignment(build: AssignedBuild) -> Assignment:
    uuid, token = build.entry.lease
    return Assignment(
        uuid=uuid,
        token=token,
        project_id=build.entry.project_id,
        cell_uuid=build.cell_uuid,
        host=build.candidates[0].host if build.candidates else None,
        alternates=build.candidates,
        fault=build.fault,
        explanations=build.explanations,
    )
