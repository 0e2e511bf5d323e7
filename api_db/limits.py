"""Limits of what projects and users may use: defaults, and what operators set instead."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api_db.tables import project_user_quotas, quota_classes, quotas
from database.compiled_statements import CompiledStatement
from database.statements import changed, insert_if_absent

UNLIMITED = -1
DEFAULT_CLASS = "default"

# What the Compute API knows limits of. Settings may give other defaults; injected files end with microversion 2.56 and
# have none. What the network service counts, and nobody here, can be set and read until 2.35, in classes until 2.49.
DEFAULTS = {
    "instances": 10,
    "cores": 20,
    "ram": 51200,
    "metadata_items": 128,
    "key_pairs": 100,
    "server_groups": 10,
    "server_group_members": 10,
    "injected_files": 5,
    "injected_file_content_bytes": 10240,
    "injected_file_path_bytes": 255,
    "fixed_ips": UNLIMITED,
    "floating_ips": UNLIMITED,
    "security_groups": UNLIMITED,
    "security_group_rules": UNLIMITED,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits that hold for a project, and those that were set for one of its users, usually none; by resource, -1
    is unlimited."""

    project: Mapping[str, int]
    user: Mapping[str, int]

    @property
    def effective(self) -> dict[str, int]:
        """Those that a quota set of the user shows: its own where it has any. Both must be kept."""
        return {**self.project, **self.user}

    @property
    def of_one_thing(self) -> dict[str, int]:
        """The limits of what is counted for itself and not for the project: the items of a server's metadata, a user's
        key pairs.

        The project's, and below them the user's own, whichever is smaller.
        """
        own = {name: smaller(self.project[name], limit) for name, limit in self.user.items() if name in self.project}
        return {**self.project, **own}


def read(conn: sa.Connection, project_id: str, user_id: str | None, defaults: Mapping[str, int]) -> Limits:
    """The limits that hold now; with `user_id` None those of the project alone."""
    limits: dict[int, dict[str, int]] = {_OF_CLASS: {}, _OF_PROJECT: {}, _OF_USER: {}}
    for set_for, resource, limit in _LIMITS.rows(conn, {"project_id": project_id, "user_id": user_id}):
        limits[set_for][resource] = limit
    return Limits(project={**DEFAULTS, **defaults, **limits[_OF_CLASS], **limits[_OF_PROJECT]}, user=limits[_OF_USER])


def smaller(one: int, other: int) -> int:
    """The limit that is reached first."""
    return max(one, other) if UNLIMITED in (one, other) else min(one, other)


def of_default_class(conn: sa.Connection, defaults: Mapping[str, int]) -> dict[str, int]:
    """The limits of a project for which nobody set any: the settings' (`defaults`), below what the class `default`
    says."""
    return of_class(conn, DEFAULT_CLASS, defaults)


def of_class(conn: sa.Connection, class_name: str, defaults: Mapping[str, int]) -> dict[str, int]:
    """The limits that the quota class says, completed by the settings'."""
    rows = conn.execute(
        sa.select(quota_classes.c.resource, quota_classes.c.hard_limit).where(quota_classes.c.class_name == class_name)
    ).all()
    return {**DEFAULTS, **defaults, **dict(rows)}


def set_class(conn: sa.Connection, class_name: str, limits: Mapping[str, int]) -> None:
    """Sets some limits of a quota class; only the class `default` has an effect."""
    _replace(conn, quota_classes, {"class_name": class_name}, limits)


def set_project(conn: sa.Connection, project_id: str, limits: Mapping[str, int]) -> None:
    """Sets some limits of a project."""
    _replace(conn, quotas, {"project_id": project_id}, limits)


def set_user(conn: sa.Connection, project_id: str, user_id: str, limits: Mapping[str, int]) -> None:
    """Sets some limits of a user in a project."""
    _replace(conn, project_user_quotas, {"project_id": project_id, "user_id": user_id}, limits)


def delete_project(conn: sa.Connection, project_id: str) -> None:
    """The project and its users have the default limits again."""
    conn.execute(sa.delete(quotas).where(quotas.c.project_id == project_id))
    conn.execute(sa.delete(project_user_quotas).where(project_user_quotas.c.project_id == project_id))


def delete_user(conn: sa.Connection, project_id: str, user_id: str) -> None:
    """The user has the project's limits again."""
    conn.execute(sa.delete(project_user_quotas).where(_of_user(project_id, user_id)))


def _limits(table: sa.Table, set_for: int, *where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(sa.literal_column(str(set_for)), table.c.resource, table.c.hard_limit).where(*where)


def _of_user(project_id: str, user_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(project_user_quotas.c.project_id == project_id, project_user_quotas.c.user_id == user_id)


def _replace(conn: sa.Connection, table: sa.Table, owner: dict[str, str], limits: Mapping[str, int]) -> None:
    """Writes the limits one by one in a fixed order, so that two writers cannot block each other for ever."""
    for resource, limit in sorted(limits.items()):
        key = {**owner, "resource": resource}
        set_limit = (
            sa.update(table)
            .where(*(table.c[column] == value for column, value in key.items()))
            .values(hard_limit=limit)
        )
        if not changed(conn.execute(set_limit)):
            insert_if_absent(conn, table, [{**key, "hard_limit": limit}])
            conn.execute(set_limit)


# One statement for all three: every accepted request asks it, under its project's lock.
_OF_CLASS, _OF_PROJECT, _OF_USER = range(3)
_PROJECT_ID, _USER_ID = (
    sa.bindparam("project_id", type_=quotas.c.project_id.type),
    sa.bindparam("user_id", type_=project_user_quotas.c.user_id.type),
)
_LIMITS = CompiledStatement(
    sa.union_all(
        _limits(quota_classes, _OF_CLASS, quota_classes.c.class_name == DEFAULT_CLASS),
        _limits(quotas, _OF_PROJECT, quotas.c.project_id == _PROJECT_ID),
        _limits(
            project_user_quotas,
            _OF_USER,
            project_user_quotas.c.project_id == _PROJECT_ID,
            project_user_quotas.c.user_id == _USER_ID,
        ),
    )
)
