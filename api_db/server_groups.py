"""Server groups: servers that their owner wants together, or apart.

A server joins when it is accepted and is a member until it is deleted.
"""

import dataclasses
import uuid as uuids
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

import api_db.limits
import api_db.quota
import core.errors
from api_db.instances import LIVING, WHEREABOUTS, Whereabouts
from api_db.tables import instance_mappings, server_group_members, server_groups
from database.statements import changed, lock
from database.types import now_sql

POLICIES = ("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity")
RESOURCE = "server_groups"


MAX_PER_HOST = "max_server_per_host"
"""The one rule that a group may have."""


@dataclasses.dataclass(frozen=True, slots=True)
class ServerGroup:
    """`rules`: `max_server_per_host`, if it was given. `members` are in the order in which they joined."""

    uuid: str
    project_id: str
    user_id: str
    name: str
    policy: str
    rules: dict[str, Any]
    members: tuple[str, ...] = ()


_COLUMNS = tuple(server_groups.c[field.name] for field in dataclasses.fields(ServerGroup) if field.name != "members")


def list_all(
    connection: sa.Connection, *, project_id: str | None = None, limit: int | None = None, offset: int = 0
) -> list[ServerGroup]:
    """The groups of a project, or of all, oldest first."""
    query = sa.select(*_COLUMNS).order_by(server_groups.c.id).limit(limit).offset(offset or None)
    if project_id is not None:
        query = query.where(server_groups.c.project_id == project_id)
    return _with_members(connection, query)


def get(connection: sa.Connection, uuid: str, *, project_id: str | None = None) -> ServerGroup:
    """One group; with `project_id` only if it is this project's.

    Raises:
        NotFound: there is none.
    """
    query = sa.select(*_COLUMNS).where(server_groups.c.uuid == uuid)
    if project_id is not None:
        query = query.where(server_groups.c.project_id == project_id)
    groups = _with_members(connection, query)
    if not groups:
        raise _not_found(uuid)
    return groups[0]


def new(*, project_id: str, user_id: str, name: str, policy: str, rules: Mapping[str, int]) -> ServerGroup:
    """A group that is not written yet."""
    return ServerGroup(str(uuids.uuid4()), project_id, user_id, name, policy, dict(rules))


def insert(connection: sa.Connection, group: ServerGroup, *, quota_defaults: Mapping[str, int]) -> ServerGroup:
    """Makes a group.

    Raises:
        OverQuota: project or user have as many as they may.
    """
    api_db.quota.lock(connection, group.project_id)
    limits = api_db.limits.read(connection, group.project_id, group.user_id, quota_defaults)
    for user_id, most in ((None, limits.project[RESOURCE]), (group.user_id, limits.effective[RESOURCE])):
        if 0 <= most <= count(connection, group.project_id, user_id):
            raise core.errors.OverQuota("Quota exceeded, too many server groups.", quota=RESOURCE)
    row = {
        field.name: getattr(group, field.name) for field in dataclasses.fields(ServerGroup) if field.name != "members"
    }
    connection.execute(sa.insert(server_groups).values(**row, created_at=now_sql()))
    return group


def count(connection: sa.Connection, project_id: str, user_id: str | None = None) -> int:
    """How many groups a project has, or one of its users."""
    mine = server_groups.c.project_id == project_id
    if user_id is not None:
        mine = sa.and_(mine, server_groups.c.user_id == user_id)
    return int(connection.execute(sa.select(sa.func.count()).select_from(server_groups).where(mine)).scalar_one())


def delete(connection: sa.Connection, uuid: str) -> None:
    """Removes a group; its members stay where they are.

    Raises:
        NotFound: there is none (any more).
    """
    group_id = _locked(connection, server_groups.c.uuid == uuid)
    if group_id is None:
        raise _not_found(uuid)
    connection.execute(sa.delete(server_group_members).where(server_group_members.c.group_id == group_id))
    connection.execute(sa.delete(server_groups).where(server_groups.c.id == group_id))


def group_of(connection: sa.Connection, server: str) -> str | None:
    """The group that a server is in."""
    joined = server_groups.join(server_group_members, server_group_members.c.group_id == server_groups.c.id)
    query = sa.select(server_groups.c.uuid).select_from(joined).where(server_group_members.c.instance_uuid == server)
    uuid = connection.execute(query).scalar()
    return None if uuid is None else str(uuid)


# ---- members ---------------------------------------------------------------------------------------------------------


def join(
    connection: sa.Connection,
    uuid: str,
    servers: Sequence[str],
    *,
    project_id: str,
    user_id: str,
    quota_defaults: Mapping[str, int],
) -> None:
    """Servers that are being accepted become members; part of `api.accept`, under the project's lock.

    Raises:
        Invalid: the project has no such group.
        OverQuota: the user may not have so many servers in it.
    """
    group_id = _locked(connection, server_groups.c.uuid == uuid, server_groups.c.project_id == project_id)
    if group_id is None:
        raise core.errors.Invalid(f"group: Server group {uuid} could not be found.", field="group")
    most = api_db.limits.read(connection, project_id, user_id, quota_defaults).of_one_thing["server_group_members"]
    if most >= 0 and _count_members(connection, group_id, user_id) + len(servers) > most:
        raise core.errors.OverQuota("Quota exceeded, too many servers in group", quota="server_group_members")
    rows = [{"group_id": group_id, "instance_uuid": server} for server in servers]
    connection.execute(sa.insert(server_group_members), rows)


def leave(connection: sa.Connection, uuid: str, server: str) -> None:
    """The server is no member any more.

    Raises:
        NotFound: it was none, or there is no such group.
    """
    group_id = _locked(connection, server_groups.c.uuid == uuid)
    mine = sa.and_(server_group_members.c.group_id == group_id, server_group_members.c.instance_uuid == server)
    if group_id is None or not changed(connection.execute(sa.delete(server_group_members).where(mine))):
        raise core.errors.NotFound(f"Instance {server} is no member of server group {uuid}.", server_group=uuid)


def members(connection: sa.Connection, uuid: str) -> list[Whereabouts]:
    """Where a group's members are."""
    joined = server_group_members.join(server_groups, server_groups.c.id == server_group_members.c.group_id)
    mine = sa.select(server_group_members.c.instance_uuid).select_from(joined).where(server_groups.c.uuid == uuid)
    return [Whereabouts(*row) for row in connection.execute(WHEREABOUTS.where(instance_mappings.c.uuid.in_(mine)))]


def _count_members(connection: sa.Connection, group_id: int, user_id: str) -> int:
    mine = sa.and_(
        server_group_members.c.group_id == group_id,
        instance_mappings.c.deleted == LIVING,
        instance_mappings.c.user_id == user_id,
    )
    return int(connection.execute(sa.select(sa.func.count()).select_from(_living()).where(mine)).scalar_one())


def _locked(connection: sa.Connection, *which: sa.ColumnElement[bool]) -> int | None:
    """The group's key, with its row locked: nobody joins it, or deletes it, meanwhile."""
    lock(connection, server_groups, *which)
    key: int | None = connection.execute(sa.select(server_groups.c.id).where(*which)).scalar()
    return key


def _living() -> sa.Join:
    return server_group_members.join(
        instance_mappings, instance_mappings.c.uuid == server_group_members.c.instance_uuid
    )


def _with_members(connection: sa.Connection, query: sa.Select[Any]) -> list[ServerGroup]:
    groups = {row.uuid: ServerGroup(*row) for row in connection.execute(query)}
    if not groups:
        return []
    named = _living().join(server_groups, server_groups.c.id == server_group_members.c.group_id)
    joined = (
        sa.select(server_groups.c.uuid, server_group_members.c.instance_uuid)
        .select_from(named)
        .where(server_groups.c.uuid.in_(list(groups)), instance_mappings.c.deleted == LIVING)
        .order_by(server_group_members.c.id)
    )
    by_group: dict[str, list[str]] = {uuid: [] for uuid in groups}
    for uuid, server in connection.execute(joined):
        by_group[uuid].append(server)
    return [
        dataclasses.replace(group, rules=group.rules or {}, members=tuple(by_group[group.uuid]))
        for group in groups.values()
    ]


def _not_found(uuid: str) -> core.errors.NotFound:
    return core.errors.NotFound(f"Instance group {uuid} could not be found.", server_group=uuid)
