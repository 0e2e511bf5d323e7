"""Other servers that a request names: members of its server group, servers of its hints. Where they are decides where
new ones may go.

Only requests that name some come here. While hosts are chosen for a server group it is held, so that of two
super-conductors that place members at the same time the second knows of the first one's choice.
"""

import collections
import contextlib
import dataclasses
import functools
import random
from collections.abc import Collection, Iterator, Mapping, Sequence

import api_db.instances
import api_db.server_group_leases
import api_db.server_groups
import cell_db.builds
import core.errors
import core.log
from api_db.instances import Whereabouts
from api_db.server_group_leases import GroupLease
from api_db.server_groups import MAX_PER_HOST, ServerGroup
from cells.gate.answers import CELL0_UUID, Answer, value_of
from cells.gate.gate import Gate
from cells.gate.registry import Cells
from cells.gate.scatter import scatter_now
from objects.build_request import RequestSpec
from scheduler.choose import Choice, NoValidHost, choose
from scheduler.hosts import HostState
from scheduler.policy import DEFAULT, Policy
from scheduler.request import NO_HINTS, Group, Hints, Request
from scheduler.view import HostView
from scheduler.weighers import far_from_members, near_members

LOG = core.log.get(__name__)
GROUP_LEASE_S = 15.0
SOFT = "soft-"
AFFINITY = "affinity"


@dataclasses.dataclass(frozen=True, slots=True)
class GroupMembers:
    """The other servers as the scheduler sees them; `unknown`: hosts of cells that do not say which of those servers
    they have.

    `group_lease`: on the server group that the new servers join.
    """

    group: Group | None = None
    hints: Hints = NO_HINTS
    unknown: frozenset[str] = frozenset()
    group_lease: GroupLease | None = None


NO_MEMBERS = GroupMembers()


def names_others(request: RequestSpec) -> bool:
    """Whether other servers have a say in where the request's servers go."""
    return bool(request.server_group or request.same_host or request.different_host)


class OtherServers:
    """Finds the servers that a request names, and keeps other super-conductors away from its server group meanwhile."""

    def __init__(self, api: Gate, cells: Cells, view: HostView) -> None:
        self._api = api
        self._cells = cells
        self._view = view

    @contextlib.contextmanager
    def assigned(self, uuid: str | None) -> Iterator[tuple[ServerGroup, GroupLease] | None]:
        """The group, held for the body of the `with`. None: there is none (any more), and nobody has any wishes.

        Raises:
            Unavailable: another super-conductor chooses hosts for it just now, or the API database does not answer.
        """
        if uuid is None:
            yield None
            return
        try:
            taken = value_of(self._api.write_now(api_db.server_group_leases.take, uuid, seconds=GROUP_LEASE_S))
        except core.errors.NotFound:
            yield None
            return
        if taken is None:
            raise core.errors.Unavailable(f"another super-conductor chooses hosts for server group {uuid}")
        try:
            yield taken
        finally:
            self._api.write_now(api_db.server_group_leases.release, taken[1])

    def members(self, request: RequestSpec, taken: tuple[ServerGroup, GroupLease] | None) -> GroupMembers:
        """Where the servers are that the request names, and the members of its group; cells are asked all at once.

        Raises:
            Unavailable: the new servers have to be with some of these, and those may all be in cells that do not
                answer; or a server that a hint names has no host yet.
        """
        members = value_of(self._api.read_now(api_db.server_groups.members, taken[0].uuid)) if taken else []
        hinted = self._hinted(request)
        hosts, silent = self._hosts({*members, *hinted})
        return GroupMembers(
            group=_group(taken[0], members, hosts, silent) if taken else None,
            hints=_hints(request, hinted, hosts, silent),
            unknown=frozenset(host.host for host in self._view.reported() if host.cell_uuid in silent),
            group_lease=taken[1] if taken else None,
        )

    def _hinted(self, request: RequestSpec) -> list[Whereabouts]:
        """The servers of the hints that there are: living ones of the request's project. All others are none to it.

        Raises:
            Unavailable: one of them is still to be placed; it was accepted before this request, so neither waits for
                the other.
        """
        wanted = [*request.same_host, *request.different_host]
        if not wanted:
            return []
        hinted = value_of(self._api.read_now(api_db.instances.whereabouts, wanted, project_id=request.project_id))
        unplaced = [server.uuid for server in hinted if server.cell_uuid is None]
        if unplaced:
            raise core.errors.Unavailable(
                f"servers that a scheduler hint names have no host yet: {', '.join(unplaced)}"
            )
        return hinted

    def _hosts(self, servers: Collection[Whereabouts]) -> tuple[dict[str, str], set[str]]:
        """Server -> its host, of those that have one, and the cells that do not say."""
        placed = [server for server in servers if server.cell_uuid not in (None, CELL0_UUID)]
        cells = {str(server.cell_uuid) for server in placed}
        answers = scatter_now(
            [self._cells.find_gate_now(uuid) for uuid in cells],
            cell_db.builds.attempts,
            [server.uuid for server in placed],
        )
        hosts: dict[str, str] = {}
        for server in placed:
            answer = answers[str(server.cell_uuid)]
            row = answer.value.get(server.uuid) if isinstance(answer, Answer) else None
            # Before its cell has the row the journal knows where it goes; afterwards the row does.
            host = row[2] if row is not None else server.host
            if host is not None:
                hosts[server.uuid] = host
        return hosts, {uuid for uuid, answer in answers.items() if not isinstance(answer, Answer)}


def _group(
    group: ServerGroup, members: Sequence[Whereabouts], hosts: Mapping[str, str], silent: Collection[str]
) -> Group:
    counted = collections.Counter(hosts[member.uuid] for member in members if member.uuid in hosts)
    if group.policy == AFFINITY and not counted and any(member.cell_uuid in silent for member in members):
        raise core.errors.Unavailable(f"cells that hold members of server group {group.uuid} do not answer")
    return Group(group.policy, dict(counted), int(group.rules.get(MAX_PER_HOST, 1)))


def _hints(
    request: RequestSpec, hinted: Sequence[Whereabouts], hosts: Mapping[str, str], silent: Collection[str]
) -> Hints:
    same, different = (
        frozenset(hosts[uuid] for uuid in named if uuid in hosts)
        for named in (request.same_host, request.different_host)
    )
    if not request.same_host:
        return Hints(different_hosts=different)
    if not same and any(server.cell_uuid in silent for server in hinted if server.uuid in request.same_host):
        raise core.errors.Unavailable("cells that hold servers of the scheduler hint same_host do not answer")
    return Hints(same_hosts=same, different_hosts=different)


def choose_with_members(
    request: Request,
    hosts: Sequence[HostState],
    num: int,
    *,
    alternates: int,
    rng: random.Random,
    policy: Policy = DEFAULT,
) -> list[Choice]:
    """Hosts for `num` servers. What a soft policy wishes is tried as if it had to be; else it only weighs.

    A hard policy leaves no alternates: by the time that one is needed other members may have come, or be elsewhere.

    Raises:
        NoValidHost: there is not room for all of them.
    """
    group = request.group
    chosen_by = functools.partial(choose, random=rng, filters=policy.filters, subset=policy.subset)
    if group is None:
        return chosen_by(request, hosts, num, alternates=alternates, weighers=policy.weighers)
    if not group.policy.startswith(SOFT):
        return chosen_by(request, hosts, num, alternates=0, weighers=policy.weighers)
    wished = dataclasses.replace(group, policy=group.policy.removeprefix(SOFT))
    try:
        return chosen_by(_with_group(request, wished), hosts, num, alternates=alternates, weighers=policy.weighers)
    except NoValidHost:
        weigher = (
            near_members(group.members, policy.soft_affinity)
            if wished.policy == AFFINITY
            else far_from_members(group.members, policy.soft_anti_affinity)
        )
        return chosen_by(request, hosts, num, alternates=alternates, weighers=(*policy.weighers, weigher))


def _with_group(request: Request, group: Group) -> Request:
    return dataclasses.replace(request, group=group)
