"""The filters of a server list, each asked twice: of rows in SQL, and in Python of servers that only the journal knows.

A filter's two halves must agree, or a server would come and go as it moves from the journal into its cell; a property
test holds them together. Values are those that the API has checked and converted already.
"""

import dataclasses
import datetime
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import sqlalchemy as sa

import core.errors
from cell_db import regexp
from cell_db.tables import instance_tags, instances
from lifecycle import states
from objects.server import Server

Filters = Mapping[str, Any]

_GOING = (states.BUILD_DELETING, states.BUILD_DELETED)
MAX_VALUES = 50
"""Of one filter: as many as a server has tags at most. A database takes longer than linear in their number, or refuses
them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Filter:
    """`sql` gives the condition for a value; `matches` says whether a server fulfils it (given a `Search` for a regular
    expression)."""

    sql: Callable[[Any], sa.ColumnElement[bool]]
    matches: Callable[[Server, Any], bool]


def conditions(filters: Filters) -> list[sa.ColumnElement[bool]]:
    """What a row must fulfil for these filters."""
    return [FILTERS[name].sql(value) for name, value in filters.items()]


class Matches:
    """Whether servers fulfil all of these filters; regular expressions take no longer than `regexp_within_s` in all.

    Raises:
        Invalid: a regular expression is none.
    """

    def __init__(self, filters: Filters, *, regexp_within_s: float = 1.0) -> None:
        self._tests = [
            (FILTERS[name].matches, regexp.Search(value, regexp_within_s) if name in REGEXPS else value)
            for name, value in filters.items()
        ]

    def __call__(self, server: Server) -> bool:
        """
        Raises:
            Invalid: the time for regular expressions is over.
        """
        return all(matches(server, value) for matches, value in self._tests)


def check(filters: Filters) -> None:
    """Returns if no filter has more values than a question may have.

    Raises:
        Invalid: names the filter.
    """
    for name, value in filters.items():
        if isinstance(value, list | tuple | set | frozenset) and len(value) > MAX_VALUES:
            raise core.errors.Invalid(
                f"Invalid input for query parameter {shown(name)}: it has more than {MAX_VALUES} values.",
                field=shown(name),
            )


def shown(name: str) -> str:
    """The filter's name as users write it."""
    return name.replace("_", "-") if "tags" in name or "changes" in name else name


def has_regexp(filters: Filters) -> bool:
    """Whether the filters hold a regular expression, which may cost any amount of time."""
    return not REGEXPS.isdisjoint(filters)


# ---- kinds of filters ------------------------------------------------------------------------------------------------


def _equal(column: sa.Column[Any], get: Callable[[Server], Any]) -> Filter:
    return Filter(lambda value: column == value, lambda server, value: get(server) == value)


def _field(name: str) -> Filter:
    """A column that has the same name in a Server."""
    return _equal(instances.c[name], lambda server: getattr(server, name))


def _one_of(name: str) -> Filter:
    return Filter(
        lambda values: instances.c[name].in_(list(values)),
        lambda server, values: getattr(server, name) in values,
    )


def _flag(name: str) -> Filter:
    return Filter(
        lambda value: instances.c[name] == (sa.true() if value else sa.false()),
        lambda server, value: getattr(server, name) == value,
    )


def _regexp(name: str) -> Filter:
    return Filter(
        lambda pattern: instances.c[name].regexp_match(pattern),
        lambda server, search: search.matches(getattr(server, name)),
    )


def _moment(name: str) -> Filter:
    """A time to the second, as it is shown."""
    second = datetime.timedelta(seconds=1)
    column = instances.c[name]

    def matches(server: Server, value: datetime.datetime) -> bool:
        moment: datetime.datetime | None = getattr(server, name)
        return moment is not None and value <= moment < value + second

    return Filter(lambda value: sa.and_(column >= value, column < value + second), matches)


def _never_set() -> Filter:
    """Something that no server has: an empty value finds all, any other none."""
    return Filter(lambda value: sa.literal(value == "") == sa.true(), lambda server, value: value == "")


# ---- filters of a shape of their own ---------------------------------------------------------------------------------


# Attempt 0 is no server: a mark that keeps a late insert out.
_REAL = instances.c.attempt > 0
_TASK = instances.c.task_state
_IS_RESTORED = sa.or_(instances.c.vm_state != states.SOFT_DELETED, _TASK == states.RESTORING)
_IS_SOFT_DELETED = sa.or_(
    _TASK == states.SOFT_DELETING,
    sa.and_(instances.c.vm_state == states.SOFT_DELETED, sa.or_(_TASK.is_(None), _TASK != states.RESTORING)),
)


def _deleted_sql(value: bool | None) -> sa.ColumnElement[bool]:
    """False: neither deleted nor soft-deleted; True: one of them."""
    if value is None:
        return _REAL
    if value:
        return sa.and_(sa.or_(instances.c.state.in_(_GOING), _IS_SOFT_DELETED), _REAL)
    return _living_sql(())


def _living_sql(restored: Collection[str]) -> sa.ColumnElement[bool]:
    """Neither deleted nor soft-deleted; of the servers that are `restored` the row does not know it yet."""
    is_there = sa.and_(sa.or_(_TASK.is_(None), _TASK != states.SOFT_DELETING), _IS_RESTORED)
    if restored:
        is_there = sa.or_(is_there, instances.c.uuid.in_(sorted(restored)))
    return sa.and_(_final_sql(False), is_there)


def _final_sql(value: bool) -> sa.ColumnElement[bool]:
    if value:
        return sa.and_(instances.c.state.in_(_GOING), _REAL)
    return sa.and_(instances.c.deleted == sa.false(), instances.c.state != states.BUILD_DELETING)


def _is_final(server: Server) -> bool:
    return server.state in _GOING


def _is_soft_deleted(server: Server) -> bool:
    if server.task_state == states.SOFT_DELETING:
        return True
    return server.vm_state == states.SOFT_DELETED and server.task_state != states.RESTORING


def _matches_deleted(server: Server, value: bool | None) -> bool:
    return value is None or (_is_final(server) or _is_soft_deleted(server)) == value


def _is_living(server: Server, restored: Collection[str]) -> bool:
    return not _is_final(server) and (not _is_soft_deleted(server) or server.uuid in restored)


def _status_sql(wanted: Iterable[str]) -> sa.ColumnElement[bool]:
    return sa.or_(sa.false(), *(_states_sql(*each) for each in states.states_of_status(wanted)))


def _states_sql(vm_state: str, tasks: tuple[str, ...] | None, excluded: tuple[str, ...]) -> sa.ColumnElement[bool]:
    is_state, task = instances.c.vm_state == vm_state, instances.c.task_state
    if tasks is not None:
        return sa.and_(is_state, task.in_(tasks))
    if excluded:
        return sa.and_(is_state, sa.or_(task.is_(None), task.not_in(excluded)))
    return is_state


def _matches_status(server: Server, wanted: Iterable[str]) -> bool:
    return server.status in {name.upper() for name in wanted}


def _locked_sql(value: bool) -> sa.ColumnElement[bool]:
    return instances.c.locked_by.is_not(None) if value else instances.c.locked_by.is_(None)


def _changed_at(server: Server) -> datetime.datetime:
    return server.updated_at or server.created_at


def _has_any_tag(tags: Iterable[str]) -> sa.ColumnElement[bool]:
    return sa.exists().where(instance_tags.c.uuid == instances.c.uuid, instance_tags.c.tag.in_(list(tags)))


def _has_all_tags(tags: Iterable[str]) -> sa.ColumnElement[bool]:
    """The first tag leads to few rows by its index; how many of them a row has is one look at it, whatever their
    number. With an EXISTS for each, MariaDB's optimizer alone takes half a second for sixty, and SQLite refuses a
    thousand.
    """
    wanted = list(dict.fromkeys(tags))
    if len(wanted) <= 1:
        return _has_any_tag(wanted) if wanted else sa.true()
    number = sa.select(sa.func.count()).where(instance_tags.c.uuid == instances.c.uuid, instance_tags.c.tag.in_(wanted))
    return sa.and_(_has_any_tag(wanted[:1]), number.scalar_subquery() == len(wanted))


def _tags(server: Server) -> set[str]:
    return set(server.tags or ())


FILTERS: dict[str, Filter] = {
    "deleted": Filter(_deleted_sql, _matches_deleted),
    "deleted_for_good": Filter(_final_sql, lambda server, value: _is_final(server) == value),
    "living": Filter(_living_sql, _is_living),
    "project_id": _field("project_id"),
    "user_id": _field("user_id"),
    "uuid": _field("uuid"),
    "name": _regexp("display_name"),
    "description": _regexp("display_description"),
    "status": Filter(_status_sql, _matches_status),
    "vm_state": _one_of("vm_state"),
    "task_state": _one_of("task_state"),
    "power_state": _field("power_state"),
    "progress": _field("progress"),
    "flavor": _equal(instances.c.flavor_id, lambda server: server.flavor.flavor_id),
    "image": _field("image_ref"),
    "host": _field("host"),
    "node": _field("hypervisor_hostname"),
    "hostname": _field("hostname"),
    "availability_zone": _field("availability_zone"),
    "reservation_id": _field("reservation_id"),
    "key_name": _field("key_name"),
    "config_drive": _flag("config_drive"),
    "auto_disk_config": _flag("auto_disk_config"),
    "access_ip_v4": _field("access_ip_v4"),
    "access_ip_v6": _field("access_ip_v6"),
    "root_device_name": _field("root_device_name"),
    "launch_index": _field("launch_index"),
    "kernel_id": _never_set(),
    "ramdisk_id": _never_set(),
    "locked": Filter(_locked_sql, lambda server, value: (server.locked_by is not None) == value),
    "locked_by": _field("locked_by"),
    "created_at": _moment("created_at"),
    "launched_at": _moment("launched_at"),
    "terminated_at": _moment("terminated_at"),
    "changes_since": Filter(
        lambda value: instances.c.updated_at >= value, lambda server, value: _changed_at(server) >= value
    ),
    "changes_before": Filter(
        lambda value: instances.c.updated_at <= value, lambda server, value: _changed_at(server) <= value
    ),
    "tags": Filter(_has_all_tags, lambda server, tags: _tags(server).issuperset(tags)),
    "tags_any": Filter(_has_any_tag, lambda server, tags: not _tags(server).isdisjoint(tags)),
    "not_tags": Filter(
        lambda tags: sa.not_(_has_all_tags(tags)), lambda server, tags: not _tags(server).issuperset(tags)
    ),
    "not_tags_any": Filter(
        lambda tags: sa.not_(_has_any_tag(tags)), lambda server, tags: _tags(server).isdisjoint(tags)
    ),
}
REGEXPS = frozenset({"name", "description"})
OF_DELETED = frozenset({"deleted", "deleted_for_good", "living"})
"""Filters that say which servers there are, deleted ones among them or not."""
