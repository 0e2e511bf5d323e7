"""What the API database knows of a server list: the order of the mappings, the servers in the journal, markers, a project's cells."""

import dataclasses
import datetime
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

import core.keyset
from api_db.journal import NEW
from api_db.tables import build_requests, instance_mappings, project_cells
from core.keyset import Order, Position
from objects.order import ServerOrder
from objects.server import Server, server_of_order

SORT_KEYS = frozenset({"created_at", "uuid", "project_id", "user_id"})
"""What mappings can be sorted by."""

FILTERS = frozenset({"project_id", "user_id", "uuid", "deleted"})
"""What mappings can be filtered by; of deleted ones only that they are not shown."""

_mapping, _order = instance_mappings.c, build_requests.c


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """A server in the journal. `target`: the cell that may have its row already; None: no cell has one.

    `server` is None in a row that a delete left for its cell.
    """

    uuid: str
    target: str | None
    deleting: bool
    server: Server | None


class Key(NamedTuple):
    """A server in the mappings' order. `cell_uuid` None: no cell owns it; `waiting`: it is in the journal."""

    uuid: str
    cell_uuid: str | None
    waiting: Waiting | None


@dataclasses.dataclass(frozen=True, slots=True)
class Mapped:
    """What a mapping alone tells of a server."""

    uuid: str
    project_id: str
    user_id: str
    cell_uuid: str | None
    created_at: datetime.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Marked:
    """The server that a marker names: its mapping, deleted or not, and its journal row."""

    mapped: Mapped
    waiting: Waiting | None

    def position(self, order: Order) -> Position | None:
        """Its place in an order that mappings can be sorted by; None: they cannot."""
        if any(sorting.name not in SORT_KEYS for sorting in order):
            return None
        return tuple(getattr(self.mapped, sorting.name) for sorting in order)


@dataclasses.dataclass(frozen=True, slots=True)
class Overview:
    """What must be known before the cells are asked. `cells` None: all of them may hold servers of the list.

    `marked` None though a marker was named: there is no such server.
    """

    waiting: list[Waiting]
    cells: set[str] | None
    marked: Marked | None


_MAPPED = tuple(_mapping[field.name] for field in dataclasses.fields(Mapped))
_WAITING = (_order.uuid, _order.phase, _order.target, _order.deleting, _order.fault, _order.instance)


def overview(connection: sa.Connection, *, project_id: str | None, marker: str | None) -> Overview:
    """The journal, the cells and the marker of a list of one project, or of all.

    Read before the cells: in the other order a server that is handed over in between would be missed. The journal comes first for the
    same reason: what has left it is in a cell that the mappings name already.
    """
    return Overview(
        waiting=journal(connection, project_id=project_id),
        cells=None if project_id is None else cells_of_project(connection, project_id),
        marked=None if marker is None else marked(connection, marker),
    )


def journal(connection: sa.Connection, *, project_id: str | None) -> list[Waiting]:
    """The servers in the journal, of one project or of all, in no order."""
    query = sa.select(*_WAITING)
    if project_id is not None:
        query = query.where(_order.project_id == project_id)
    return [_waiting(*row) for row in connection.execute(query).all()]


def cells_of_project(connection: sa.Connection, project_id: str) -> set[str]:
    """The cells that ever held a server of the project."""
    return set(connection.execute(sa.select(project_cells.c.cell_uuid).where(project_cells.c.project_id == project_id)).scalars())


def marked(connection: sa.Connection, uuid: str) -> Marked | None:
    """The server that a marker names, of whatever kind; None: there is none."""
    query = sa.select(*_MAPPED, *_WAITING).outerjoin(build_requests, _order.uuid == _mapping.uuid).where(_mapping.uuid == uuid)
    row = connection.execute(query).first()
    if row is None:
        return None
    mapped, order = row[: len(_MAPPED)], row[len(_MAPPED) :]
    return Marked(Mapped(*mapped), _waiting(*order) if order[0] is not None else None)


def keys(
    connection: sa.Connection,
    filters: Mapping[str, Any],
    order: Order,
    *,
    marker: str | None,
    limit: int,
    without_cells: Collection[str] = (),
) -> tuple[Marked | None, list[Key]]:
    """The marker's server and the keys after it, in an order that the mappings know: one index read.

    The mappings are joined to the journal in one statement, so that no server is handed over between the two.
    """
    start = None if marker is None else marked(connection, marker)
    if marker is not None and start is None:
        return None, []
    query = (
        sa.select(_mapping.uuid, _mapping.cell_uuid, _order.uuid)
        .select_from(instance_mappings)
        .outerjoin(build_requests, _order.uuid == _mapping.uuid)
        .where(*_conditions(filters))
    )
    query = core.keyset.by_index(query, instance_mappings, _index(filters, order))
    if without_cells:
        query = query.where(sa.or_(_mapping.cell_uuid.is_(None), _mapping.cell_uuid.not_in(list(without_cells))))
    rows = connection.execute(_paged(query, order, start.position(order) if start else None, limit)).all()
    return start, _with_journal(connection, rows)


def _with_journal(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[Key]:
    """The keys with the journal's rows of those that were in the journal a moment ago."""
    joined = [row[0] for row in rows if row[2] is not None]
    if not joined:
        return [Key(uuid, cell, None) for uuid, cell, _ in rows]
    found = connection.execute(sa.select(*_WAITING).where(_order.uuid.in_(joined))).all()
    waiting = {row[0]: _waiting(*row) for row in found}
    left = [uuid for uuid in joined if uuid not in waiting]
    # What has left the journal meanwhile is in its cell.
    moved = {uuid: each.cell_uuid for uuid, each in mapped(connection, left).items()}
    return [Key(uuid, moved.get(uuid, cell), waiting.get(uuid)) for uuid, cell, _ in rows]


def mapped_in(
    connection: sa.Connection,
    cells: Collection[str],
    filters: Mapping[str, Any],
    order: Order,
    *,
    after: Position | None,
    limit: int,
) -> list[tuple[Position, Mapped]]:
    """The servers that these cells hold, as their mappings tell, in an order that mappings know."""
    query = sa.select(*_MAPPED).where(_mapping.cell_uuid.in_(list(cells)), *_conditions(filters))
    found = [Mapped(*row) for row in connection.execute(_paged(query, order, after, limit)).all()]
    return [(tuple(getattr(each, sorting.name) for sorting in order), each) for each in found]


def mapped(connection: sa.Connection, uuids: Collection[str]) -> dict[str, Mapped]:
    """uuid -> what the mapping tells."""
    if not uuids:
        return {}
    return {row[0]: Mapped(*row) for row in connection.execute(sa.select(*_MAPPED).where(_mapping.uuid.in_(list(uuids)))).all()}


def _conditions(filters: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    equal = [_mapping[name] == value for name, value in filters.items() if name != "deleted"]
    return [_mapping.deleted == sa.false(), *equal]


def _index(filters: Mapping[str, Any], order: Order) -> str | None:
    """The index that has the mappings in the wanted order, if there is one and it is the best."""
    if core.keyset.names(order) != ("created_at", "uuid") or "uuid" in filters:
        return None
    return "ix_instance_mappings_project_order" if "project_id" in filters else "ix_instance_mappings_order"


def _paged(query: sa.Select[Any], order: Order, after: Position | None, limit: int) -> sa.Select[Any]:
    by = [core.keyset.Key(_mapping[sorting.name], sorting.descending, nullable=False) for sorting in order]
    if after is not None:
        query = query.where(core.keyset.after(by, after))
    return query.order_by(*core.keyset.order_by(by)).limit(limit)


def _waiting(
    uuid: str, phase: str, target: str | None, deleting: bool, fault: dict[str, Any] | None, instance: dict[str, Any] | None
) -> Waiting:
    server = server_of_order(msgspec.convert(instance, ServerOrder), fault=fault, deleting=deleting) if instance else None
    return Waiting(uuid, None if phase == NEW else target, deleting, server)
