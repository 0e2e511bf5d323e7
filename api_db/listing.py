"""What the API database knows of a server list: the order of the mappings, the servers in the journal, markers, a
project's cells."""

import dataclasses
import datetime
import functools
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

import database.keyset
from api_db.instances import LIVING
from api_db.journal import NEW, Kind
from api_db.tables import build_requests, instance_mappings, project_cells
from database.compiled_statements import CompiledStatement
from database.keyset import Position, SortOrder
from database.types import document
from objects.build_request import BuildRequest
from objects.fault import Fault
from objects.server import Server, server_of_build_request

SORT_KEYS = frozenset({"created_at", "uuid", "project_id", "user_id"})
"""What mappings can be sorted by."""

FILTERS = frozenset({"project_id", "user_id", "uuid", "deleted"})
"""What mappings can be filtered by; of deleted and soft-deleted ones only that they are not shown."""

_mapping, _order = instance_mappings.c, build_requests.c


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """A server in the journal. `target`: the cell that may have its row already; None: no cell has one.

    `server` is None in a row that a delete or a restore left for its cell, and in one that cannot be read.
    """

    uuid: str
    target: str | None
    kind: Kind
    server: Server | None

    @property
    def is_hidden(self) -> bool:
        """Whether it is deleted or soft-deleted, which its cell may not know yet."""
        return self.kind in (Kind.DELETE, Kind.SOFT_DELETE)


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

    def position(self, order: SortOrder) -> Position | None:
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

    It lies after `after` (None: at the list's start) and ends with `until` (None: with the list). `cells`: how many of
    its servers each cell has. `marked` as in an Overview.
    """

    after: Position | None
    until: Position | None
    cells: dict[str, int]
    waiting: list[Waiting]
    marked: Marked | None = None


_MAPPED = tuple(_mapping[field.name] for field in dataclasses.fields(Mapped))
# A kind that this release does not know neither hides a server nor shows it.
_KINDS = {kind.value: kind for kind in Kind}
# Packed as rows of servers are (`cell_db.packed`): it is asked with every list, and there is seldom an answer.
_WAITING = sa.func.json_array(
    _order.uuid, _order.phase, _order.target, _order.deleting, _order.kind, sa.type_coerce(_order.fault, sa.Text),
    sa.type_coerce(_order.instance, sa.Text), type_=sa.Text,
)  # fmt: skip
_unpacked = msgspec.json.Decoder(
    tuple[str, str, str | None, bool, str | None, str | None, str | None], strict=False
).decode
_journal = CompiledStatement(sa.select(_WAITING))
_journal_of_project = CompiledStatement(sa.select(_WAITING).where(_order.project_id == sa.bindparam("project_id")))
_marked = (
    sa.select(*_MAPPED, sa.case((_order.uuid.is_not(None), _WAITING)))
    .outerjoin_from(instance_mappings, build_requests, _order.uuid == _mapping.uuid)
    .where(_mapping.uuid == sa.bindparam("wanted"))
)
_cells_of_project = CompiledStatement(
    sa.select(project_cells.c.cell_uuid).where(project_cells.c.project_id == sa.bindparam("project_id"))
)


def overview(connection: sa.Connection, *, project_id: str | None, marker: str | None) -> Overview:
    """The journal, the cells and the marker of a list of one project, or of all.

    Read before the cells: in the other order a server that is handed over in between would be missed. The journal comes
    first for the same reason: what has left it is in a cell that the mappings name already.
    """
    return Overview(
        waiting=journal(connection, project_id=project_id),
        cells=None if project_id is None else cells_of_project(connection, project_id),
        marked=None if marker is None else marked(connection, marker),
    )


def journal(connection: sa.Connection, *, project_id: str | None) -> list[Waiting]:
    """The servers in the journal, of one project or of all, in no order."""
    of_project = {} if project_id is None else {"project_id": project_id}
    query = _journal_of_project if of_project else _journal
    return [_waiting(packed) for (packed,) in query.rows(connection, of_project)]


def cells_of_project(connection: sa.Connection, project_id: str) -> set[str]:
    """The cells that ever held a server of the project."""
    return {cell for (cell,) in _cells_of_project.rows(connection, {"project_id": project_id})}


def marked(connection: sa.Connection, uuid: str) -> Marked | None:
    """The server that a marker names, of whatever kind; None: there is none."""
    row = connection.execute(_marked, {"wanted": uuid}).first()
    if row is None:
        return None
    *mapped, packed = row
    return Marked(Mapped(*mapped), None if packed is None else _waiting(packed))


def window(
    connection: sa.Connection,
    filters: Mapping[str, Any],
    order: SortOrder,
    *,
    marker: str | None,
    marker_project: str | None,
    after: Position | None,
    limit: int,
    without_cells: Collection[str] = (),
) -> Window:
    """The part of the list with the next servers after the marker or the position, in the order of (created_at, uuid)
    or its reverse.

    Neither keys nor rows leave the database, only where the part ends and how many servers of it each cell has. The
    journal is read after that, for servers that have a cell; those that had none may have left it meanwhile, and the
    cells are read once more. The part is empty where the marker is no server of `marker_project`; None: it may be of
    any project, whatever the filters say.
    """
    start = None if marker is None else marked(connection, marker)
    if marker is not None and (start is None or marker_project not in (None, start.mapped.project_id)):
        # Another project's costs as little as none: how long a refusal takes would tell one from the other.
        return Window(None, None, {}, [], start)
    after = start.position(order) if start else after
    part = _Part(filters, order, without_cells)
    cells, until = part.first(connection, after, limit)
    waiting = part.waiting(connection, after, until)
    if None in cells:
        cells = part.cells(connection, after, until)
    return Window(after, until, {cell: number for cell, number in cells.items() if cell is not None}, waiting, start)


class _Part:
    """A part of a list by the mappings."""

    def __init__(self, filters: Mapping[str, Any], order: SortOrder, without_cells: Collection[str]) -> None:
        self._equal = tuple(name for name in filters if name != "deleted")
        self._order = order
        self._without = bool(without_cells)
        self._values = {name: filters[name] for name in self._equal} | (
            {"without": list(without_cells)} if without_cells else {}
        )

    def first(
        self, connection: sa.Connection, after: Position | None, limit: int
    ) -> tuple[dict[str | None, int], Position | None]:
        """How many of the first servers each cell has (None: no cell yet), and the position of the last of them; None:
        there are fewer."""
        query = _first(self._equal, self._order, self._without, after is not None)
        rows = query.rows(connection, {**self._values, **_bounds(after, None), "most": limit})
        cells = {cell: number for cell, number, _ in rows}
        if sum(cells.values()) < limit:
            return cells, None
        last = (min if self._order[-1].descending else max)(place for *_, place in rows)
        return cells, (datetime.datetime.fromisoformat(last[:_MOMENT]), last[_MOMENT:])

    def cells(self, connection: sa.Connection, after: Position | None, until: Position | None) -> dict[str | None, int]:
        """How many each cell has."""
        query = _counted(self._equal, self._order, self._without, after is not None, until is not None)
        return {row[0]: row[1] for row in query.rows(connection, {**self._values, **_bounds(after, until)})}

    def waiting(self, connection: sa.Connection, after: Position | None, until: Position | None) -> list[Waiting]:
        """The servers in the journal, those being deleted among them, whatever their cells."""
        query = _waiting_between(self._equal, self._order, after is not None, until is not None)
        values = {name: self._values[name] for name in self._equal}
        return [_waiting(packed) for (packed,) in query.rows(connection, {**values, **_bounds(after, until)})]


# Built once for all lists that differ by values alone. A place is text that sorts as (created_at, uuid) does: both
# databases write a time with microseconds, in so many characters.
_MOMENT = 26


@functools.lru_cache
def _first(equal: tuple[str, ...], order: SortOrder, without_cells: bool, after: bool) -> CompiledStatement:
    part = _mine(sa.select(_mapping.cell_uuid, _mapping.created_at, _mapping.uuid), equal, order, without_cells)
    part = part.where(*_between(order, _parameters("after", after), None)).order_by(
        *database.keyset.order_by(_by(order))
    )
    first = part.limit(sa.bindparam("most", type_=sa.Integer())).subquery("part")
    place = sa.type_coerce(first.c.created_at, sa.String).concat(first.c.uuid)
    last = sa.func.min(place) if order[-1].descending else sa.func.max(place)
    return CompiledStatement(sa.select(first.c.cell_uuid, sa.func.count(), last).group_by(first.c.cell_uuid))


@functools.lru_cache
def _counted(
    equal: tuple[str, ...], order: SortOrder, without_cells: bool, after: bool, until: bool
) -> CompiledStatement:
    query = _mine(sa.select(_mapping.cell_uuid, sa.func.count()), equal, order, without_cells)
    query = query.where(*_between(order, _parameters("after", after), _parameters("until", until)))
    return CompiledStatement(query.group_by(_mapping.cell_uuid))


@functools.lru_cache
def _waiting_between(equal: tuple[str, ...], order: SortOrder, after: bool, until: bool) -> CompiledStatement:
    mine = [_mapping[name] == sa.bindparam(name) for name in equal]
    bounds = _between(order, _parameters("after", after), _parameters("until", until))
    return CompiledStatement(
        sa.select(_WAITING).join(instance_mappings, _mapping.uuid == _order.uuid).where(*mine, *bounds)
    )


def _mine(query: sa.Select[Any], equal: tuple[str, ...], order: SortOrder, without_cells: bool) -> sa.Select[Any]:
    """The mappings of a list."""
    query = query.where(_mapping.deleted == LIVING, *(_mapping[name] == sa.bindparam(name) for name in equal))
    if without_cells:
        kept = _mapping.cell_uuid.not_in(sa.bindparam("without", expanding=True))
        query = query.where(sa.or_(_mapping.cell_uuid.is_(None), kept))
    return database.keyset.by_index(query.select_from(instance_mappings), instance_mappings, _index(equal, order))


def _parameters(name: str, is_there: bool) -> Position | None:
    return (sa.bindparam(f"{name}_0"), sa.bindparam(f"{name}_1")) if is_there else None


def _bounds(after: Position | None, until: Position | None) -> dict[str, Any]:
    """The values of these parameters."""
    bounds = (("after", after), ("until", until))
    return {
        f"{name}_{number}": value for name, bound in bounds if bound is not None for number, value in enumerate(bound)
    }


def mapped_in(
    connection: sa.Connection,
    cells: Collection[str],
    filters: Mapping[str, Any],
    order: SortOrder,
    *,
    after: Position | None,
    until: Position | None = None,
    limit: int,
) -> list[tuple[Position, Mapped]]:
    """The servers that these cells hold, as their mappings tell, in an order that mappings know."""
    query = (
        sa.select(*_MAPPED)
        .where(_mapping.cell_uuid.in_(list(cells)), *_conditions(filters), *_between(order, after, until))
        .order_by(*database.keyset.order_by(_by(order)))
        .limit(limit)
    )
    rows = [Mapped(*row) for row in connection.execute(query).all()]
    return [(tuple([getattr(each, sorting.name) for sorting in order]), each) for each in rows]


def mapped(connection: sa.Connection, uuids: Collection[str]) -> dict[str, Mapped]:
    """uuid -> what the mapping tells."""
    if not uuids:
        return {}
    return {
        row[0]: Mapped(*row)
        for row in connection.execute(sa.select(*_MAPPED).where(_mapping.uuid.in_(list(uuids)))).all()
    }


def _conditions(filters: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    return [_mapping.deleted == LIVING, *_equal(filters)]


def _equal(filters: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    return [_mapping[name] == value for name, value in filters.items() if name != "deleted"]


def _between(order: SortOrder, after: Position | None, until: Position | None) -> list[sa.ColumnElement[bool]]:
    return database.keyset.between(_by(order), after, until)


def _by(order: SortOrder) -> list[database.keyset.Key]:
    return [database.keyset.Key(_mapping[sorting.name], sorting.descending, nullable=False) for sorting in order]


def _index(equal: tuple[str, ...], order: SortOrder) -> str | None:
    """The index that has the mappings in the wanted order, if there is one and it is the best."""
    if database.keyset.names(order) != ("created_at", "uuid") or "uuid" in equal:
        return None
    return "ix_instance_mappings_project_order" if "project_id" in equal else "ix_instance_mappings_order"


def _waiting(packed: str) -> Waiting:
    uuid, phase, target, deleting, change, fault, instance = _unpacked(packed)
    return Waiting(
        uuid,
        None if phase == NEW else target,
        Kind.DELETE if deleting else _KINDS.get(change, Kind.BUILD),
        _ordered(instance, fault, deleting=deleting),
    )


def _ordered(instance: str | None, fault: str | None, *, deleting: bool) -> Server | None:
    order = document(instance, BuildRequest)
    if order is None:
        return None
    return server_of_build_request(order, fault=document(fault, Fault), deleting=deleting)
