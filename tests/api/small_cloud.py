"""A cloud of cell0 and two cells on SQLite files without any process but the API: tests do the conductors' writes
themselves."""

import contextlib
import dataclasses
import functools
import pathlib
import shutil
import urllib.parse
import uuid as uuids
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import sqlalchemy as sa

import api_db.aggregates
import api_db.cells
import api_db.flavors
import api_db.hosts
import api_db.journal
import api_db.keypairs
import api_db.tables
import cell_db.builds
import cell_db.heartbeats
import cell_db.history
import cell_db.operations
import cell_db.tables
import clients.http
from api.cloud import Cloud
from api.http.caller import Identity
from api.resources import usage
from api.resources.table import SERVERS
from core.sealed import Opener
from database.engine import Database
from devstack.services import mariadb
from lifecycle import states
from lifecycle.actions import OPERATIONS
from objects.fault import Fault
from objects.host import Heartbeat, Inventory, Usage
from tests import empty_sqlite
from tests.api import responses
from tests.api.http.harness import ADMIN, ALICE, BOB, LIMITS, Asker, Reply, Trusting, serving_tables, settings

RESOURCES = (*SERVERS, usage)
_CELLS = ("cell0", "east", "west")
CARL = Identity("carl-id", "0ca51", ("member", "reader"))
_LIMITS = dataclasses.replace(LIMITS, max_body_bytes=114688)
PEOPLE = (ALICE, BOB, CARL, ADMIN)

IMAGE = "70a599e0-31e7-49b7-b260-868f441e862b"
BIG_IMAGE = "155d900f-4e14-4e4c-a73d-069cbf4541e6"
QUEUED_IMAGE = "a440c04b-79fa-479c-bed1-0b816eaec379"


class Shelf:
    """The image service's answers without a service: rows and members as the Image API v2 has them."""

    def __init__(self) -> None:
        self.images: dict[str, dict[str, Any]] = {}
        self.members: dict[tuple[str, str], str] = {}
        self.records: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.fill()

    def fill(self) -> None:
        """The images that are there at the beginning are there, as they were."""
        self.put(IMAGE, name="cirros", size=12_000_000, disk_format="qcow2", min_ram=64)
        self.put(BIG_IMAGE, name="big", size=1, min_disk=50, min_ram=4096)
        self.put(QUEUED_IMAGE, name="queued", status="queued")

    def put(self, image_id: str, **row: Any) -> str:
        """An image that is there from now on; public and active if nothing else is said."""
        self.images[image_id] = {
            "id": image_id,
            "status": "active",
            "visibility": "public",
            "owner": "0ad1",
            "size": 1,
            "created_at": f"2024-01-01T00:00:{len(self.images):02}Z",
            "updated_at": "2024-02-01T00:00:00Z",
            **row,
        }
        return image_id

    def ask(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> clients.http.Reply:
        self.asked.append(f"{method} {path}")
        if method == "POST":
            return self._reply(201, self.create(body))
        if path.startswith("/v2/images?"):
            return self._listed(dict(urllib.parse.parse_qsl(path.partition("?")[2])))
        image_id, _, project_id = path.removeprefix("/v2/images/").partition("/members/")
        if image_id not in self.images:
            return clients.http.Reply(404, b"")
        if method == "DELETE":
            del self.images[image_id]
            return clients.http.Reply(204, b"")
        if method == "PATCH":
            for change in body:
                name = change["path"].removeprefix("/").replace("~1", "/").replace("~0", "~")
                self.images[image_id].pop(name, None)
                self.images[image_id] |= {name: change["value"]} if change["op"] == "add" else {}
        if not project_id:
            return self._reply(200, self.images[image_id])
        status = self.members.get((image_id, project_id))
        return (
            self._reply(200, {"image_id": image_id, "member_id": project_id, "status": status})
            if status
            else clients.http.Reply(404, b"")
        )

    def _listed(self, query: dict[str, str]) -> clients.http.Reply:
        """The newest first, by when they were put here."""
        limit, marker = int(query.pop("limit")), query.pop("marker", None)
        assert query.pop("sort") == "created_at:desc,id:desc"
        newest = [self.images[image_id] for image_id in reversed(self.images)]
        if marker is not None:
            if marker not in self.images:
                return clients.http.Reply(400, b"no such marker")
            newest = newest[[image["id"] for image in newest].index(marker) + 1 :]
        found = [image for image in newest if all(str(image.get(name)) == value for name, value in query.items())]
        return self._reply(200, {"images": found[:limit]})

    def create(self, record: dict[str, Any]) -> dict[str, Any]:
        image_id = self.put(str(record.get("id") or uuids.uuid4()), **{**record, "status": "queued", "size": None})
        self.records[image_id] = record
        return self.images[image_id]

    def close(self) -> None:
        """Holds nothing."""

    def _reply(self, status: int, document: Any) -> clients.http.Reply:
        return clients.http.Reply(status, orjson.dumps(document))


class SmallCloud:
    """The asker of the API, and the databases behind it."""

    def __init__(self, folder: pathlib.Path, cloud: Cloud, ask: Asker, urls: Mapping[str, str]) -> None:
        self.folder = folder
        self.cloud = cloud
        self.ask = ask
        self.api = Database(urls["api"])
        self.databases = {name: Database(urls[name]) for name in _CELLS}

    @property
    def shelf(self) -> Shelf:
        shelf: Any = self.cloud.images._http
        assert isinstance(shelf, Shelf)
        return shelf

    # ---- through the API -------------------------------------------------------------------------------------------

    def create(
        self, *, version: str = "2.96", user: Identity = ALICE, beside: dict[str, Any] | None = None, **more: Any
    ) -> Reply:
        body: dict[str, Any] = {"name": "web", "flavorRef": "small", "imageRef": IMAGE, "networks": "none", **more}
        wanted = {key: value for key, value in body.items() if value is not ...}
        return self.ask.post("/v2.1/servers", {"server": wanted, **(beside or {})}, version=version, user=user)

    def created(self, **more: Any) -> str:
        reply = self.create(**more)
        assert reply.status == 202, reply.body
        return str(reply.json["server"]["id"])

    def running(self, cell: str = "east", host: str = "east-1", **more: Any) -> str:
        """A server that was created, placed and built."""
        uuid = self.created(**more)
        self.place(uuid, cell, host)
        self.run(uuid, cell, host)
        return uuid

    def show(self, uuid: str, *, version: str = "2.96", user: Identity = ALICE) -> dict[str, Any]:
        reply = self.ask.get(f"/v2.1/servers/{uuid}", version=version, user=user)
        assert reply.status == 200, reply.body
        server: dict[str, Any] = reply.json["server"]
        return server

    def act(self, uuid: str, key: str, value: Any = None, *, version: str = "2.96", user: Identity = ALICE) -> Reply:
        return self.ask.post(f"/v2.1/servers/{uuid}/action", {key: value}, version=version, user=user)

    # ---- what the conductors write ---------------------------------------------------------------------------------

    def entry(self, uuid: str) -> api_db.journal.Entry | None:
        with self.api.reading() as connection:
            return api_db.journal.find(connection, uuid)

    def assign(self, uuid: str, cell: str, host: str | None, fault: Fault | None = None) -> api_db.journal.Entry:
        with self.api.transaction() as connection:
            (entry,) = api_db.journal.lease(connection, seconds=60, most=1, uuids_wanted=[uuid])
            cell_uuid = api_db.cells.find(connection, cell).uuid
            assert entry.token is not None
            one = api_db.journal.Assignment(
                uuid=uuid,
                token=entry.token,
                project_id=entry.project_id,
                cell_uuid=cell_uuid,
                host=host,
                alternates=[],
                fault=fault,
            )
            assert api_db.journal.assign(connection, [one]) == {uuid}
        return entry

    def place(self, uuid: str, cell: str = "east", host: str | None = "east-1", fault: Fault | None = None) -> None:
        entry = self.assign(uuid, cell, host, fault)
        assert entry.build_request is not None and entry.token is not None
        placed = cell_db.builds.NewInstance(
            build_request=entry.build_request,
            host=host,
            node_uuid="66f36e48-5a51-45b6-b2b8-4cd4b0d2d5b9" if host else None,
            hypervisor_hostname=host,
            availability_zone=cell if host else None,
            alternates=[],
            not_after=entry.not_after,
            resources={},
            fault=fault,
        )
        with self.databases[cell].transaction() as connection:
            assert cell_db.builds.insert(connection, [placed], build_deadline_s=600) == 1
        with self.api.transaction() as connection:
            assert api_db.journal.drop(connection, [(uuid, entry.token)]) == {uuid}

    def bury(self, uuid: str) -> None:
        self.place(uuid, "cell0", None, cell_db.history.fault(500, "No valid host was found."))

    def run(self, uuid: str, cell: str = "east", host: str = "east-1") -> None:
        with self.databases[cell].transaction() as connection:
            ran = cell_db.builds.ReportedGuest(uuid, 1, host, states.RUNNING)
            assert cell_db.builds.active(connection, [ran]) == {ran}

    def greet(self, host: str, cell: str = "east", opener: Opener | None = None, *, node: str | None = None) -> None:
        """The host's agent says hello; secrets for it are opened by this one. `node`: what its hypervisor is called, if
        not as the host."""
        inventory = Inventory(
            node_uuid=str(uuids.uuid4()), hypervisor_hostname=node or host, hypervisor_type="simulated",
            hypervisor_version=1, vcpus=8, memory_mib=8192, disk_gib=100,
        )  # fmt: skip
        opener = opener or Opener(self.folder / f"{host}.key")
        beat = Heartbeat(
            host=host, boot_id=str(uuids.uuid4()), version="0.1", started_at=1.0, inventory=inventory, usage=Usage(),
            sealing_key=opener.public_key(),
        )  # fmt: skip
        with self.databases[cell].transaction() as connection:
            cell_db.heartbeats.beat(connection, beat)

    def settle(
        self,
        uuid: str,
        cell: str = "east",
        fault: str | None = None,
        *,
        power_state: int | None = None,
        unharmed: bool = False,
    ) -> None:
        """The operation under way ends."""
        with self.databases[cell].transaction() as connection:
            (operation,) = cell_db.operations.operations(connection, [uuid])
            assert cell_db.operations.settle_operation(
                connection,
                uuid=uuid,
                operation_id=operation.operation_id,
                action=OPERATIONS[operation.operation],
                power_state=power_state,
                fault=fault,
                host=operation.host,
                unharmed=unharmed,
            )

    def operation(self, uuid: str, cell: str = "east") -> cell_db.operations.Operation:
        with self.databases[cell].reading() as connection:
            (operation,) = cell_db.operations.operations(connection, [uuid])
        return operation

    def go_silent(self, cell: str) -> None:
        """The cell's database is away from now on."""
        gate = self.cloud.cells.by_name(cell)
        for _ in range(10):
            gate._bulkhead.breaker.failed("frozen by the test", unreachable=True)


def on_sqlite(folder: pathlib.Path) -> dict[str, str]:
    """Databases by name. Copies of some that are filled once: filling them takes longer than most tests do."""
    filled = _filled()
    for name in ("api", *_CELLS):
        shutil.copyfile(filled / f"{name}.sqlite", folder / f"{name}.sqlite")
    mappings = api_db.tables.cell_mappings
    where = sa.func.replace(mappings.c.database_connection, str(filled), str(folder))
    with contextlib.closing(Database(f"sqlite:///{folder}/api.sqlite")) as api, api.transaction() as connection:
        connection.execute(sa.update(mappings).values(database_connection=where))
    return _files_below(folder)


def on_mariadb(server: mariadb.MariaDB) -> dict[str, str]:
    """Databases by name, in schemas of their own."""
    mark = uuids.uuid4().hex[:8]
    urls = {name: server.create_schema(f"small_{mark}_{name}") for name in ("api", *_CELLS)}
    for name, url in urls.items():
        with contextlib.closing(Database(url)) as database:
            (api_db if name == "api" else cell_db).tables.metadata.create_all(database.engine)
    with contextlib.closing(Database(urls["api"])) as api:
        _fill(api, urls)
    return urls


def _files_below(folder: pathlib.Path) -> dict[str, str]:
    return {name: f"sqlite:///{folder}/{name}.sqlite" for name in ("api", *_CELLS)}


@functools.cache
def _filled() -> pathlib.Path:
    folder = empty_sqlite.new_folder()
    urls = _files_below(folder)
    for name, url in urls.items():
        empty_sqlite.make_tables(url, (api_db if name == "api" else cell_db).tables.metadata)
    with contextlib.closing(Database(urls["api"])) as api:
        _fill(api, urls)
    return folder


def _fill(api: Database, urls: Mapping[str, str]) -> None:
    with api.transaction() as connection:
        for name in _CELLS:
            api_db.cells.create(
                connection,
                name=name,
                database_connection=urls[name],
                transport_url="none://" if name == "cell0" else f"inproc://small-cloud-{name}",
                uuid=api_db.cells.CELL0_UUID if name == "cell0" else None,
            )
        for cell in ("east", "west"):
            api_db.hosts.insert(connection, [f"{cell}-1", f"{cell}-2"], api_db.cells.find(connection, cell).uuid)
        zone = api_db.aggregates.insert(connection, name="east", availability_zone="east")
        for host in ("east-1", "east-2"):
            api_db.aggregates.add_host(connection, zone.id, host)
        sizes: dict[str, dict[str, Any]] = {
            "small": {"memory_mib": 512, "vcpus": 1, "root_gib": 1},
            "diskless": {"memory_mib": 512, "vcpus": 1, "root_gib": 0},
            "wide": {"memory_mib": 512, "vcpus": 8, "root_gib": 1},
            "secret": {"memory_mib": 512, "vcpus": 1, "root_gib": 1, "is_public": False},
            "old": {"memory_mib": 512, "vcpus": 1, "root_gib": 1, "disabled": True},
            "greedy": {"memory_mib": 512, "vcpus": 1, "root_gib": 1},
            "otherworldly": {"memory_mib": 512, "vcpus": 1, "root_gib": 1},
        }
        for name, fields in sizes.items():
            api_db.flavors.insert(connection, flavor_id=name, name=f"m1.{name}", **fields)
        api_db.flavors.set_extra_specs(connection, "small", {"hw:cpu_policy": "shared"})
        # As older microversions and other clouds let them be.
        api_db.flavors.set_extra_specs(connection, "greedy", {"resources:VCPU": "many"})
        api_db.flavors.set_extra_specs(connection, "otherworldly", {"vmware:hw_version": "1"})
        api_db.keypairs.insert(
            connection,
            user_id=ALICE.user_id,
            name="laptop",
            kind="ssh",
            fingerprint="aa:bb",
            public_key="ssh-ed25519 AAAA",
            most=10,
        )


@contextlib.contextmanager
def small_cloud(folder: pathlib.Path, text: str = "", *, urls: Mapping[str, str] | None = None) -> Iterator[SmallCloud]:
    urls = urls or on_sqlite(folder)
    where = f"[api_database]\nconnection = {urls['api']}\n"
    # A cell's deadline is no test's here, and a machine that has other work would miss the usual one.
    conf = settings(
        folder, where + "[cells]\nrefresh_s = 3600\ndeadline_s = 20\n" + (text or "[api]\npassword_wait_s = 0\n")
    )
    cloud = Cloud(conf)
    cloud.images._http = Shelf()  # type: ignore[assignment]
    cloud.start()
    rules = [rule for resource in RESOURCES for rule in resource.POLICIES]
    try:
        with serving_tables(
            conf,
            [resource.ROUTES for resource in RESOURCES],
            rules=rules,
            strategy=Trusting(*PEOPLE),
            limits=_LIMITS,
            cloud=cloud,
        ) as ask:
            ask.judge = responses.what_is_wrong
            small = SmallCloud(folder, cloud, ask, urls)
            yield small
            for database in (small.api, *small.databases.values()):
                database.close()
    finally:
        cloud.stop()
