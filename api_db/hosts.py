"""Host mappings: which cell a compute host belongs to, and whether it may be used. What a cell says of its hosts is
compared with these."""

import dataclasses
import datetime

import sqlalchemy as sa

import core.errors
from api_db.tables import build_requests, host_mappings
from core.clock import utcnow
from database.statements import changed, insert_if_absent, lock
from database.types import now_sql


@dataclasses.dataclass(frozen=True, slots=True)
class HostMapping:
    """Not `accepted`: the host is known and waits for an operator (`cellctl host accept`); nothing is built there.

    `dedicated_to`: the only project whose servers may be there. `weight`: how much an operator likes servers there;
    None: as the host's aggregates say.
    """

    host: str
    cell_uuid: str
    accepted: bool
    created_at: datetime.datetime
    dedicated_to: str | None = None
    weight: float | None = None


_COLUMNS = tuple(host_mappings.c[field.name] for field in dataclasses.fields(HostMapping))


def list_all(connection: sa.Connection, cell_uuid: str | None = None) -> list[HostMapping]:
    """Every mapped host, or those of one cell, by name."""
    query = sa.select(*_COLUMNS).order_by(host_mappings.c.host)
    if cell_uuid:
        query = query.where(host_mappings.c.cell_uuid == cell_uuid)
    return [HostMapping(*row) for row in connection.execute(query)]


def mark(connection: sa.Connection) -> tuple[object, ...]:
    """Changes with every host that is mapped, moved, accepted, dedicated, weighed or forgotten."""
    waiting = sa.func.sum(sa.case((host_mappings.c.accepted == sa.false(), 1), else_=0))
    changed_at = sa.func.max(host_mappings.c.updated_at)
    counted = sa.select(sa.func.count(), sa.func.max(host_mappings.c.id), waiting, changed_at)
    return tuple(connection.execute(counted).one())


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


def dedicate(connection: sa.Connection, host: str, project_id: str | None) -> str | None:
    """From this commit on orders of other projects are not handed over to the host; None: those of all projects are.
    Gives whose it was.

    Raises:
        NotFound: no such host is mapped.
    """
    lock(connection, host_mappings, host_mappings.c.host == host)
    before = get(connection, host).dedicated_to
    mine = sa.update(host_mappings).where(host_mappings.c.host == host)
    connection.execute(mine.values(dedicated_to=project_id, updated_at=now_sql()))
    return before


def choose_again(connection: sa.Connection) -> None:
    """Ends the leases of all orders that no cell has: who leases them next chooses by what is true by then.

    A hand-over that read an older mapping of a host, in a transaction that is still open, writes one of these rows. It
    is waited for, or its lease is over. So after this commit every hand-over to a host that was dedicated before is
    either in the journal or will not be.
    """
    chosen = sa.update(build_requests).where(build_requests.c.phase == "new")
    connection.execute(chosen.values(token=None, lease_until=now_sql()))


def builds_of_others(connection: sa.Connection, host: str, project_id: str) -> list[str]:
    """Servers of other projects that are on their way to the host, or may end there: uuids."""
    assigned = sa.select(build_requests.c.uuid, build_requests.c.host, build_requests.c.alternates).where(
        build_requests.c.phase == "assigned", build_requests.c.project_id != project_id
    )
    return [row.uuid for row in connection.execute(assigned) if host in {row.host, *_named(row.alternates)}]


def _named(alternates: object) -> set[object]:
    listed = alternates if isinstance(alternates, list) else []
    return {each.get("host") for each in listed if isinstance(each, dict)}


def set_weight(connection: sa.Connection, host: str, weight: float | None) -> None:
    """How much an operator likes servers on the host; None: as its aggregates say.

    Raises:
        NotFound: no such host is mapped.
    """
    get(connection, host)
    mine = sa.update(host_mappings).where(host_mappings.c.host == host)
    connection.execute(mine.values(weight=weight, updated_at=now_sql()))


def delete(connection: sa.Connection, host: str) -> bool:
    """Forgets the host; false if it was not mapped."""
    return changed(connection.execute(sa.delete(host_mappings).where(host_mappings.c.host == host)))
