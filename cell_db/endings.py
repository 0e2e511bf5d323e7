"""How servers end: from the tombstone, over the hosts' "gone", to the row that stays until it is purged. See
docs/build-protocol.md."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

import cell_db.builds
import cell_db.cleanups
import cell_db.console_tokens
from cell_db.builds import NewInstance
from cell_db.history import Phase, Told, tell
from cell_db.tables import cleanups, instances
from core.context import Context, service_context
from database.statements import changed, insert_one
from database.types import is_over, now_sql
from lifecycle import states
from lifecycle.actions import CREATE, DELETE
from objects.build_request import BuildRequest


def tombstone(
    connection: sa.Connection,
    *,
    uuid: str,
    project_id: str,
    user_id: str,
    is_cell0: bool,
    context: Context | None = None,
    build_request: BuildRequest | None = None,
) -> bool:
    """Marks the server as going, or leaves a row that keeps a late insert out. Gives whether a host still has to say
    "gone".

    In cell0 it is deleted at once: nothing of it is on any host. `context`: whose request it is; the same one twice is
    recorded once. `build_request`: of a server that may not have been handed over to this cell.
    """
    by = context or service_context()
    standing = (
        sa.select(instances.c.state, instances.c.attempt, instances.c.host)
        .where(instances.c.uuid == uuid)
        .with_for_update()
    )
    row = connection.execute(standing).first()
    if row is None and _insert_tombstone(
        connection,
        uuid=uuid,
        project_id=project_id,
        user_id=user_id,
        is_cell0=is_cell0,
        by=by,
        build_request=build_request,
    ):
        return False
    if row is None:  # A late insert was faster.
        row = connection.execute(standing).one()
    if is_cell0:
        return _deleted(connection, uuid, host=None, by=by) and False
    if row.state in (states.BUILD_DELETING, states.BUILD_DELETED):
        return row.state == states.BUILD_DELETING
    if row.host is not None:
        cell_db.cleanups.insert(connection, uuid=uuid, host=row.host, attempt=row.attempt)
    going = sa.update(instances).where(
        instances.c.uuid == uuid, instances.c.state.not_in((states.BUILD_DELETING, states.BUILD_DELETED))
    )
    values = {"state": states.BUILD_DELETING, "task_state": DELETE.during, "operation_id": None, "operation": None}
    connection.execute(going.values(**values, lease_until=now_sql(), updated_at=now_sql()))
    tell(connection, DELETE.name, Phase.BEGAN, [Told(uuid=uuid, by=by, host=row.host)], instead_of_all=True)
    return row.host is not None


def _insert_tombstone(
    connection: sa.Connection,
    *,
    uuid: str,
    project_id: str,
    user_id: str,
    is_cell0: bool,
    by: Context,
    build_request: BuildRequest | None,
) -> bool:
    row: dict[str, Any] = {
        "uuid": uuid, "project_id": project_id, "user_id": user_id, "power_state": 0, "flavor": {}, "vcpus": 0,
        "memory_mib": 0, "root_gib": 0, "ephemeral_gib": 0, "config_drive": False, "auto_disk_config": False,
        "launch_index": 0, "progress": 0,
    }  # fmt: skip
    now = now_sql()
    times = {"updated_at": now, "deleted_at": now, "lease_until": now}
    if build_request is None:
        times["created_at"] = now
    else:
        row |= cell_db.builds.row_of(_never_placed(build_request))
    row |= {
        "attempt": 0,
        "vm_state": states.BUILDING,
        "task_state": DELETE.during,
        "state": states.BUILD_DELETING,
        "deleted": True,
    }
    if is_cell0:
        row |= {"vm_state": DELETE.then, "task_state": None, "state": states.BUILD_DELETED}
    if not insert_one(connection, instances, row, **times):
        return False
    if build_request is not None:
        creator = Context(
            build_request.build.user_id, build_request.build.project_id, request_id=build_request.request_id
        )
        tell(connection, CREATE.name, Phase.FAILED, [Told(uuid=uuid, by=creator, since=build_request.created_at)])
    tell(connection, DELETE.name, Phase.ENDED if is_cell0 else Phase.BEGAN, [Told(uuid=uuid, by=by)])
    return True


def _never_placed(build_request: BuildRequest) -> NewInstance:
    """What is known of a server that its cell never got."""
    return NewInstance(
        build_request=build_request, host=None, node_uuid=None, hypervisor_hostname=None, availability_zone=None,
        alternates=[], resources={}, not_after=build_request.created_at,
    )  # fmt: skip


def _deleted(connection: sa.Connection, uuid: str, *, host: str | None, by: Context | None = None) -> bool:
    going = sa.update(instances).where(instances.c.uuid == uuid, instances.c.state != states.BUILD_DELETED)
    values = {
        "state": states.BUILD_DELETED,
        "vm_state": DELETE.then,
        "task_state": None,
        "power_state": states.NO_STATE,
        "deleted": True,
    }
    done = changed(
        connection.execute(
            going.values(**values, deleted_at=now_sql(), terminated_at=now_sql(), updated_at=now_sql(), host=None)
        )
    )
    if done:
        event = None if host is None else DELETE.event_name
        tell(
            connection, DELETE.name, Phase.ENDED, [Told(uuid=uuid, by=by, event=event, host=host)], instead_of_all=True
        )
        cell_db.console_tokens.forget(connection, uuid)
    return done


def gone(connection: sa.Connection, host: str, answered: Sequence[tuple[str, int]]) -> None:
    """The host said that nothing of these (uuid, attempt) or older is left on it: its own cleanups of them go."""
    for uuid, attempt in answered:
        connection.execute(
            sa.delete(cleanups).where(cleanups.c.uuid == uuid, cleanups.c.host == host, cleanups.c.attempt <= attempt)
        )


def ended_after_reports(
    connection: sa.Connection, host: str, answered: Sequence[tuple[str, int]]
) -> list[tuple[str, str]]:
    """(uuid, state) of servers that are going or failed and whose last cleanups are the ones that the host just
    answered.

    A server that owes this host nothing is not among them, whatever the host says of it: those that nobody answers for
    are ended elsewhere.
    """
    upto: dict[str, int] = {}
    for uuid, attempt in answered:
        upto[uuid] = max(attempt, upto.get(uuid, attempt))
    open_cleanups = sa.select(cleanups.c.uuid, cleanups.c.host, cleanups.c.attempt).where(
        cleanups.c.uuid.in_(list(upto))
    )
    rows = connection.execute(open_cleanups).all()
    owed = {row.uuid for row in rows if row.host == host}
    blocked = {row.uuid for row in rows if row.host != host or row.attempt > upto[row.uuid]}
    ended = sa.select(instances.c.uuid, instances.c.state).where(
        instances.c.uuid.in_(sorted(owed - blocked)),
        instances.c.state.in_((states.BUILD_DELETING, states.BUILD_ERROR, states.BUILD_DELETED)),
    )
    return [(row.uuid, row.state) for row in connection.execute(ended)]


def ended_without_cleanups(connection: sa.Connection, *, most: int, wanted: Sequence[str] | None = None) -> list[str]:
    """Servers that are going and that no host has to answer for any more, their lease over."""
    query = sa.select(instances.c.uuid).where(
        instances.c.state == states.BUILD_DELETING,
        is_over(instances.c.lease_until),
        ~sa.exists().where(cleanups.c.uuid == instances.c.uuid),
    )
    if wanted is not None:
        query = query.where(instances.c.uuid.in_(list(wanted)))
    return list(connection.execute(query.order_by(instances.c.id).limit(most)).scalars())


def ended(connection: sa.Connection, wanted: Sequence[str]) -> list[str]:
    """Those of the servers that are in ERROR or deleted, with no host left to answer: they need no claim."""
    query = sa.select(instances.c.uuid).where(
        instances.c.uuid.in_(list(wanted)),
        instances.c.state.in_((states.BUILD_ERROR, states.BUILD_DELETED)),
        ~sa.exists().where(cleanups.c.uuid == instances.c.uuid),
    )
    return list(connection.execute(query).scalars())


def deleted(connection: sa.Connection, uuid: str) -> bool:
    """Marks a server that is going as gone; the row stays until it is purged. False: it is gone already."""
    row = connection.execute(sa.select(instances.c.state, instances.c.host).where(instances.c.uuid == uuid)).first()
    return row is not None and row.state == states.BUILD_DELETING and _deleted(connection, uuid, host=row.host)
