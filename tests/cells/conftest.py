"""Worlds of one API database, cell0, eight cells and one cell that holds the union, on each kind of database."""

from collections.abc import Iterator
from unittest import mock

import pytest

import database.compiled_statements
from devstack.services import mariadb
from tests.cells.world import World
from tests.mariadb_server import running_mariadb

MAX_CELLS = 8
NAMES = ("api", "cell0", *(f"cell{number}" for number in range(1, MAX_CELLS + 1)), "all")


@pytest.fixture(scope="session")
def sqlite_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    world = World([f"sqlite:///{folder}/{name}.sqlite" for name in NAMES])
    yield world
    world.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mariadb.MariaDB]:
    """One that a module's tests may freeze and break."""
    with running_mariadb(tmp_path_factory.mktemp("broken")) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_world(mariadb_server: mariadb.MariaDB) -> Iterator[World]:
    world = World([mariadb_server.create_schema(f"cp_{name}") for name in NAMES])
    # Few lists are asked often enough here to go on an asynchronous connection; so they go from their third page on.
    with mock.patch.object(database.compiled_statements, "_ENOUGH", 1):
        yield world
    world.close()


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def world(request: pytest.FixtureRequest) -> World:
    """Both kinds of database pass the same tests."""
    chosen: World = request.getfixturevalue(f"{request.param}_world")
    return chosen
