"""Limits of what projects and users may use: defaults, and what operators set instead."""

from collections.abc import Mapping

import sqlalchemy as sa

from api_db.tables import project_user_quotas, quota_classes, quotas
from core.database import changed, insert_if_absent

UNLIMITED = -1
DEFAULT_CLASS = "default"

# What the Compute API knows limits of. Settings may give other defaults; injected files end with microversion 2.56 and have none.
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
}


def effective(conn: sa.Connection, project_id: str, user_id: str | None, defaults: Mapping[str, int]) -> dict[str, int]:
    """The limits that hold now, by resource; -1 is unlimited.

    With `user_id` None those of the whole project, else those of this user in the project: both must be kept.
    """
    limits = of_default_class(conn, defaults)
    limits.update(_rows(conn, quotas, quotas.c.project_id == project_id))
    if user_id is not None:
        limits.update(of_user(conn, project_id, user_id))
    return limits


def of_one_thing(conn: sa.Connection, project_id: str, user_id: str, defaults: Mapping[str, int]) -> dict[str, int]:
    """The limits of what is counted for itself and not for the project: the items of a server's metadata, a user's key pairs.

    The project's, and below them the user's own, whichever is smaller.
    """
    for_all = effective(conn, project_id, None, defaults)
    return for_all | {resource: smaller(for_all[resource], own) for resource, own in of_user(conn, project_id, user_id).items() if resource in for_all}


def smaller(one: int, other: int) -> int:
    """The limit that is reached first."""
    return max(one, other) if UNLIMITED in (one, other) else min(one, other)


def of_user(conn: sa.Connection, project_id: str, user_id: str) -> dict[str, int]:
    """The limits that were set for this user in the project; usually none."""
    return _rows(conn, project_user_quotas, _of_user(project_id, user_id))


def of_default_class(conn: sa.Connection, defaults: Mapping[str, int]) -> dict[str, int]:
    """The limits of a project for which nobody set any: the settings' (`defaults`), below what the class `default` says."""
    return of_class(conn, DEFAULT_CLASS, defaults)


def of_class(conn: sa.Connection, class_name: str, defaults: Mapping[str, int]) -> dict[str, int]:
    """The limits that the quota class says, completed by the settings'."""
    return {**DEFAULTS, **defaults, **_rows(conn, quota_classes, quota_classes.c.class_name == class_name)}


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


def _rows(conn: sa.Connection, table: sa.Table, where: sa.ColumnElement[bool]) -> dict[str, int]:
    return {row.resource: row.hard_limit for row in conn.execute(sa.select(table.c.resource, table.c.hard_limit).where(where))}


def _of_user(project_id: str, user_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(project_user_quotas.c.project_id == project_id, project_user_quotas.c.user_id == user_id)


def _replace(conn: sa.Connection, table: sa.Table, owner: dict[str, str], limits: Mapping[str, int]) -> None:
    """Writes the limits one by one in a fixed order, so that two writers cannot block each other for ever."""
    for resource, limit in sorted(limits.items()):
        key = {**owner, "resource": resource}
        set_limit = sa.update(table).where(*(table.c[column] == value for column, value in key.items())).values(hard_limit=limit)
        if not changed(conn.execute(set_limit)):
            insert_if_absent(conn, table, [{**key, "hard_limit": limit}])
            conn.execute(set_limit)
