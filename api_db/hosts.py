"""Host mappings: which cell a compute host belongs to."""

import dataclasses
import datetime

import sqlalchemy as sa

import core.errors
from api_db.tables import host_mappings
from core.clock import utcnow
from core.database import changed, insert_if_absent


@dataclasses.dataclass(frozen=True, slots=True)
class HostMapping:
    host: str
    cell_uuid: str
    created_at: datetime.datetime


def list_all(connection: sa.Connection, cell_uuid: str | None = None) -> list[HostMapping]:
    """Every mapped host, or those of one cell, by name."""
    query = sa.select(host_mappings.c.host, host_mappings.c.cell_uuid, host_mappings.c.created_at).order_by(host_mappings.c.host)
    if cell_uuid:
        query = query.where(host_mappings.c.cell_uuid == cell_uuid)
    return [HostMapping(*row) for row in connection.execute(query)]


def mark(connection: sa.Connection) -> tuple[object, ...]:
    """Changes with every host that is mapped, moved or forgotten."""
    return tuple(connection.execute(sa.select(sa.func.count(), sa.func.max(host_mappings.c.id))).one())


def cell_of(connection: sa.Connection, host: str) -> str:
    """The uuid of the host's cell.

    Raises:
        NotFound: no such host is mapped.
    """
    cell_uuid = connection.execute(sa.select(host_mappings.c.cell_uuid).where(host_mappings.c.host == host)).scalar()
    if cell_uuid is None:
        raise core.errors.NotFound(f"Compute host {host} could not be found.", host=host)
    return str(cell_uuid)


def insert(connection: sa.Connection, hosts: list[str], cell_uuid: str) -> list[str]:
    """Maps hosts to a cell; those mapped already (anywhere) stay. Gives the hosts that another cell holds: names must be unique."""
    insert_if_absent(
        connection, host_mappings, [{"host": host, "cell_uuid": cell_uuid, "created_at": utcnow()} for host in hosts]
    )
    elsewhere = sa.select(host_mappings.c.host).where(host_mappings.c.host.in_(hosts), host_mappings.c.cell_uuid != cell_uuid)
    return list(connection.execute(elsewhere).scalars())


def delete(connection: sa.Connection, host: str) -> bool:
    """Forgets the host; false if it was not mapped."""
    return changed(connection.execute(sa.delete(host_mappings).where(host_mappings.c.host == host)))
