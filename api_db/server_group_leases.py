"""Who chooses hosts for the members of a server group: one super-conductor at a time, for the next must know of its
choice."""

import dataclasses
import uuid as uuids
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

import api_db.journal
import api_db.quota
import api_db.server_groups
import core.errors
from api_db.journal import Assignment
from api_db.server_groups import ServerGroup
from api_db.tables import server_groups
from database.statements import changed, lock
from database.types import now_sql


@dataclasses.dataclass(frozen=True, slots=True)
class GroupLease:
    """Nobody else chooses hosts for members of this group for a while."""

    uuid: str
    token: str


def take(connection: sa.Connection, uuid: str, *, seconds: float) -> tuple[ServerGroup, GroupLease] | None:
    """Takes the group for as long. None: somebody else holds it.

    Raises:
        NotFound: it was deleted.
    """
    free = sa.or_(server_groups.c.held_until.is_(None), server_groups.c.held_until <= now_sql())
    token = str(uuids.uuid4())
    taken = (
        sa.update(server_groups)
        .where(server_groups.c.uuid == uuid, free)
        .values(token=token, held_until=now_sql(seconds))
    )
    if changed(connection.execute(taken)):
        return api_db.server_groups.get(connection, uuid), GroupLease(uuid, token)
    api_db.server_groups.get(connection, uuid)
    return None


def release(connection: sa.Connection, lease: GroupLease) -> None:
    """Others may take the group, unless somebody has meanwhile."""
    mine = sa.update(server_groups).where(server_groups.c.uuid == lease.uuid, server_groups.c.token == lease.token)
    connection.execute(mine.values(held_until=None, token=None))


def add_member(
    connection: sa.Connection,
    lease: GroupLease,
    server: str,
    *,
    project_id: str,
    user_id: str,
    quota_defaults: Mapping[str, int],
) -> None:
    """A server that has its host becomes a member, while whoever holds the group knows where the others are. One that
    is a member already stays so.

    Raises:
        Unavailable: somebody else holds the group: what was looked at may be wrong by now.
        Conflict: the server is a member of another group.
        OverQuota: the user may not have so many servers in it.
    """
    api_db.quota.lock(connection, project_id)
    if not lock(connection, server_groups, server_groups.c.uuid == lease.uuid, server_groups.c.token == lease.token):
        raise core.errors.Unavailable(f"server group {lease.uuid} is held by somebody else now")
    present = api_db.server_groups.group_of(connection, server)
    if present is not None and present != lease.uuid:
        raise core.errors.Conflict(f"Instance {server} is a member of another server group.")
    if present is None:
        api_db.server_groups.join(
            connection, lease.uuid, [server], project_id=project_id, user_id=user_id, quota_defaults=quota_defaults
        )


def assign(connection: sa.Connection, assignments: Sequence[Assignment], lease: GroupLease) -> set[str]:
    """The hand-over of members: `api_db.journal.assign`, but only by whoever still holds their group.

    Raises:
        Unavailable: somebody else holds it: what was chosen may be wrong by now.
    """
    if not lock(connection, server_groups, server_groups.c.uuid == lease.uuid, server_groups.c.token == lease.token):
        raise core.errors.Unavailable(f"server group {lease.uuid} is held by another super-conductor now")
    return api_db.journal.assign(connection, assignments)
