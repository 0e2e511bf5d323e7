"""Instance mappings: which cell owns a server, who owns it, and whether it is deleted."""

import dataclasses
import datetime
import uuid as uuids
from collections.abc import Iterable, Sequence

import msgspec
import sqlalchemy as sa

import core.errors
from api_db.tables import build_requests, instance_mappings, request_specs
from database.types import UNREADABLE, as_text, document, now_sql
from lifecycle import refusals
from objects.build_request import RequestSpec

LIVING, DELETED, SOFT_DELETED = 0, 1, 2
"""What `deleted` of a mapping says. DELETED is for good; SOFT_DELETED can still become LIVING or DELETED."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mapping:
    """`cell_uuid` None: no cell owns it yet. `deleted`: LIVING, or DELETED or SOFT_DELETED: its owner asked for that,
    whatever its cell has done about it."""

    uuid: str
    project_id: str
    user_id: str
    cell_uuid: str | None
    request_uuid: str
    vcpus: int
    memory_mib: int
    deleted: int
    locked: bool
    created_at: datetime.datetime

    @property
    def is_deleted(self) -> bool:
        """Whether it is deleted for good."""
        return self.deleted == DELETED

    @property
    def is_soft_deleted(self) -> bool:
        """Whether it is deleted and can be restored."""
        return self.deleted == SOFT_DELETED


@dataclasses.dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a server is, as far as the API database knows: `host` only of one that its cell has no row of yet."""

    uuid: str
    cell_uuid: str | None
    host: str | None


WHEREABOUTS = (
    sa.select(instance_mappings.c.uuid, instance_mappings.c.cell_uuid, build_requests.c.host)
    .select_from(instance_mappings.outerjoin(build_requests, build_requests.c.uuid == instance_mappings.c.uuid))
    .where(instance_mappings.c.deleted != DELETED)
)
"""The whereabouts of all servers that are on a host or will be, those that can be restored among them: narrow it
down."""

COLUMNS = tuple(instance_mappings.c[field.name] for field in dataclasses.fields(Mapping))
"""The columns of a Mapping, in its order: `Mapping(*row)`."""


def get(connection: sa.Connection, uuid: str) -> Mapping:
    """The mapping of a server.

    Raises:
        NotFound: there is no such server.
    """
    row = connection.execute(sa.select(*COLUMNS).where(instance_mappings.c.uuid == uuid)).first()
    if row is None:
        raise refusals.not_found(uuid)
    return Mapping(*row)


def whereabouts(connection: sa.Connection, uuids: Iterable[str], *, project_id: str) -> list[Whereabouts]:
    """Where these servers are, those of them that the project has; what is deleted for good or another's is left
    out."""
    mine = sa.and_(instance_mappings.c.uuid.in_(list(uuids)), instance_mappings.c.project_id == project_id)
    return [Whereabouts(*row) for row in connection.execute(WHEREABOUTS.where(mine))]


def set_locked(connection: sa.Connection, uuid: str, locked: bool) -> None:
    """Notes whether the server is locked, for the time that its cell does not answer. Set before the cell's row,
    cleared after it."""
    connection.execute(sa.update(instance_mappings).where(instance_mappings.c.uuid == uuid).values(locked=locked))


def list_of(connection: sa.Connection, uuids: Iterable[str]) -> list[Mapping]:
    """The mappings of these servers, those that exist, in no order."""
    return [
        Mapping(*row)
        for row in connection.execute(sa.select(*COLUMNS).where(instance_mappings.c.uuid.in_(list(uuids))))
    ]


def request_specs_of(connection: sa.Connection, request_uuids: Sequence[str]) -> dict[str, RequestSpec]:
    """Request uuid -> where its servers were asked to go; one query for all of them. What is not kept, or cannot be
    read, is left out."""
    query = sa.select(request_specs.c.uuid, as_text(request_specs.c.spec)).where(
        request_specs.c.uuid.in_(list(request_uuids))
    )
    rows = connection.execute(query)
    return {row.uuid: spec for row in rows if (spec := document(row.spec, RequestSpec)) is not None}


def request_spec(connection: sa.Connection, request_uuid: str) -> RequestSpec:
    """Where the servers of a request were asked to go.

    Raises:
        NotFound: no such request is kept.
        Unreadable: what is kept is none.
    """
    query = sa.select(as_text(request_specs.c.spec)).where(request_specs.c.uuid == request_uuid)
    text = connection.execute(query).scalar()
    if text is None:
        raise core.errors.NotFound(f"Request {request_uuid} could not be found.", request=request_uuid)
    try:
        return msgspec.json.decode(text, type=RequestSpec)
    except UNREADABLE as error:
        raise core.errors.Unreadable(f"The record of request {request_uuid} cannot be read.", why=str(error)) from error


def pin(connection: sa.Connection, uuid: str, zone: str | None) -> None:
    """From now on the server may be in this zone only; None: in any.

    Servers of one request share its spec, so this one gets a spec of its own.

    Raises:
        NotFound: there is no such server, or its request is not kept.
    """
    spec = request_spec(connection, get(connection, uuid).request_uuid)
    if spec.availability_zone == zone:
        return
    request_uuid, own = str(uuids.uuid4()), msgspec.structs.replace(spec, availability_zone=zone)
    connection.execute(
        sa.insert(request_specs).values(uuid=request_uuid, spec=msgspec.to_builtins(own), created_at=now_sql())
    )
    connection.execute(
        sa.update(instance_mappings).where(instance_mappings.c.uuid == uuid).values(request_uuid=request_uuid)
    )
