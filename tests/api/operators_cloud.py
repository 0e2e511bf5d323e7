"""A cloud as operators see it: the API database, cell0, and two cells with hosts, all on SQLite, behind the real
app."""

import contextlib
import datetime
import pathlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

import api_db.cells
import api_db.hosts
import api_db.services
import api_db.tables
import cell_db.tables
from api.cloud import Cloud
from api.http.policy import Rule
from api.http.routes import ActionRoute, Route
from core.clock import utcnow
from database.engine import Database
from database.types import now_sql
from objects.host import COMPUTE, CONDUCTOR, Inventory
from tests.api import responses
from tests.api.http.harness import Asker, serving_tables, settings
from tests.empty_sqlite import make_tables

INVENTORY = Inventory(
    node_uuid="",
    hypervisor_hostname="",
    hypervisor_type="simulated",
    hypervisor_version=1000,
    vcpus=8,
    memory_mib=16384,
    disk_gib=100,
    reserved_memory_mib=512,
    host_ip="10.0.0.1",
    cpu_info={"arch": "x86_64"},
)
# Far beyond any service_down_time_s.
LONG_AGO_S = -3600.0


class FilledCell:
    """One cell of the cloud, filled by hand instead of by its agents."""

    def __init__(self, cloud: "OperatorsCloud", name: str, url: str) -> None:
        self.cloud, self.name, self.uuid = cloud, name, str(uuid.uuid4())
        make_tables(url, cell_db.tables.metadata)
        self.database = Database(url)
        with cloud.database.transaction() as conn:
            api_db.cells.create(
                conn, name=name, database_connection=url, transport_url=f"inproc://{name}", uuid=self.uuid
            )

    def add_host(self, host: str, *, seen_s: float = 0.0, **node: Any) -> str:
        """A mapped host that was last seen so many seconds from now; gives the uuid of its node."""
        node_uuid = str(uuid.uuid4())
        with self.database.transaction() as conn:
            _insert_service(conn, host, COMPUTE, seen_s)
            values: dict[str, Any] = {
                "uuid": node_uuid,
                "host": host,
                "hypervisor_hostname": host,
                "hypervisor_type": "simulated",
            }
            values |= {"hypervisor_version": 1000, "created_at": utcnow(), "updated_at": utcnow()}
            values["inventory"] = msgspec.to_builtins(
                msgspec.structs.replace(INVENTORY, node_uuid=node_uuid, hypervisor_hostname=host)
            )
            conn.execute(sa.insert(cell_db.tables.compute_nodes).values(**values | node))
        with self.cloud.database.transaction() as conn:
            api_db.hosts.insert(conn, [host], self.uuid)
        return node_uuid

    def add_conductor(self, host: str) -> None:
        with self.database.transaction() as conn:
            _insert_service(conn, host, CONDUCTOR, 0.0)

    def add_server(self, host: str, *, deleted: bool = False) -> str:
        """A server on the host; gives its uuid."""
        server = str(uuid.uuid4())
        values = {
            "uuid": server,
            "project_id": "p",
            "user_id": "u",
            "state": "ACTIVE",
            "vm_state": "active",
            "host": host,
        }
        sizes = {"flavor": {}, "vcpus": 1, "memory_mib": 512, "root_gib": 1, "deleted": deleted}
        with self.database.transaction() as conn:
            conn.execute(
                sa.insert(cell_db.tables.instances).values(**values, **sizes, created_at=utcnow(), updated_at=utcnow())
            )
        return server

    def rows(self, table: sa.Table) -> list[Any]:
        with self.database.reading() as conn:
            return list(conn.execute(sa.select(table)).mappings())

    def go_silent(self) -> None:
        """Its database can no longer be reached."""
        with self.cloud.database.transaction() as conn:
            api_db.cells.update(conn, self.uuid, database_connection=f"sqlite:////nowhere/{self.name}.sqlite")
        self.cloud.cloud.cells.refresh()


class OperatorsCloud:
    """Two cells, `east` and `west`, without hosts; `ask` asks the app as any user."""

    def __init__(self, folder: pathlib.Path, text: str) -> None:
        # A cell's deadline is no test's here, and a machine that has other work would miss the usual one.
        self.conf = settings(folder, "[cells]\ndeadline_s = 20\n" + text)
        make_tables(self.conf.api_database.connection, api_db.tables.metadata)
        self.database = Database(self.conf.api_database.connection)
        self.cloud = Cloud(self.conf)
        self._make_cell0(f"sqlite:///{folder}/cell0.sqlite")
        self.east, self.west = (
            FilledCell(self, name, f"sqlite:///{folder}/{name}.sqlite") for name in ("east", "west")
        )
        self.ask: Asker

    def _make_cell0(self, url: str) -> None:
        with self.database.transaction() as conn:
            api_db.cells.create(
                conn,
                name="cell0",
                database_connection=url,
                transport_url=api_db.cells.CELL0_TRANSPORT,
                uuid=api_db.cells.CELL0_UUID,
            )

    def add_super_conductor(self, host: str) -> None:
        with self.database.transaction() as conn:
            api_db.services.beat(conn, host=host, binary=CONDUCTOR, version="1", started_at=utcnow())

    def mapped_hosts(self) -> list[str]:
        with self.database.reading() as conn:
            return [each.host for each in api_db.hosts.list_all(conn)]

    def service_ids(self, **more: Any) -> dict[str, Any]:
        """Host -> id of its compute service, as the API shows it."""
        services = self.ask.get("/v2.1/os-services", **more).json["services"]
        return {each["host"]: each["id"] for each in services if each["binary"] == COMPUTE}


@contextlib.contextmanager
def operators_cloud(
    folder: pathlib.Path, tables: Sequence[Sequence[Route | ActionRoute]], rules: Sequence[Rule], text: str = ""
) -> Iterator[OperatorsCloud]:
    """The cloud, with an app of these tables before it."""
    made = OperatorsCloud(folder, text)
    made.cloud.start()
    try:
        with serving_tables(made.conf, tables, rules=rules, cloud=made.cloud) as asker:
            asker.judge = responses.what_is_wrong
            made.ask = asker
            yield made
    finally:
        made.cloud.stop()
        for database in (made.database, made.east.database, made.west.database):
            database.close()


def _insert_service(conn: sa.Connection, host: str, binary: str, seen_s: float) -> None:
    started = utcnow() - datetime.timedelta(hours=2)
    values = {
        "uuid": str(uuid.uuid4()),
        "host": host,
        "binary": binary,
        "version": "1",
        "started_at": started,
        "created_at": started,
    }
    conn.execute(
        sa.insert(cell_db.tables.services).values(**values, last_seen_at=now_sql(seen_s), updated_at=utcnow())
    )
