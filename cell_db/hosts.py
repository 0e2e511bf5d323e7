"""The hosts of a cell and its other processes, as operators see and set them: services, their nodes, what is on them.

What agents report is written by `heartbeats`; here are the reads of the API level and its few writes. A `compute_nodes`
row whose agent has no `services` row has departed: it waits for the cell's conductor to delete its provider in
Placement, and no read but `list_departed` shows it.
"""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa

import cell_db.inventories
import core.errors
from cell_db.tables import compute_nodes, instances, services
from database.statements import changed
from database.types import as_text, now_sql
from lifecycle import states
from objects.host import COMPUTE, Inventory

MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class Service:
    """A process of the cell. `is_up`: seen lately by the database's clock, not forced down, and it did not say that it
    leaves (`left`)."""

    id: int
    uuid: str
    host: str
    binary: str
    version: str
    disabled: bool
    disabled_reason: str | None
    forced_down: bool
    started_at: datetime.datetime
    last_seen_at: datetime.datetime | None
    created_at: datetime.datetime
    left: bool
    is_up: bool

    @property
    def state(self) -> str:
        """As the Compute API knows it: up or down."""
        return "up" if self.is_up else "down"

    @property
    def is_stopped(self) -> bool:
        """Whether it ended in good order, of whatever kind it is; what an operator said of it (forced down) comes
        first."""
        return self.left and not self.forced_down

    @property
    def status(self) -> str:
        return "disabled" if self.disabled else "enabled"


@dataclass(frozen=True, slots=True)
class HostRow:
    """A host: its agent's service, its node, and what its guests use. `building`: attempts accepted and not yet
    reported."""

    service: Service
    id: int
    uuid: str
    hypervisor_hostname: str
    hypervisor_type: str
    hypervisor_version: int
    inventory: Inventory
    vcpus_used: int
    memory_mib_used: int
    disk_gib_used: int
    guests: int
    building: int

    @property
    def memory_mib_taken(self) -> int:
        """Used by guests or kept for the host itself."""
        return self.memory_mib_used + self.inventory.reserved_memory_mib

    @property
    def disk_gib_taken(self) -> int:
        """Used by guests or kept for the host itself."""
        return self.disk_gib_used + self.inventory.reserved_disk_gib


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a cell's enabled hosts have and use, in sum; sizes in MiB and GiB."""

    hosts: int = 0
    vcpus: int = 0
    vcpus_used: int = 0
    memory_mib: int = 0
    memory_mib_taken: int = 0
    disk_gib: int = 0
    disk_gib_taken: int = 0
    guests: int = 0
    building: int = 0


@dataclass(frozen=True, slots=True)
class Used:
    """What servers may use of a host; sizes in MiB and GiB."""

    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0


@dataclass(frozen=True, slots=True)
class Departed:
    """A node whose host was deleted. Not `accepted`: its provider, if there is one of its uuid, was never ours."""

    uuid: str
    host: str
    accepted: bool


# ---- services --------------------------------------------------------------------------------------------------------


def list_services(
    conn: sa.Connection, *, down_after_s: float, host: str | None = None, binary: str | None = None
) -> list[Service]:
    """The cell's processes, oldest first; a host or binary narrows the list."""
    query = sa.select(*_service_columns(down_after_s)).order_by(services.c.id)
    if host is not None:
        query = query.where(services.c.host == host)
    if binary is not None:
        query = query.where(services.c.binary == binary)
    return [Service(*row) for row in conn.execute(query)]


UP, DOWN, MAINTENANCE, UNKNOWN = "UP", "DOWN", "MAINTENANCE", "UNKNOWN"


def agent_of_host(host: sa.ColumnElement[str | None]) -> sa.ColumnElement[bool]:
    """Whether a row of `services` is the agent of this host: to join by."""
    return sa.and_(services.c.host == host, services.c.binary == COMPUTE)


def is_alive(down_after_s: float) -> sa.ColumnElement[bool]:
    """Whether the process of a row of `services` was seen lately and did not say that it leaves, of whatever kind it
    is."""
    seen_lately = sa.func.coalesce(services.c.last_seen_at > now_sql(-down_after_s), sa.false())
    return sa.and_(services.c.left == sa.false(), seen_lately)


def host_status(host: sa.ColumnElement[str | None], *, down_after_s: float) -> sa.ColumnElement[str]:
    """The state of a host as its servers show it (Compute API, `host_status`), where `services` are joined by
    `agent_of_host`.

    What an operator said of the host comes before what is observed; a host that nobody told us of is in an unknown
    state.
    """
    return sa.case(
        (host.is_(None), ""),
        (services.c.forced_down == sa.true(), DOWN),
        (services.c.disabled == sa.true(), MAINTENANCE),
        (is_alive(down_after_s), UP),
        else_=UNKNOWN,
    )


def find_service(
    conn: sa.Connection, *, down_after_s: float, uuid: str | None = None, row_id: int | None = None
) -> Service | None:
    """The process of this uuid, or of this row; None if it is none of this cell."""
    which = services.c.uuid == uuid if uuid is not None else services.c.id == row_id
    row = conn.execute(sa.select(*_service_columns(down_after_s)).where(which)).first()
    return None if row is None else Service(*row)


def change_service(
    conn: sa.Connection,
    uuid: str,
    *,
    down_after_s: float,
    disabled: bool | None = None,
    disabled_reason: str | None = None,
    forced_down: bool | None = None,
) -> Service:
    """Disables or enables, forces down or lets live; None leaves a thing as it is, enabling forgets the reason. Gives
    the service.

    Raises:
        NotFound: there is no such service any more.
    """
    values: dict[str, Any] = {"updated_at": now_sql()}
    if disabled is not None:
        values |= {"disabled": disabled, "disabled_reason": disabled_reason if disabled else None}
    if forced_down is not None:
        values["forced_down"] = forced_down
    conn.execute(sa.update(services).where(services.c.uuid == uuid).values(**values))
    service = find_service(conn, down_after_s=down_after_s, uuid=uuid)
    if service is None:
        raise _no_service(uuid)
    return service


def delete_service(conn: sa.Connection, uuid: str) -> None:
    """Removes a process; of an agent the host with it, whose node has then departed.

    Cleanups of the host stay: should it ever come back, its superseded guests are still destroyed.

    Raises:
        NotFound: there is no such service any more.
        Conflict: the host has servers.
    """
    row = conn.execute(
        sa.select(services.c.host, services.c.binary).where(services.c.uuid == uuid).with_for_update()
    ).first()
    if row is None:
        raise _no_service(uuid)
    if row.binary == COMPUTE:
        refuse_host_with_servers(conn, row.host)
        # The provider goes now or soon. If the agent reports again before that, a node of which Placement knows nothing
        # is told again.
        conn.execute(
            sa.update(compute_nodes)
            .where(compute_nodes.c.host == row.host)
            .values(placed=sa.null(), updated_at=now_sql())
        )
    conn.execute(sa.delete(services).where(services.c.uuid == uuid))


def refuse_host_with_servers(conn: sa.Connection, host: str) -> None:
    """
    Raises:
        Conflict: the host has servers, or some are being built there.
    """
    in_the_way = servers_in_the_way(conn, host)
    if in_the_way:
        raise core.errors.Conflict(f"Unable to delete compute service of host {host}: it {in_the_way}")


def servers_in_the_way(conn: sa.Connection, host: str) -> str | None:
    """Which servers keep a host from being deleted, in words that follow its name, and what helps; None: it has none.

    Among them are some that no list of servers shows: they are deleted, and wait for the host to say that nothing is
    left of them.
    """
    count = count_servers(conn, [host])
    if not count:
        return None
    mine = sa.select(instances.c.uuid, instances.c.state).where(
        instances.c.host == host, instances.c.deleted == sa.false()
    )
    rows = conn.execute(
        mine.order_by(instances.c.state != states.BUILD_DELETING, instances.c.id).limit(MAX_NAMED)
    ).all()
    going = any(row.state == states.BUILD_DELETING for row in rows)
    named = ", ".join(
        f"{row.uuid} (deleted, waits for the host)" if row.state == states.BUILD_DELETING else row.uuid for row in rows
    )
    more = f" and {count - len(rows)} more" if count > len(rows) else ""
    helps = (
        f" If the host is gone for good, `cellctl cleanup forget --host {host}` ends the deletes that wait for it."
        if going
        else ""
    )
    return f"has {count} servers: {named}{more}.{helps}"


def servers_of_others(conn: sa.Connection, host: str, project_id: str) -> list[str]:
    """Servers of other projects that are on the host, or may end there: those under way name it as an alternate."""
    of_others = sa.select(instances.c.uuid).where(
        instances.c.project_id != project_id, instances.c.deleted == sa.false()
    )
    on_it = conn.execute(of_others.where(instances.c.host == host).order_by(instances.c.id)).scalars()
    under_way = conn.execute(
        of_others.where(
            instances.c.state == states.BUILD,
            as_text(instances.c.alternates).contains(msgspec.json.encode(host).decode(), autoescape=True),
        )
    ).scalars()
    return list(dict.fromkeys([*on_it, *under_way]))


def count_servers(conn: sa.Connection, hosts: Iterable[str]) -> int:
    """How many servers are on these hosts or being built there; deleted ones do not count."""
    return int(conn.execute(sa.select(sa.func.count()).select_from(instances).where(_are_on(hosts))).scalar_one())


def _are_on(hosts: Iterable[str]) -> sa.ColumnElement[bool]:
    """What counts as a server on a host: whatever has its place there, one that is being deleted until it is gone."""
    return sa.and_(instances.c.host.in_(list(hosts)), instances.c.deleted == sa.false())


# ---- hosts -----------------------------------------------------------------------------------------------------------


def list_hosts(
    conn: sa.Connection,
    *,
    down_after_s: float,
    by_id: bool = False,
    after: tuple[Any, str] | None = None,
    limit: int | None = None,
    pattern: str | None = None,
) -> list[HostRow]:
    """The cell's hosts in the order of (name of the hypervisor, uuid), or with `by_id` of (id, uuid).

    `after`: only those behind this place in that order. `pattern`: only those whose hypervisor's name has this part,
    whatever the case.
    """
    first = compute_nodes.c.id if by_id else compute_nodes.c.hypervisor_hostname
    query = _hosts(down_after_s).order_by(first, compute_nodes.c.uuid).limit(limit)
    if after is not None:
        query = query.where(first >= after[0], sa.or_(first > after[0], compute_nodes.c.uuid > after[1]))
    if pattern is not None:
        query = query.where(
            sa.func.lower(compute_nodes.c.hypervisor_hostname).contains(pattern.lower(), autoescape=True)
        )
    return [_host(row) for row in conn.execute(query)]


def find_host(
    conn: sa.Connection,
    *,
    down_after_s: float,
    uuid: str | None = None,
    row_id: int | None = None,
    host: str | None = None,
) -> HostRow | None:
    """The host of this node uuid, or of this row of the nodes, or of this name; None if it is none of this cell."""
    which = compute_nodes.c.host == host if host is not None else compute_nodes.c.id == row_id
    if uuid is not None:
        which = compute_nodes.c.uuid == uuid
    row = conn.execute(_hosts(down_after_s).where(which)).first()
    return None if row is None else _host(row)


def hosts_of_node(conn: sa.Connection, hypervisor_hostname: str) -> list[str]:
    """The cell's hosts whose hypervisor is called so."""
    named = sa.select(compute_nodes.c.host).where(
        compute_nodes.c.hypervisor_hostname == hypervisor_hostname, _has_agent()
    )
    return list(conn.execute(named.order_by(compute_nodes.c.host)).scalars())


def servers_on(conn: sa.Connection, hosts: Iterable[str]) -> dict[str, list[str]]:
    """Host -> uuids of its servers, for the hosts that have some."""
    by_host: dict[str, list[str]] = {}
    for host, uuid in conn.execute(
        sa.select(instances.c.host, instances.c.uuid).where(_are_on(hosts)).order_by(instances.c.uuid)
    ):
        by_host.setdefault(host, []).append(uuid)
    return by_host


def used_by_project(conn: sa.Connection, host: str) -> dict[str, Used]:
    """Project -> what its servers on the host may use, by project."""
    sizes = (instances.c.vcpus, instances.c.memory_mib, instances.c.root_gib + instances.c.ephemeral_gib)
    query = sa.select(instances.c.project_id, *(sa.cast(sa.func.sum(size), sa.Integer) for size in sizes))
    rows = conn.execute(query.where(_are_on([host])).group_by(instances.c.project_id).order_by(instances.c.project_id))
    return {project: Used(*used) for project, *used in rows}


def sum_of(parts: Iterable[Used]) -> Used:
    """All of them together."""
    listed = list(parts)
    return Used(
        sum(each.vcpus for each in listed),
        sum(each.memory_mib for each in listed),
        sum(each.disk_gib for each in listed),
    )


def capacity(conn: sa.Connection) -> Capacity:
    """What the enabled hosts have and use; inventories are documents, so the sum is made here and not by the
    database."""
    rows = [_host(row) for row in conn.execute(_hosts(0.0).where(services.c.disabled == sa.false()))]
    return Capacity(
        hosts=len(rows),
        vcpus=sum(row.inventory.vcpus for row in rows),
        vcpus_used=sum(row.vcpus_used for row in rows),
        memory_mib=sum(row.inventory.memory_mib for row in rows),
        memory_mib_taken=sum(row.memory_mib_taken for row in rows),
        disk_gib=sum(row.inventory.disk_gib for row in rows),
        disk_gib_taken=sum(row.disk_gib_taken for row in rows),
        guests=sum(row.guests for row in rows),
        building=sum(row.building for row in rows),
    )


def set_accepted(conn: sa.Connection, hosts: Iterable[str], accepted: bool) -> None:
    """Notes what the API level says of these hosts: they are this cell's and may be used, or not. Placement is told of
    accepted ones alone."""
    mine = sa.and_(compute_nodes.c.host.in_(sorted(hosts)), compute_nodes.c.accepted != accepted)
    conn.execute(sa.update(compute_nodes).where(mine).values(accepted=accepted))


# ---- nodes whose host was deleted: the conductor's part --------------------------------------------------------------


def list_departed(conn: sa.Connection) -> list[Departed]:
    """Nodes whose provider in Placement is to be deleted, and then they themselves with `forget_node`."""
    query = (
        sa.select(compute_nodes.c.uuid, compute_nodes.c.host, compute_nodes.c.accepted)
        .where(~_has_agent())
        .order_by(compute_nodes.c.id)
    )
    return [Departed(*row) for row in conn.execute(query)]


def forget_node(conn: sa.Connection, uuid: str) -> bool:
    """Removes a departed node; false if its host came back meanwhile."""
    mine = sa.and_(compute_nodes.c.uuid == uuid, compute_nodes.c.placed.is_(sa.null()), ~_has_agent())
    return changed(conn.execute(sa.delete(compute_nodes).where(mine)))


# ---- rows ------------------------------------------------------------------------------------------------------------


def _service_columns(down_after_s: float) -> tuple[sa.ColumnElement[Any], ...]:
    return (
        services.c.id,
        services.c.uuid,
        services.c.host,
        services.c.binary,
        services.c.version,
        services.c.disabled,
        services.c.disabled_reason,
        services.c.forced_down,
        services.c.started_at,
        services.c.last_seen_at,
        services.c.created_at,
        services.c.left,
        sa.type_coerce(sa.and_(~services.c.forced_down, is_alive(down_after_s)), sa.Boolean).label("is_up"),
    )


def _hosts(down_after_s: float) -> sa.Select[Any]:
    nodes = compute_nodes.c
    node = (
        nodes.id.label("node_id"), nodes.uuid.label("node_uuid"), nodes.hypervisor_hostname, nodes.hypervisor_type,
        nodes.hypervisor_version, as_text(nodes.inventory), nodes.vcpus_used, nodes.memory_mib_used,
        nodes.disk_gib_used, nodes.guests, services.c.intents,
    )  # fmt: skip
    agent = sa.and_(services.c.host == nodes.host, services.c.binary == COMPUTE)
    return sa.select(*_service_columns(down_after_s), *node).select_from(compute_nodes.join(services, agent))


def _host(row: sa.Row[Any]) -> HostRow:
    return HostRow(
        service=Service(*row[: len(Service.__dataclass_fields__)]),
        id=row.node_id,
        uuid=row.node_uuid,
        hypervisor_hostname=row.hypervisor_hostname,
        hypervisor_type=row.hypervisor_type,
        hypervisor_version=row.hypervisor_version,
        inventory=cell_db.inventories.shown(row.host, row.node_uuid, row.inventory),
        vcpus_used=row.vcpus_used,
        memory_mib_used=row.memory_mib_used,
        disk_gib_used=row.disk_gib_used,
        guests=row.guests,
        building=len(row.intents or ()),
    )


def _has_agent() -> sa.ColumnElement[bool]:
    return sa.exists().where(services.c.host == compute_nodes.c.host, services.c.binary == COMPUTE)


def _no_service(uuid: str) -> core.errors.NotFound:
    return core.errors.NotFound(f"Service {uuid} could not be found.")
