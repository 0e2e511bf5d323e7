"""Cell mappings: which cells there are and how to reach them."""

import dataclasses
import uuid as uuids
from typing import Any

import sqlalchemy as sa

import core.errors
from api_db.instances import DELETED
from api_db.tables import build_requests, cell_mappings, host_mappings, instance_mappings, project_cells
from core.clock import utcnow
from database.errors import is_duplicate

CELL0_UUID = "00000000-0000-0000-0000-000000000000"
CELL0_TRANSPORT = "none://"


@dataclasses.dataclass(frozen=True, slots=True)
class CellMapping:
    """One cell. URLs hold passwords: mask them before they are shown. `number`: its row's, which no other cell ever
    had."""

    uuid: str
    name: str
    database_connection: str
    transport_url: str
    disabled: bool
    number: int = 0


_COLUMNS = (
    cell_mappings.c.uuid,
    cell_mappings.c.name,
    cell_mappings.c.database_connection,
    cell_mappings.c.transport_url,
    cell_mappings.c.disabled,
    cell_mappings.c.id,
)


def list_all(connection: sa.Connection) -> list[CellMapping]:
    """Every cell, cell0 first, then by name."""
    rows = connection.execute(sa.select(*_COLUMNS).order_by(cell_mappings.c.uuid != CELL0_UUID, cell_mappings.c.name))
    return [CellMapping(*row) for row in rows]


def find(connection: sa.Connection, name_or_uuid: str) -> CellMapping:
    """The cell of this name or uuid.

    Raises:
        NotFound: there is none.
    """
    wanted = sa.or_(cell_mappings.c.name == name_or_uuid, cell_mappings.c.uuid == name_or_uuid)
    row = connection.execute(sa.select(*_COLUMNS).where(wanted)).first()
    if row is None:
        raise core.errors.NotFound(f"Cell {name_or_uuid} could not be found.", cell=name_or_uuid)
    return CellMapping(*row)


def create(
    connection: sa.Connection,
    *,
    name: str,
    database_connection: str,
    transport_url: str,
    disabled: bool = False,
    uuid: str | None = None,
) -> CellMapping:
    """Maps a cell.

    Raises:
        Conflict: the name, the database or the broker belongs to another cell; `field` says which.
    """
    _refuse_shared_urls(connection, database_connection=database_connection, transport_url=transport_url, uuid=uuid)
    row = {
        "uuid": uuid or str(uuids.uuid4()), "name": name, "database_connection": database_connection,
        "transport_url": transport_url, "disabled": disabled, "created_at": utcnow(),
    }  # fmt: skip
    try:
        connection.execute(sa.insert(cell_mappings).values(**row))
    except sa.exc.IntegrityError as error:
        if is_duplicate(error):
            raise core.errors.Conflict(
                f"A cell named {name} (or with this uuid) exists already.", field="name"
            ) from error
        raise
    return find(connection, str(row["uuid"]))


def update(connection: sa.Connection, uuid: str, **changes: Any) -> CellMapping:
    """Changes name, database_connection, transport_url or disabled of a cell.

    Raises:
        NotFound: there is no such cell.
        Conflict: the new name, database or broker belongs to another cell; or cell0 would be disabled.
    """
    find(connection, uuid)
    if uuid == CELL0_UUID and changes.get("disabled"):
        raise core.errors.Conflict("cell0 cannot be disabled.", field="disabled")
    _refuse_shared_urls(
        connection,
        database_connection=changes.get("database_connection"),
        transport_url=changes.get("transport_url"),
        uuid=uuid,
    )
    try:
        connection.execute(
            sa.update(cell_mappings).where(cell_mappings.c.uuid == uuid).values(**changes, updated_at=utcnow())
        )
    except sa.exc.IntegrityError as error:
        if is_duplicate(error):
            raise core.errors.Conflict(f"A cell named {changes.get('name')} exists already.", field="name") from error
        raise
    return find(connection, uuid)


@dataclasses.dataclass(frozen=True, slots=True)
class InUse:
    """What still hangs on a cell: mapped hosts, servers, deleted servers whose mappings are kept, orders on their way
    there."""

    hosts: int
    servers: int
    deleted_servers: int
    orders: int


def in_use(connection: sa.Connection, uuid: str) -> InUse:
    """What stands in the way of deleting the cell."""

    def count(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
        return connection.execute(sa.select(sa.func.count()).select_from(table).where(*conditions)).scalar_one()

    mine = instance_mappings.c.cell_uuid == uuid
    return InUse(
        hosts=count(host_mappings, host_mappings.c.cell_uuid == uuid),
        servers=count(instance_mappings, mine, instance_mappings.c.deleted != DELETED),
        deleted_servers=count(instance_mappings, mine, instance_mappings.c.deleted == DELETED),
        orders=count(build_requests, build_requests.c.target == uuid),
    )


def delete(connection: sa.Connection, uuid: str) -> None:
    """Removes the mapping, the mappings of its deleted servers, and its hosts' mappings."""
    connection.execute(sa.delete(project_cells).where(project_cells.c.cell_uuid == uuid))
    connection.execute(
        sa.delete(instance_mappings).where(
            instance_mappings.c.cell_uuid == uuid, instance_mappings.c.deleted == DELETED
        )
    )
    connection.execute(sa.delete(host_mappings).where(host_mappings.c.cell_uuid == uuid))
    connection.execute(sa.delete(cell_mappings).where(cell_mappings.c.uuid == uuid))


def _refuse_shared_urls(connection: sa.Connection, *, uuid: str | None, **urls: str | None) -> None:
    for field, url in urls.items():
        if url is None or url.startswith("none"):
            continue
        taken = sa.select(cell_mappings.c.name).where(cell_mappings.c[field] == url)
        if uuid is not None:
            taken = taken.where(cell_mappings.c.uuid != uuid)
        owner = connection.execute(taken).scalar()
        if owner is not None:
            raise core.errors.Conflict(f"The {field.replace('_', ' ')} is already used by cell {owner}.", field=field)
