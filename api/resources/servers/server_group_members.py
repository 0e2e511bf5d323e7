"""`/cellplane/v1/server-groups/{id}/members/{server_id}`: a server that runs joins a server group, or leaves it.

The Compute API knows members from the create on only. A server that joins a group with a hard policy has to be where
the policy wants it already: nothing is moved.
"""

import collections
from collections.abc import Sequence

import api_db.server_group_leases
import api_db.server_groups
import cell_db.builds
import cell_db.instances
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.resources.servers.access import server_of, target_of
from api_db.instances import Whereabouts
from api_db.server_groups import MAX_PER_HOST, ServerGroup
from cells.gate.answers import CELL0_UUID, Answer, value_of
from cells.gate.scatter import scatter
from cells.route import LocatedServer
from core import errors
from lifecycle import refusals
from objects.ids import as_kept

ADD, REMOVE = "cellplane:server-groups:members:add", "cellplane:server-groups:members:remove"
POLICIES = [
    Rule(ADD, policy.MEMBER, "Make a server a member of a server group"),
    Rule(REMOVE, policy.MEMBER, "Take a server out of a server group"),
]
LEASE_S = 15.0


async def add(call: Call) -> None:
    """The server is a member from now on; one that is already stays so."""
    group, located = await _named(call, ADD)
    gate = call.cloud.cells.gate(_cell_of(located))
    taken = await call.cloud.api_write(api_db.server_group_leases.take, group.uuid, seconds=LEASE_S)
    if taken is None:
        raise errors.Busy(f"Hosts are being chosen for members of server group {group.uuid}; try again.")
    group, lease = taken
    try:
        await _refuse_wrong_host(call, group, located)
        await call.cloud.api_write(
            api_db.server_group_leases.add_member, lease, located.server.uuid, project_id=group.project_id,
            user_id=located.server.user_id, quota_defaults=call.cloud.quota_defaults,
        )  # fmt: skip
    finally:
        await call.cloud.api_write(api_db.server_group_leases.release, lease)
    # The group's row decides; the server's own shows it.
    value_of(await gate.write(cell_db.instances.set_server_group, located.server.uuid, group.uuid))


async def remove(call: Call) -> None:
    """The server is no member any more; it stays where it is."""
    group, located = await _named(call, REMOVE)
    await call.cloud.api_write(api_db.server_groups.leave, group.uuid, located.server.uuid)
    if located.cell is not None:
        gate = call.cloud.cells.gate(located.cell.uuid)
        value_of(await gate.write(cell_db.instances.set_server_group, located.server.uuid, None))


async def _named(call: Call, rule: str) -> tuple[ServerGroup, LocatedServer]:
    """The group and the server of the path.

    Raises:
        NotFound: one of them is not there, or not for this caller, or they are not of one project.
    """
    project_id = None if call.context.is_admin else call.context.project_id
    group: ServerGroup = await call.cloud.api_read(
        api_db.server_groups.get, as_kept(call.path["id"]), project_id=project_id
    )
    call.enforce(rule, target_of(group))
    located = await server_of(call, rule, "server_id")
    if located.server.project_id != group.project_id:
        raise refusals.not_found(call.path["server_id"])
    return group, located


def _cell_of(located: LocatedServer) -> str:
    """
    Raises:
        WrongState: the server has no host yet, or never had one.
    """
    if located.cell is None or located.cell.is_cell0 or located.server.launched_at is None:
        raise refusals.joins_no_group(located.server.uuid, vm_state=located.server.vm_state)
    return located.cell.uuid


async def _refuse_wrong_host(call: Call, group: ServerGroup, located: LocatedServer) -> None:
    """Returns if the server is where the group's policy wants it; a soft policy only wishes.

    Raises:
        Conflict: it is not.
        Unavailable: a cell that holds members does not answer.
    """
    if group.policy not in ("affinity", "anti-affinity"):
        return
    members = [
        member
        for member in await call.cloud.api_read(api_db.server_groups.members, group.uuid)
        if member.uuid != located.server.uuid
    ]
    hosts = await _hosts(call, members)
    here = hosts[str(located.server.host)]
    if group.policy == "affinity" and hosts.total() > here:
        raise errors.Conflict(f"Instance {located.server.uuid} is on another host than members of the server group.")
    if group.policy == "anti-affinity" and here >= int(group.rules.get(MAX_PER_HOST, 1)):
        raise errors.Conflict(f"Instance {located.server.uuid} is on a host with as many members as there may be.")


async def _hosts(call: Call, members: Sequence[Whereabouts]) -> collections.Counter[str]:
    """Host -> members there."""
    placed = [member for member in members if member.cell_uuid not in (None, CELL0_UUID)]
    gates = [call.cloud.cells.gate(uuid) for uuid in sorted({str(member.cell_uuid) for member in placed})]
    answers = await scatter(gates, cell_db.builds.attempts, [member.uuid for member in placed])
    silent = sorted(answer.cell.name for answer in answers.values() if not isinstance(answer, Answer))
    if silent:
        raise errors.Unavailable(f"Cells that hold members of the server group do not answer: {', '.join(silent)}.")
    hosts = {
        uuid: host
        for answer in answers.values()
        if isinstance(answer, Answer)
        for uuid, (_, _, host) in answer.value.items()
    }
    # Before its cell has the row the journal knows where it goes.
    return collections.Counter(host for member in placed if (host := hosts.get(member.uuid) or member.host))


_PATH = "/v1/server-groups/{id}/members/{server_id}"
ROUTES = [
    Route("PUT", _PATH, add, status=204, under="/cellplane"),
    Route("DELETE", _PATH, remove, status=204, under="/cellplane"),
]
