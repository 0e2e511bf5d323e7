"""Worlds for lists alone: a MariaDB server with a schema per cell full of servers that nobody built, and the API in
front of it.

There are no conductors, agents or brokers, so that nothing else runs during a measurement. A world is the same every
time.
"""

import collections
import contextlib
import dataclasses
import datetime
import json
import random
import shutil
import sys
import tempfile
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import sqlalchemy as sa

import api_db.cells
import api_db.schema
import api_db.tables
import cell_db.schema
import cell_db.tables
from api_db.cells import CELL0_TRANSPORT, CELL0_UUID
from benchmarks.counters import administrator, ask
from benchmarks.delay import delayed
from core import errors
from core.clock import utcnow
from database import migrations
from database.engine import Database
from devstack import configure, ports
from devstack.accounts import Accounts
from devstack.background import REPOSITORY
from devstack.child import Child
from devstack.configure import Addresses, Level, project_id, user_id
from devstack.layout import FULL, Shape, State, cell_names
from devstack.services.mariadb import MariaDB
from devstack.waiting import wait_until
from lifecycle import states
from objects.host import COMPUTE

# Nothing listens there, and nothing is asked of it; each cell has one of its own.
_NO_BROKER = "amqp://nobody:nothing@127.0.0.1:9/{}"
NO_SERVICE = "http://127.0.0.1:1"
SEED = 1
BATCH = 1000
POOL_WHILE_FILLING = 4 * 2**30
"""Bytes of the server's cache while it is given rows; afterwards it is as small as any other of ours."""
UUIDS = 10_000
"""Servers whose names are kept for `show`."""
HOSTS = 2
PROJECTS = 10
PROJECT = project_id("benchmark-0")
"""One of them."""
TENANT = project_id("benchmark-tenant")
TENANT_CELLS = 3
"""One project has servers in so few cells."""
STOPPED_IN = 10
"""One server in so many is SHUTOFF."""
DATABASES_IN = 100
"""One server in so many has a name that begins with `db-`, the others with `web-`."""
FIRST_CREATED = datetime.datetime(2026, 1, 1)
SPACING_S = 0.731
API_DEADLINE_S = 60.0
STOP_GRACE_S = 20.0

FLAVOR = {
    "flavor_id": "1", "name": "m1.small", "vcpus": 1, "memory_mib": 2048, "root_gib": 20, "ephemeral_gib": 0,
    "swap_mib": 0, "extra_specs": {"hw:cpu_policy": "shared"},
}  # fmt: skip
IMAGE = "0410a0e8-d720-4927-9cc3-8fe0cd8f86cc"

_api, _cell = api_db.tables, cell_db.tables


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    """So many cells with so many servers each; its schemas' names begin with `name`."""

    name: str
    cells: int
    servers: int

    @property
    def merged(self) -> str:
        """The schema of the one table that holds all servers."""
        return self.schema("merged")

    @property
    def cell_names(self) -> tuple[str, ...]:
        return cell_names(self.cells)

    def schema(self, part: str) -> str:
        """The schema of the API level (`api`), of a cell, or the merged one."""
        return f"{self.name}_{part}"


class Synthetic:
    """A world with the API in front of it. `uuids` names its servers in no order."""

    def __init__(
        self,
        world: World,
        server: MariaDB,
        addresses: Addresses,
        admin: tuple[str, str],
        child: Child,
        uuids: list[str],
    ) -> None:
        self.world = world
        self.server = server
        self.addresses = addresses
        self.admin = admin
        self.uuids = uuids
        self._child = child

    def leaders(self) -> dict[str, int]:
        """Name -> pid of every process."""
        return {"api": self._child.pid, "mariadb": self.server.pid}


class Worlds:
    """A directory with a database server that keeps worlds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server = MariaDB(directory / "mariadb")

    def fill(self, world: World) -> None:
        """Makes the world, unless it is there.

        Raises:
            Conflict: another one of this name is there.
        """
        filled = self.directory / f"{world.name}.json"
        if filled.exists():
            if json.loads(filled.read_text()) != dataclasses.asdict(world):
                raise errors.Conflict(f"{filled} is of another size: name another directory, or remove this one")
            return
        _Filling(self.server, world).run()
        filled.write_text(json.dumps(dataclasses.asdict(world)))

    @contextlib.contextmanager
    def running(self, world: World, *, delay_s: float = 0.0) -> Iterator[Synthetic]:
        """The world, with the API in front of it; every query of a cell is delayed."""
        self.fill(world)
        state, shape = (
            State(self.directory / world.name),
            Shape(profile=FULL, cells=world.cells, hosts=HOSTS, port=ports.free_port()),
        )
        state.prepare()
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(delayed(self.server.port, delay_s)) if delay_s else self.server.port
            addresses = _addresses(self.server, world, port, shape.port)
            configure.write(state, shape, addresses)
            _re_address(world, addresses)
            command = [str(Path(sys.executable).parent / "cellplane-api"), "--config-file", str(state.config("api"))]
            # The API of this checkout, whichever is installed.
            child = Child(
                [sys.executable, *command], env={"PYTHONPATH": str(REPOSITORY)}, log=state.output("api"), cwd=state.path
            )
            stack.callback(child.stop, grace_s=STOP_GRACE_S)
            child.start()
            wait_until(lambda: ports.answers(shape.port), what="answer from the API", deadline_s=API_DEADLINE_S)
            admin = ("admin", Accounts(state.accounts).password("admin"))
            yield Synthetic(world, self.server, addresses, admin, child, _some_uuids(self.server, world))


@contextlib.contextmanager
def worlds(directory: Path | None = None) -> Iterator[Worlds]:
    """The worlds of this directory, kept for the next time; without one of a directory of their own, gone at the
    end."""
    own = directory or Path(tempfile.mkdtemp(prefix="cellplane-benchmark-"))
    own.mkdir(parents=True, exist_ok=True)
    kept = Worlds(own)
    try:
        kept.server.start()
        yield kept
    finally:
        kept.server.stop()
        if directory is None:
            shutil.rmtree(own, ignore_errors=True)


def _addresses(server: MariaDB, world: World, cells_port: int, api_port: int) -> Addresses:
    def level(part: str, port: int) -> Level:
        return Level(server.url(world.schema(part)).replace(f":{server.port}/", f":{port}/"), _NO_BROKER.format(part))

    return Addresses(
        api=level("api", server.port),
        cell0=level("cell0", cells_port),
        cells={
            cell: dataclasses.replace(
                level(cell, cells_port), users=collections.defaultdict(lambda: _NO_BROKER.format("none"))
            )
            for cell in world.cell_names
        },
        placement=NO_SERVICE,
        image=NO_SERVICE,
        api_port=api_port,
    )


def _re_address(world: World, addresses: Addresses) -> None:
    """Tells the API level where its cells are today."""
    api = Database(addresses.api.database)
    with api.transaction() as connection:
        for cell in api_db.cells.list_all(connection):
            level = addresses.cell0 if cell.uuid == CELL0_UUID else addresses.cells[cell.name]
            api_db.cells.update(connection, cell.uuid, database_connection=level.database)
    api.close()


def _some_uuids(server: MariaDB, world: World) -> list[str]:
    with contextlib.closing(administrator(server)) as connection:
        return [
            uuid
            for (uuid,) in ask(connection, f"SELECT uuid FROM `{world.merged}`.instances ORDER BY uuid LIMIT {UUIDS}")
        ]


# ---- rows ------------------------------------------------------------------------------------------------------------


class _Filling:
    """Makes all schemas, tables and rows of a world; a schema that an earlier attempt left behind goes first."""

    def __init__(self, server: MariaDB, world: World) -> None:
        self._server = server
        self._world = world
        self._chance = random.Random(SEED)
        for part in ("api", "cell0", "merged", *world.cell_names):
            server.drop_schema(world.schema(part))
            server.create_schema(world.schema(part))
        self._addresses = _addresses(server, world, server.port, 0)
        self._api = Database(self._addresses.api.database, io_timeout_s=None)

    def run(self) -> None:
        with contextlib.closing(administrator(self._server)) as connection:
            ((usual,),) = ask(connection, "SELECT @@innodb_buffer_pool_size")
            ask(connection, f"SET GLOBAL innodb_buffer_pool_size = {POOL_WHILE_FILLING}")
            self._fill()
            self._merge(connection)
            ask(connection, f"SET GLOBAL innodb_buffer_pool_size = {usual}")
        self._api.close()

    def _fill(self) -> None:
        migrations.sync(api_db.schema.SCHEMA, self._api)
        _sync_cell(self._addresses.cell0.database)
        with self._api.transaction() as connection:
            cell0 = self._addresses.cell0.database
            api_db.cells.create(
                connection, name="cell0", database_connection=cell0, transport_url=CELL0_TRANSPORT, uuid=CELL0_UUID
            )
        for number, name in enumerate(self._world.cell_names):
            self._fill_cell(number, name)

    def _fill_cell(self, number: int, name: str) -> None:
        """One cell: its servers were made one after another with those of the other cells."""
        _copy_tables(self._server, self._world.schema("cell0"), self._world.schema(name))
        address, projects = self._addresses.cells[name].database, [*map(_project, range(PROJECTS))]
        if number < TENANT_CELLS:
            projects.append(TENANT)
        with self._api.transaction() as connection:
            cell = api_db.cells.create(
                connection, name=name, database_connection=address, transport_url=_NO_BROKER.format(name)
            )
            connection.execute(
                sa.insert(_api.project_cells), [{"project_id": project, "cell_uuid": cell.uuid} for project in projects]
            )
        database, hosts = Database(address, io_timeout_s=None), [f"{name}-{host}" for host in range(1, HOSTS + 1)]
        with database.transaction() as connection:
            connection.execute(sa.insert(_cell.services), [_service(host) for host in hosts])
        moments = range(number, self._world.servers * self._world.cells, self._world.cells)
        for start in range(0, len(moments), BATCH):
            rows = [self._instance(moment, name, hosts, projects) for moment in moments[start : start + BATCH]]
            with database.transaction() as connection:
                connection.execute(sa.insert(_cell.instances), rows)
            with self._api.transaction() as connection:
                connection.execute(sa.insert(_api.instance_mappings), [_mapping(row, cell.uuid) for row in rows])
        database.close()

    def _instance(self, moment: int, zone: str, hosts: list[str], projects: list[str]) -> dict[str, Any]:
        chance = self._chance
        return _instance(moment, chance.choice(hosts), zone, chance.choice(projects), chance)

    def _merge(self, connection: "pymysql.Connection[Any]") -> None:
        """All servers in one table, as if there were no cells; and fresh statistics for the optimizer everywhere."""
        world, columns = (
            self._world,
            ", ".join(f"`{column.name}`" for column in _cell.instances.c if column.name != "id"),
        )
        ask(connection, f"CREATE TABLE `{world.merged}`.instances LIKE `{world.schema('cell0')}`.instances")
        for cell in world.cell_names:
            ask(
                connection,
                f"INSERT INTO `{world.merged}`.instances ({columns}) SELECT {columns} FROM "
                f"`{world.schema(cell)}`.instances",
            )
            ask(connection, f"ANALYZE TABLE `{world.schema(cell)}`.instances")
        ask(connection, f"ANALYZE TABLE `{world.merged}`.instances, `{world.schema('api')}`.instance_mappings")


def _sync_cell(url: str) -> None:
    database = Database(url, io_timeout_s=None)
    migrations.sync(cell_db.schema.SCHEMA, database)
    database.close()


def _copy_tables(server: MariaDB, source: str, target: str) -> None:
    """The tables of a cell's schema in another one: hundreds of migrations would take minutes."""
    with contextlib.closing(administrator(server)) as connection:
        ask(connection, "SET foreign_key_checks = 0")
        ask(connection, f"USE `{target}`")
        for (table,) in ask(
            connection, "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", source
        ):
            ((_, statement),) = ask(connection, f"SHOW CREATE TABLE `{source}`.`{table}`")
            ask(connection, statement)
        ask(connection, f"INSERT INTO alembic_version SELECT * FROM `{source}`.alembic_version")


def _service(host: str) -> dict[str, Any]:
    now = utcnow()
    seen = now + datetime.timedelta(days=365)  # nobody reports, and yet the hosts are up
    return {
        "uuid": str(uuids.uuid4()), "host": host, "binary": COMPUTE, "version": "0", "disabled": False,
        "forced_down": False, "started_at": now, "last_seen_at": seen, "left": False, "created_at": now,
        "updated_at": now,
    }  # fmt: skip


def _instance(moment: int, host: str, zone: str, project: str, chance: random.Random) -> dict[str, Any]:
    uuid = str(uuids.UUID(int=chance.getrandbits(128), version=4))
    created = FIRST_CREATED + datetime.timedelta(seconds=moment * SPACING_S)
    is_stopped = chance.randrange(STOPPED_IN) == 0
    name = f"{'db' if chance.randrange(DATABASES_IN) == 0 else 'web'}-{chance.getrandbits(40):010x}"
    return {
        "uuid": uuid, "project_id": project, "user_id": user_id("admin"), "state": states.BUILD_ACTIVE, "attempt": 1,
        "host": host, "node_uuid": str(uuids.UUID(int=1)), "alternates": [], "resources": {},
        "vm_state": states.STOPPED if is_stopped else states.ACTIVE,
        "power_state": states.SHUTDOWN if is_stopped else states.RUNNING, "display_name": name, "hostname": name,
        "availability_zone": zone, "hypervisor_hostname": host, "image_ref": IMAGE, "flavor_id": FLAVOR["flavor_id"],
        "flavor": FLAVOR, "vcpus": 1, "memory_mib": 2048, "root_gib": 20, "ephemeral_gib": 0, "config_drive": False,
        "auto_disk_config": False, "root_device_name": "/dev/vda", "launch_index": 0,
        "reservation_id": f"r-{chance.getrandbits(32):08x}", "progress": 100, "metadata": {"role": "benchmark"},
        "tags": None, "extra": {"pinned_availability_zone": None}, "created_at": created,
        "updated_at": created + datetime.timedelta(seconds=2), "launched_at": created + datetime.timedelta(seconds=1),
        "deleted": False,
    }  # fmt: skip


def _mapping(row: dict[str, Any], cell_uuid: str) -> dict[str, Any]:
    copied = {
        name: row[name] for name in ("uuid", "project_id", "user_id", "vcpus", "memory_mib", "created_at", "deleted")
    }
    return {**copied, "cell_uuid": cell_uuid, "request_uuid": row["uuid"], "locked": False}


def _project(number: int) -> str:
    return project_id(f"benchmark-{number}")
