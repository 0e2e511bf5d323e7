"""Flavors: the sizes that servers come in, who may use them, and what they say beyond numbers."""

import dataclasses
import datetime
import uuid as uuids
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

import sqlalchemy as sa

from api_db.tables import flavor_extra_specs, flavor_projects, flavors
from core import errors
from core.clock import utcnow
from database.compiled_statements import CompiledStatement
from database.errors import is_duplicate
from database.statements import changed, insert_one, lock


@dataclasses.dataclass(frozen=True, slots=True)
class Flavor:
    """One flavor. `extra_specs` is empty where a reader did not ask for them."""

    flavor_id: str
    name: str
    memory_mib: int
    vcpus: int
    root_gib: int
    ephemeral_gib: int
    swap_mib: int
    rxtx_factor: float
    disabled: bool
    is_public: bool
    description: str | None
    created_at: datetime.datetime
    updated_at: datetime.datetime | None
    extra_specs: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Filter:
    """Which flavors a list shows. None, of any of them, does not restrict.

    `is_public` true shows, besides the public ones, those that `project_id` was given access to; with None
    as project it shows the public ones alone. `name` is a part of the name.
    """

    is_public: bool | None = None
    project_id: str | None = None
    min_memory_mib: int | None = None
    min_root_gib: int | None = None
    disabled: bool | None = None
    name: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class SortOrder:
    """How a list is sorted and where its page begins: behind the flavor `marker`."""

    key: str = "flavor_id"
    direction: Literal["asc", "desc"] = "asc"
    marker: str | None = None


SORT_KEYS: Collection[str] = frozenset(column.name for column in flavors.c)

_FIELDS = tuple(flavors.c[field.name] for field in dataclasses.fields(Flavor) if field.name != "extra_specs")


def list_page(
    connection: sa.Connection, which: Filter, order: SortOrder, *, limit: int, with_extra_specs: bool
) -> list[Flavor]:
    """One page of flavors.

    Raises:
        Invalid: the filter shows no flavor that is called like the marker.
    """
    query = sa.select(flavors.c.id, *_FIELDS).where(*_conditions(which)).limit(limit)
    column = flavors.c[order.key]
    if order.marker is not None:
        query = query.where(_behind(connection, which, order))
    directed = sa.asc if order.direction == "asc" else sa.desc
    rows = connection.execute(query.order_by(directed(column), directed(flavors.c.id))).all()
    specs = _extra_specs_of(connection, [row[0] for row in rows]) if with_extra_specs else {}
    return [Flavor(*row[1:], extra_specs=specs.get(row[0], {})) for row in rows]


def get(connection: sa.Connection, flavor_id: str, *, project_id: str | None) -> Flavor:
    """The flavor, with its extra specs, if the project may use it; with None as project any flavor.

    Raises:
        NotFound: there is none, or not for this project.
    """
    if project_id is None:
        rows = _FLAVOR.rows(connection, {"flavor_id": flavor_id})
    else:
        rows = _FLAVOR_USABLE_BY.rows(connection, {"flavor_id": flavor_id, "project_id": project_id})
    if not rows:
        raise _not_found(flavor_id)
    ((key, *fields),) = rows
    return _flavor(fields, dict(_EXTRA_SPECS.rows(connection, {"key": key})))


def insert(connection: sa.Connection, *, flavor_id: str | None, name: str, **fields: Any) -> Flavor:
    """Makes a flavor; None as id gives it a uuid.

    Raises:
        Conflict: name or id belongs to another flavor; `field` says which.
    """
    flavor_id = flavor_id or str(uuids.uuid4())
    try:
        # A savepoint, because the transaction is asked once more after the refusal.
        with connection.begin_nested():
            connection.execute(
                sa.insert(flavors).values(flavor_id=flavor_id, name=name, created_at=utcnow(), **fields)
            )
    except sa.exc.IntegrityError as error:
        if not is_duplicate(error):
            raise
        raise _taken(connection, flavor_id=flavor_id, name=name) from error
    return get(connection, flavor_id, project_id=None)


def delete(connection: sa.Connection, flavor_id: str) -> None:
    """Removes the flavor; servers keep what they copied of it.

    Raises:
        NotFound: there is none.
    """
    if not changed(connection.execute(sa.delete(flavors).where(flavors.c.flavor_id == flavor_id))):
        raise _not_found(flavor_id)


def set_description(connection: sa.Connection, flavor_id: str, description: str | None) -> Flavor:
    """The flavor with its new description.

    Raises:
        NotFound: there is none.
    """
    key = _locked(connection, flavor_id)
    values = {"description": description, "updated_at": utcnow()}
    connection.execute(sa.update(flavors).where(flavors.c.id == key).values(values))
    return get(connection, flavor_id, project_id=None)


def set_extra_specs(connection: sa.Connection, flavor_id: str, specs: dict[str, str]) -> None:
    """Adds the extra specs, in place of those of the same names.

    Raises:
        NotFound: there is no such flavor.
    """
    key = _locked(connection, flavor_id)
    table = flavor_extra_specs
    connection.execute(sa.delete(table).where(table.c.flavor_pk == key, table.c.key.in_(specs)))
    if specs:
        rows = [{"flavor_pk": key, "key": name, "value": value} for name, value in specs.items()]
        connection.execute(sa.insert(table), rows)


def delete_extra_spec(connection: sa.Connection, flavor_id: str, name: str) -> None:
    """Removes one extra spec.

    Raises:
        NotFound: there is no such flavor or it has no such spec.
    """
    table = flavor_extra_specs
    key = _locked(connection, flavor_id)
    if not changed(connection.execute(sa.delete(table).where(table.c.flavor_pk == key, table.c.key == name))):
        raise no_extra_spec(flavor_id, name)


def projects_with_access(connection: sa.Connection, flavor_id: str) -> list[str]:
    """The projects that may use a flavor that is not public.

    Raises:
        NotFound: there is no such flavor.
    """
    key = _key(connection, flavor_id)
    column = flavor_projects.c.project_id
    return list(
        connection.execute(sa.select(column).where(flavor_projects.c.flavor_pk == key).order_by(column)).scalars()
    )


def add_access(connection: sa.Connection, flavor_id: str, project_id: str) -> None:
    """Lets the project use the flavor.

    Raises:
        NotFound: there is no such flavor.
        Conflict: the project may use it already.
    """
    key = _locked(connection, flavor_id)
    if not insert_one(connection, flavor_projects, {"flavor_pk": key, "project_id": project_id}):
        raise errors.Conflict(
            f"Flavor access already exists for flavor {flavor_id} and project {project_id} combination.",
            field="tenant",
        )


def remove_access(connection: sa.Connection, flavor_id: str, project_id: str) -> None:
    """Lets the project use the flavor no longer.

    Raises:
        NotFound: there is no such flavor, or the project had no access.
    """
    key = _locked(connection, flavor_id)
    mine = (flavor_projects.c.flavor_pk == key, flavor_projects.c.project_id == project_id)
    if not changed(connection.execute(sa.delete(flavor_projects).where(*mine))):
        raise errors.NotFound(
            f"Flavor access not found for {flavor_id} / {project_id} combination.", field="tenant"
        )


def no_extra_spec(flavor_id: str, name: str) -> errors.NotFound:
    """The error for an extra spec that a flavor does not have."""
    return errors.NotFound(f"Flavor {flavor_id} has no extra specs with key {name}.", field=name)


def _not_found(flavor_id: str) -> errors.NotFound:
    return errors.NotFound(f"Flavor {flavor_id} could not be found.", field="flavor")


def _taken(connection: sa.Connection, *, flavor_id: str, name: str) -> errors.Conflict:
    same_id = sa.select(sa.literal(1)).where(flavors.c.flavor_id == flavor_id)
    if connection.execute(same_id).first() is not None:
        return errors.Conflict(f"Flavor with ID {flavor_id} already exists.", field="id")
    return errors.Conflict(f"Flavor with name {name} already exists.", field="name")


def _key(connection: sa.Connection, flavor_id: str) -> int:
    key: int | None = connection.execute(sa.select(flavors.c.id).where(flavors.c.flavor_id == flavor_id)).scalar()
    if key is None:
        raise _not_found(flavor_id)
    return key


def _locked(connection: sa.Connection, flavor_id: str) -> int:
    """The flavor's key, with its row locked: changes of one flavor follow each other."""
    lock(connection, flavors, flavors.c.flavor_id == flavor_id)
    return _key(connection, flavor_id)


def _usable_by(project_id: str | sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    mine = sa.select(flavor_projects.c.flavor_pk).where(flavor_projects.c.project_id == project_id)
    return sa.or_(flavors.c.is_public == sa.true(), flavors.c.id.in_(mine))


def _conditions(which: Filter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if which.is_public and which.project_id is not None:
        conditions.append(_usable_by(which.project_id))
    elif which.is_public is not None:
        conditions.append(flavors.c.is_public.is_(which.is_public))
    if which.min_memory_mib is not None:
        conditions.append(flavors.c.memory_mib >= which.min_memory_mib)
    if which.min_root_gib is not None:
        conditions.append(flavors.c.root_gib >= which.min_root_gib)
    if which.disabled is not None:
        conditions.append(flavors.c.disabled.is_(which.disabled))
    if which.name is not None:
        conditions.append(flavors.c.name.contains(which.name, autoescape=True))
    return conditions


def _flavor(fields: Sequence[Any], extra_specs: dict[str, str]) -> Flavor:
    flavor = Flavor(*fields, extra_specs=extra_specs)
    # The driver itself reads them as numbers.
    return dataclasses.replace(flavor, disabled=bool(flavor.disabled), is_public=bool(flavor.is_public))


def _behind(connection: sa.Connection, which: Filter, order: SortOrder) -> sa.ColumnElement[bool]:
    """What comes after the marker. Both databases sort NULL as the smallest value."""
    column, key = flavors.c[order.key], flavors.c.id
    marked = sa.select(column, key).where(flavors.c.flavor_id == order.marker, *_conditions(which))
    row = connection.execute(marked).first()
    if row is None:
        raise errors.Invalid(f"marker [{order.marker}] not found", field="marker")
    value, number = row
    if order.direction == "asc":
        if value is None:
            return sa.or_(column.is_not(None), key > number)
        return sa.and_(column >= value, sa.or_(column > value, key > number))
    if value is None:
        return sa.and_(column.is_(None), key < number)
    return sa.or_(column < value, column.is_(None), sa.and_(column == value, key < number))


def _extra_specs_of(connection: sa.Connection, keys: Iterable[int]) -> dict[int, dict[str, str]]:
    table = flavor_extra_specs
    query = sa.select(table.c.flavor_pk, table.c.key, table.c.value).where(table.c.flavor_pk.in_(list(keys)))
    by_flavor: dict[int, dict[str, str]] = {}
    for key, name, value in connection.execute(query.order_by(table.c.flavor_pk, table.c.key)):
        by_flavor.setdefault(key, {})[name] = value
    return by_flavor


# Every create reads one.
_ONE = sa.select(flavors.c.id, *_FIELDS).where(flavors.c.flavor_id == sa.bindparam("flavor_id"))
_FLAVOR = CompiledStatement(_ONE)
_FLAVOR_USABLE_BY = CompiledStatement(_ONE.where(_usable_by(sa.bindparam("project_id"))))
_EXTRA_SPECS = CompiledStatement(
    sa.select(flavor_extra_specs.c.key, flavor_extra_specs.c.value)
    .where(flavor_extra_specs.c.flavor_pk == sa.bindparam("key"))
    .order_by(flavor_extra_specs.c.key)
)
