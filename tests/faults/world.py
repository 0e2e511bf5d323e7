"""A whole cloud inside the test's process, from the real parts: databases, brokers, Placement, conductors, agents.

It runs on SQLite and in-process brokers, or on MariaDB and RabbitMQ: whoever makes it hands in the URLs. Nothing here
knows of faults, but that its hypervisors refuse some servers by their names: see `PICKY` and `HOPELESS`.
"""

import asyncio
import dataclasses
import datetime
import pathlib
import time
import uuid as uuids
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg

import api_db.cells
import api_db.instances
import api_db.journal
import api_db.schema
import api_db.tables
import cell_db.schema
import cell_db.tables
import compute.main
import conductor.cell.main
import conductor.superconductor.main
import core.config
import core.errors
import devstack.services.placement
import messaging.verbs.compute
import messaging.verbs.superconductor as superconductor
from api_db.instances import LIVING, SOFT_DELETED
from cells.accept_build import accept_build_requests
from cells.delete_server import delete_server
from cells.gate.answers import value_of
from cells.gate.gate import Gate
from cells.gate.registry import Cells, api_gate
from cells.soft_delete import restore_server, soft_delete_server
from clients.glance import Images
from clients.placement import Placement, connect
from compute.deadline import Deadline
from compute.simulated.driver.hypervisor import SimulatedHypervisor
from compute.simulated.fault_injection import turn
from compute.simulated.guests import GuestFiles
from core.clock import Clock, utcnow
from core.context import Context, new_request_id
from core.crash_points import CrashPoints
from database.engine import Database
from database.migrations import sync
from database.types import now_sql
from devstack.ports import free_port
from devstack.services.images import ImageEndpoint
from lifecycle import states
from messaging import access
from messaging.broker import Broker
from objects.build import BuildSpec, Flavor, Guest
from objects.build_request import BuildRequest, RequestSpec

DEADLINE_S = 60.0
FLAVOR = Flavor(flavor_id="tiny", name="m1.tiny", vcpus=1, memory_mib=64, root_gib=1)
PICKY = "picky"
"""Servers whose names begin so are refused by the first host that gets them."""
HOPELESS = "hopeless"
"""Servers whose names begin so are refused by every host."""
SLOW = "slow"
"""Servers whose names begin so take `SLOW_S` to spawn."""
SLOW_S = 0.3
CLUMSY = "clumsy"
"""Servers whose names begin so run, and every operation on them fails."""
CONDUCTOR = {"service_down_time_s": 5, "sweep_s": 0.1, "claim_sweep_s": 1, "reclaim_sweep_s": 0.2}
"""The settings of every conductor, unless a test asks for others."""
RECLAIM_S = 3600
UNLIMITED = {"instances": -1, "cores": -1, "ram": -1, "server_groups": -1, "server_group_members": -1}
USER = Context(user_id="u", project_id="p", roles=("member", "reader"), request_id=new_request_id())


@dataclasses.dataclass(frozen=True)
class Addresses:
    """Where the world's databases and brokers are: `api`, `cell0` and one for each cell."""

    databases: dict[str, str]
    brokers: dict[str, str]
    placement_database: str
    passwords: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Of the hosts' users, where the brokers ask for them."""

    @classmethod
    def embedded(cls, folder: pathlib.Path, cells: Sequence[str]) -> "Addresses":
        """SQLite files in the folder, brokers in the process."""
        names = ("api", "cell0", *cells)
        return cls(
            {name: f"sqlite:///{folder}/{name}.sqlite" for name in names},
            {name: f"inproc://{folder.name}-{uuids.uuid4()}-{name}" for name in names if name != "cell0"},
            f"sqlite:///{folder}/placement.sqlite",
        )


    def of_host(self, host: str, url: str) -> str:
        """The URL as the host's agent has it: with its own user."""
        scheme, _, rest = url.partition("://")
        user = access.host(host).name
        return f"{scheme}://{user}:{self.passwords.get(user, '')}@{rest.rpartition('@')[2]}"


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """The first true value of the condition; fails when it does not become true in time."""
    ends = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > ends:
            raise AssertionError(f"not within {deadline_s:g} s: {what}")
        time.sleep(0.02)  # between two looks at a condition that another thread makes true


class PickyHypervisor(SimulatedHypervisor):
    """A simulated hypervisor that refuses the first attempt of some servers."""

    def __init__(self, directory: pathlib.Path, **settings: Any) -> None:
        super().__init__(directory, **settings)
        self._spawn = self.guests.spawn
        self.guests.spawn = self._refuse_or_spawn  # type: ignore[method-assign]

    def _refuse_or_spawn(
        self, spec: BuildSpec, attempt: int, *, image: pathlib.Path | None, deadline: Deadline
    ) -> Guest:
        if attempt == 1 and spec.name.startswith(PICKY):
            raise core.errors.Conflict("not this one, not here", server=spec.uuid)
        return self._spawn(spec, attempt, image=image, deadline=deadline)


def driver_of(kind: type[SimulatedHypervisor], conf: cfg.ConfigOpts) -> SimulatedHypervisor:
    """A simulated driver as the settings describe it."""
    settings = conf.simulated
    root = pathlib.Path(settings.path) / conf.host
    return kind(root, vcpus=settings.vcpus, memory_mib=settings.memory_mib, disk_gib=settings.disk_gib)


class World:
    """The cloud. `start_all` runs every program; tests that want to step them one by one start them themselves."""

    def __init__(
        self,
        folder: pathlib.Path,
        cells: Sequence[str] = ("east", "west"),
        hosts: int = 2,
        *,
        at: Addresses | None = None,
    ) -> None:
        self.folder = folder
        self.at = at or Addresses.embedded(folder, cells)
        self.cell_names = tuple(cells)
        self.hosts = {cell: [f"{cell}-{number}" for number in range(1, hosts + 1)] for cell in cells}
        self.settings: dict[str, dict[str, Any]] = {}
        self.programs: dict[str, Any] = {}
        self.databases = {name: Database(url, pool_size=5, io_timeout_s=20) for name, url in self.at.databases.items()}
        self._make_schemas()
        self._write_placement()
        self.conf = self.configure("test", conductor.superconductor.main.options(), self._api_level("test"))
        self.api_db: Gate = api_gate(self.conf)
        self._map_cells()
        self.cells = Cells(self.conf, self.api_db)
        self.cells.refresh()
        self.placement: Placement = connect(self.conf)
        self.brokers = {name: Broker(url) for name, url in self.at.brokers.items()}
        self._faults()
        self._image_port = free_port()
        self.image_endpoint = ImageEndpoint(folder / "images", self._image_port)
        self.image_endpoint.start()
        self.images = Images(f"http://127.0.0.1:{self._image_port}", timeout_s=20)

    # ---- making it ---------------------------------------------------------------------------------------------------

    def _make_schemas(self) -> None:
        for name, database in self.databases.items():
            sync(api_db.schema.SCHEMA if name == "api" else cell_db.schema.SCHEMA, database)

    def _write_placement(self) -> None:
        placement = devstack.services.placement.Placement(
            self.folder / "placement", database_url=self.at.placement_database
        )
        placement.configure()
        placement.sync()
        self.placement_endpoint = placement.endpoint

    def _map_cells(self) -> None:
        with self.databases["api"].transaction() as connection:
            if api_db.cells.list_all(connection):
                return
            api_db.cells.create(
                connection, name="cell0", uuid=api_db.cells.CELL0_UUID, database_connection=self.at.databases["cell0"],
                transport_url=api_db.cells.CELL0_TRANSPORT,
            )  # fmt: skip
            for name in self.cell_names:
                api_db.cells.create(
                    connection,
                    name=name,
                    database_connection=self.at.databases[name],
                    transport_url=self.at.brokers[name],
                )

    def _faults(self) -> None:
        for hosts in self.hosts.values():
            for host in hosts:
                servers = {f"{SLOW}*": {"spawn_s": SLOW_S}, f"{HOPELESS}*": {"refuse": "no host likes this one"}}
                servers |= {f"{CLUMSY}*": {"act_error": "the host is clumsy"}}
                turn(self.folder / "guests" / host, servers=servers)

    def configure(self, name: str, groups: Sequence[core.config.OptionGroup], text: str) -> cfg.ConfigOpts:
        """The settings of one program, from a file of its own."""
        path = self.folder / f"{name}.conf"
        path.write_text(text)
        return core.config.load(name, ["--config-file", str(path)], groups)

    def _api_level(self, host: str) -> str:
        return f"""
[DEFAULT]
host = {host}
transport_url = {self.at.brokers["api"]}
reclaim_instance_interval = {RECLAIM_S}
[api_database]
connection = {self.at.databases["api"]}
[cells]
deadline_s = 5
[placement]
endpoint = {self.placement_endpoint}
timeout_s = 20
[conductor]
"""

    # ---- its programs ------------------------------------------------------------------------------------------------

    def super_conductor(
        self, name: str = "super", steps: CrashPoints | None = None, clock: Clock | None = None, **settings: float
    ) -> Any:
        """A super-conductor that is not started; `settings` of its group `conductor`."""
        text = self._api_level(name) + _lines({**CONDUCTOR, **settings})
        conf = self.configure(name, conductor.superconductor.main.options(), text)
        return conductor.superconductor.main.SuperConductor(conf, steps=steps, clock=clock)

    def cell_conductor(
        self, cell: str, steps: CrashPoints | None = None, name: str = "", clock: Clock | None = None, **settings: float
    ) -> Any:
        """A conductor of the cell that is not started; `settings` of its group `conductor`."""
        name = name or f"conductor-{cell}"
        text = f"""
[DEFAULT]
host = {name}
transport_url = {self.at.brokers[cell]}
[database]
connection = {self.at.databases[cell]}
[placement]
endpoint = {self.placement_endpoint}
timeout_s = 20
[image]
endpoint = http://127.0.0.1:{self._image_port}
timeout_s = 20
[conductor]
{_lines({**CONDUCTOR, **settings})}"""
        conf = self.configure(name, conductor.cell.main.options(), text)
        return conductor.cell.main.CellConductor(conf, steps=steps, clock=clock)

    def agent(
        self, cell: str, host: str, steps: CrashPoints | None = None, *,
        kind: type[SimulatedHypervisor] = PickyHypervisor, broker: str = "", **settings: float,
    ) -> Any:  # fmt: skip
        """A host's agent that is not started; `settings` of its group `compute`. `broker`: the cell's own unless
        another URL leads there."""
        text = f"""
[DEFAULT]
host = {host}
state_path = {self.folder}/{host}
transport_url = {self.at.of_host(host, broker or self.at.brokers[cell])}
[compute]
{_lines({"report_interval_s": 0.5, **settings})}[image]
endpoint = http://127.0.0.1:{self._image_port}
[simulated]
path = {self.folder}/guests
vcpus = 16
memory_mib = 16384
disk_gib = 500
"""
        conf = self.configure(f"compute-{host}", compute.main.options(), text)
        return compute.main.Agent(conf, steps=steps, hypervisor=driver_of(kind, conf))

    def start(self, name: str, program: Any) -> Any:
        """Starts a program; it is stopped with the world."""
        program.start()
        self.programs[name] = program
        return program

    def start_all(self) -> None:
        """Every program; returns when every host may be chosen."""
        for cell in self.cell_names:
            self.start(f"cell-conductor-{cell}", self.cell_conductor(cell))
            for host in self.hosts[cell]:
                self.start(f"compute-{host}", self.agent(cell, host))
        running = self.start("super", self.super_conductor())
        every = {host for hosts in self.hosts.values() for host in hosts}
        wait_until(
            lambda: {host.host for host in running.view.snapshot() if host.up} == every, "every host is up in the view"
        )

    def end(self, name: str, timeout_s: float = 5.0) -> None:
        """Stops one program."""
        self.programs.pop(name).stop(timeout_s)

    def stop(self) -> None:
        """Stops what runs, in reverse order."""
        while self.programs:
            self.end(next(reversed(self.programs)))
        self.images.close()
        self.image_endpoint.stop()
        self.cells.stop()
        self.api_db.close()
        self.placement.close()
        for broker in self.brokers.values():
            broker.close()
        for database in self.databases.values():
            database.close()

    # ---- what users do -----------------------------------------------------------------------------------------------

    def accept(
        self, *names: str, zone: str | None = None, host: str | None = None, project: str = "p",
        group: str | None = None, hint: bool = True, asleep: bool = False, same_host: Sequence[str] = (),
        different_host: Sequence[str] = (),
    ) -> list[str]:  # fmt: skip
        """Orders servers as the API does: step api.accept, then the hint. Gives their uuids.

        `asleep`: nobody takes them up before their leases are made to end.
        """
        request = RequestSpec(
            project_id=project, user_id="u", availability_zone=zone, host=host, server_group=group,
            same_host=list(same_host), different_host=list(different_host),
        )  # fmt: skip
        orders = [_order(project, name) for name in names or ("server",)]
        with self.databases["api"].transaction() as connection:
            api_db.journal.accept(
                connection, request=request, request_uuid=str(uuids.uuid4()), requested=orders,
                quota_defaults=UNLIMITED, not_after=datetime.timedelta(minutes=10),
            )  # fmt: skip
            accepted = [order.uuid for order in orders]
            if asleep:
                journal = api_db.tables.build_requests
                connection.execute(
                    sa.update(journal).where(journal.c.uuid.in_(accepted)).values(lease_until=now_sql(3600.0))
                )
        if hint and not asleep:
            self.hint(accepted)
        return accepted

    @staticmethod
    def orders(*names: str, project: str = "p") -> list[BuildRequest]:
        """What a request for these servers is made into before it is accepted."""
        return [_order(project, name) for name in names]

    def create(
        self, orders: Sequence[BuildRequest], steps: CrashPoints | None = None, *, quota: Mapping[str, int] = UNLIMITED
    ) -> None:
        """Accepts servers by what a request to the API does; its errors are those of the request."""
        build = orders[0].build
        request = RequestSpec(project_id=build.project_id, user_id=build.user_id)
        accepting = accept_build_requests(
            self, USER, steps or CrashPoints(), request=request, request_uuid=str(uuids.uuid4()), build_requests=orders,
            quota_defaults=quota, not_after=datetime.timedelta(minutes=10),
        )  # fmt: skip
        asyncio.run(accepting)

    def hint(self, wanted: Sequence[str]) -> None:
        """Tells the super-conductor of new orders, as the API does after its commit."""
        self.api_db.hint(superconductor.QUEUE, superconductor.PLACE, superconductor.Place(uuids=list(wanted)), USER)

    def delete(self, uuid: str, steps: CrashPoints | None = None) -> None:
        """Deletes a server for good as the API does."""
        mapping = value_of(self.api_db.read_now(api_db.instances.get, uuid))
        asyncio.run(delete_server(self, USER, mapping, steps or CrashPoints(), was=(LIVING, SOFT_DELETED)))

    def soft_delete(self, uuid: str, steps: CrashPoints | None = None) -> None:
        """Deletes a server as the API does where it can be restored for a while."""
        mapping = value_of(self.api_db.read_now(api_db.instances.get, uuid))
        asyncio.run(soft_delete_server(self, _user(), mapping, steps or CrashPoints()))

    def restore(self, uuid: str, steps: CrashPoints | None = None) -> None:
        """Restores a server as the API does."""
        mapping = value_of(self.api_db.read_now(api_db.instances.get, uuid))
        asyncio.run(restore_server(self, _user(), mapping, steps or CrashPoints(), quota_defaults=UNLIMITED))

    def let_reclaim_begin(self, uuid: str) -> None:
        """The server can be restored no longer, as if hours had passed."""
        mappings = api_db.tables.instance_mappings
        past = sa.update(mappings).where(mappings.c.uuid == uuid).values(soft_deleted_at=now_sql(-2.0 * RECLAIM_S))
        with self.databases["api"].transaction() as connection:
            connection.execute(past)

    # ---- what can be seen --------------------------------------------------------------------------------------------

    def rows(self, where: str, table: sa.Table) -> list[sa.Row[Any]]:
        """Every row of a table of one database."""
        with self.databases[where].reading() as connection:
            return list(connection.execute(sa.select(table)).all())

    def instances(self) -> dict[str, tuple[str, sa.Row[Any]]]:
        """uuid -> (cell, row), of cell0 and all cells; fails if a server has live rows in two."""
        by_uuid: dict[str, tuple[str, sa.Row[Any]]] = {}
        for cell in ("cell0", *self.cell_names):
            for row in self.rows(cell, cell_db.tables.instances):
                assert row.uuid not in by_uuid, f"{row.uuid} is in {by_uuid[row.uuid][0]} and in {cell}"
                by_uuid[row.uuid] = (cell, row)
        return by_uuid

    def guests(self) -> list[tuple[str, str, int]]:
        """(host, uuid, attempt) of every guest on every host."""
        return [
            (host, guest.uuid, guest.attempt)
            for hosts in self.hosts.values()
            for host in hosts
            for guest in _simulated_guests(self.folder / "guests" / host / "guests")
        ]

    def running_guests(self) -> set[str]:
        """Of every guest on every host those that are not off."""
        folders = [self.folder / "guests" / host / "guests" for hosts in self.hosts.values() for host in hosts]
        guests = (guest for folder in folders for guest in _simulated_guests(folder))
        return {guest.uuid for guest in guests if guest.power_state != states.SHUTDOWN}

    def claims(self) -> dict[str, str]:
        """uuid -> node of every claim in Placement; fails if a server has claims on two."""
        nodes: dict[str, str] = {}
        for provider in self.placement.providers([]):
            for uuid in self.placement.claims_on_provider(provider.uuid):
                assert uuid not in nodes, f"{uuid} has claims on two nodes"
                nodes[uuid] = provider.uuid
        return nodes

    def messages(self) -> dict[str, int]:
        """Queue -> messages that wait in it: hints, orders and dead letters; heartbeats come and go in `reports`."""
        names = {"api": ["conductor"]} | {
            cell: ["conductor", "dead_letters", *(messaging.verbs.compute.queue(host) for host in hosts)]
            for cell, hosts in self.hosts.items()
        }
        counts = {
            f"{where} {queue}": self.brokers[where].waiting(queue)
            for where, queues in names.items()
            for queue in queues
        }
        return {queue: number for queue, number in counts.items() if number}

    def wait_for(self, wanted: Sequence[str], state: str, deadline_s: float = DEADLINE_S) -> None:
        """Waits until all these servers are in the protocol's state."""
        wait_until(
            lambda: all(self.state_of(uuid) == state for uuid in wanted),
            f"{len(wanted)} servers in {state}",
            deadline_s,
        )

    def state_of(self, uuid: str) -> str | None:
        """The protocol's state of a server; None: no cell has a row."""
        for cell in ("cell0", *self.cell_names):
            with self.databases[cell].reading() as connection:
                table = cell_db.tables.instances
                state = connection.execute(sa.select(table.c.state).where(table.c.uuid == uuid)).scalar()
            if state is not None:
                return str(state)
        return None


def _user() -> Context:
    """The user with another request."""
    return dataclasses.replace(USER, request_id=new_request_id())


def _order(project: str, name: str) -> BuildRequest:
    build = BuildSpec(uuid=str(uuids.uuid4()), project_id=project, user_id="u", name=name, hostname=name, flavor=FLAVOR)
    return BuildRequest(build=build, request_id=new_request_id(), created_at=utcnow())


def _lines(settings: Mapping[str, float]) -> str:
    return "".join(f"{name} = {value}\n" for name, value in settings.items())


def _simulated_guests(folder: pathlib.Path) -> list[Any]:
    return GuestFiles(folder).all() if folder.is_dir() else []
