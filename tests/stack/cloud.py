"""A running stack as its users and its operators reach it."""

import configparser
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openstack
import requests
import requests.auth
import sqlalchemy as sa

import api_db.tables
import cell_db.tables
from database.engine import Database
from devstack.accounts import Accounts
from devstack.api_client import ApiClient
from devstack.background import REPOSITORY
from devstack.layout import KEYSTONE, Shape, State
from devstack.ports import Ports, free_port
from devstack.supervisor import Control
from devstack.token_auth import TokenAuth
from lifecycle.states import BUILD_DELETED
from tests.stack.client import Client

START_DEADLINE_S = 280.0
STOP_DEADLINE_S = 120.0
PROGRAM = "openstack"


class Cloud:
    """One stack that stack.sh brought up."""

    def __init__(self, state: State) -> None:
        shape = state.shape()
        assert shape is not None
        self.state = state
        self.shape: Shape = shape
        self.control = Control(state)
        self.compute = f"http://127.0.0.1:{shape.port}/v2.1"
        self.image = f"http://127.0.0.1:{Ports(state.ports).of('image')}"
        self.identity = f"http://127.0.0.1:{Ports(state.ports).of('keystone')}/v3" if shape.auth == KEYSTONE else None
        self._clients: dict[str, Client] = {}

    def api(self, user: str) -> ApiClient:
        """The stack's own small client, with a connection of its own."""
        return ApiClient(
            self.compute, image=self.image, user=user, password=self.password(user), identity=self.identity
        )

    def auth(self, user: str) -> requests.auth.AuthBase:
        """How this user's own requests show who it is."""
        password = self.password(user)
        return (
            TokenAuth(self.identity, user=user, password=password)
            if self.identity
            else requests.auth.HTTPBasicAuth(user, password)
        )

    def password(self, user: str) -> str:
        """What the stack chose for this user."""
        return Accounts(self.state.accounts).password(user)

    def client(self, user: str) -> Client:
        """The `openstack` client of this user, started at the first call."""
        if user not in self._clients:
            self._clients[user] = Client(f"cellplane-{user}", self.environment())
        return self._clients[user]

    def sdk(self, user: str) -> openstack.connection.Connection:
        """openstacksdk with the stack's clouds.yaml."""
        config = openstack.config.OpenStackConfig(config_files=[str(self.state.clouds)], load_envvars=False)
        return openstack.connection.Connection(config=config.get_one(cloud=f"cellplane-{user}"))

    def environment(self) -> dict[str, str]:
        """What a user exports to reach this cloud."""
        return {"OS_CLIENT_CONFIG_FILE": str(self.state.clouds)}

    def command(self, user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One call of the program itself, exactly as documented."""
        program = str(Path(sys.executable).parent / PROGRAM)
        return subprocess.run(
            [program, "--os-cloud", f"cellplane-{user}", *arguments],
            env={**os.environ, **self.environment()}, capture_output=True, text=True, timeout=60,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    # ---- what no user sees -------------------------------------------------------------------------------------------

    def rows(self, where: str, table: sa.Table) -> list[sa.Row[Any]]:
        """Every row of a table of the database of `api` or of a cell."""
        name, section = (
            ("super-conductor", "api_database") if where == "api" else (f"cell-conductor-{where}", "database")
        )
        database = Database(self._setting(name, section, "connection"), pool_size=1)
        try:
            with database.reading() as connection:
                return list(connection.execute(sa.select(table)))
        finally:
            database.close()

    def claims(self) -> set[str]:
        """Who holds anything at any host, as Placement tells over HTTP."""
        endpoint = self._setting("super-conductor", "placement", "endpoint")

        def ask(path: str) -> Any:
            answer = requests.get(endpoint + path, headers={"X-Auth-Token": "admin"}, timeout=30)
            answer.raise_for_status()
            return answer.json()

        providers = ask("/resource_providers")["resource_providers"]
        return {
            consumer
            for provider in providers
            for consumer in ask(f"/resource_providers/{provider['uuid']}/allocations")["allocations"]
        }

    def leftovers(self, uuids: set[str]) -> dict[str, set[str]]:
        """Which of these servers still have a claim, a row in the journal, a cleanup, or a row in a cell."""
        uuids_by_place = {"claims": self.claims(), "journal": self.journal()}
        for cell in self.shape.cell_names:
            uuids_by_place[f"cleanups of {cell}"] = {row.uuid for row in self.rows(cell, cell_db.tables.cleanups)}
            uuids_by_place[f"instances of {cell}"] = self.held(cell)
        return {where: held & uuids for where, held in uuids_by_place.items() if held & uuids}

    def journal(self) -> set[str]:
        """The servers that no cell owns yet, or whose delete no cell holds yet."""
        return {row.uuid for row in self.rows("api", api_db.tables.build_requests)}

    def held(self, cell: str) -> set[str]:
        """The servers that a cell's database holds and that are not gone."""
        return {row.uuid for row in self.rows(cell, cell_db.tables.instances) if row.state != BUILD_DELETED}

    def _setting(self, process: str, section: str, option: str) -> str:
        settings = configparser.ConfigParser(interpolation=None)
        settings.read(self.state.config(process))
        return settings[section][option]

    def close(self) -> None:
        """Ends the clients."""
        for client in self._clients.values():
            client.close()


@contextlib.contextmanager
def running(path: Path, *options: str) -> Iterator[Cloud]:
    """A stack of its own in this directory, removed afterwards."""
    state = State(path)
    try:
        _run("stack.sh", path, START_DEADLINE_S, "--port", str(free_port()), *options)
        with contextlib.closing(Cloud(state)) as cloud:
            yield cloud
    finally:
        _run("unstack.sh", path, STOP_DEADLINE_S, "--purge")


def _run(script: str, path: Path, deadline_s: float, *options: str) -> None:
    environment = {**os.environ, "CELLPLANE_STATE": str(path)}
    if sys.prefix != sys.base_prefix:
        environment["CELLPLANE_VENV"] = sys.prefix
    log = path.with_name(f"{path.name}-{script}.log")
    with log.open("wb") as output:
        # Output goes to a file: the cloud that is left running must not hold a pipe of ours.
        result = subprocess.run(
            [str(REPOSITORY / "devstack" / script), *options], env=environment, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, timeout=deadline_s, check=False,
        )  # fmt: skip
    assert result.returncode == 0, log.read_text(errors="replace")[-8000:]
