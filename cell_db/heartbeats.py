"""What hosts say of themselves, written by the cell conductor; and which of them are up."""

import dataclasses
import datetime
import ipaddress
import uuid as uuids
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

import cell_db.inventories
import core.log
from cell_db.tables import cleanups, compute_nodes, instances, services
from database.statements import changed, insert_if_absent
from database.types import UNREADABLE, as_text, now_sql
from objects.host import COMPUTE, CONDUCTOR, Heartbeat, Inventory, Usage
from objects.host_limits import usage_defect

LOG = core.log.get(__name__)
NO_ADDRESS = "0.0.0.0"
"""Of a host that has said no address that could be its own."""
_TOLD = (
    "hypervisor_hostname", "hypervisor_type", "hypervisor_version", "inventory", "refuses", "vcpus_used",
    "memory_mib_used", "disk_gib_used", "guests", "cpu_percent",
)  # fmt: skip


def beat(connection: sa.Connection, heartbeat: Heartbeat, *, drop: Callable[[str], None] = LOG.error) -> bool:
    """Records that a host lives and what it holds. Gives whether this is the first of a new boot (or of a new host).

    `drop` is told why a part of it is not believed.
    """
    started_at = start_of(heartbeat)
    mine = sa.and_(services.c.host == heartbeat.host, services.c.binary == COMPUTE)
    known = connection.execute(sa.select(services.c.boot_id, services.c.intents).where(mine)).first()
    intents = [[intent.uuid, intent.attempt] for intent in heartbeat.intents]
    if known is None:
        row = _service_row(heartbeat.host, COMPUTE, heartbeat.version, started_at)
        insert_if_absent(connection, services, [{**row, "boot_id": heartbeat.boot_id, "intents": intents}])
    values: dict[str, Any] = {"last_seen_at": now_sql(), "intents": intents, "left": heartbeat.leaving}
    if known is None or known.boot_id != heartbeat.boot_id:
        values |= {
            "boot_id": heartbeat.boot_id,
            "version": heartbeat.version,
            "started_at": started_at,
            "updated_at": now_sql(),
        }
        values["sealing_key"] = heartbeat.sealing_key
    connection.execute(sa.update(services).where(mine).values(**values))
    _note_node(connection, heartbeat, drop)
    return known is None or known.boot_id != heartbeat.boot_id


def start_of(heartbeat: Heartbeat) -> datetime.datetime:
    """When the agent that sent it started, by its host's clock."""
    return datetime.datetime.fromtimestamp(heartbeat.started_at, datetime.UTC).replace(tzinfo=None)


def _service_row(host: str, binary: str, version: str, started_at: datetime.datetime) -> dict[str, Any]:
    return {
        "uuid": str(uuids.uuid4()), "host": host, "binary": binary, "version": version, "disabled": False,
        "forced_down": False, "left": False, "deaf": False, "started_at": started_at, "created_at": started_at,
        "updated_at": started_at,
    }  # fmt: skip


def _note_node(connection: sa.Connection, heartbeat: Heartbeat, drop: Callable[[str], None]) -> None:
    # The inventory as text: what is there may be no document, and is replaced by the one that came.
    columns = (compute_nodes.c[name] for name in _TOLD if name != "inventory")
    query = sa.select(compute_nodes.c.uuid, as_text(compute_nodes.c.inventory), *columns).where(
        compute_nodes.c.host == heartbeat.host
    )
    known = connection.execute(query).first()
    inventory = _with_an_address_of_its_own(connection, heartbeat, None if known is None else known.inventory, drop)
    told = {
        "hypervisor_hostname": inventory.hypervisor_hostname,
        "hypervisor_type": inventory.hypervisor_type,
        "hypervisor_version": inventory.hypervisor_version,
        "inventory": msgspec.to_builtins(inventory),
        "refuses": heartbeat.refuses,
        "vcpus_used": heartbeat.usage.vcpus,
        "memory_mib_used": heartbeat.usage.memory_mib,
        "disk_gib_used": heartbeat.usage.disk_gib,
        "guests": heartbeat.usage.guests,
        "cpu_percent": heartbeat.usage.cpu_percent,
    }
    if known is not None and known.uuid != inventory.node_uuid:
        # Believed, it would have Placement told of the inventory of another host's node.
        drop(
            f"host {heartbeat.host} says that its node is {inventory.node_uuid}, and it is {known.uuid}: its inventory "
            "is left as it was"
        )
        return
    if known is None:
        row = {"uuid": inventory.node_uuid, "host": heartbeat.host, "failed_builds": 0, "accepted": False, **told}
        insert_if_absent(connection, compute_nodes, [row], created_at=now_sql(), updated_at=now_sql())
    elif dict(known._mapping) != {"uuid": known.uuid, **told, "inventory": _text(told["inventory"])}:
        mine = sa.update(compute_nodes).where(compute_nodes.c.host == heartbeat.host)
        connection.execute(mine.values(**told, updated_at=now_sql()))


def _with_an_address_of_its_own(
    connection: sa.Connection, heartbeat: Heartbeat, known: str | None, drop: Callable[[str], None]
) -> Inventory:
    """The inventory; an address that another host of the cell said first is that host's, until it says another one or
    is deleted. Two hosts at one address have no consoles: whoever claims a neighbour's would take away the neighbour's,
    too.

    `known`: the inventory in the row of this host, as text.
    """
    inventory, host = heartbeat.inventory, heartbeat.host
    kept = NO_ADDRESS if known is None else cell_db.inventories.shown(host, inventory.node_uuid, known).host_ip
    if inventory.host_ip == kept or ipaddress.ip_address(inventory.host_ip).is_loopback:
        return inventory
    others = [other for other in cell_db.inventories.hosts_at(connection, inventory.host_ip) if other != host]
    if not others:
        return inventory
    drop(
        f"host {host} says that its address is {inventory.host_ip}, which is that of host {others[0]}: it keeps {kept}"
    )
    return msgspec.structs.replace(inventory, host_ip=kept)


def _text(document: object) -> str:
    return msgspec.json.encode(document).decode()


def conductor_beat(
    connection: sa.Connection, *, host: str, version: str, started_at: datetime.datetime, disconnected: bool = False
) -> None:
    """Records that a conductor of this cell lives, and whether it is in no position to say that hosts are silent."""
    mine = sa.and_(services.c.host == host, services.c.binary == CONDUCTOR)
    values = {
        "last_seen_at": now_sql(), "version": version, "started_at": started_at, "deaf": disconnected, "left": False,
    }  # fmt: skip
    if not changed(connection.execute(sa.update(services).where(mine).values(**values))):
        insert_if_absent(connection, services, [_service_row(host, CONDUCTOR, version, started_at)])
        connection.execute(sa.update(services).where(mine).values(**values))


def leave(connection: sa.Connection, *, host: str, binary: str) -> None:
    """Records that a process of the cell ended in good order. An agent says so itself (`Heartbeat.leaving`), for it has
    no database."""
    mine = sa.and_(services.c.host == host, services.c.binary == binary)
    connection.execute(sa.update(services).where(mine).values(left=True, updated_at=now_sql()))


def hosts_up(connection: sa.Connection, *, down_after_s: float) -> list[str]:
    """Hosts seen lately and not forced down."""
    query = sa.select(services.c.host).where(
        services.c.binary == COMPUTE,
        services.c.last_seen_at > now_sql(-down_after_s),
        services.c.forced_down == sa.false(),
    )
    return list(connection.execute(query).scalars())


def hosts_down(connection: sa.Connection, *, down_after_s: float) -> list[str]:
    """Hosts not seen lately, or forced down."""
    silent = sa.or_(
        services.c.last_seen_at.is_(None), services.c.last_seen_at <= now_sql(-down_after_s), services.c.forced_down
    )
    return list(connection.execute(sa.select(services.c.host).where(services.c.binary == COMPUTE, silent)).scalars())


def listed_intents(connection: sa.Connection) -> set[tuple[str, str, int]]:
    """(host, uuid, attempt) that hosts said they are building, in their latest heartbeats."""
    query = sa.select(services.c.host, services.c.intents).where(
        services.c.binary == COMPUTE, services.c.intents.is_not(None)
    )
    return {(host, uuid, attempt) for host, intents in connection.execute(query) for uuid, attempt in intents}


# ---- Placement -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class InventoryToWrite:
    """Inventories that Placement is to be told of; `unreadable`: host -> why its own cannot be."""

    inventories: list[Inventory]
    unreadable: dict[str, str]


def inventories_to_write(
    connection: sa.Connection, *, again_after_s: float | None = None, most: int = 100
) -> InventoryToWrite:
    """Inventories of accepted hosts that Placement has not been told of as they are now.

    `again_after_s`: and those that it was told of longer ago than that, the oldest first, at most so many: Placement
    may have forgotten.
    """
    node = compute_nodes.c
    query = (
        sa.select(node.host, node.uuid, as_text(node.inventory), as_text(node.placed))
        .join(services, sa.and_(services.c.host == node.host, services.c.binary == COMPUTE))
        .where(node.accepted == sa.true())
    )
    rows = [row for row in connection.execute(query) if row.inventory != row.placed]
    if again_after_s is not None:
        told_long_ago = sa.or_(node.placed_at.is_(None), node.placed_at <= now_sql(-again_after_s))
        old = query.where(told_long_ago, node.placed == node.inventory).order_by(node.placed_at).limit(most)
        rows += connection.execute(old).all()
    read = [(row.host, *cell_db.inventories.read(row.host, row.uuid, row.inventory)) for row in rows]
    return InventoryToWrite(
        [inventory for _, inventory, defect in read if defect is None],
        {host: defect for host, _, defect in read if defect is not None},
    )


def unplaced(connection: sa.Connection) -> list[str]:
    """Accepted hosts of which Placement has never been told."""
    node = compute_nodes.c
    return list(
        connection.execute(sa.select(node.host).where(node.accepted == sa.true(), node.placed.is_(sa.null()))).scalars()
    )


def placed(connection: sa.Connection, inventory: Inventory) -> None:
    """Placement knows this inventory now."""
    mine = sa.update(compute_nodes).where(compute_nodes.c.uuid == inventory.node_uuid)
    told = msgspec.to_builtins(inventory)
    news = mine.where(sa.or_(compute_nodes.c.placed.is_(sa.null()), compute_nodes.c.placed != told))
    connection.execute(news.values(placed=told, updated_at=now_sql()))
    connection.execute(mine.values(placed_at=now_sql()))


def build_failed(connection: sa.Connection, host: str) -> None:
    """Counts a refused build; the scheduler prefers other hosts meanwhile."""
    mine = sa.update(compute_nodes).where(compute_nodes.c.host == host)
    connection.execute(mine.values(failed_builds=compute_nodes.c.failed_builds + 1, updated_at=now_sql()))


def build_succeeded(connection: sa.Connection, hosts: Sequence[str]) -> None:
    """Forgives earlier refusals."""
    mine = sa.update(compute_nodes).where(compute_nodes.c.host.in_(list(hosts)), compute_nodes.c.failed_builds > 0)
    connection.execute(mine.values(failed_builds=0, updated_at=now_sql()))


# ---- what the super-conductor's view of hosts is made of -------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class HostReport:
    """One host as its cell knows it.

    `defect`: what makes its record unusable; its inventory is then one of nothing. `accepted`: the cell's copy of what
    the API level says. `refuses`: why it takes no builds at the moment. `left`: its agent stopped in good order.
    `io_ops`: builds under way. `silent_s` None: never seen. `cleanups_open`: superseded attempts may still be on it.
    `conductor_silent_s`: since any conductor of the cell was seen; None: none was. Without one nothing would be built.
    `witness_silent_s`: since one was seen that hears its hosts: without one their silence proves nothing.
    """

    host: str
    node_uuid: str
    hypervisor_hostname: str
    inventory: Inventory
    defect: str | None
    accepted: bool
    refuses: str | None
    placed: bool
    vcpus_used: int
    memory_mib_used: int
    disk_gib_used: int
    guests: int
    io_ops: int
    cpu_percent: int | None
    failed_builds: int
    disabled: bool
    forced_down: bool
    left: bool
    silent_s: float | None
    conductor_silent_s: float | None
    witness_silent_s: float | None
    cleanups_open: bool
    reported_at: datetime.datetime


def hosts(connection: sa.Connection) -> list[HostReport]:
    """Every host of the cell, by name."""
    return [_report(row) for row in connection.execute(_hosts())]


@dataclasses.dataclass(frozen=True, slots=True)
class HostNews:
    """What a scheduler has to hear of a cell's hosts; `number`: how many there are."""

    number: int
    reports: list[HostReport]


def host_news(connection: sa.Connection, *, recent_s: float, down_after_s: float, also: Sequence[str]) -> HostNews:
    """Hosts that changed in the last `recent_s` seconds, that build, that may not be used as they are now, or that are
    named in `also`.

    Of all others nothing has to be told: they are up, and as they were.
    """
    node, service = compute_nodes.c, services.c
    counted = (
        sa.select(sa.func.count())
        .select_from(compute_nodes)
        .join(services, sa.and_(service.host == node.host, service.binary == COMPUTE))
    )
    conductor = services.alias()
    conducted_at = (
        sa.select(sa.func.max(conductor.c.last_seen_at)).where(conductor.c.binary == CONDUCTOR).scalar_subquery()
    )
    long_ago = now_sql(-down_after_s)
    told = sa.or_(
        node.updated_at >= now_sql(-recent_s),
        sa.func.coalesce(service.last_seen_at <= long_ago, sa.true()),
        sa.func.coalesce(conducted_at <= long_ago, sa.true()),
        sa.func.coalesce(node.placed != node.inventory, sa.true()),
        node.accepted == sa.false(),
        node.refuses.is_not(None),
        service.disabled,
        service.forced_down,
        service.left,
        sa.func.coalesce(sa.type_coerce(service.intents, sa.Text()), "[]") != "[]",
        node.host.in_(_owing()),
        node.host.in_(list(also)),
    )
    return HostNews(
        int(connection.execute(counted).scalar_one()),
        [_report(row) for row in connection.execute(_hosts().where(told))],
    )


def _owing() -> sa.Select[Any]:
    """Hosts that a superseded attempt may still be on.

    Its claim has moved: what is left of it takes room that Placement gives away. A deleted server's has not.
    """
    superseded = sa.and_(instances.c.uuid == cleanups.c.uuid, instances.c.attempt > cleanups.c.attempt)
    return sa.select(cleanups.c.host).join(instances, superseded).distinct()


def _hosts() -> sa.Select[Any]:
    owing = _owing().subquery()
    node, service = compute_nodes.c, services.c
    conductor = services.alias()
    conducted = sa.select(sa.func.max(conductor.c.last_seen_at)).where(conductor.c.binary == CONDUCTOR)
    witnessed = conducted.where(conductor.c.deaf == sa.false()).scalar_subquery()
    return (
        sa.select(
            node.host, node.uuid, as_text(node.inventory), as_text(node.placed), node.accepted, node.refuses,
            node.vcpus_used, node.memory_mib_used, node.disk_gib_used, node.guests, node.failed_builds,
            service.disabled, service.forced_down, service.left, service.last_seen_at,
            conducted.scalar_subquery().label("conducted_at"), witnessed.label("witnessed_at"),
            owing.c.host.is_not(None).label("owes"), node.updated_at, now_sql().label("now"), as_text(service.intents),
            node.cpu_percent,
        )
        .join(services, sa.and_(service.host == node.host, service.binary == COMPUTE))
        .outerjoin(owing, owing.c.host == node.host)
        .order_by(node.host)
    )  # fmt: skip


def _report(row: sa.Row[Any]) -> HostReport:
    inventory, defect = cell_db.inventories.read(row.host, row.uuid, row.inventory)
    usage = Usage(row.vcpus_used, row.memory_mib_used, row.disk_gib_used, row.guests, row.cpu_percent)
    defect = defect or usage_defect(usage)
    if defect is not None:
        usage = Usage()
    return HostReport(
        host=row.host,
        node_uuid=row.uuid,
        hypervisor_hostname=inventory.hypervisor_hostname,
        inventory=inventory,
        defect=defect,
        accepted=row.accepted,
        refuses=row.refuses,
        placed=row.inventory == row.placed,
        vcpus_used=usage.vcpus,
        memory_mib_used=usage.memory_mib,
        disk_gib_used=usage.disk_gib,
        guests=usage.guests,
        io_ops=_number_of(row.intents),
        cpu_percent=usage.cpu_percent,
        failed_builds=row.failed_builds,
        disabled=row.disabled,
        forced_down=row.forced_down,
        left=row.left,
        silent_s=_since(row.last_seen_at, row.now),
        conductor_silent_s=_since(row.conducted_at, row.now),
        witness_silent_s=_since(row.witnessed_at, row.now),
        cleanups_open=bool(row.owes),
        reported_at=row.updated_at,
    )


def _number_of(intents: str | None) -> int:
    """How many builds a host says are under way; of what cannot be read, none."""
    if intents in (None, "", "[]"):
        return 0
    try:
        return len(msgspec.json.decode(intents, type=list[msgspec.Raw]))
    except UNREADABLE:
        return 0


def _since(moment: datetime.datetime | None, now: datetime.datetime) -> float | None:
    return None if moment is None else (now - moment).total_seconds()
