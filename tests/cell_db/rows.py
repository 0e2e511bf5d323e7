"""Rows that tests of this directory begin with."""

import uuid

import sqlalchemy as sa

from cell_db.tables import instances
from database.engine import Database
from database.types import now_sql
from lifecycle import states
from objects.build import Flavor
from objects.server import flavor_values

FLAVOR = Flavor(flavor_id="tiny", name="m1.tiny", vcpus=1, memory_mib=64, root_gib=1)


def insert_instance(database: Database, *, host: str | None = "host-1", state: str = states.BUILD_ACTIVE) -> str:
    """A server that runs, or as it is said; its uuid."""
    row = {
        "uuid": str(uuid.uuid4()), "project_id": "p", "user_id": "u", "state": state, "attempt": 1, "host": host,
        "vm_state": states.ACTIVE, "power_state": states.RUNNING, "flavor": flavor_values(FLAVOR), "vcpus": 1,
        "memory_mib": 64, "root_gib": 1, "ephemeral_gib": 0, "config_drive": False, "auto_disk_config": False,
        "launch_index": 0, "progress": 0, "deleted": False,
    }  # fmt: skip
    with database.transaction() as connection:
        connection.execute(sa.insert(instances).values(**row, created_at=now_sql(), updated_at=now_sql()))
    return str(row["uuid"])


def update_instance(database: Database, uuid: str, **values: object) -> None:
    """The server's row as it is now."""
    with database.transaction() as connection:
        connection.execute(sa.update(instances).where(instances.c.uuid == uuid).values(**values))
