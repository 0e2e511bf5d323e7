"""What each process is told, and what it is not: agents no database, cells nothing of the API level."""

import configparser
import stat
import urllib.parse
from pathlib import Path

import bcrypt
import pytest
import yaml

from devstack import backing_services, configure
from devstack.accounts import Accounts
from devstack.layout import EMBEDDED, FULL, Shape, State

SHAPES = [
    Shape(profile=EMBEDDED, cells=3),
    pytest.param(Shape(profile=FULL, cells=3), marks=[pytest.mark.mariadb, pytest.mark.rabbitmq]),
    pytest.param(Shape(profile=FULL, cells=3, isolate=True), marks=[pytest.mark.mariadb, pytest.mark.rabbitmq]),
]


@pytest.fixture(params=SHAPES, ids=["embedded", "full", "isolated"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> "Written":
    return Written(tmp_path / "state", request.param)


class Written:
    """The files of a stack that was configured and not started."""

    def __init__(self, path: Path, shape: Shape) -> None:
        self.state = State(path)
        self.state.prepare()
        self.shape = shape
        self.addresses = backing_services.of(self.state, shape).addresses()
        self.write()

    def write(self) -> None:
        configure.write(self.state, self.shape, self.addresses)

    def text(self, name: str) -> str:
        return self.state.config(name).read_text()

    def options(self, name: str) -> dict[str, str]:
        parser = configparser.ConfigParser(interpolation=None, default_section="none of ours")
        parser.read(self.state.config(name))
        return {f"{section}.{key}": value for section in parser.sections() for key, value in parser[section].items()}


def test_an_agent_holds_no_database(written: Written) -> None:
    for host in written.shape.all_hosts:
        options = written.options(f"compute-{host}")

        assert not [name for name in options if "database" in name or "placement" in name]
        assert not [value for value in options.values() if "sqlite" in value or "mysql" in value]


def test_an_agent_knows_the_broker_of_its_cell_and_no_other(written: Written) -> None:
    for cell in written.shape.cell_names:
        for host in written.shape.hosts_of(cell):
            assert _transports(written.options(f"compute-{host}")) == {
                written.addresses.cells[cell].users[f"compute.{host}"]
            }


def test_no_two_agents_share_an_account_at_the_broker_nor_one_with_anybody_else(written: Written) -> None:
    transports = [_transports(written.options(f"compute-{host}")) for host in written.shape.all_hosts]
    others = [written.addresses.api.transport, *(level.transport for level in written.addresses.cells.values())]
    guests = [
        level.users[f"{who}.{cell}"] for cell, level in written.addresses.cells.items() for who in ("api", "console")
    ]

    every = [*(one for transport in transports for one in transport), *others, *guests]
    assert len(set(every)) == len(every) == len(written.shape.all_hosts) + len(others) + len(guests)
    assert len({urllib.parse.urlsplit(url).password for url in every}) == len(every)


def test_a_cells_conductor_holds_nothing_of_the_api_level_nor_of_other_cells(written: Written) -> None:
    api = written.addresses.api
    for cell in written.shape.cell_names:
        text = written.text(f"cell-conductor-{cell}")
        foreign = [written.addresses.cells[other] for other in written.shape.cell_names if other != cell]

        assert "api_database" not in text
        assert written.addresses.cells[cell].database in text
        for level in (api, written.addresses.cell0, *foreign):
            assert level.database not in text
            assert f"{level.transport}\n" not in text


def test_levels_share_no_account(written: Written) -> None:
    levels = [written.addresses.api, written.addresses.cell0, *written.addresses.cells.values()]

    assert len({level.database for level in levels}) == len(levels)
    assert len({level.transport for level in levels}) == len(levels)


def test_secrets_are_their_owners_alone(written: Written) -> None:
    for path in (*written.state.etc.iterdir(), written.state.cellctl, written.state.clouds, written.state.accounts):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_writing_again_changes_nothing(written: Written) -> None:
    files = [*written.state.etc.iterdir(), written.state.cellctl, written.state.clouds, written.state.accounts]
    before = {path: path.read_text() for path in files}

    written.write()

    assert {path: path.read_text() for path in files} == before


def test_the_clouds_file_names_users_whose_passwords_the_api_takes(written: Written) -> None:
    clouds = yaml.safe_load(written.state.clouds.read_text())["clouds"]
    hashes = dict(line.split(":", 1) for line in written.state.htpasswd.read_text().splitlines())
    users = yaml.safe_load(written.state.users.read_text())

    assert set(clouds) == {"cellplane-admin", "cellplane-demo"}
    for cloud in clouds.values():
        name = cloud["auth"]["username"]
        assert cloud["auth_type"] == "http_basic"
        assert bcrypt.checkpw(cloud["auth"]["password"].encode(), hashes[name].encode())
        assert len(users[name]["project_id"]) == 32
    assert "admin" in users["admin"]["roles"]
    assert "admin" not in users["demo"]["roles"]
    assert users["admin"]["project_id"] != users["demo"]["project_id"]


def test_users_that_were_added_stay(written: Written) -> None:
    added = "eve:$2b$04$abcdefghijklmnopqrstuuBCDEFGHIJKLMNOPQRSTUVWXYZabcdefg"
    written.state.htpasswd.write_text(written.state.htpasswd.read_text() + added + "\n")
    users = yaml.safe_load(written.state.users.read_text()) | {
        "eve": {"user_id": "e", "project_id": "p", "roles": ["reader"]}
    }
    written.state.users.write_text(yaml.safe_dump(users))

    written.write()

    assert added in written.state.htpasswd.read_text().splitlines()
    assert yaml.safe_load(written.state.users.read_text()) == users


def test_with_keystone_the_clouds_file_names_its_users_and_the_api_has_an_account_of_its_own(tmp_path: Path) -> None:
    written = Written(tmp_path / "state", Shape(auth="keystone"))
    clouds = yaml.safe_load(written.state.clouds.read_text())["clouds"]
    accounts, options = Accounts(written.state.accounts), written.options("api")

    assert set(clouds) == {"cellplane-admin", "cellplane-demo"}
    for name in ("admin", "demo"):
        cloud = clouds[f"cellplane-{name}"]
        assert cloud["auth_type"] == "v3password"
        assert cloud["auth"]["auth_url"] == written.addresses.identity == options["keystone_authtoken.auth_url"]
        assert (cloud["auth"]["username"], cloud["auth"]["project_name"]) == (name, name)
        assert cloud["auth"]["password"] == accounts.password(name)
        assert not [key for key in cloud if key.endswith("_override")]  # the catalog says where everything is
    assert options["api.auth_strategy"] == "keystone"
    assert options["keystone_authtoken.password"] == accounts.password("cellplane")
    assert len({accounts.password(name) for name in ("admin", "demo", "cellplane")}) == 3
    assert not written.state.htpasswd.exists()
    for process in ("super-conductor", "cell-conductor-east", "compute-east-1"):
        assert "keystone_authtoken" not in written.text(process)
        assert accounts.password("cellplane") not in written.text(process)


def test_without_auth_the_clouds_file_holds_no_password(tmp_path: Path) -> None:
    written = Written(tmp_path / "state", Shape(auth="none"))
    clouds = yaml.safe_load(written.state.clouds.read_text())["clouds"]

    assert {cloud["auth_type"] for cloud in clouds.values()} == {"none"}
    assert "password" not in written.state.clouds.read_text()
    assert written.options("api")["api.auth_strategy"] == "none"


def test_passwords_outlive_a_run(tmp_path: Path) -> None:
    first = Accounts(tmp_path / "accounts.json").password("demo")

    assert Accounts(tmp_path / "accounts.json").password("demo") == first
    assert Accounts(tmp_path / "accounts.json").password("admin") != first


@pytest.mark.mariadb
@pytest.mark.rabbitmq
@pytest.mark.parametrize(
    ("isolate", "names"),
    [
        (False, ["mariadb", "rabbitmq"]),
        (True, ["mariadb-api", "mariadb-east", "mariadb-west", "rabbitmq-api", "rabbitmq-east", "rabbitmq-west"]),
    ],
)
def test_servers_and_nodes_are_shared_or_one_for_each_cell(isolate: bool, names: list[str], tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.prepare()

    full = backing_services.Full(state, Shape(profile=FULL, isolate=isolate))

    assert sorted([*full.servers, *full.nodes]) == names


def _transports(options: dict[str, str]) -> set[str]:
    return {value for value in options.values() if value.startswith(("amqp", "inproc"))}
