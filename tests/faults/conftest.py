"""Worlds to break: embedded, and on the MariaDB and the RabbitMQ of the test run."""

import itertools
import threading
from collections.abc import Iterator

import pytest

from devstack.services import mariadb
from tests.faults.harness import Harness
from tests.faults.process_keeper import ProcessKeeper
from tests.faults.scene import Scene
from tests.faults.steps import Killed
from tests.faults.world import Addresses, World
from tests.rabbitmq_node import HOSTS, SharedRabbitMQ

CELLS = ("east", "west")
PROFILES = ["embedded", pytest.param("full", marks=[pytest.mark.mariadb, pytest.mark.rabbitmq])]


@pytest.fixture(autouse=True, scope="session")
def dead_threads_are_quiet() -> Iterator[None]:
    """A thread that ends by `Killed` is meant to."""
    known = threading.excepthook
    threading.excepthook = lambda args: None if args.exc_type is Killed else known(args)
    yield
    threading.excepthook = known


@pytest.fixture(scope="package")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """One for all tests: each wipes what it made."""
    harness = Harness(tmp_path_factory.mktemp("bench"))
    yield harness
    harness.world.stop()


@pytest.fixture
def scene(harness: Harness) -> Iterator[Scene]:
    harness.post.echoes = False
    scene = Scene(harness)
    yield scene
    for host, agent in harness.agents.items():
        agent.refuse(False)
        harness.force_down(host, False)
        harness.disable(host, False)
    harness.wipe(scene.uuid)


class Worlds:
    """Hands out one world to many tests, and a new one after a test that left it in disorder."""

    def __init__(self, profile: str, request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> None:
        self.profile = profile
        self._request = request
        self._factory = factory
        self._numbers = itertools.count()
        self._keeper: ProcessKeeper | None = None

    def keeper(self) -> ProcessKeeper:
        """The keeper of a world in which everything runs."""
        if self._keeper is None:
            world = World(self._factory.mktemp("world"), CELLS, at=self._addresses())
            self._keeper = ProcessKeeper(world)
            self._keeper.start_all()
        return self._keeper

    def give_up(self) -> None:
        """The world is thrown away."""
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            keeper.close()

    def _addresses(self) -> Addresses | None:
        if self.profile == "embedded":
            return None
        server: mariadb.MariaDB = self._request.getfixturevalue("mariadb_server")
        node: SharedRabbitMQ = self._request.getfixturevalue("rabbit_node")
        number = next(self._numbers)
        return Addresses(
            databases={name: server.create_schema(f"faults_{number}_{name}") for name in ("api", "cell0", *CELLS)},
            brokers={name: node.create_vhost(f"faults_{number}_{name}", HOSTS) for name in ("api", *CELLS)},
            placement_database=server.create_schema(f"faults_{number}_placement", collation="utf8mb4_general_ci"),
            passwords={user.name: node.password(user.name) for user in HOSTS},
        )


@pytest.fixture(scope="package", params=PROFILES)
def worlds(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    """The worlds of one profile."""
    worlds = Worlds(request.param, request, tmp_path_factory)
    yield worlds
    worlds.give_up()
