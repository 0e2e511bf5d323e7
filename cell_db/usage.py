"""What servers used in a window of time, as a bill needs it: from when to when each ran, and how large it is."""

import dataclasses
import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from cell_db.tables import instances
from database.types import as_text, document


class _Flavor(msgspec.Struct):
    name: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerUsage:
    """A server that ran in the window. `terminated_at` None: it runs still."""

    project_id: str
    uuid: str
    name: str
    flavor_name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    vm_state: str
    launched_at: datetime.datetime
    terminated_at: datetime.datetime | None

    @property
    def key(self) -> tuple[str, str]:
        """Its place in the order of a page."""
        return self.project_id, self.uuid


_COLUMNS = (
    instances.c.project_id, instances.c.uuid, instances.c.display_name, as_text(instances.c.flavor).label("flavor"),
    instances.c.vcpus, instances.c.memory_mib, (instances.c.root_gib + instances.c.ephemeral_gib).label("disk_gib"),
    instances.c.vm_state, instances.c.launched_at, instances.c.terminated_at, instances.c.deleted,
)  # fmt: skip


def page(
    connection: sa.Connection,
    *,
    start: datetime.datetime,
    end: datetime.datetime,
    project_id: str | None,
    after: tuple[str, str] | None,
    most: int,
) -> list[ServerUsage]:
    """Servers that ran at some time from `start` to `end` (UTC), by project and uuid, after this key.

    Two ranges of rows are read: of what runs still, and of what ended after `start`. Servers that never ran are in
    neither.

    Args:
        project_id: of one project; None: of all.
    """
    began = instances.c.launched_at < end
    runs = sa.and_(instances.c.deleted == sa.false(), began)
    ended = sa.and_(instances.c.deleted == sa.true(), instances.c.terminated_at >= start, began)
    usages = [
        usage for wanted in (runs, ended) for usage in _rows(connection, wanted, project_id, after=after, most=most)
    ]
    return sorted(usages, key=lambda usage: usage.key)[:most]


def _rows(
    connection: sa.Connection,
    wanted: sa.ColumnElement[bool],
    project_id: str | None,
    *,
    after: tuple[str, str] | None,
    most: int,
) -> list[ServerUsage]:
    query = sa.select(*_COLUMNS).where(wanted)
    if project_id is not None:
        query = query.where(instances.c.project_id == project_id)
    if after is not None:
        query = query.where(_is_after(*after))
    rows = connection.execute(query.order_by(instances.c.project_id, instances.c.uuid).limit(most))
    return [_usage(row) for row in rows]


def _is_after(project_id: str, uuid: str) -> sa.ColumnElement[bool]:
    own = instances.c.project_id
    return sa.and_(own >= project_id, sa.or_(own > project_id, instances.c.uuid > uuid))


def _usage(row: sa.Row[Any]) -> ServerUsage:
    flavor = document(row.flavor, _Flavor) or _Flavor()
    return ServerUsage(
        project_id=row.project_id, uuid=row.uuid, name=row.display_name or "", flavor_name=flavor.name, vcpus=row.vcpus,
        memory_mib=row.memory_mib, disk_gib=row.disk_gib, vm_state=row.vm_state, launched_at=row.launched_at,
        terminated_at=row.terminated_at if row.deleted else None,
    )  # fmt: skip
