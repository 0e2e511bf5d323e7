"""Pages of a cell's servers: the keys of a page, or its rows at once, in any order and with any filter.

A cell is asked for servers after a position, not for an offset, so that it reads no more than it gives. `cells.listing` asks several
cells and merges what they give.
"""

import dataclasses
import datetime
import enum
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
import sqlalchemy as sa

import core.keyset
from cell_db import filters as listed_by
from cell_db import packed, regexp
from cell_db.filters import Filters
from cell_db.tables import instances
from core.keyset import Order, Position
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


Item: TypeAlias = Server | Brief | None


class Found(msgspec.Struct, frozen=True, gc=False):
    """A server at its position in the order; `item` is None where only keys were read."""

    position: Position
    item: Item


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What is read of every cell alike. `user_data`, which may be long, is left out unless somebody will see it."""

    filters: Filters
    order: Order
    shape: Shape
    user_data: bool = False


# ---- sort keys -----------------------------------------------------------------------------------------------------------


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
            "access_ip_v4", "access_ip_v6", "availability_zone", "created_at", "display_description", "display_name", "host", "hostname",
            "image_ref", "key_name", "launch_index", "launched_at", "power_state", "progress", "project_id", "root_device_name",
            "task_state", "terminated_at", "updated_at", "user_id", "uuid", "vm_state",
        )
    },
    "auto_disk_config": _whole("auto_disk_config"),
    "config_drive": _whole("config_drive"),
    "flavor": SortKey(instances.c.flavor_id, lambda server: server.flavor.get("flavor_id"), True, str),
    "node": SortKey(instances.c.hypervisor_hostname, lambda server: server.hypervisor_hostname, True, str),
    "locked": SortKey(
        sa.case((instances.c.locked_by.is_(None), 0), else_=1), lambda server: int(server.locked_by is not None), False, int
    ),
    # MariaDB sorts an enumeration by the place of its values in the table's definition, SQLite by their text.
    "locked_by": SortKey(
        sa.case((instances.c.locked_by == "admin", 1), (instances.c.locked_by == "owner", 2)), _locked_by_number, True, int
    ),
}  # fmt: skip
"""Name -> key. A building server has no `updated_at` yet; NULLs come first ascending."""

NOT_NULL = frozenset(name for name, key in SORT_KEYS.items() if not key.nullable) - {"updated_at"}
"""Keys whose values are never None, wherever the server is kept."""


def position_of(server: Server, order: Order) -> Position:
    """The server's place in the order."""
    return tuple([SORT_KEYS[sorting.name].of(server) for sorting in order])


_INDEXES = {
    (("created_at", "uuid"), False): "ix_instances_order",
    (("created_at", "uuid"), True): "ix_instances_project_order",
    (("display_name", "uuid"), False): "ix_instances_name",
}
# Filters that few rows fulfil, and that have an index of their own.
_WITH_INDEX = frozenset({"uuid", "host", "reservation_id", "changes_since", "changes_before", "tags", "tags_any"})

# ---- pages -----------------------------------------------------------------------------------------------------------------


class Query:
    """A page's question, built once and asked of every cell: what comes after a position, and not after another if one is given."""

    def __init__(self, wanted: Wanted, after: Position | None, until: Position | None = None) -> None:
        self.wanted = wanted
        self._statement = _statement(wanted, after, until)
        self._unpacked = msgspec.json.Decoder(tuple[_types(wanted)]).decode
        self._has_regexp = listed_by.has_regexp(wanted.filters)

    @property
    def is_of_keys(self) -> bool:
        """Whether it asks for keys alone."""
        return self.wanted.shape is Shape.KEY

    def page(self, connection: sa.Connection, limit: int, *, within_s: float) -> list[Found]:
        """The first servers of these, in order; none beyond `limit`.

        Raises:
            Invalid: the regular expression is none for this database, or took longer than `within_s`.
        """
        if not self._has_regexp:
            return self._found(connection.execute(self._statement, {"most": limit}))
        with regexp.bounded(connection, within_s):
            return self._found(connection.execute(self._statement, {"most": limit}))

    def _found(self, result: sa.CursorResult[Any]) -> list[Found]:
        rows = result.all()
        match self.wanted.shape:
            case Shape.KEY:
                return [Found(self._unpacked(row[0]), None) for row in rows]
            case Shape.BRIEF:
                # The last key is the uuid, the name comes after it.
                unpacked = [self._unpacked(row[0]) for row in rows]
                return [Found(each[:-1], Brief(each[-2], each[-1])) for each in unpacked]
            case Shape.DETAIL:
                servers = [packed.server(row[0]) for row in rows]
                getters = [SORT_KEYS[sorting.name].of for sorting in self.wanted.order]
                return [Found(tuple([get(server) for get in getters]), server) for server in servers]


def rows_of(connection: sa.Connection, wanted: Wanted, uuids: Sequence[str]) -> dict[str, Server | Brief]:
    """uuid -> server, of those among these that the cell has and that still fulfil the filter for deleted ones.

    Keys were read a moment ago; other filters are not asked again.
    """
    if not uuids:
        return {}
    deleted = {"deleted": wanted.filters.get("deleted", False)}
    mine = instances.c.uuid.in_(list(uuids)), *listed_by.conditions(deleted)
    if wanted.shape is Shape.DETAIL:
        rows = connection.execute(sa.select(_packed(wanted)).where(*mine)).all()
        return {server.uuid: server for server in (packed.server(row[0]) for row in rows)}
    return {row[0]: Brief(*row) for row in connection.execute(sa.select(instances.c.uuid, instances.c.display_name).where(*mine)).all()}


def present(connection: sa.Connection, uuids: Sequence[str]) -> set[str]:
    """Which of these servers the cell has a row of, be it deleted."""
    if not uuids:
        return set()
    query = sa.select(instances.c.uuid).where(instances.c.uuid.in_(list(uuids)), instances.c.attempt > 0)
    return set(connection.execute(query).scalars())


def position(connection: sa.Connection, uuid: str, order: Order) -> Position | None:
    """Where the server stands in the order, be it deleted; None: the cell does not have it."""
    query = sa.select(*_sort_columns(order)).where(instances.c.uuid == uuid, instances.c.attempt > 0)
    row = connection.execute(query).first()
    return None if row is None else tuple(row)


def _statement(wanted: Wanted, after: Position | None, until: Position | None) -> sa.Select[Any]:
    keys = [core.keyset.Key(SORT_KEYS[each.name].sql, each.descending, SORT_KEYS[each.name].nullable) for each in wanted.order]
    query = sa.select(_packed(wanted)).where(*listed_by.conditions(wanted.filters))
    query = core.keyset.by_index(query, instances, _index(wanted))
    query = query.where(*core.keyset.between(keys, after, until))
    return query.order_by(*core.keyset.order_by(keys)).limit(sa.bindparam("most", type_=sa.Integer()))


def _index(wanted: Wanted) -> str | None:
    """The index that has the rows in the wanted order, unless a filter has a better one."""
    if wanted.filters.get("deleted", False) is not False or not _WITH_INDEX.isdisjoint(wanted.filters):
        return None
    of_project = "project_id" in wanted.filters
    return _INDEXES.get((core.keyset.names(wanted.order), of_project))


def _packed(wanted: Wanted) -> sa.ColumnElement[str]:
    """What is read of a server, as one JSON array."""
    if wanted.shape is Shape.DETAIL:
        return packed.server_column(user_data=wanted.user_data)
    keys = [SORT_KEYS[each.name].sql for each in wanted.order]
    return sa.func.json_array(*keys, *([instances.c.display_name] if wanted.shape is Shape.BRIEF else []), type_=sa.Text)


def _types(wanted: Wanted) -> tuple[Any, ...]:
    """What is in the array of a key or of a brief server."""
    keys = [SORT_KEYS[each.name].kind | None for each in wanted.order]
    return tuple([*keys, str | None] if wanted.shape is Shape.BRIEF else keys)


def _sort_columns(order: Order) -> list[sa.ColumnElement[Any]]:
    return [SORT_KEYS[each.name].sql.label(f"key_{number}") for number, each in enumerate(order)]
