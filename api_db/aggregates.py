"""Host aggregates: named groups of hosts with metadata, and the availability zones that some of them make.

A host lies in at most one zone. Nothing is mirrored to Placement: the super-conductor reads the aggregates from here,
and the API talks to no Placement.
"""

import contextlib
import datetime
import uuid as uuids
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

import api_db.hosts
import core.errors
from api_db.tables import aggregate_hosts, aggregate_metadata, aggregates, host_mappings
from database.errors import is_duplicate
from database.statements import changed, insert_if_absent, lock
from database.types import now_sql

ZONE_KEY = "availability_zone"
DEFAULT_ZONE = "nova"
INTERNAL_ZONE = "internal"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A group of hosts. The zone, if it makes one, is the metadata item `availability_zone`, as in Nova."""

    id: int
    uuid: str
    name: str
    created_at: datetime.datetime
    updated_at: datetime.datetime | None
    hosts: tuple[str, ...]
    metadata: dict[str, str]

    @property
    def availability_zone(self) -> str | None:
        return self.metadata.get(ZONE_KEY)


@dataclass(frozen=True, slots=True)
class ZoneChange:
    """A host that would get from one zone into another; `cell_uuid` None: no cell has it any more."""

    host: str
    cell_uuid: str | None
    before: str
    after: str


# ---- reading ---------------------------------------------------------------------------------------------------------


def list_all(conn: sa.Connection) -> list[Aggregate]:
    """All aggregates, oldest first."""
    return _read(conn, sa.true())


def mark(conn: sa.Connection) -> tuple[object, ...]:
    """Changes with every aggregate that comes, goes or changes."""
    members = sa.select(sa.func.count()).select_from(aggregate_hosts).scalar_subquery()
    touched = conn.execute(sa.select(aggregates.c.id, aggregates.c.updated_at).order_by(aggregates.c.id)).all()
    return (conn.execute(sa.select(members)).scalar_one(), tuple(map(tuple, touched)))


def get(conn: sa.Connection, aggregate_id: int) -> Aggregate:
    """
    Raises:
        NotFound: there is no such aggregate.
    """
    rows = _read(conn, aggregates.c.id == aggregate_id)
    if not rows:
        raise core.errors.NotFound(f"Aggregate {aggregate_id} could not be found.")
    return rows[0]


def zones_of_hosts(conn: sa.Connection, hosts: Iterable[str] | None = None) -> dict[str, str]:
    """Host -> zone, for the hosts (None: all) that lie in one; every other host is in the default zone."""
    return {host: next(iter(zones.values())) for host, zones in _memberships(conn, hosts).items()}


def zones(conn: sa.Connection) -> dict[str, set[str]]:
    """The zones that there are, with their hosts: a zone is where hosts are, and every mapped host is in one."""
    of_hosts = zones_of_hosts(conn)
    hosts_by_zone: dict[str, set[str]] = {}
    for mapped in api_db.hosts.list_all(conn):
        hosts_by_zone.setdefault(of_hosts.get(mapped.host, DEFAULT_ZONE), set()).add(mapped.host)
    return hosts_by_zone


def item_of_zone(conn: sa.Connection, zone: str, key: str) -> str | None:
    """The metadata item of the oldest aggregate that makes the zone and has one; None: none has."""
    makes, has = aggregate_metadata.alias("makes"), aggregate_metadata.alias("has")
    query = (
        sa.select(has.c.value)
        .join(makes, makes.c.aggregate_id == has.c.aggregate_id)
        .where(makes.c.key == ZONE_KEY, makes.c.value == zone, has.c.key == key)
        .order_by(has.c.aggregate_id)
    )
    return conn.execute(query.limit(1)).scalar()


# ---- writing ---------------------------------------------------------------------------------------------------------


def insert(conn: sa.Connection, *, name: str, availability_zone: str | None) -> Aggregate:
    """A new aggregate without hosts.

    Raises:
        Conflict: the name is taken.
    """
    uuid = str(uuids.uuid4())
    with _unique(name):
        conn.execute(sa.insert(aggregates).values(uuid=uuid, name=name, created_at=now_sql()))
    aggregate_id = conn.execute(sa.select(aggregates.c.id).where(aggregates.c.uuid == uuid)).scalar_one()
    if availability_zone is not None:
        _set_item(conn, aggregate_id, ZONE_KEY, availability_zone)
    return get(conn, aggregate_id)


def update(
    conn: sa.Connection, aggregate_id: int, *, name: str | None = None, availability_zone: str | None = None
) -> Aggregate:
    """Renames the aggregate, gives it another zone, or both; None leaves a thing as it is.

    Raises:
        NotFound: there is no such aggregate.
        Conflict: the name is taken.
        Invalid: one of its hosts lies in another zone already.
    """
    if availability_zone is not None:
        _lock(conn, aggregate_id)
        _lock_hosts(conn, get(conn, aggregate_id).hosts)
        zone_changes_by_renaming(conn, aggregate_id, availability_zone)
        _set_item(conn, aggregate_id, ZONE_KEY, availability_zone)
    if name is not None:
        with _unique(name):
            conn.execute(sa.update(aggregates).where(aggregates.c.id == aggregate_id).values(name=name))
    return _touched(conn, aggregate_id)


def set_metadata(conn: sa.Connection, aggregate_id: int, changes: Mapping[str, str | None]) -> Aggregate:
    """Sets items, removes those whose value is None.

    Raises:
        NotFound: there is no such aggregate.
        Invalid: the zone would be unset, or is one that a host of the aggregate cannot lie in too.
    """
    _lock(conn, aggregate_id)
    get(conn, aggregate_id)
    for key, value in sorted(changes.items()):
        if key == ZONE_KEY:
            update(conn, aggregate_id, availability_zone=required_zone(value))
        elif value is None:
            conn.execute(sa.delete(aggregate_metadata).where(_item(aggregate_id, key)))
        else:
            _set_item(conn, aggregate_id, key, value)
    return _touched(conn, aggregate_id)


def delete(conn: sa.Connection, aggregate_id: int) -> None:
    """
    Raises:
        NotFound: there is no such aggregate.
        Invalid: it has hosts.
    """
    _lock(conn, aggregate_id)
    if get(conn, aggregate_id).hosts:
        raise core.errors.Invalid(f"Aggregate {aggregate_id} is not empty: remove its hosts first.", field="id")
    conn.execute(sa.delete(aggregates).where(aggregates.c.id == aggregate_id))


def add_host(conn: sa.Connection, aggregate_id: int, host: str) -> Aggregate:
    """
    Raises:
        NotFound: there is no such aggregate or no such host.
        Conflict: the host is in it already, or lies in another zone.
    """
    _lock(conn, aggregate_id)
    _lock_hosts(conn, [host])
    zone_change_by_adding(conn, aggregate_id, host)
    conn.execute(sa.insert(aggregate_hosts).values(aggregate_id=aggregate_id, host=host))
    return _touched(conn, aggregate_id)


def remove_host(conn: sa.Connection, aggregate_id: int, host: str) -> Aggregate:
    """
    Raises:
        NotFound: there is no such aggregate, or the host is not in it.
    """
    zone_change_by_removing(conn, aggregate_id, host)
    mine = sa.and_(aggregate_hosts.c.aggregate_id == aggregate_id, aggregate_hosts.c.host == host)
    conn.execute(sa.delete(aggregate_hosts).where(mine))
    return _touched(conn, aggregate_id)


def remove_host_everywhere(conn: sa.Connection, host: str) -> list[int]:
    """Takes a host that is being deleted out of all aggregates; gives their ids."""
    mine = aggregate_hosts.c.host == host
    ids = list(conn.execute(sa.select(aggregate_hosts.c.aggregate_id).where(mine)).scalars())
    conn.execute(sa.delete(aggregate_hosts).where(mine))
    return ids


def put_host_back(conn: sa.Connection, host: str, aggregate_ids: Iterable[int]) -> None:
    """Undoes `remove_host_everywhere`, but for aggregates that were deleted meanwhile."""
    left = conn.execute(sa.select(aggregates.c.id).where(aggregates.c.id.in_(list(aggregate_ids)))).scalars()
    insert_if_absent(conn, aggregate_hosts, [{"aggregate_id": aggregate_id, "host": host} for aggregate_id in left])


# ---- what a write would do to zones: asked before it, so that hosts with servers can be refused ----------------------


def required_zone(zone: str | None) -> str:
    """The zone, which must be one: an aggregate that makes a zone keeps making one.

    Raises:
        Invalid: it is empty or None.
    """
    if not zone:
        raise core.errors.Invalid("availability_zone cannot be unset.", field=ZONE_KEY)
    return zone


def zone_change_by_adding(conn: sa.Connection, aggregate_id: int, host: str) -> ZoneChange | None:
    """What adding the host does to its zone; None: nothing.

    Raises:
        NotFound: there is no such aggregate or no such host.
        Conflict: the host is in it already, or lies in another zone.
    """
    aggregate = get(conn, aggregate_id)
    cell_uuid = api_db.hosts.cell_of(conn, host)
    if host in aggregate.hosts:
        raise core.errors.Conflict(f"Host {host} is already in aggregate {aggregate_id}.")
    zones = _memberships(conn, [host]).get(host, {})
    after = {**zones, aggregate_id: aggregate.availability_zone} if aggregate.availability_zone else zones
    others = sorted(set(zones.values()) - {aggregate.availability_zone})
    if aggregate.availability_zone and others:
        raise core.errors.Conflict(
            f"Cannot add host {host} to aggregate {aggregate_id}: it is already in availability zone {others[0]}."
        )
    return _change(host, cell_uuid, zones, after)


def zone_change_by_removing(conn: sa.Connection, aggregate_id: int, host: str) -> ZoneChange | None:
    """What removing the host does to its zone; None: nothing.

    Raises:
        NotFound: there is no such aggregate, or the host is not in it.
    """
    if host not in get(conn, aggregate_id).hosts:
        raise core.errors.NotFound(f"Host {host} is not in aggregate {aggregate_id}.")
    zones = _memberships(conn, [host]).get(host, {})
    after = {of: zone for of, zone in zones.items() if of != aggregate_id}
    return _change(host, _cells(conn, [host]).get(host), zones, after)


def zone_changes_by_renaming(conn: sa.Connection, aggregate_id: int, zone: str) -> list[ZoneChange]:
    """What giving the aggregate this zone does to the zones of its hosts.

    Raises:
        NotFound: there is no such aggregate.
        Invalid: one of its hosts lies in another zone already.
    """
    hosts = get(conn, aggregate_id).hosts
    memberships, cells = _memberships(conn, hosts), _cells(conn, hosts)
    changes = []
    for host in hosts:
        zones = memberships.get(host, {})
        others = sorted({other for of, other in zones.items() if of != aggregate_id and other != zone})
        if others:
            raise core.errors.Invalid(
                f"availability_zone cannot be {zone}: host {host} is already in availability zone {others[0]}.",
                field=ZONE_KEY,
            )
        changes.append(_change(host, cells.get(host), zones, {**zones, aggregate_id: zone}))
    return [change for change in changes if change is not None]


def _change(host: str, cell_uuid: str | None, before: Mapping[int, str], after: Mapping[int, str]) -> ZoneChange | None:
    zones = [next(iter(each.values()), DEFAULT_ZONE) for each in (before, after)]
    return None if zones[0] == zones[1] else ZoneChange(host, cell_uuid, *zones)


# ---- rows ------------------------------------------------------------------------------------------------------------


def _read(conn: sa.Connection, where: sa.ColumnElement[bool]) -> list[Aggregate]:
    columns = (aggregates.c.id, aggregates.c.uuid, aggregates.c.name, aggregates.c.created_at, aggregates.c.updated_at)
    rows = conn.execute(sa.select(*columns).where(where).order_by(aggregates.c.id)).all()
    hosts: dict[int, list[str]] = {row.id: [] for row in rows}
    items: dict[int, dict[str, str]] = {row.id: {} for row in rows}
    members = sa.select(aggregate_hosts).join(aggregates).where(where).order_by(aggregate_hosts.c.host)
    for aggregate_id, host in conn.execute(members):
        hosts.setdefault(aggregate_id, []).append(host)
    for aggregate_id, key, value in conn.execute(sa.select(aggregate_metadata).join(aggregates).where(where)):
        items.setdefault(aggregate_id, {})[key] = value
    return [Aggregate(*row, hosts=tuple(hosts[row.id]), metadata=items[row.id]) for row in rows]


def _memberships(conn: sa.Connection, hosts: Iterable[str] | None) -> dict[str, dict[int, str]]:
    """Host -> aggregate id -> zone, for aggregates that make one."""
    query = (
        sa.select(aggregate_hosts.c.host, aggregate_hosts.c.aggregate_id, aggregate_metadata.c.value)
        .join(aggregate_metadata, aggregate_metadata.c.aggregate_id == aggregate_hosts.c.aggregate_id)
        .where(aggregate_metadata.c.key == ZONE_KEY)
        .order_by(aggregate_hosts.c.aggregate_id)
    )
    if hosts is not None:
        query = query.where(aggregate_hosts.c.host.in_(list(hosts)))
    by_host: dict[str, dict[int, str]] = {}
    for host, aggregate_id, zone in conn.execute(query):
        by_host.setdefault(host, {})[aggregate_id] = zone
    return by_host


def _cells(conn: sa.Connection, hosts: Iterable[str]) -> dict[str, str]:
    query = sa.select(host_mappings.c.host, host_mappings.c.cell_uuid).where(host_mappings.c.host.in_(list(hosts)))
    return {row.host: row.cell_uuid for row in conn.execute(query)}


def _lock(conn: sa.Connection, aggregate_id: int) -> None:
    """Makes changes of this aggregate wait for each other. Always before its hosts, so that nobody waits in a
    circle."""
    lock(conn, aggregates, aggregates.c.id == aggregate_id)


def _lock_hosts(conn: sa.Connection, hosts: Iterable[str]) -> None:
    """Makes changes of these hosts' zones wait for each other: no schema can say that a host has one zone only."""
    for host in sorted(hosts):
        lock(conn, host_mappings, host_mappings.c.host == host)


def _set_item(conn: sa.Connection, aggregate_id: int, key: str, value: str) -> None:
    set_value = sa.update(aggregate_metadata).where(_item(aggregate_id, key)).values(value=value)
    if not changed(conn.execute(set_value)):
        insert_if_absent(conn, aggregate_metadata, [{"aggregate_id": aggregate_id, "key": key, "value": value}])
        conn.execute(set_value)


def _item(aggregate_id: int, key: str) -> sa.ColumnElement[bool]:
    return sa.and_(aggregate_metadata.c.aggregate_id == aggregate_id, aggregate_metadata.c.key == key)


def _touched(conn: sa.Connection, aggregate_id: int) -> Aggregate:
    """
    Raises:
        NotFound: there is no such aggregate.
    """
    conn.execute(sa.update(aggregates).where(aggregates.c.id == aggregate_id).values(updated_at=now_sql()))
    return get(conn, aggregate_id)


@contextlib.contextmanager
def _unique(name: str) -> Iterator[None]:
    """Says of a row that the database refused as a duplicate that the name is taken."""
    try:
        yield
    except sa.exc.IntegrityError as error:
        if is_duplicate(error):
            raise core.errors.Conflict(f"Aggregate {name} already exists.") from error
        raise
