"""Host mappings: which cell a compute host belongs to, and whether it may be used. What a cell says of its hosts is
compared with these."""

import dataclasses
import datetime

import sqlalchemy as sa

import core.errors
from api_db.tables import host_mappings
from core.clock import utcnow
from database.statements import changed, insert_if_absent


@dataclasses.dataclass(frozen=True, slots=True)
class HostMapping:
    """Not `accepted`: the host is known and waits for an operator (`cellctl host accept`); nothing is built there."""

    host: str
    cell_uuid: str
    accepted: bool
    created_at: datetime.datetime


_COLUMNS = tuple(host_mappings.c[field.name] for field in dataclasses.fields(HostMapping))


def list_all(connection: sa.Connection, cell_uuid: str | None = None) -> list[HostMapping]:
    """Every mapped host, or those of one cell, by name."""
    query = sa.select(*_COLUMNS).order_by(host_mappings.c.host)
    if cell_uuid:
        query = query.where(host_mappings.c.cell_uuid == cell_uuid)
    return [HostMapping(*row) for row in connection.execute(query)]


def mark(connection: sa.Connection) -> tuple[object, ...]:
    """Changes with every host that is mapped, moved, accepted or forgotten."""
    waiting = sa.func.sum(sa.case((host_mappings.c.accepted == sa.false(), 1), else_=0))
    return tuple(connection.execute(sa.select(sa.func.count(), sa.func.max(host_mappings.c.id), waiting)).one())


def get(connection: sa.Connection, host: str) -> HostMapping:
    """The host's mapping.

    Raises:
        NotFound: no such host is mapped.
    """
    row = connection.execute(sa.select(*_COLUMNS).where(host_mappings.c.host == host)).first()
    if row is None:
        raise core.errors.NotFound(f"Compute host {host} could not be found.", host=host)
    return HostMapping(*row)


def cell_of(connection: sa.Connection, host: str) -> str:
    """The uuid of the host's cell.

    Raises:
        NotFound: no such host is mapped.
    """
    return get(connection, host).cell_uuid


def insert(connection: sa.Connection, hosts: list[str], cell_uuid: str, *, accepted: bool = True) -> list[str]:
    """Maps hosts to a cell; those mapped already (anywhere) stay. Gives the hosts that another cell holds: names must
    be unique."""
    row = {"cell_uuid": cell_uuid, "accepted": accepted, "created_at": utcnow()}
    insert_if_absent(connection, host_mappings, [{"host": host, **row} for host in hosts])
    elsewhere = sa.select(host_mappings.c.host).where(
        host_mappings.c.host.in_(hosts), host_mappings.c.cell_uuid != cell_uuid
    )
    return list(connection.execute(elsewhere).scalars())


def accept(connection: sa.Connection, host: str) -> bool:
    """The host may be used from now on; false if it could be already.

    Raises:
        NotFound: no such host is mapped.
    """
    cell_of(connection, host)
    mine = sa.and_(host_mappings.c.host == host, host_mappings.c.accepted == sa.false())
    return changed(connection.execute(sa.update(host_mappings).where(mine).values(accepted=True)))


def delete(connection: sa.Connection, host: str) -> bool:
    """Forgets the host; false if it was not mapped."""
    return changed(connection.execute(sa.delete(host_mappings).where(host_mappings.c.host == host)))
