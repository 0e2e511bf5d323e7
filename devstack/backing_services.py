"""The databases, brokers, Placement and image service of a stack: which there are, where, and as which programs."""

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from core import errors
from devstack import broker_users
from devstack.accounts import Accounts
from devstack.configure import Addresses, Level, console_proxy_of
from devstack.layout import FULL, KEYSTONE, Shape, State
from devstack.plan import Program
from devstack.ports import Ports, is_free
from devstack.services import keystone, libvirt
from devstack.services.keystone import Keystone
from devstack.services.mariadb import MariaDB
from devstack.services.placement import SCHEMA_COLLATION, Placement
from devstack.services.rabbitmq import PortMapper, RabbitMQ
from devstack.waiting import wait_until
from messaging import access, in_process

API = "api"
API_SCHEMA = "cellplane_api"
CELL0_SCHEMA = "cellplane_cell0"
PLACEMENT_SCHEMA = "placement"
KEYSTONE_SCHEMA = "keystone"

MAPPER_STAGE, SERVER_STAGE, BACKING_STAGE, CONDUCTOR_STAGE, AGENT_STAGE, API_STAGE = range(6)


def schema_of(cell: str) -> str:
    """The name of a cell's schema."""
    return f"cellplane_{cell}"


class Embedded:
    """SQLite files and brokers inside the one process."""

    def __init__(self, state: State, shape: Shape) -> None:
        self._state = state
        self._shape = shape
        self._ports = Ports(state.ports)
        self.placement = Placement(state.placement, database_url=f"sqlite:///{state.databases / 'placement.sqlite'}")
        self.keystone = _keystone(state, shape, self._ports, self._database("keystone"))

    def addresses(self) -> Addresses:
        """Where everything is."""
        return Addresses(
            api=Level(database=self._database("api"), transport=self._transport("api", "api")),
            cell0=Level(database=self._database("cell0"), transport="none:///"),
            cells={
                cell: Level(
                    self._database(cell), self._transport(cell, cell), _by_user(self._shape, cell, self._transport)
                )
                for cell in self._shape.cell_names
            },
            placement=self.placement.endpoint,
            image=f"http://127.0.0.1:{self._ports.of('image')}",
            api_port=self._shape.port,
            identity=self.keystone.url if self.keystone else None,
        )

    def open_brokers(self) -> None:
        """Tells the brokers of this process whom to let in."""
        self._let_in(API, [])
        for cell in self._shape.cell_names:
            self._let_in(cell, broker_users.of_cell(self._shape, cell))

    def _let_in(self, name: str, users: Sequence[access.User]) -> None:
        for user in (access.owner(name), *users):
            in_process.broker(name).let_in(user, self._password(user.name))

    def _transport(self, broker: str, user: str) -> str:
        return f"inproc://{quote(user, safe='')}:{self._password(user)}@{broker}"

    def _password(self, user: str) -> str:
        return Accounts(self._state.accounts).password(f"broker {user}")

    def programs(self) -> list[Program]:
        """What runs beside the one process."""
        return [_keystone_program(self._state, self.keystone)] if self.keystone else []

    def _database(self, name: str) -> str:
        return f"sqlite:///{self._state.databases / name}.sqlite"


class Full:
    """MariaDB servers, RabbitMQ nodes and Placement over HTTP; one of each, or with `isolate` one per level and
    cell."""

    def __init__(self, state: State, shape: Shape) -> None:
        self._state = state
        self._shape = shape
        self._ports = Ports(state.ports)
        owners = [API, *shape.cell_names] if shape.isolate else [API]
        self._mapper = PortMapper(state.run, self._ports.of("epmd"))
        self.servers = {self._name("mariadb", owner): self._server(owner) for owner in owners}
        self.nodes = {self._name("rabbitmq", owner): self._node(owner) for owner in owners}
        self._placement_port = self._ports.of("placement")
        self._hosts = libvirt.hosts(state, shape)
        self.keystone = _keystone(state, shape, self._ports, self._server_of(API).url(KEYSTONE_SCHEMA))

    @property
    def placement(self) -> Placement:
        """Placement, with its schema beside the API's."""
        return Placement(
            self._state.placement, database_url=self._server_of(API).url(PLACEMENT_SCHEMA), port=self._placement_port
        )

    def addresses(self) -> Addresses:
        """Where everything is; before the servers run as well."""
        server, node = self._server_of(API), self.node_of(API)
        return Addresses(
            api=Level(database=server.url(API_SCHEMA), transport=node.url(API)),
            cell0=Level(database=server.url(CELL0_SCHEMA), transport="none:///"),
            cells={
                cell: Level(
                    self._server_of(cell).url(schema_of(cell)),
                    self.node_of(cell).url(cell),
                    _by_user(self._shape, cell, self.node_of(cell).url),
                )
                for cell in self._shape.cell_names
            },
            placement=self.placement.endpoint,
            image=f"http://127.0.0.1:{self._ports.of('image')}",
            api_port=self._shape.port,
            identity=self.keystone.url if self.keystone else None,
            consoles={cell: self._ports.of(console_proxy_of(cell)) for cell in self._cells_with_consoles},
        )

    @property
    def _cells_with_consoles(self) -> tuple[str, ...]:
        """Simulated guests have none."""
        return self._shape.cell_names if self._shape.driver == libvirt.DRIVER else ()

    def initialise(self) -> None:
        """Data directories and settings of servers and nodes."""
        fresh = [server for server in self.servers.values() if not server.is_initialised]
        for server in self.servers.values():
            server.initialise(like=fresh[0] if server in fresh[1:] else None)
        for node in self.nodes.values():
            node.initialise()
        self.node_of(API).create_vhost(API)
        for cell in self._shape.cell_names:
            self.node_of(cell).create_vhost(cell, broker_users.of_cell(self._shape, cell))
        for host in self._hosts.values():
            host.prepare()

    def wait_for_servers(self) -> None:
        """Returns once every database server answers."""
        for server in self.servers.values():
            server.wait_ready()

    def create_schemas(self) -> None:
        """Makes what is missing in the running servers."""
        for schema in (API_SCHEMA, CELL0_SCHEMA):
            self._server_of(API).create_schema(schema)
        self._server_of(API).create_schema(PLACEMENT_SCHEMA, collation=SCHEMA_COLLATION)
        if self.keystone:
            self._server_of(API).create_schema(KEYSTONE_SCHEMA, collation=keystone.SCHEMA_COLLATION)
        for cell in self._shape.cell_names:
            self._server_of(cell).create_schema(schema_of(cell))

    def wait_for_nodes(self) -> None:
        """Returns once every broker answers."""
        for node in self.nodes.values():
            node.wait_ready()

    def server_programs(self) -> list[Program]:
        """Databases and brokers, and the hosts' hypervisors."""
        programs = [
            _program(self._state, "epmd", self._mapper.command(), {}, stage=MAPPER_STAGE, ready_port=self._mapper.port)
        ]
        for name, server in self.servers.items():
            programs.append(
                _program(
                    self._state,
                    name,
                    server.command(),
                    server.env(),
                    stage=SERVER_STAGE,
                    ready_port=server.port,
                    grace_s=30.0,
                )
            )
        for name, node in self.nodes.items():
            programs.append(
                _program(
                    self._state,
                    name,
                    node.command(),
                    node.env(),
                    stage=SERVER_STAGE,
                    ready_port=node.port,
                    grace_s=30.0,
                )
            )
        for name, host in self._hosts.items():
            programs.append(
                _program(
                    self._state,
                    f"namespaces-{name}",
                    host.namespaces_command(),
                    {},
                    stage=MAPPER_STAGE,
                    ready_port=None,
                )
            )
            programs.append(
                _program(
                    self._state,
                    f"libvirtd-{name}",
                    host.daemon_command(),
                    {},
                    stage=SERVER_STAGE,
                    ready_port=None,
                    files=host.files,
                )
            )
        return programs

    def other_programs(self) -> list[Program]:
        """Keystone if it is wanted, Placement, the image service and the processes of Cellplane."""
        image_port = self._ports.of("image")
        api_settings = self._state.config("api")
        image = [
            sys.executable, "-m", "devstack.services.images",
            "--directory", str(self._state.images), "--port", str(image_port), "--api-settings", str(api_settings),
        ]  # fmt: skip
        placement = _program(
            self._state,
            "placement",
            self.placement.command(),
            self.placement.env(),
            stage=BACKING_STAGE,
            ready_port=self.placement.port,
            files=[self.placement.settings],
        )
        return [
            *([_keystone_program(self._state, self.keystone)] if self.keystone else []),
            placement,
            dataclasses.replace(
                _program(
                    self._state, "image", image, {}, stage=BACKING_STAGE, ready_port=image_port, files=[api_settings]
                ),
                cwd=str(Path(__file__).parent.parent),
            ),
            *self._own_programs(),
        ]

    def _own_programs(self) -> Iterator[Program]:
        yield self._own("super-conductor", "cellplane-super-conductor", stage=CONDUCTOR_STAGE)
        for cell in self._shape.cell_names:
            yield self._own(f"cell-conductor-{cell}", "cellplane-cell-conductor", stage=CONDUCTOR_STAGE)
        for host in self._shape.all_hosts:
            yield self._own(f"compute-{host}", "cellplane-compute", stage=AGENT_STAGE)
        for cell in self._cells_with_consoles:
            name = console_proxy_of(cell)
            yield self._own(name, "cellplane-console-proxy", stage=AGENT_STAGE, ready_port=self._ports.of(name))
        api = self._own("api", "cellplane-api", stage=API_STAGE, ready_port=self._shape.port)
        yield dataclasses.replace(api, listen_port=self._shape.port)

    def _own(self, name: str, script: str, *, stage: int, ready_port: int | None = None) -> Program:
        settings = self._state.config(name)
        command = [sys.executable, str(Path(sys.executable).parent / script), "--config-file", str(settings)]
        program = _program(self._state, name, command, {}, stage=stage, ready_port=ready_port, files=[settings])
        return dataclasses.replace(program, output=str(self._state.output(name)))

    def _name(self, kind: str, owner: str) -> str:
        return f"{kind}-{owner}" if self._shape.isolate else kind

    def _server(self, owner: str) -> MariaDB:
        name = self._name("mariadb", owner)
        return MariaDB(self._state.path / name, self._ports.of(name))

    def _node(self, owner: str) -> RabbitMQ:
        name = self._name("rabbitmq", owner)
        return RabbitMQ(
            self._state.path / name,
            self._ports.of(name),
            distribution_port=self._ports.of(f"{name} distribution"),
            mapper_port=self._mapper.port,
            name=name,
        )

    def _server_of(self, owner: str) -> MariaDB:
        return self.servers[self._name("mariadb", owner)]

    def node_of(self, owner: str) -> RabbitMQ:
        """The broker of the API level or of a cell."""
        return self.nodes[self._name("rabbitmq", owner)]


def _keystone(state: State, shape: Shape, ports: Ports, database_url: str) -> Keystone | None:
    """The stack's Keystone, if it was asked for one."""
    if shape.auth != KEYSTONE:
        return None
    return Keystone(state.keystone, database_url=database_url, port=ports.of("keystone"))


def _keystone_program(state: State, service: Keystone) -> Program:
    return _program(
        state, "keystone", service.command(), service.env(), stage=BACKING_STAGE, ready_port=service.port,
        files=[service.settings, service.server_settings],
    )  # fmt: skip


def _program(
    state: State,
    name: str,
    command: list[str],
    env: dict[str, str],
    *,
    stage: int,
    ready_port: int | None,
    grace_s: float = 20.0,
    files: list[Path] | None = None,
) -> Program:
    digest = hashlib.sha256(repr((command, sorted(env.items()))).encode())
    for file in files or []:
        digest.update(file.read_bytes())
    return Program(
        name=name,
        command=command,
        env=env,
        cwd=str(state.path),
        output=str(state.log(name)),
        stage=stage,
        ready_port=ready_port,
        grace_s=grace_s,
        version=digest.hexdigest(),
    )


def _by_user(shape: Shape, cell: str, url: Callable[[str, str], str]) -> dict[str, str]:
    """user -> its own way to the cell's broker."""
    return {user.name: url(cell, user.name) for user in broker_users.of_cell(shape, cell)}


BackingServices = Embedded | Full


def of(state: State, shape: Shape) -> BackingServices:
    """The backing services of this profile."""
    return Full(state, shape) if shape.profile == FULL else Embedded(state, shape)


def require_port(port: int, *, patience_s: float = 0.0) -> None:
    """Makes sure that the API can listen.

    Args:
        patience_s: how long to wait for who listens now: workers of a killed API leave by themselves, a moment later.

    Raises:
        Conflict: someone else does.
    """
    try:
        wait_until(lambda: is_free(port), what=f"end of who listens on port {port}", deadline_s=patience_s)
    except errors.Unavailable as error:
        raise errors.Conflict(
            f"port {port} is taken by another process; stop that, or choose another one with --port", field="port"
        ) from error
