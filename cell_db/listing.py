"""Pages of a cell's servers: the keys of a page, or its rows at once, in any order and with any filter.

A cell is asked for servers after a position, not for an offset, so that it reads no more than it gives.
`cells.listing.listing` asks several cells and merges what they give.
"""

import dataclasses
import datetime
import enum
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec
import sqlalchemy as sa

import core.errors
import database.keyset
from cell_db import filters as listed_by
from cell_db import packed, regexp
from cell_db.filters import Filters
from cell_db.packed import Unreadable
from cell_db.tables import instances
from database.compiled_statements import CompiledStatement
from database.keyset import Position, SortOrder
from database.types import UNREADABLE, Ascii, Moment, is_kept_well, readable
from lifecycle import refusals
from objects.server import Server


class Brief(msgspec.Struct, frozen=True):
    """As much of a server as a brief list shows."""

    uuid: str
    display_name: str | None


class Shape(enum.Enum):
    """How much of each server is read: its key alone, what a brief list shows, or all of it."""

    KEY = enum.auto()
    BRIEF = enum.auto()
    DETAIL = enum.auto()


Nulls: TypeAlias = tuple[bool, ...]


class ListedServer(msgspec.Struct, frozen=True, gc=False):
    """A server at its position in the order of a list. `item`: what is known of it; None where only keys were read."""

    position: Position
    item: Any

    @property
    def uuid(self) -> str:
        uuid: str = self.position[-1]
        return uuid


class Part(NamedTuple):
    """The first servers that a cell has of a list. `rest`: its others stand at this position or after it; None: there
    are no others."""

    servers: list[ListedServer]
    rest: Position | None


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What is read of every cell alike.

    `user_data`, which may be long, is left out unless somebody will see it. `hosts_down_after_s`: the state of the
    servers' hosts is read, too (`extra["host_status"]`); a host that is silent for longer is not up.
    """

    filters: Filters
    order: SortOrder
    shape: Shape
    user_data: bool = False
    hosts_down_after_s: float | None = None

    def __hash__(self) -> int:
        return hash((frozenset(self.filters.items()), self.order, self.shape, self.user_data, self.hosts_down_after_s))


# ---- sort keys -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class SortKey:
    """A key that lists can be sorted by: in SQL, and of a server in Python; both sort alike."""

    sql: sa.ColumnElement[Any]
    of: Callable[[Server], Any]
    nullable: bool
    kind: type


def _column(name: str) -> SortKey:
    column = instances.c[name]
    return SortKey(column, lambda server: getattr(server, name), bool(column.nullable), _kind(column))


def _kind(column: sa.Column[Any]) -> type:
    if isinstance(column.type, sa.DateTime):
        return datetime.datetime
    return int if isinstance(column.type, sa.Integer) else str


def _whole(name: str) -> SortKey:
    """A flag, compared as the number it is kept as."""
    return SortKey(sa.type_coerce(instances.c[name], sa.Integer), lambda server: int(getattr(server, name)), False, int)


def _locked_by_number(server: Server) -> int | None:
    return {None: None, "admin": 1, "owner": 2}[server.locked_by]


SORT_KEYS: dict[str, SortKey] = {
    **{
        name: _column(name)
        for name in (
            "access_ip_v4", "access_ip_v6", "availability_zone", "created_at", "display_description", "display_name",
            "host", "hostname", "image_ref", "key_name", "launch_index", "launched_at", "power_state", "progress",
            "project_id", "root_device_name", "task_state", "terminated_at", "updated_at", "user_id", "uuid",
            "vm_state",
        )
    },
    "auto_disk_config": _whole("auto_disk_config"),
    "config_drive": _whole("config_drive"),
    "flavor": SortKey(instances.c.flavor_id, lambda server: server.flavor.flavor_id, True, str),
    "node": SortKey(instances.c.hypervisor_hostname, lambda server: server.hypervisor_hostname, True, str),
    "locked": SortKey(
        sa.case((instances.c.locked_by.is_(None), 0), else_=1), lambda server: int(server.locked_by is not None), False,
        int
    ),
    # MariaDB sorts an enumeration by the place of its values in the table's definition, SQLite by their text.
    "locked_by": SortKey(
        sa.case((instances.c.locked_by == "admin", 1), (instances.c.locked_by == "owner", 2)), _locked_by_number, True,
        int
    ),
}  # fmt: skip
"""Name -> key. A building server has no `updated_at` yet; NULLs come first ascending."""

NOT_NULL = frozenset(name for name, key in SORT_KEYS.items() if not key.nullable) - {"updated_at"}
"""Keys whose values are never None, wherever the server is kept."""


def position_of(server: Server, order: SortOrder) -> Position:
    """The server's place in the order."""
    return tuple([SORT_KEYS[sorting.name].of(server) for sorting in order])


_INDEXES = {
    (("created_at", "uuid"), False): "ix_instances_order",
    (("created_at", "uuid"), True): "ix_instances_project_order",
    (("display_name", "uuid"), False): "ix_instances_name",
    (("display_name", "uuid"), True): "ix_instances_project_name",
}
# Filters that leave no more rows than a project or a host has, or so few changes.
_NARROW = frozenset({"project_id", "uuid", "host", "reservation_id", "changes_since", "changes_before"})
# Filters that the indexes of an order know, or that leave out few rows.
_INDEXED = listed_by.OF_DELETED | {"project_id"}
# Filters that few rows fulfil, and that have an index of their own.
_WITH_INDEX = frozenset({"uuid", "host", "reservation_id", "changes_since", "changes_before", "tags", "tags_any"})

# ---- pages -----------------------------------------------------------------------------------------------------------

# Pages of the same list differ by their bounds alone; of so many different lists the statements are kept.
_STATEMENTS_KEPT = 256


class Query:
    """A page's question, built once and asked of every cell: what comes after a position, and not after another if one
    is given.

    With `looks_ahead` a cell also tells where its next server stands, which is no row more. For that an index has to
    have the order.
    """

    def __init__(
        self, wanted: Wanted, after: Position | None, until: Position | None = None, *, looks_ahead: bool = False
    ) -> None:
        self.wanted = wanted
        nulls = _is_null(after), _is_null(until)
        self._statement = _statement(wanted, *nulls, looks_ahead)
        self._damaged_statement = _statement_with_damaged(wanted, *nulls)
        self._bounds = {**_values("after", after), **_values("until", until)}
        self._looks_ahead = looks_ahead
        self.may_take_long = may_take_long(wanted.filters, wanted.order)

    def page(self, connection: sa.Connection, limit: int, *, within_s: float) -> Part:
        """The first servers of these, in order; none beyond `limit`. `within_s`: for a question that may take long.

        Raises:
            Invalid: the regular expression is none for this database.
            TooExpensive: it took longer than `within_s`.
        """
        if not self.may_take_long:
            return self._part(connection, limit)
        try:
            with regexp.bounded(connection, within_s):
                return self._part(connection, limit)
        except regexp.TooSlow as error:
            raise too_expensive(self.wanted.filters) from error

    def statement(self, limit: int) -> tuple[CompiledStatement, dict[str, Any]]:
        """The one statement, and its parameters, whose rows are `part_of` the list."""
        return self._statement, self._parameters(limit)

    def part_of(self, rows: Sequence[Sequence[Any]], limit: int) -> Part:
        """What the rows of the statement say.

        Raises:
            Unreadable: one of them is damaged; `page` gives the others.
        """
        part = self._as_read(rows, limit)
        if part.rest is not None and _is_mutilated(part.rest, self.wanted.order):
            raise core.errors.Unreadable("The record of an instance cannot be read.", why="a key is no ASCII")
        return part

    def _as_read(self, rows: Sequence[Sequence[Any]], limit: int) -> Part:
        servers = self._servers([row[0] for row in rows])
        if len(rows) < limit:
            return Part(servers, None)
        if not self._looks_ahead:
            return Part(servers, servers[-1].position)
        following = rows[-1][1]
        return Part(servers, None if following is None else _keys([following], self.wanted.order, Shape.KEY)[0])

    def _part(self, connection: sa.Connection, limit: int) -> Part:
        parameters = self._parameters(limit)
        return packed.or_one_by_one(
            lambda: self.part_of(self._statement.rows(connection, parameters), limit),
            lambda: self._part_with_damaged(self._damaged_statement.rows(connection, parameters), limit),
        )

    def _part_with_damaged(self, rows: Sequence[Sequence[Any]], limit: int) -> Part:
        """As `part_of`, row by row. A server whose place in the order cannot be read is left out."""
        servers = [each for row in rows if (each := _salvaged(*row, self.wanted)) is not None]
        return Part(servers, servers[-1].position if servers and len(rows) == limit else None)

    def _parameters(self, limit: int) -> dict[str, Any]:
        return {"most": limit, **self._bounds}

    def _servers(self, rows: Sequence[str]) -> list[ListedServer]:
        order, shape = self.wanted.order, self.wanted.shape
        if shape is Shape.DETAIL:
            keys = [SORT_KEYS[sorting.name] for sorting in order]
            return [ListedServer(tuple([key.of(server) for key in keys]), server) for server in packed.servers(rows)]
        unpacked = _keys(rows, order, shape)
        if shape is Shape.KEY:
            return [ListedServer(each, None) for each in unpacked]
        # The last key is the uuid, the name comes after it.
        return [ListedServer(each[:-1], Brief(each[-2], each[-1])) for each in unpacked]


def can_look_ahead(wanted: Wanted) -> bool:
    """Whether an index has the servers in their order, so that the next one costs next to nothing."""
    return not wanted.filters.keys() - _INDEXED and _index(wanted.filters, wanted.order) is not None


def may_take_long(filters: Filters, order: SortOrder) -> bool:
    """Whether a cell may read most of its rows for a page, or a caller's program (a regular expression) runs for each
    of them."""
    if listed_by.has_regexp(filters):
        return True
    if not _NARROW.isdisjoint(filters):
        return False
    return bool(filters.keys() - listed_by.OF_DELETED) or _index(filters, order) is None


def too_expensive(filters: Filters) -> core.errors.TooExpensive:
    """The refusal of a list that takes too long; names what makes it so."""
    if listed_by.has_regexp(filters):
        (name, *_) = sorted(listed_by.REGEXPS & filters.keys())
        return core.errors.TooExpensive("The regular expression takes too long to evaluate.", field=name)
    names = [listed_by.shown(name) for name in filters if name not in _INDEXED] or ["sort_key"]
    return core.errors.TooExpensive(
        f"The list takes too long to evaluate with {', '.join(names)}. Please ask for less.", field=names[0]
    )


def rows_of(connection: sa.Connection, wanted: Wanted, uuids: Sequence[str]) -> dict[str, Server | Brief | Unreadable]:
    """uuid -> server, of those among these that the cell has and that still fulfil the filters for deleted ones.

    Keys were read a moment ago; other filters are not asked again.
    """
    if not uuids:
        return {}
    deleted = {name: value for name, value in wanted.filters.items() if name in listed_by.OF_DELETED}
    mine = instances.c.uuid.in_(list(uuids)), *listed_by.conditions(deleted or {"deleted": False})
    if wanted.shape is Shape.DETAIL:
        return packed.or_one_by_one(
            lambda: {
                server.uuid: server
                for server in packed.servers(connection.execute(_whole_servers(wanted).where(*mine)).scalars().all())
            },
            lambda: {
                uuid: packed.server(uuid, row)
                for row, uuid in connection.execute(
                    _whole_servers_with_damaged(wanted).add_columns(instances.c.uuid).where(*mine)
                )
            },
        )
    return {
        row[0]: Brief(*row)
        for row in connection.execute(sa.select(instances.c.uuid, instances.c.display_name).where(*mine)).all()
    }


def one(connection: sa.Connection, uuid: str, *, hosts_down_after_s: float | None) -> Server:
    """The server, with the state of its host if that is asked for.

    Raises:
        NotFound: there is none.
        Unreadable: its row holds what no server can have.
    """

    def read() -> str | None:
        rows = _one(hosts_down_after_s).rows(connection, {"wanted": uuid})
        return rows[0][0] if rows else None

    server = packed.one(uuid, read)
    if server is None:
        raise refusals.not_found(uuid)
    return server


def present(connection: sa.Connection, uuids: Sequence[str]) -> set[str]:
    """Which of these servers the cell has a row of, be it deleted."""
    if not uuids:
        return set()
    query = sa.select(instances.c.uuid).where(instances.c.uuid.in_(list(uuids)), instances.c.attempt > 0)
    return set(connection.execute(query).scalars())


def position(connection: sa.Connection, uuid: str, order: SortOrder) -> Position | None:
    """Where the server stands in the order, be it deleted; None: the cell does not have it.

    Raises:
        Unreadable: a key is of the wrong kind.
    """
    keys = [readable(SORT_KEYS[each.name].sql) for each in order]
    query = sa.select(sa.func.json_array(*keys, type_=sa.Text))
    row = connection.execute(query.where(instances.c.uuid == uuid, instances.c.attempt > 0)).scalar()
    try:
        return None if row is None else _keys([row], order, Shape.KEY)[0]
    except core.errors.Unreadable as error:
        raise packed.refused(uuid, str(error.fields["why"])) from error


@functools.lru_cache(_STATEMENTS_KEPT)
def _statement(wanted: Wanted, after: Nulls | None, until: Nulls | None, looks_ahead: bool) -> CompiledStatement:
    """The statement of all pages that differ by the values of their bounds alone. Whoever asks gives `most` and the
    bounds' values."""
    most = sa.bindparam("most", type_=sa.Integer())
    rows = _sorted(_packed(wanted), wanted, after, until).limit(most)
    if not looks_ahead:
        return CompiledStatement(rows)
    following = _sorted(sa.select(_key_of(wanted)), wanted, after, until).limit(1).offset(most).correlate(None)
    return CompiledStatement(rows.add_columns(following.scalar_subquery()))


@functools.lru_cache(_STATEMENTS_KEPT)
def _statement_with_damaged(wanted: Wanted, after: Nulls | None, until: Nulls | None) -> CompiledStatement:
    """As `_statement`, with each server's key beside it. Servers whose place in the order cannot be known are left
    out."""
    readable_keys = [
        is_kept_well(SORT_KEYS[each.name].sql, SORT_KEYS[each.name].kind.__name__) for each in wanted.order
    ]
    rows = _sorted(_with_damaged(wanted).add_columns(_key_of(wanted)), wanted, after, until)
    return CompiledStatement(rows.where(*readable_keys).limit(sa.bindparam("most", type_=sa.Integer())))


def _sorted(query: sa.Select[Any], wanted: Wanted, after: Nulls | None, until: Nulls | None) -> sa.Select[Any]:
    keys = [
        database.keyset.Key(SORT_KEYS[each.name].sql, each.descending, SORT_KEYS[each.name].nullable)
        for each in wanted.order
    ]
    conditions = listed_by.conditions(wanted.filters)
    conditions += database.keyset.between(keys, _parameters("after", after), _parameters("until", until))
    query = database.keyset.by_index(query.where(*conditions), instances, _index(wanted.filters, wanted.order))
    return query.order_by(*database.keyset.order_by(keys))


def _key_of(wanted: Wanted) -> sa.ColumnElement[str]:
    return sa.func.json_array(*(SORT_KEYS[each.name].sql for each in wanted.order), type_=sa.Text)


@functools.lru_cache
def _one(hosts_down_after_s: float | None) -> CompiledStatement:
    mine = packed.select(user_data=True, hosts_down_after_s=hosts_down_after_s)
    return CompiledStatement(mine.where(instances.c.uuid == sa.bindparam("wanted"), instances.c.deleted == sa.false()))


def _is_null(bound: Position | None) -> Nulls | None:
    """Which of its values are NULL: the statement depends on that."""
    return None if bound is None else tuple([value is None for value in bound])


def _parameters(name: str, nulls: Nulls | None) -> Position | None:
    """The bound with parameters for its values."""
    return (
        None
        if nulls is None
        else tuple([None if null else sa.bindparam(f"{name}_{number}") for number, null in enumerate(nulls)])
    )


def _values(name: str, bound: Position | None) -> dict[str, Any]:
    """The values of these parameters."""
    return {f"{name}_{number}": value for number, value in enumerate(bound or ()) if value is not None}


def _index(filters: Filters, order: SortOrder) -> str | None:
    """The index that has the rows in the wanted order, unless a filter has a better one."""
    if filters.get("deleted", False) is not False or not _WITH_INDEX.isdisjoint(filters):
        return None
    return _INDEXES.get((database.keyset.names(order), "project_id" in filters))


def _packed(wanted: Wanted) -> sa.Select[tuple[str]]:
    """What is read of every server, as one JSON array."""
    if wanted.shape is Shape.DETAIL:
        return _whole_servers(wanted)
    keys = [SORT_KEYS[each.name].sql for each in wanted.order]
    return sa.select(
        sa.func.json_array(*keys, *([instances.c.display_name] if wanted.shape is Shape.BRIEF else []), type_=sa.Text)
    )


def _whole_servers(wanted: Wanted) -> sa.Select[tuple[str]]:
    return packed.select(user_data=wanted.user_data, hosts_down_after_s=wanted.hosts_down_after_s)


def _with_damaged(wanted: Wanted) -> sa.Select[tuple[str]]:
    """What is read of every server if some of them are damaged; of one that is only named that is its name."""
    if wanted.shape is Shape.DETAIL:
        return _whole_servers_with_damaged(wanted)
    return sa.select(sa.func.json_array(readable(instances.c.display_name), type_=sa.Text))


def _whole_servers_with_damaged(wanted: Wanted) -> sa.Select[tuple[str]]:
    return packed.select_damaged(user_data=wanted.user_data, hosts_down_after_s=wanted.hosts_down_after_s)


_IN_JSON: dict[type, Any] = {datetime.datetime: Moment}


@functools.lru_cache(_STATEMENTS_KEPT)
def _unpacked(order: SortOrder, shape: Shape) -> Callable[[str], list[tuple[Any, ...]]]:
    """Reads the arrays of keys, or of brief servers: all of them at once."""
    keys = [_IN_JSON.get(SORT_KEYS[each.name].kind, SORT_KEYS[each.name].kind) | None for each in order]
    types = tuple([*keys, str | None] if shape is Shape.BRIEF else keys)
    return msgspec.json.Decoder(list[tuple[types]]).decode  # type: ignore[valid-type]


def _keys(rows: Sequence[str], order: SortOrder, shape: Shape) -> list[tuple[Any, ...]]:
    """The arrays of keys, or of brief servers.

    Raises:
        Unreadable: one of them holds something else.
    """
    try:
        return _unpacked(order, shape)(f"[{','.join(rows)}]")
    except UNREADABLE as error:
        raise core.errors.Unreadable("The record of an instance cannot be read.", why=str(error)) from error


def _is_mutilated(position: Position, order: SortOrder) -> bool:
    """Whether the list would not go on behind it: MariaDB gives a question mark for what is no ASCII, and compares the
    bytes. No word of ours has one."""
    return any(
        isinstance(SORT_KEYS[each.name].sql.type, Ascii) and isinstance(value, str) and "?" in value
        for each, value in zip(order, position, strict=True)
    )


def _salvaged(row: str, key: str, wanted: Wanted) -> ListedServer | None:
    """The server at its place, be it `Unreadable`; None if its place cannot be read."""
    try:
        (position,) = _keys([key], wanted.order, Shape.KEY)
    except core.errors.Unreadable:
        return None
    if wanted.shape is Shape.KEY:
        return ListedServer(position, None)
    read = packed.server if wanted.shape is Shape.DETAIL else _brief
    return ListedServer(position, read(position[-1], row))


def _brief(uuid: str, row: str) -> Brief | Unreadable:
    try:
        return Brief(uuid, *msgspec.json.decode(row, type=tuple[str | None]))
    except UNREADABLE as error:
        return Unreadable(uuid, str(error))
