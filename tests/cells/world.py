"""Servers spread over an API database and several cells, and the same servers in one cell that holds them all."""

import contextlib
import dataclasses
import datetime
import enum
import uuid as uuids
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

import api_db.instances
import api_db.tables
import cell_db.tables
from cells.gate.answers import CELL0_UUID, Cell
from cells.gate.gate import Gate
from database.engine import Database
from lifecycle import states
from objects.build import BuildSpec, Flavor
from objects.build_request import BuildRequest
from objects.server import flavor_values

FIRST = datetime.datetime(2026, 1, 1, 12, 0, 0)
LATER = FIRST + datetime.timedelta(days=1)


class Kept(enum.Enum):
    """Where a server is, by the build protocol."""

    IN_CELL = "the cell's row alone"
    BURIED = "in cell0"
    WAITING = "in the journal, no cell chosen"
    ASSIGNED = "in the journal, its cell has no row yet"
    INSERTED = "in the journal still, its cell has the row"
    DELETE_WAITS = "deleted by its owner, its cell does not know yet"
    DELETE_BEFORE_CELL = "deleted by its owner, no cell chosen"
    GOING = "deleted by its owner, its host has not said so yet"
    GONE = "deleted"
    TOMBSTONE = "deleted before its row came: only a mark in its cell"
    SOFT_DELETED = "soft-deleted"
    SOFT_DELETING = "soft-deleted, its host has not said so yet"
    SOFT_DELETE_WAITS = "soft-deleted, its cell does not know yet"
    RESTORE_WAITS = "restored, its cell does not know yet"
    RESTORING = "restored, its host has not said so yet"


IN_JOURNAL = {
    Kept.WAITING, Kept.ASSIGNED, Kept.INSERTED, Kept.DELETE_WAITS, Kept.DELETE_BEFORE_CELL, Kept.SOFT_DELETE_WAITS,
    Kept.RESTORE_WAITS,
}  # fmt: skip
WITH_ROW = {
    Kept.IN_CELL, Kept.BURIED, Kept.INSERTED, Kept.DELETE_WAITS, Kept.GOING, Kept.GONE, Kept.SOFT_DELETED,
    Kept.SOFT_DELETING, Kept.SOFT_DELETE_WAITS, Kept.RESTORE_WAITS, Kept.RESTORING,
}  # fmt: skip
ONLY_IN_CELL = {Kept.IN_CELL, Kept.BURIED, Kept.SOFT_DELETED, Kept.SOFT_DELETING, Kept.RESTORING}
MAPPED_SOFT_DELETED = {Kept.SOFT_DELETED, Kept.SOFT_DELETING, Kept.SOFT_DELETE_WAITS}
WITHOUT_ORDER = {Kept.DELETE_WAITS: None, Kept.SOFT_DELETE_WAITS: "soft-delete", Kept.RESTORE_WAITS: "restore"}
"""What is in the journal though no order is, and its kind."""
DELETED = {Kept.DELETE_WAITS, Kept.DELETE_BEFORE_CELL, Kept.GOING, Kept.GONE, Kept.TOMBSTONE}
ONLY_ORDERED = {Kept.WAITING, Kept.ASSIGNED, Kept.DELETE_BEFORE_CELL}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thing:
    """A server to be put somewhere; `cell` is an index into the world's cells."""

    uuid: str
    kept: Kept = Kept.IN_CELL
    cell: int = 0
    project_id: str = "p1"
    user_id: str = "u1"
    name: str | None = "name"
    description: str | None = None
    zone: str | None = None
    key_name: str | None = None
    host: str | None = None
    vm_state: str = states.ACTIVE
    task_state: str | None = None
    power_state: int = 1
    launched: int | None = None
    created: int = 0
    locked_by: str | None = None
    config_drive: bool = False
    flavor_id: str = "1"
    image: str = ""
    tags: tuple[str, ...] = ()

    @property
    def created_at(self) -> datetime.datetime:
        return FIRST + datetime.timedelta(seconds=self.created)

    @property
    def flavor(self) -> Flavor:
        return Flavor(flavor_id=self.flavor_id, name=f"f{self.flavor_id}", vcpus=1, memory_mib=64, root_gib=1)

    def order(self) -> BuildRequest:
        """The order that the journal keeps; a name and all that is the user's is in it already."""
        build = BuildSpec(
            uuid=self.uuid, project_id=self.project_id, user_id=self.user_id, name=self.name or "", hostname="vm",
            flavor=self.flavor, tags=list(self.tags), key_name=self.key_name, config_drive=self.config_drive,
            availability_zone=self.zone,
        )  # fmt: skip
        return BuildRequest(
            build=build,
            request_id="req",
            created_at=self.created_at,
            description=self.description,
            image_ref=self.image,
        )


def row_of(thing: Thing) -> dict[str, Any]:
    """The row of a server that its cell has."""
    gone, going = thing.kept is Kept.GONE, thing.kept is Kept.GOING
    if thing.kept is Kept.SOFT_DELETING:
        thing = dataclasses.replace(thing, task_state=states.SOFT_DELETING)
    elif thing.kept in (Kept.SOFT_DELETED, Kept.RESTORE_WAITS, Kept.RESTORING):
        task = states.RESTORING if thing.kept is Kept.RESTORING else None
        thing = dataclasses.replace(thing, vm_state=states.SOFT_DELETED, task_state=task)
    return {
        "uuid": thing.uuid, "project_id": thing.project_id, "user_id": thing.user_id,
        "state": states.BUILD_DELETED if gone else states.BUILD_DELETING if going else states.BUILD_ACTIVE,
        "attempt": 1, "host": thing.host, "vm_state": states.DELETED if gone else thing.vm_state,
        "task_state": thing.task_state, "power_state": thing.power_state, "display_name": thing.name,
        "display_description": thing.description, "hostname": "vm", "availability_zone": thing.zone,
        "flavor_id": thing.flavor_id, "flavor": flavor_values(thing.flavor), "vcpus": 1, "memory_mib": 64,
        "root_gib": 1, "ephemeral_gib": 0, "key_name": thing.key_name, "config_drive": thing.config_drive,
        "auto_disk_config": False, "launch_index": 0, "progress": 0, "image_ref": thing.image,
        "locked_by": thing.locked_by, "tags": list(thing.tags) or None, "created_at": thing.created_at,
        "updated_at": LATER,
        "launched_at": None if thing.launched is None else FIRST + datetime.timedelta(seconds=thing.launched),
        "deleted": gone, "deleted_at": LATER if gone else None,
    }  # fmt: skip


def row_of_order(thing: Thing) -> dict[str, Any]:
    """The row that a cell would have of a server which only the journal knows."""
    deleting = thing.kept is Kept.DELETE_BEFORE_CELL
    plain = dataclasses.replace(
        thing, kept=Kept.GOING if deleting else Kept.IN_CELL, name=thing.name or "", host=None,
        vm_state=states.BUILDING, power_state=states.NO_STATE,
        task_state=states.DELETING if deleting else states.SCHEDULING, launched=None, locked_by=None,
    )  # fmt: skip
    return {
        **row_of(plain),
        "updated_at": plain.created_at,
        "state": states.BUILD_DELETING if deleting else states.BUILD,
        "root_device_name": "/dev/vda",
        "reservation_id": "",
    }


class Registry:
    """What `cells.gate.registry.Cells` gives, without settings and threads."""

    def __init__(self, gates: Sequence[Gate]) -> None:
        self._gates = list(gates)

    def gates(self) -> list[Gate]:
        return self._gates

    def refresh(self) -> None:
        """Nothing changes."""

    async def refresh_hosts(self) -> None:
        """Nothing changes."""


class World:
    """Databases that are filled anew for each example.

    Args:
        urls: the API database's, cell0's, the cells'; the last one is of the cell that holds the union.
    """

    def __init__(self, urls: Sequence[str], *, deadline_s: float = 5.0, threads: int = 1) -> None:
        api, cell0, *cells, union = urls
        self._database = {url: Database(url) for url in urls}
        self._api, self._union = self._database[api], self._database[union]
        self.cells = [Cell(CELL0_UUID, "cell0", cell0, "none://")]
        self.cells += [
            Cell(str(uuids.UUID(int=number)), f"cell{number}", url, "none://") for number, url in enumerate(cells, 1)
        ]
        self._gates = {cell.uuid: Gate(cell, threads=threads, deadline_s=deadline_s) for cell in self.cells}
        self._make_tables()
        self.api_db = Gate(Cell("api", "api", api, "none://"), threads=threads, deadline_s=deadline_s)
        self.cells_used = 0
        self.restored: set[str] = set()
        self.cells_registry = Registry([])

    def _make_tables(self) -> None:
        api_db.tables.metadata.create_all(self._api.engine)
        with self._api.transaction() as connection:
            present = set(connection.execute(sa.select(api_db.tables.cell_mappings.c.uuid)).scalars())
            rows = [
                {
                    "uuid": cell.uuid,
                    "name": cell.name,
                    "transport_url": "",
                    "database_connection": "",
                    "disabled": False,
                    "created_at": FIRST,
                }
                for cell in self.cells
                if cell.uuid not in present
            ]
            if rows:
                connection.execute(sa.insert(api_db.tables.cell_mappings), rows)
        for url, database in self._database.items():
            if database is not self._api:
                cell_db.tables.metadata.create_all(self._database[url].engine)

    def close(self) -> None:
        for gate in (*self._gates.values(), self.api_db):
            gate.close()
        for database in self._database.values():
            database.close()

    # ---- filling -----------------------------------------------------------------------------------------------------

    def clear(self, cells: int) -> None:
        """Empties everything; from now on there are so many cells beside cell0."""
        with self._api.transaction() as connection:
            for table in ("build_requests", "instance_mappings", "project_cells"):
                connection.execute(sa.delete(api_db.tables.metadata.tables[table]))
        for cell in (*self.cells, None):
            with self._of(cell).transaction() as connection:
                for table in (cell_db.tables.instance_tags, cell_db.tables.instances):
                    connection.execute(sa.delete(table))
        self.cells_used = cells
        self.restored = set()
        self.cells_registry = Registry([self._gates[cell.uuid] for cell in self.cells[: cells + 1]])

    def _of(self, cell: Cell | None) -> Database:
        return self._database[cell.database_connection] if cell else self._union

    def cell_of(self, thing: Thing) -> Cell:
        return self.cells[0] if thing.kept is Kept.BURIED else self.cells[1 + thing.cell % self.cells_used]

    def put(self, things: Iterable[Thing]) -> None:
        """Puts servers where they belong, and the union of them into the one cell."""
        things = list(things)
        if not things:
            return
        with self._api.transaction() as connection:
            connection.execute(sa.insert(api_db.tables.instance_mappings), [self._mapping(thing) for thing in things])
            orders = [self._journal_row(thing) for thing in things if thing.kept in IN_JOURNAL]
            if orders:
                connection.execute(sa.insert(api_db.tables.build_requests), orders)
            self._note_project_cells(connection, things)
        for cell in self.cells:
            self._insert(cell, [thing for thing in things if thing.kept in WITH_ROW and self.cell_of(thing) == cell])
            self._insert_tombstones(
                cell, [thing for thing in things if thing.kept is Kept.TOMBSTONE and self.cell_of(thing) == cell]
            )
        self.restored |= {thing.uuid for thing in things if thing.kept is Kept.RESTORE_WAITS}
        # To its owner a server is deleted from the moment of asking.
        self._insert(None, [_as_seen(thing) for thing in things if thing.kept in WITH_ROW])
        self._insert_rows(None, [(thing, row_of_order(thing)) for thing in things if thing.kept in ONLY_ORDERED])

    def remove(self, things: Iterable[Thing]) -> None:
        """Deletes servers, done and over."""
        for thing in things:
            with self._api.transaction() as connection:
                mappings, orders = api_db.tables.instance_mappings, api_db.tables.build_requests
                connection.execute(sa.update(mappings).where(mappings.c.uuid == thing.uuid).values(deleted=True))
                connection.execute(sa.delete(orders).where(orders.c.uuid == thing.uuid))
            for cell in (self.cell_of(thing), None):
                with self._of(cell).transaction() as connection:
                    rows = cell_db.tables.instances
                    connection.execute(
                        sa.update(rows)
                        .where(rows.c.uuid == thing.uuid)
                        .values(deleted=True, state=states.BUILD_DELETED)
                    )

    def hand_over(self, thing: Thing) -> None:
        """The server goes from the journal into its cell; nothing changes to its owner."""
        with self._api.transaction() as connection:
            mappings = api_db.tables.instance_mappings
            mine = sa.update(mappings).where(mappings.c.uuid == thing.uuid)
            connection.execute(mine.values(cell_uuid=self.cell_of(thing).uuid))
            self._note_project_cells(connection, [dataclasses.replace(thing, kept=Kept.IN_CELL)])
        self._insert_rows(self.cell_of(thing), [(thing, row_of_order(thing))])
        with self._api.transaction() as connection:
            orders = api_db.tables.build_requests
            connection.execute(sa.delete(orders).where(orders.c.uuid == thing.uuid))

    def _mapping(self, thing: Thing) -> dict[str, Any]:
        unplaced = thing.kept in (Kept.WAITING, Kept.DELETE_BEFORE_CELL)
        return {
            "uuid": thing.uuid, "project_id": thing.project_id, "user_id": thing.user_id, "request_uuid": thing.uuid,
            "vcpus": 1, "memory_mib": 64, "cell_uuid": None if unplaced else self.cell_of(thing).uuid,
            "deleted": _deleted(thing), "created_at": thing.created_at,
        }  # fmt: skip

    def _journal_row(self, thing: Thing) -> dict[str, Any]:
        unplaced = thing.kept in (Kept.WAITING, Kept.DELETE_BEFORE_CELL)
        # A delete that finds no order leaves a row without one.
        instance = None if thing.kept in WITHOUT_ORDER else msgspec.to_builtins(thing.order())
        return {
            "uuid": thing.uuid, "request_uuid": thing.uuid, "project_id": thing.project_id,
            "phase": "new" if unplaced else "assigned", "target": None if unplaced else self.cell_of(thing).uuid,
            "deleting": thing.kept in DELETED, "lease_until": FIRST, "tries": 0, "not_after": LATER,
            "instance": instance, "created_at": thing.created_at, "kind": WITHOUT_ORDER.get(thing.kept), "mark": 1,
        }  # fmt: skip

    def _note_project_cells(self, connection: sa.Connection, things: Iterable[Thing]) -> None:
        table = api_db.tables.project_cells
        known = {tuple(row) for row in connection.execute(sa.select(table.c.project_id, table.c.cell_uuid))}
        placed = (thing for thing in things if thing.kept not in (Kept.WAITING, Kept.DELETE_BEFORE_CELL))
        missing = {(thing.project_id, self.cell_of(thing).uuid) for thing in placed} - known
        if missing:
            connection.execute(
                sa.insert(table), [{"project_id": project, "cell_uuid": cell} for project, cell in missing]
            )

    def _insert(self, cell: Cell | None, things: Sequence[Thing]) -> None:
        self._insert_rows(cell, [(thing, row_of(thing)) for thing in things])

    def _insert_rows(self, cell: Cell | None, rows: Sequence[tuple[Thing, dict[str, Any]]]) -> None:
        if not rows:
            return
        with self._of(cell).transaction() as connection:
            for _, row in rows:
                connection.execute(sa.insert(cell_db.tables.instances).values(**row))
            tags = [{"uuid": thing.uuid, "tag": tag} for thing, _ in rows for tag in thing.tags]
            if tags:
                connection.execute(sa.insert(cell_db.tables.instance_tags), tags)

    def _insert_tombstones(self, cell: Cell, things: Sequence[Thing]) -> None:
        blank = {"attempt": 0, "name": None, "tags": (), "kept": Kept.GONE}
        rows = [dataclasses.replace(thing, name=None, tags=(), kept=Kept.GONE) for thing in things]
        self._insert_rows(
            cell, [(row, {**row_of(row), "attempt": blank["attempt"], "created_at": LATER}) for row in rows]
        )

    # ---- faults ------------------------------------------------------------------------------------------------------

    def index_of(self, thing: Thing) -> int:
        """0: cell0."""
        return self.cells.index(self.cell_of(thing))

    @contextlib.contextmanager
    def silent(self, indexes: Iterable[int]) -> Iterator[None]:
        """These cells do not answer meanwhile."""
        gates = [self._gates[self.cells[index].uuid] for index in indexes]
        for gate in gates:
            gate._bulkhead.breaker.failed("silenced by the test", unreachable=True)
        yield
        for gate in gates:
            gate._bulkhead.breaker.succeeded()

    # ---- the union ---------------------------------------------------------------------------------------------------

    def in_union(self) -> sa.Engine:
        """The one cell that holds them all."""
        return self._union.engine

    def reading_union(self) -> Any:
        return self._union.reading()

    @property
    def reach(self) -> Any:
        """What `cells.listing.listing` is handed."""
        return _Reach(self.api_db, self.cells_registry)


@dataclasses.dataclass(frozen=True)
class _Reach:
    api_db: Gate
    cells: Registry


def _as_seen(thing: Thing) -> Thing:
    waits = thing.kept in (Kept.DELETE_WAITS, Kept.SOFT_DELETE_WAITS)
    return dataclasses.replace(thing, kept=Kept.GOING) if waits else thing


def _deleted(thing: Thing) -> int:
    if thing.kept in DELETED:
        return api_db.instances.DELETED
    return api_db.instances.SOFT_DELETED if thing.kept in MAPPED_SOFT_DELETED else api_db.instances.LIVING
