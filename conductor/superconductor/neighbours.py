"""The members of a server group: where they are, and how new ones are put beside them or apart from them.

Only requests that name a group come here. While hosts are chosen the group is held, so that of two super-conductors that place members
at the same time the second knows of the first one's choice.
"""

import collections
import contextlib
import dataclasses
import random
from collections.abc import Iterator, Sequence

import api_db.server_group_holds
import api_db.server_groups
import cell_db.builds
import core.errors
import core.log
from api_db.server_group_holds import Hold
from api_db.server_groups import Member, ServerGroup
from cells.answers import CELL0_UUID, Answer, value_of
from cells.gate import Gate
from cells.registry import Cells
from cells.scatter import scatter_now
from scheduler.choose import Choice, NoValidHost, choose
from scheduler.hosts import HostState
from scheduler.request import Group, Request
from scheduler.view import HostView
from scheduler.weighers import DEFAULT, far_from_members, near_members

LOG = core.log.get(__name__)
HOLD_S = 15.0
SOFT = "soft-"
AFFINITY = "affinity"
MOST_PER_HOST = "max_server_per_host"


@dataclasses.dataclass(frozen=True, slots=True)
class Neighbours:
    """A held group as the scheduler sees it; `unknown`: hosts of cells that do not say which members they have."""

    group: Group
    unknown: frozenset[str]
    hold: Hold


class ServerGroups:
    """Finds the members of groups, and keeps other super-conductors away meanwhile."""

    def __init__(self, api: Gate, cells: Cells, view: HostView) -> None:
        self._api = api
        self._cells = cells
        self._view = view

    @contextlib.contextmanager
    def held(self, uuid: str) -> Iterator[tuple[ServerGroup, Hold] | None]:
        """The group, held for the body of the `with`. None: it was deleted, and nobody has any wishes.

        Raises:
            Unavailable: another super-conductor chooses hosts for it just now, or the API database does not answer.
        """
        try:
            taken = value_of(self._api.write_now(api_db.server_group_holds.hold, uuid, seconds=HOLD_S))
        except core.errors.NotFound:
            yield None
            return
        if taken is None:
            raise core.errors.Unavailable(f"another super-conductor chooses hosts for server group {uuid}")
        try:
            yield taken
        finally:
            self._api.write_now(api_db.server_group_holds.let_go, taken[1])

    def neighbours(self, group: ServerGroup, hold: Hold) -> Neighbours:
        """Where the group's members are now; cells are asked all at once.

        Raises:
            Unavailable: all members may be in cells that do not answer, and the new one has to be with them.
        """
        members = value_of(self._api.read_now(api_db.server_groups.members, group.uuid))
        hosts, silent = self._hosts(members)
        if silent and group.policy == AFFINITY and not hosts:
            raise core.errors.Unavailable(f"cells that hold members of server group {group.uuid} do not answer")
        most = int(group.rules.get(MOST_PER_HOST, 1))
        unknown = frozenset(host.host for host in self._view.reported() if host.cell_uuid in silent)
        return Neighbours(Group(group.policy, hosts, most), unknown, hold)

    def _hosts(self, members: Sequence[Member]) -> tuple[dict[str, int], set[str]]:
        """Host -> members there, and the cells that do not say."""
        placed = [member for member in members if member.cell_uuid not in (None, CELL0_UUID)]
        cells = {str(member.cell_uuid) for member in placed}
        answers = scatter_now([self._cells.gate(uuid) for uuid in cells], cell_db.builds.attempts, [member.uuid for member in placed])
        hosts: collections.Counter[str] = collections.Counter()
        for member in placed:
            answer = answers[str(member.cell_uuid)]
            row = answer.value.get(member.uuid) if isinstance(answer, Answer) else None
            # Before its cell has the row the journal knows where it goes; afterwards the row does.
            host = row[2] if row is not None else member.host
            if host is not None:
                hosts[host] += 1
        return dict(hosts), {uuid for uuid, answer in answers.items() if not isinstance(answer, Answer)}


def choose_with_neighbours(request: Request, hosts: Sequence[HostState], num: int, *, alternates: int, dice: random.Random) -> list[Choice]:
    """Hosts for `num` servers. What a soft policy wishes is tried as if it had to be; else it only weighs.

    A hard policy leaves no alternates: by the time that one is needed other members may have come, or be elsewhere.

    Raises:
        NoValidHost: there is not room for all of them.
    """
    group = request.group
    if group is None:
        return choose(request, hosts, num, alternates=alternates, random=dice)
    if not group.policy.startswith(SOFT):
        return choose(request, hosts, num, alternates=0, random=dice)
    wished = dataclasses.replace(group, policy=group.policy.removeprefix(SOFT))
    try:
        return choose(_with_group(request, wished), hosts, num, alternates=alternates, random=dice)
    except NoValidHost:
        weigher = near_members if wished.policy == AFFINITY else far_from_members
        return choose(request, hosts, num, alternates=alternates, random=dice, weighers=(*DEFAULT, weigher(group.members)))


def _with_group(request: Request, group: Group) -> Request:
    return dataclasses.replace(request, group=group)
