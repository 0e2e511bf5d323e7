"""What the API database knows of a server list: the order of the mappings, the servers in the journal, markers, a project's cells."""

import dataclasses
import datetime
from collections.abc import Collection, Mapping
from typing import Any

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


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """A part of the list that holds so many servers as were asked for.

    It lies after `after` (None: at the list's start) and ends with `until` (None: with the list). `cells`: how many of its servers each
    cell has. `marked` as in an Overview.
    """

    after: Position | None
    until: Position | None
    cells: dict[str, int]
    waiting: list[Waiting]
    marked: Marked | None = None


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


def window(
    connection: sa.Connection,
    filters: Mapping[str, Any],
    order: Order,
    *,
    marker: str | None,
    after: Position | None,
    limit: int,
    without_cells: Collection[str] = (),
) -> Window:
    """The part of the list with the next servers after the marker or the position, in an order that the mappings know.

    Neither keys nor rows leave the database, only where the part ends and how many servers of it each cell has. The journal is read in
    between: a server that has left it by then has its cell in its mapping.
    """
    start = None if marker is None else marked(connection, marker)
    if marker is not None and start is None:
        return Window(None, None, {}, [])
    after = start.position(order) if start else after
    mine = _Mine(filters, order, without_cells)
    until = mine.end(connection, after, limit)
    waiting = _waiting_between(connection, filters, order, after, until)
    return Window(after, until, mine.cells(connection, after, until), waiting, start)


class _Mine:
    """The mappings of a list."""

    def __init__(self, filters: Mapping[str, Any], order: Order, without_cells: Collection[str]) -> None:
        self._order = order
        self._index = _index(filters, order)
        self._conditions = _conditions(filters)
        if without_cells:
            self._conditions.append(sa.or_(_mapping.cell_uuid.is_(None), _mapping.cell_uuid.not_in(list(without_cells))))

    def end(self, connection: sa.Connection, after: Position | None, limit: int) -> Position | None:
        """The position of the last of so many; None: there are not more."""
        columns = [_mapping[sorting.name] for sorting in self._order]
        query = self._from(sa.select(*columns), after).order_by(*core.keyset.order_by(_by(self._order))).limit(1).offset(limit - 1)
        row = connection.execute(query).first()
        return None if row is None else tuple(row)

    def cells(self, connection: sa.Connection, after: Position | None, until: Position | None) -> dict[str, int]:
        """How many each cell has."""
        query = self._from(sa.select(_mapping.cell_uuid, sa.func.count()), after).group_by(_mapping.cell_uuid)
        query = query.where(_mapping.cell_uuid.is_not(None), *_between(self._order, None, until))
        return {row[0]: row[1] for row in connection.execute(query).all()}

    def _from(self, query: sa.Select[Any], after: Position | None) -> sa.Select[Any]:
        query = query.where(*self._conditions, *_between(self._order, after, None))
        return core.keyset.by_index(query.select_from(instance_mappings), instance_mappings, self._index)


def _waiting_between(
    connection: sa.Connection, filters: Mapping[str, Any], order: Order, after: Position | None, until: Position | None
) -> list[Waiting]:
    """The servers in the journal of a part of the list, those being deleted among them."""
    query = (
        sa.select(*_WAITING)
        .join(instance_mappings, _mapping.uuid == _order.uuid)
        .where(*_equal(filters), *_between(order, after, until))
    )
    return [_waiting(*row) for row in connection.execute(query).all()]


def mapped_in(
    connection: sa.Connection,
    cells: Collection[str],
    filters: Mapping[str, Any],
    order: Order,
    *,
    after: Position | None,
    until: Position | None = None,
    limit: int,
) -> list[tuple[Position, Mapped]]:
    """The servers that these cells hold, as their mappings tell, in an order that mappings know."""
    query = (
        sa.select(*_MAPPED)
        .where(_mapping.cell_uuid.in_(list(cells)), *_conditions(filters), *_between(order, after, until))
        .order_by(*core.keyset.order_by(_by(order)))
        .limit(limit)
    )
    found = [Mapped(*row) for row in connection.execute(query).all()]
    return [(tuple([getattr(each, sorting.name) for sorting in order]), each) for each in found]


def mapped(connection: sa.Connection, uuids: Collection[str]) -> dict[str, Mapped]:
    """uuid -> what the mapping tells."""
    if not uuids:
        return {}
    return {row[0]: Mapped(*row) for row in connection.execute(sa.select(*_MAPPED).where(_mapping.uuid.in_(list(uuids)))).all()}


def _conditions(filters: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    return [_mapping.deleted == sa.false(), *_equal(filters)]


def _equal(filters: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    return [_mapping[name] == value for name, value in filters.items() if name != "deleted"]


def _between(order: Order, after: Position | None, until: Position | None) -> list[sa.ColumnElement[bool]]:
    return core.keyset.between(_by(order), after, until)


def _by(order: Order) -> list[core.keyset.Key]:
    return [core.keyset.Key(_mapping[sorting.name], sorting.descending, nullable=False) for sorting in order]


def _index(filters: Mapping[str, Any], order: Order) -> str | None:
    """The index that has the mappings in the wanted order, if there is one and it is the best."""
    if core.keyset.names(order) != ("created_at", "uuid") or "uuid" in filters:
        return None
    return "ix_instance_mappings_project_order" if "project_id" in filters else "ix_instance_mappings_order"


def _waiting(
    uuid: str, phase: str, target: str | None, deleting: bool, fault: dict[str, Any] | None, instance: dict[str, Any] | None
) -> Waiting:
    server = server_of_order(msgspec.convert(instance, ServerOrder), fault=fault, deleting=deleting) if instance else None
    return Waiting(uuid, None if phase == NEW else target, deleting, server)
