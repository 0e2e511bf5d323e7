"""Writes the files that a stack's processes and users read: settings, accounts, `clouds.yaml`.

Each process has a file of its own with what it may know and nothing else: an agent's holds no database, a cell's
nothing of the API level.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

import bcrypt
import yaml

from devstack import broker_users
from devstack.accounts import Accounts, write_private
from devstack.layout import BASIC, EMBEDDED, FULL, KEYSTONE, NONE, ONE_PROCESS, Shape, State
from devstack.services import keystone, keystone_content, libvirt

BCRYPT_ROUNDS = 8
API_WORKERS = {FULL: 2}
QUOTA = {"instances": 200, "cores": 400, "ram": 400 * 1024}
"""More than the API's own defaults, so that a stack can be given a load; still so little that a test can reach it."""

BUILDS: Mapping[str, Mapping[str, object]] = {"libvirt": {"build_slots": 2}}
"""Without KVM a guest that boots keeps a CPU busy: more at once would only make all of them late."""

USERS = {
    "admin": ("admin", "member", "reader"),
    "demo": ("member", "reader"),
}
"""The users of a stack and their roles; each has a project of the same name."""

Section = Mapping[str, object]
Sections = Mapping[str, Section]


@dataclasses.dataclass(frozen=True)
class Level:
    """Where the API level, or a cell, has its database and its broker. `transport` is the way of who owns it; `users`:
    those of others."""

    database: str
    transport: str
    users: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Addresses:
    """Where everything of a stack is found."""

    api: Level
    cell0: Level
    cells: Mapping[str, Level]
    placement: str
    image: str
    api_port: int
    identity: str | None = None
    """Keystone's Identity API v3, if the stack has one."""
    consoles: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """The port of each cell's console proxy, if its guests have consoles."""

    @property
    def compute(self) -> str:
        """What users give as the compute endpoint."""
        return f"http://127.0.0.1:{self.api_port}/v2.1"


def write(state: State, shape: Shape, addresses: Addresses) -> None:
    """Writes all of it; secrets stay what they were."""
    for name, sections in process_settings(state, shape, addresses).items():
        Path(str(sections["DEFAULT"]["state_path"])).mkdir(parents=True, exist_ok=True)
        write_private(state.config(name), _ini(sections))
    if shape.profile == EMBEDDED:
        write_private(
            state.config(ONE_PROCESS),
            _ini({"DEFAULT": _process(state, ONE_PROCESS, ONE_PROCESS, addresses.api.transport)}),
        )
    write_private(state.cellctl, _ini(_cellctl(state, addresses)))
    if shape.auth == BASIC:
        _write_users(state)
    _write_clouds(state, shape, addresses)


def process_settings(state: State, shape: Shape, addresses: Addresses) -> dict[str, Sections]:
    """The settings of every process, by its name."""
    settings = {"api": _api(state, shape, addresses), "super-conductor": _super_conductor(state, addresses)}
    for cell in shape.cell_names:
        settings[f"cell-conductor-{cell}"] = _cell_conductor(state, cell, addresses)
        if cell in addresses.consoles:
            settings[console_proxy_of(cell)] = _console_proxy(state, cell, addresses)
        for host in shape.hosts_of(cell):
            transport = addresses.cells[cell].users[broker_users.agent_of(host)]
            settings[f"compute-{host}"] = _compute(state, shape, host, transport, addresses)
    return settings


def console_proxy_of(cell: str) -> str:
    """The name of a cell's console proxy."""
    return f"console-proxy-{cell}"


def project_id(name: str) -> str:
    """The id of a stack's project; the same in every stack."""
    return hashlib.md5(f"cellplane-project-{name}".encode(), usedforsecurity=False).hexdigest()


def user_id(name: str) -> str:
    """The id of a stack's user; the same in every stack."""
    return hashlib.md5(f"cellplane-user-{name}".encode(), usedforsecurity=False).hexdigest()


def _process(state: State, name: str, host: str, transport: str) -> Section:
    return {
        "host": host,
        "state_path": state.path / "processes" / name,
        "transport_url": transport,
        "log_file": state.log(name),
        "log_rotation_type": "size",
        "max_logfile_size_mb": 20,
        "max_logfile_count": 3,
        "use_stderr": "false",
    }


def _placement(addresses: Addresses) -> Section:
    return {"endpoint": addresses.placement}


def _api(state: State, shape: Shape, addresses: Addresses) -> Sections:
    return {
        "DEFAULT": _process(state, "api", "api", addresses.api.transport),
        "api": {
            "listen_host": "127.0.0.1",
            "port": addresses.api_port,
            "workers": API_WORKERS.get(shape.profile, 1),
            "auth_strategy": shape.auth,
            **({"htpasswd_file": state.htpasswd, "users_file": state.users} if shape.auth == BASIC else {}),
        },
        **_keystone(state, addresses),
        "api_database": {"connection": addresses.api.database},
        "image": {"endpoint": addresses.image},
        "quota": QUOTA,
    }


def _keystone(state: State, addresses: Addresses) -> Sections:
    if addresses.identity is None:
        return {}
    return {
        "keystone_authtoken": {
            "auth_url": addresses.identity,
            "www_authenticate_uri": addresses.identity,
            "auth_type": "password",
            "username": keystone_content.SERVICE_USER,
            "password": Accounts(state.accounts).password(keystone_content.SERVICE_USER),
            "project_name": keystone_content.SERVICE_PROJECT,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }
    }


def _super_conductor(state: State, addresses: Addresses) -> Sections:
    return {
        "DEFAULT": _process(state, "super-conductor", "super-conductor", addresses.api.transport),
        "api_database": {"connection": addresses.api.database},
        "placement": _placement(addresses),
    }


def _cell_conductor(state: State, cell: str, addresses: Addresses) -> Sections:
    name = f"cell-conductor-{cell}"
    level = addresses.cells[cell]
    return {
        "DEFAULT": _process(state, name, name, level.transport),
        "database": {"connection": level.database},
        "placement": _placement(addresses),
        "image": {"endpoint": addresses.image},
    }


def _console_proxy(state: State, cell: str, addresses: Addresses) -> Sections:
    name = console_proxy_of(cell)
    level = addresses.cells[cell]
    return {
        "DEFAULT": _process(state, name, name, level.users[broker_users.console_proxy_of(cell)]),
        "database": {"connection": level.database},
        # Everything is on this machine: its guests' consoles are sockets below `run`, of whom the stack runs as.
        "console": {
            "listen_host": "127.0.0.1",
            "port": addresses.consoles[cell],
            "networks": "127.0.0.0/8",
            "paths": state.run,
        },
    }


def _compute(state: State, shape: Shape, host: str, transport: str, addresses: Addresses) -> Sections:
    own = state.hosts / host
    sections: dict[str, Section] = {
        "DEFAULT": {**_process(state, f"compute-{host}", host, transport), "state_path": own},
        "compute": {"driver": shape.driver, **BUILDS.get(shape.driver, {})},
        "simulated": {"path": own / "guests"},
        "image": {"endpoint": addresses.image},
    }
    real = libvirt.hosts(state, shape).get(host)
    if real is not None:
        sections["libvirt"] = libvirt.settings(real, shape)
    return sections


def _cellctl(state: State, addresses: Addresses) -> Sections:
    return {
        "DEFAULT": _process(state, "cellctl", "cellctl", addresses.api.transport),
        "api_database": {"connection": addresses.api.database},
        "placement": _placement(addresses),
    }


def _ini(sections: Sections) -> str:
    lines = []
    for name, section in sections.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {value}" for key, value in section.items()]
        lines.append("")
    return "\n".join(lines)


def _write_users(state: State) -> None:
    """Writes the accounts; an unchanged one keeps its line, so that the files change only when somebody does. Those of
    others stay."""
    accounts = Accounts(state.accounts)
    old = (
        dict(line.split(":", 1) for line in state.htpasswd.read_text().splitlines()) if state.htpasswd.exists() else {}
    )
    lines = old | {name: _htpasswd_hash(old.get(name), accounts.password(name)) for name in USERS}
    if lines != old:
        write_private(state.htpasswd, "".join(f"{name}:{line}\n" for name, line in lines.items()))
    theirs = yaml.safe_load(state.users.read_text()) if state.users.exists() else None
    users = (theirs or {}) | {
        name: {"user_id": user_id(name), "project_id": project_id(name), "project_name": name, "roles": list(roles)}
        for name, roles in USERS.items()
    }
    text = yaml.safe_dump(users, sort_keys=True)
    if not state.users.exists() or state.users.read_text() != text:
        write_private(state.users, text)


def _htpasswd_hash(old: str | None, password: str) -> str:
    if old is not None and bcrypt.checkpw(password.encode(), old.encode()):
        return old
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_ROUNDS)).decode()


def _write_clouds(state: State, shape: Shape, addresses: Addresses) -> None:
    accounts = Accounts(state.accounts)
    cloud = {BASIC: _basic_cloud, NONE: _open_cloud, KEYSTONE: _keystone_cloud}[shape.auth]
    clouds = {f"cellplane-{name}": cloud(name, accounts.password(name), addresses) for name in USERS}
    write_private(state.clouds, yaml.safe_dump({"clouds": clouds}, sort_keys=True))


def _keystone_cloud(user: str, password: str, addresses: Addresses) -> dict[str, object]:
    return {
        "auth_type": "v3password",
        "auth": {
            "auth_url": addresses.identity,
            "username": user,
            "password": password,
            "project_name": user,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        },
        "region_name": keystone.REGION,
        "identity_api_version": "3",
    }


def _basic_cloud(user: str, password: str, addresses: Addresses) -> dict[str, object]:
    return {
        "auth_type": "http_basic",
        "auth": {"endpoint": addresses.compute, "username": user, "password": password},
        **_without_catalog(addresses),
    }


def _open_cloud(user: str, password: str, addresses: Addresses) -> dict[str, object]:
    return {"auth_type": "none", "auth": {"endpoint": addresses.compute}, **_without_catalog(addresses)}


def _without_catalog(addresses: Addresses) -> dict[str, object]:
    """Where the services are, for a client that has no Keystone to ask."""
    return {
        "identity_api_version": "3",
        # The plugin answers every service with one endpoint; the client wants an identity service to exist, and asks it
        # nothing.
        "identity_endpoint_override": addresses.compute,
        "compute_endpoint_override": addresses.compute,
        "image_endpoint_override": addresses.image,
        # There is no volume service. The client asks every service for zones, takes the compute endpoint for all of
        # them, and lives with an address that answers and knows no zones.
        "block_storage_api_version": "3",
        "block_storage_endpoint_override": addresses.image,
    }
