"""Quota of instances, cores and ram: counted, never reserved, in the API database alone.

The first statement of the transaction locks the project's row: any read before it, under REPEATABLE READ, let 69
servers through a limit of 50, and a lock that only reads the row let 52 through on three Galera nodes (both measured;
docs/decisions/0020). Then one covering-index sum, then the caller inserts its rows.
"""

from collections.abc import Mapping

import sqlalchemy as sa

import api_db.limits
import core.errors
import database.statements
from api_db.instances import LIVING
from api_db.limits import Limits
from api_db.tables import instance_mappings, project_locks
from database.compiled_statements import CompiledStatement

UNLIMITED = -1

# `deleted IS false` would be no use to the index: every server the project ever deleted would be read. One that is
# soft-deleted is not counted: whoever restores it asks for room anew.
_COUNTED = sa.select(
    sa.func.count(),
    sa.func.coalesce(sa.func.sum(instance_mappings.c.vcpus), 0),
    sa.func.coalesce(sa.func.sum(instance_mappings.c.memory_mib), 0),
).where(instance_mappings.c.deleted == LIVING, instance_mappings.c.project_id == sa.bindparam("project_id"))
_USAGE = CompiledStatement(_COUNTED)
_USAGE_OF_USER = CompiledStatement(_COUNTED.where(instance_mappings.c.user_id == sa.bindparam("user_id")))


def lock(connection: sa.Connection, project_id: str) -> None:
    """Makes this transaction the only one that counts and inserts for the project. Call it first."""
    mine = project_locks.c.project_id == project_id
    if not database.statements.lock(connection, project_locks, mine):
        database.statements.insert_if_absent(connection, project_locks, [{"project_id": project_id, "lock_count": 0}])
        database.statements.lock(connection, project_locks, mine)


def usage(connection: sa.Connection, project_id: str, user_id: str | None = None) -> dict[str, int]:
    """`instances`, `cores` and `ram` (MiB) of a project, or of one of its users; deleted servers are free at once."""
    if user_id is None:
        counted = _USAGE.rows(connection, {"project_id": project_id})
    else:
        counted = _USAGE_OF_USER.rows(connection, {"project_id": project_id, "user_id": user_id})
    ((instances, cores, ram),) = counted
    return {"instances": int(instances), "cores": int(cores), "ram": int(ram)}


def headroom(
    connection: sa.Connection, limits: Limits, *, project_id: str, user_id: str, each: Mapping[str, int]
) -> int | None:
    """For how many things of this size the project has room, and the user where it has limits of its own; None: for any
    number."""
    rooms = _rooms(each, usage(connection, project_id), limits.project)
    if any(resource in limits.user for resource in each):
        rooms += _rooms(each, usage(connection, project_id, user_id), limits.user)
    return min(rooms, default=None)


def _rooms(each: Mapping[str, int], used: Mapping[str, int], limits: Mapping[str, int]) -> list[int]:
    return [
        max(0, limits[resource] - used[resource]) // amount
        for resource, amount in each.items()
        if amount and limits.get(resource, UNLIMITED) != UNLIMITED
    ]


def check(
    connection: sa.Connection, *, project_id: str, user_id: str, wanted: Mapping[str, int], defaults: Mapping[str, int]
) -> None:
    """Returns if the project (and, where it has limits of its own, the user) may have this much more. The project must
    be locked.

    Raises:
        OverQuota: it may not; the message names every quota that is too small, what is used and the limit.
    """
    limits = api_db.limits.read(connection, project_id, user_id, defaults)
    _refuse_beyond(wanted, usage(connection, project_id), limits.project)
    if any(resource in limits.user for resource in wanted):
        _refuse_beyond(wanted, usage(connection, project_id, user_id), limits.user)


def _refuse_beyond(wanted: Mapping[str, int], used: Mapping[str, int], limits: Mapping[str, int]) -> None:
    over = sorted(
        resource
        for resource, amount in wanted.items()
        if limits.get(resource, UNLIMITED) != UNLIMITED and used[resource] + amount > limits[resource]
    )
    if not over:
        return
    requested, taken, allowed = (
        ", ".join(str(values[resource]) for resource in over) for values in (wanted, used, limits)
    )
    raise core.errors.OverQuota(
        f"Quota exceeded for {', '.join(over)}: Requested {requested}, but already used {taken} of {allowed} "
        f"{', '.join(over)}",
        quota=over,
    )
