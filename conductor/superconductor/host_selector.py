"""Choosing hosts from the view and claiming them in Placement: optimistically chosen, strictly claimed."""

import contextlib
import dataclasses
import datetime
import random
import threading
from collections.abc import Callable, Mapping, Sequence

import core.errors
import core.log
from api_db.journal import Entry
from clients.placement import (
    Allocation,
    CandidateGroup,
    CandidateQuery,
    Claim,
    GenerationConflict,
    NoCapacity,
    Placement,
)
from conductor.superconductor.server_groups import NO_MEMBERS, GroupMembers, choose_with_members
from core.crash_points import CrashPoints
from core.log import requests
from objects import explanation
from objects.build import BuildSpec
from objects.build_request import RequestSpec
from objects.candidate import Candidate
from objects.explanation import Explanation
from scheduler import policy as policies
from scheduler.choose import Choice, Decision, NoValidHost
from scheduler.hosts import HostState
from scheduler.policy import Policy
from scheduler.request import Request, request_for
from scheduler.resources import DISK_GB, MEMORY_MB, VCPU, ResourceGroup, needed_of
from scheduler.view import HostView

LOG = core.log.get(__name__)
ROUNDS = 4
SOME_CELLS, SOME_HOSTS = 4, 50
"""So many cells, and hosts of each of them, are looked at for a request that any host may do for."""
FEW_SERVERS = 50
"""A request for more servers looks at every host."""
MAX_CANDIDATES = 1000
"""Nodes that Placement names for a request of which it alone knows who can serve it."""
MAX_CLAIMS = 20  # consumers in one POST: an answer within a second, few enough to try again after a refusal


@dataclasses.dataclass(slots=True)
class RequestBuilds:
    """The servers of one request that are placed together, all or none. `members`: other servers that their request
    names.

    `waits`: the fault holds only as long as some cell is cut off. `unread`: cells that may have the hosts, for all that
    is known here. `ways`: of nodes that Placement named, the ways in which each can serve the request; None: it
    was not asked. `decision`: what was thought of the hosts when there were too few; `known`: how many there are.
    """

    request: RequestSpec
    entries: list[Entry]
    choices: list[Choice] = dataclasses.field(default_factory=list)
    fault: str | None = None
    waits: bool = False
    unread: Sequence[str] = ()
    doubted: set[str] = dataclasses.field(default_factory=set)
    excluded: set[str] = dataclasses.field(default_factory=set)
    members: GroupMembers = NO_MEMBERS
    ways: Mapping[str, Sequence[Allocation]] | None = None
    decision: Decision | None = None
    known: int = 0

    @property
    def fields(self) -> str:
        """Of lines about it in the log."""
        build_request = self.entries[0].build_request
        asked = requests([build_request.request_id if build_request else ""])
        return f"{asked} request_spec={self.entries[0].request_uuid}"

    def resources(self) -> dict[str, int]:
        """What one of the servers takes; all servers of a request have the same flavor."""
        build = self._build()
        properties = build.image.properties if build.image else None
        return needed_of(build.flavor, properties, boots_from_volume=build.image is None).resources

    def asked(self, *, project_has_aggregates: bool = False) -> Request:
        """What the scheduler is asked for."""
        build, members = self._build(), self.members
        return request_for(
            self.request,
            build.flavor,
            build.image,
            num=len(self.entries),
            excluded_hosts=frozenset(self.excluded) | members.unknown,
            group=members.group,
            hints=members.hints,
            candidates=None if self.ways is None else frozenset(self.ways),
            project_has_aggregates=project_has_aggregates,
        )

    def _build(self) -> BuildSpec:
        build_request = self.entries[0].build_request
        assert build_request is not None
        return build_request.build

    def candidates(self, number: int) -> list[Candidate]:
        """The chosen host first, then its alternates, as journal and row keep them."""
        choice, resources = self.choices[number], self.resources()
        return [_candidate(host, resources) for host in (choice.host, *self.alternates(number))]

    def alternates(self, number: int) -> Sequence[HostState]:
        """Where else the server may go. Its cell claims all of an alternate itself, and nothing of providers below
        it."""
        alternates, ways = self.choices[number].alternates, self.ways
        if ways is None:
            return alternates
        return [host for host in alternates if any(list(way) == [host.node_uuid] for way in ways[host.node_uuid])]

    def allocation(self, number: int) -> Allocation | None:
        """What the server takes of which provider, as Placement said; None: all of the host itself.

        Servers of one request on one host take turns with the ways that there are.
        """
        if self.ways is None:
            return None
        node = self.choices[number].host.node_uuid
        ways = self.ways[node]
        before = sum(choice.host.node_uuid == node for choice in self.choices[:number])
        return ways[before % len(ways)]

    def explanations(self, number: int, at: datetime.datetime) -> list[dict[str, object]]:
        """Why the server goes where it goes, or nowhere, after what its order says of earlier choices: what journal and
        row are to keep."""
        before = explanation.read(self.entries[number].explanations)
        return explanation.kept([*before, self._explanation(number, at)])

    def explained(self, at: datetime.datetime) -> dict[str, list[dict[str, object]]]:
        """Server -> why it has no host, as `explanations`."""
        return {entry.uuid: self.explanations(number, at) for number, entry in enumerate(self.entries)}

    def _explanation(self, number: int, at: datetime.datetime) -> Explanation:
        choice = self.choices[number] if self.fault is None and self.choices else None
        decision = self.decision if choice is None else choice.decision
        return Explanation(
            at=at,
            policy=self.request.policy,
            known=self.known,
            hosts=decision.hosts if decision else 0,
            fit=decision.fit if decision else 0,
            rejected=decision.rejected() if decision else [],
            chosen=choice.decision.weighed(choice.host) if choice else None,
            alternates=choice.weighed_alternates() if choice else [],
            fault=self.fault and self.fault[: explanation.MAX_FAULT],
        )


def _candidate(host: HostState, resources: dict[str, int]) -> Candidate:
    return Candidate(
        host=host.host, node_uuid=host.node_uuid, hypervisor_hostname=host.hypervisor_hostname,
        availability_zone=host.availability_zone, resources=resources,
    )  # fmt: skip


class HostSelector:
    """Finds hosts for groups and claims them.

    Args:
        refresh_hosts: reads every cell's hosts afresh; called before a request is given up, for the view may be older
            than the request.
        unread: names cells whose hosts were never read, because the cells are away since this process began.
        attempts: hosts that a build may try in all; the first and `attempts - 1` alternates.
        by_policy: the policies that requests may name.
    """

    def __init__(
        self, placement: Placement, view: HostView, refresh_hosts: Callable[[], None], *, attempts: int,
        steps: CrashPoints, rng: random.Random, unread: Callable[[], Sequence[str]] = tuple,
        by_policy: Mapping[str, Policy] = {policies.NAME: policies.DEFAULT},
    ) -> None:  # fmt: skip
        self._placement = placement
        self.view = view
        self._refresh_hosts = refresh_hosts
        self._unread = unread
        self._by_policy = by_policy
        self._attempts = attempts
        self._steps = steps
        self._rng = rng
        # Spread claims touch every provider: two at once make Placement try each ten times over, and then refuse one
        # (measured).
        self._one_at_a_time = threading.Lock()

    def place(self, groups: Sequence[RequestBuilds]) -> None:
        """Gives every group its choices, claimed, or a fault that says why there are none.

        Raises:
            Unavailable: Placement does not answer; some claims may have taken effect.
            GenerationConflict: somebody claimed for one of the servers before; place its group alone, with
                `place_again`.
        """
        waiting = [group for group in groups if self._choose(group)]
        expired = [group for group in groups if group.fault is not None]
        if expired:
            self._refresh_hosts()
            waiting += [group for group in expired if self._choose_or_wait(group)]
        while waiting:
            batch = _first_few(waiting)
            del waiting[: len(batch)]
            self._claim_or_split(batch)

    def place_again(self, group: RequestBuilds, generation: int | None) -> None:
        """Gives a group of one server its choice, claimed in place of what an older worker claimed for it, or a fault.

        Raises:
            GenerationConflict: somebody claims for it now.
            Unavailable: Placement does not answer.
        """
        if not self._choose(group):
            self._refresh_hosts()
            if not self._choose_or_wait(group):
                return
        self._claim_patiently(group, generation)

    def read_generation(self, uuid: str) -> int | None:
        """Reads the generation that the next claim for a server has to name; None: nothing is claimed for it.

        Raises:
            Unavailable: Placement does not answer.
        """
        with self._steps("super.read-claim"):
            return self._placement.read_claim(uuid).generation

    def release(self, uuid: str) -> None:
        """Gives up whatever is claimed for a server that no cell has.

        Raises:
            Unavailable: Placement does not answer.
        """
        with self._steps("super.release"):
            self._placement.release(uuid)

    def forget(self, group: RequestBuilds) -> None:
        """The group's servers did not go where they were chosen to go."""
        for entry in group.entries:
            self.view.forget(entry.uuid)

    def _claim_or_split(self, batch: list[RequestBuilds]) -> None:
        """One request for all; refused: each group by itself, with other hosts if need be, a few times."""
        try:
            self._claim(batch)
        except NoCapacity as refusal:
            if len(batch) == 1:
                self._refresh_refused_host(batch[0], refusal)
                self.forget(batch[0])
            for group in batch:
                if len(batch) > 1 or self._choose(group):
                    self._claim_patiently(group)

    def _claim_patiently(self, group: RequestBuilds, generation: int | None = None) -> None:
        for _ in range(ROUNDS):
            try:
                self._claim([group], generation)
            except NoCapacity as refusal:
                self._refresh_refused_host(group, refusal)
                self.forget(group)
                if not self._choose(group):
                    return
            else:
                return
        self.forget(group)
        group.fault = "No valid host was found. Placement refused every claim: the hosts are full."

    def _claim(self, batch: Sequence[RequestBuilds], generation: int | None = None) -> None:
        claims = [
            self._claim_of(group, number, resources, generation)
            for group in batch
            for resources in (group.resources(),)
            for number in range(len(group.entries))
        ]
        try:
            with self._one_at_a_time, self._steps("super.claim"):
                self._placement.claim(claims)
        except GenerationConflict as conflict:
            if conflict.fields["of"] == "consumer":
                raise
            # Somebody else kept changing these hosts' providers: nobody claimed for our servers, the same claim will do
            # a moment later.
            raise core.errors.Unavailable(f"providers of claims change too often: {conflict.message}") from conflict

    @staticmethod
    def _claim_of(group: RequestBuilds, number: int, resources: dict[str, int], generation: int | None) -> Claim:
        entry = group.entries[number]
        return Claim(
            uuid=entry.uuid,
            provider_uuid=group.choices[number].host.node_uuid,
            resources=resources,
            project_id=group.request.project_id,
            user_id=group.request.user_id,
            generation=generation,
            allocation=group.allocation(number),
        )

    def _choose_or_wait(self, group: RequestBuilds) -> bool:
        """As `_choose`; notes whether hosts that are cut off would do, and which cells may have others."""
        if self._choose(group):
            return True
        group.unread = self._unread()
        everything = [dataclasses.replace(host, up=True) if host.cut_off else host for host in self.view.reported()]
        if group.members.unknown or any(host.cut_off for host in everything):
            with contextlib.suppress(NoValidHost, core.errors.Invalid):
                policy = self._policy(group)
                asked = dataclasses.replace(self._asked(group, policy), excluded_hosts=frozenset(group.excluded))
                choose_with_members(asked, everything, len(group.entries), alternates=0, rng=self._rng, policy=policy)
                group.waits = True
        return False

    def _choose(self, group: RequestBuilds) -> bool:
        try:
            policy = self._policy(group)
            request = self._asked(group, policy)
            group.choices = self._choices(request, len(group.entries), policy)
        except (NoValidHost, core.errors.Invalid) as refusal:
            group.fault, group.known = refusal.message, len(self.view)
            group.decision = refusal.decision if isinstance(refusal, NoValidHost) else None
            return False
        group.fault, group.known = None, len(self.view)
        for entry, choice in zip(group.entries, group.choices, strict=True):
            self.view.consume(choice.host.host, entry.uuid, request.resources)
        return True

    def _policy(self, group: RequestBuilds) -> Policy:
        """The policy that the request names.

        Raises:
            Invalid: it was taken out of the settings since.
        """
        name = group.request.policy
        if name not in self._by_policy:
            raise core.errors.Invalid(f"No valid host was found. There is no scheduler policy {name[:64]!r} any more.")
        return self._by_policy[name]

    def _asked(self, group: RequestBuilds, policy: Policy) -> Request:
        """What is asked of the hosts; Placement says, where it alone knows, which of them can.

        Raises:
            Invalid: what the request says cannot be read, or Placement makes nothing of it.
            Unavailable: Placement does not answer.
        """
        group.ways = None
        has_aggregates = policy.options.limit_tenants_to_placement_aggregate and any(
            group.request.project_id in host.facts.projects for host in self.view.reported()
        )
        request = group.asked(project_has_aggregates=has_aggregates)
        if not request.needs_candidates:
            return request
        group.ways = self._placement.candidates(self._query(request))
        return group.asked(project_has_aggregates=has_aggregates)

    def _query(self, request: Request) -> CandidateQuery:
        needed = request.needed
        target = request.target_host
        nodes = [host.node_uuid for host in self.view.reported() if host.host == target] if target else []
        return CandidateQuery(
            whole=_group_of(needed.whole),
            groups={name: _group_of(group) for name, group in needed.groups.items()},
            group_policy=needed.policy,
            in_tree=nodes[0] if nodes else None,
            limit=MAX_CANDIDATES,
        )

    def _choices(self, request: Request, num: int, policy: Policy) -> list[Choice]:
        choices = self._choices_of_some(request, num, policy)
        if choices is not None:
            return choices
        alternates = self._attempts - 1
        try:
            return choose_with_members(
                request, self.view.snapshot(), num, alternates=alternates, rng=self._rng, policy=policy
            )
        except NoValidHost:
            # Our own count may hold a server twice for a moment (placed here, and in the host's report): Placement
            # decides.
            return choose_with_members(
                request, self.view.reported(), num, alternates=alternates, rng=self._rng, policy=policy
            )

    def _choices_of_some(self, request: Request, num: int, policy: Policy) -> list[Choice] | None:
        """Choices among a few hosts of many, with all their alternates; None: look at every host."""
        alternates = self._attempts - 1
        named = request.group, request.target_host, request.target_cell, request.candidates
        if num > FEW_SERVERS or any(each is not None for each in named):
            return None
        some = self.view.some(SOME_CELLS, SOME_HOSTS, rng=self._rng)
        if some is None:
            return None
        try:
            choices = choose_with_members(request, some, num, alternates=alternates, rng=self._rng, policy=policy)
        except NoValidHost:
            return None
        return choices if all(len(choice.alternates) == alternates for choice in choices) else None

    def _refresh_refused_host(self, group: RequestBuilds, refusal: NoCapacity) -> None:
        """The host that Placement named (or every chosen one) is read afresh; one that refuses again is not tried any
        more."""
        LOG.info("claim refused by Placement %s why=%s", group.fields, refusal.message)
        named = refusal.fields.get("provider_uuid")
        for host in {choice.host.host: choice.host for choice in group.choices}.values():
            if named in (None, host.node_uuid):
                if host.host in group.doubted:
                    group.excluded.add(host.host)
                group.doubted.add(host.host)
                self._refresh(host)

    def _refresh(self, host: HostState) -> None:
        try:
            used = self._placement.provider_usages(host.node_uuid)
        except core.errors.NotFound:
            self.view.refresh_needed(host.host)
            return
        state = next((one for one in self.view.reported() if one.host == host.host), host)
        fresh = dataclasses.replace(
            state,
            used_vcpus=used.get(VCPU, 0),
            used_memory_mib=used.get(MEMORY_MB, 0),
            used_disk_gib=used.get(DISK_GB, 0),
        )
        self.view.update(host.cell_uuid, [fresh])


def _group_of(group: ResourceGroup) -> CandidateGroup:
    return CandidateGroup(group.resources, group.required, group.forbidden)


def _first_few(groups: Sequence[RequestBuilds]) -> list[RequestBuilds]:
    """Groups for one request to Placement: at least one, and more while they are few servers together."""
    batch: list[RequestBuilds] = []
    servers = 0
    for group in groups:
        servers += len(group.entries)
        if batch and servers > MAX_CLAIMS:
            break
        batch.append(group)
    return batch
