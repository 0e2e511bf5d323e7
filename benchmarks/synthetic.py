"""A cloud for lists alone: a MariaDB server with a schema per cell full of servers that nobody built, and the API in front of it.

There are no conductors, agents or brokers, so that nothing else runs during a measurement. All is the same for the same seed.
"""

import contextlib
import datetime
import random
import shutil
import sys
import tempfile
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import api_db.cells
import api_db.schema
import api_db.tables
import cell_db.schema
import cell_db.tables
from api_db.cells import CELL0_TRANSPORT, CELL0_UUID
from benchmarks.counters import administrator, ask
from core import migrations
from core.clock import utcnow
from core.database import Database
from devstack import configure, ports
from devstack.accounts import Accounts
from devstack.child import Child
from devstack.configure import Addresses, Level, project_id, user_id
from devstack.layout import FULL, Shape, State
from devstack.neighbours import API_SCHEMA, CELL0_SCHEMA, schema_of
from devstack.services.mariadb import MariaDB
from devstack.waiting import wait_until
from lifecycle import states
from objects.host import COMPUTE

MERGED_SCHEMA = "merged"
NO_BROKER = "none:///"
NO_SERVICE = "http://127.0.0.1:1"
BATCH = 1000
PROJECTS = 10
STOPPED_IN = 10
"""One server in so many is SHUTOFF."""
DATABASES_IN = 100
"""One server in so many has a name that begins with `db-`, the others with `web-`."""
FIRST_CREATED = datetime.datetime(2026, 1, 1)
SPACING_S = 0.731
API_DEADLINE_S = 60.0
STOP_GRACE_S = 20.0

FLAVOR = {
    "flavor_id": "1", "name": "m1.small", "vcpus": 1, "memory_mib": 2048, "root_gib": 20, "ephemeral_gib": 0, "swap_mib": 0,
    "extra_specs": {"hw:cpu_policy": "shared"},
}  # fmt: skip
IMAGE = "0410a0e8-d720-4927-9cc3-8fe0cd8f86cc"

_api, _cell = api_db.tables, cell_db.tables


class Synthetic:
    """The cloud once it runs. `uuids` names its servers in no order; `of_admin` are its processes by name."""

    def __init__(self, state: State, shape: Shape, server: MariaDB, addresses: Addresses, child: Child, uuids: list[str]) -> None:
        self.state = state
        self.shape = shape
        self.server = server
        self.addresses = addresses
        self.uuids = uuids
        self.admin = ("admin", Accounts(state.accounts).password("admin"))
        self._child = child

    def leaders(self) -> dict[str, int]:
        """Name -> pid of every process."""
        return {"api": self._child.pid, "mariadb": self.server.pid}


@contextlib.contextmanager
def running(*, cells: int, servers: int, seed: int = 1) -> Iterator[Synthetic]:
    """A cloud with so many servers in each cell, gone at the end."""
    own = Path(tempfile.mkdtemp(prefix="cellplane-benchmark-"))
    state, shape = State(own / "state"), Shape(profile=FULL, cells=cells, port=ports.free_port())
    state.prepare()
    server = MariaDB(state.path / "mariadb")
    child: Child | None = None
    try:
        server.start()
        addresses = _addresses(server, shape)
        configure.write(state, shape, addresses)
        filled = _fill(server, shape, addresses, servers, random.Random(seed))
        command = [str(Path(sys.executable).parent / "cellplane-api"), "--config-file", str(state.config("api"))]
        child = Child([sys.executable, *command], env={}, log=state.output("api"), cwd=state.path)
        child.start()
        wait_until(lambda: ports.answers(shape.port), what="answer from the API", deadline_s=API_DEADLINE_S)
        yield Synthetic(state, shape, server, addresses, child, filled)
    finally:
        if child is not None:
            child.stop(grace_s=STOP_GRACE_S)
        server.stop()
        shutil.rmtree(own, ignore_errors=True)


def _addresses(server: MariaDB, shape: Shape) -> Addresses:
    for schema in (API_SCHEMA, CELL0_SCHEMA, MERGED_SCHEMA, *map(schema_of, shape.cell_names)):
        server.create_schema(schema)
    return Addresses(
        api=Level(server.url(API_SCHEMA), NO_BROKER),
        cell0=Level(server.url(CELL0_SCHEMA), NO_BROKER),
        cells={cell: Level(server.url(schema_of(cell)), NO_BROKER) for cell in shape.cell_names},
        placement=NO_SERVICE,
        image=NO_SERVICE,
        api_port=shape.port,
    )


# ---- rows --------------------------------------------------------------------------------------------------------------------------


def _fill(server: MariaDB, shape: Shape, addresses: Addresses, servers: int, chance: random.Random) -> list[str]:
    """Makes all tables and rows; the uuids of the servers."""
    api = Database(addresses.api.database, io_timeout_s=None)
    migrations.sync(api_db.schema.SCHEMA, api)
    _sync_cell(addresses.cell0.database)
    with api.transaction() as connection:
        api_db.cells.create(connection, name="cell0", database_connection=addresses.cell0.database, transport_url=CELL0_TRANSPORT, uuid=CELL0_UUID)
    filled: list[str] = []
    for number, name in enumerate(shape.cell_names):
        filled += _fill_cell(server, api, shape, name, addresses.cells[name], range(number, servers * shape.cells, shape.cells), chance)
    _merge(server, shape)
    api.close()
    return filled


def _fill_cell(
    server: MariaDB, api: Database, shape: Shape, name: str, level: Level, moments: range, chance: random.Random
) -> list[str]:
    _copy_tables(server, CELL0_SCHEMA, schema_of(name))
    with api.transaction() as connection:
        cell = api_db.cells.create(connection, name=name, database_connection=level.database, transport_url=NO_BROKER)
        projects = [{"project_id": _project(number), "cell_uuid": cell.uuid} for number in range(PROJECTS)]
        connection.execute(sa.insert(_api.project_cells), projects)
    database, filled = Database(level.database, io_timeout_s=None), list[str]()
    with database.transaction() as connection:
        connection.execute(sa.insert(_cell.services), [_service(host) for host in shape.hosts_of(name)])
    for start in range(0, len(moments), BATCH):
        rows = [_instance(moment, chance.choice(shape.hosts_of(name)), name, chance) for moment in moments[start : start + BATCH]]
        with database.transaction() as connection:
            connection.execute(sa.insert(_cell.instances), rows)
        with api.transaction() as connection:
            connection.execute(sa.insert(_api.instance_mappings), [_mapping(row, cell.uuid) for row in rows])
        filled += [row["uuid"] for row in rows]
    database.close()
    return filled


def _sync_cell(url: str) -> None:
    database = Database(url, io_timeout_s=None)
    migrations.sync(cell_db.schema.SCHEMA, database)
    database.close()


def _copy_tables(server: MariaDB, source: str, target: str) -> None:
    """The tables of a cell's schema in another one: hundreds of migrations would take minutes."""
    with contextlib.closing(administrator(server)) as connection:
        ask(connection, "SET foreign_key_checks = 0")
        ask(connection, f"USE `{target}`")
        for (table,) in ask(connection, "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", source):
            ((_, statement),) = ask(connection, f"SHOW CREATE TABLE `{source}`.`{table}`")
            ask(connection, statement)
        ask(connection, f"INSERT INTO alembic_version SELECT * FROM `{source}`.alembic_version")


def _merge(server: MariaDB, shape: Shape) -> None:
    """All servers in one table, as if there were no cells; and fresh statistics for the optimizer everywhere."""
    columns = ", ".join(f"`{column.name}`" for column in _cell.instances.c if column.name != "id")
    with contextlib.closing(administrator(server)) as connection:
        ask(connection, f"CREATE TABLE `{MERGED_SCHEMA}`.instances LIKE `{CELL0_SCHEMA}`.instances")
        for cell in shape.cell_names:
            ask(connection, f"INSERT INTO `{MERGED_SCHEMA}`.instances ({columns}) SELECT {columns} FROM `{schema_of(cell)}`.instances")
            ask(connection, f"ANALYZE TABLE `{schema_of(cell)}`.instances")
        ask(connection, f"ANALYZE TABLE `{MERGED_SCHEMA}`.instances, `{API_SCHEMA}`.instance_mappings")


def _service(host: str) -> dict[str, Any]:
    now = utcnow()
    seen = now + datetime.timedelta(days=365)  # nobody reports, and yet the hosts are up
    return {
        "uuid": str(uuids.uuid4()), "host": host, "binary": COMPUTE, "version": "0", "disabled": False, "forced_down": False,
        "started_at": now, "last_seen_at": seen, "left": False, "created_at": now, "updated_at": now,
    }  # fmt: skip


def _instance(moment: int, host: str, zone: str, chance: random.Random) -> dict[str, Any]:
    uuid = str(uuids.UUID(int=chance.getrandbits(128), version=4))
    created = FIRST_CREATED + datetime.timedelta(seconds=moment * SPACING_S)
    is_stopped = chance.randrange(STOPPED_IN) == 0
    name = f"{'db' if chance.randrange(DATABASES_IN) == 0 else 'web'}-{chance.getrandbits(40):010x}"
    return {
        "uuid": uuid, "project_id": _project(chance.randrange(PROJECTS)), "user_id": user_id("admin"), "state": states.LIVE, "attempt": 1,
        "host": host, "node_uuid": str(uuids.UUID(int=1)), "alternates": [], "resources": {},
        "vm_state": states.STOPPED if is_stopped else states.ACTIVE, "power_state": states.SHUTDOWN if is_stopped else states.RUNNING,
        "display_name": name, "hostname": name, "availability_zone": zone, "hypervisor_hostname": host, "image_ref": IMAGE,
        "flavor_id": FLAVOR["flavor_id"], "flavor": FLAVOR, "vcpus": 1, "memory_mib": 2048, "root_gib": 20, "ephemeral_gib": 0,
        "config_drive": False, "auto_disk_config": False, "root_device_name": "/dev/vda", "launch_index": 0,
        "reservation_id": f"r-{chance.getrandbits(32):08x}", "progress": 100, "metadata": {"role": "benchmark"}, "tags": None,
        "extra": {"pinned_availability_zone": None}, "created_at": created, "updated_at": created + datetime.timedelta(seconds=2),
        "launched_at": created + datetime.timedelta(seconds=1), "deleted": False,
    }  # fmt: skip


def _mapping(row: dict[str, Any], cell_uuid: str) -> dict[str, Any]:
    copied = {name: row[name] for name in ("uuid", "project_id", "user_id", "vcpus", "memory_mib", "created_at", "deleted")}
    return {**copied, "cell_uuid": cell_uuid, "request_uuid": row["uuid"], "locked": False}


def _project(number: int) -> str:
    return project_id(f"benchmark-{number}")
