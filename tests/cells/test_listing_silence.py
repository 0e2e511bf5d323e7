"""A cell whose database is frozen for real: what its lists cost, and that it comes back."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Iterator

import pytest

import cells.listing.listing
from cells.listing.page import Listing, Page, Unreachable, WhenSilent
from database.keyset import Sorting, SortOrder
from devstack.services import mariadb
from devstack.waiting import wait_until
from tests.cells.world import Thing, World
from tests.mariadb_server import running_mariadb

pytestmark = pytest.mark.mariadb

DEFAULT = (Sorting("created_at", True), Sorting("uuid", True))
BY_NAME = (Sorting("display_name"), Sorting("uuid"))
DEADLINE_S = 1.0
# The promise is 0.2 s; a test machine may have other things to do.
SLACK_S = 0.5


class Isolated:
    """Two cells, of which the second has a database server of its own."""

    def __init__(self, world: World, server: mariadb.MariaDB) -> None:
        self.world = world
        self.server = server
        self.east = [
            Thing(uuid=str(uuid.uuid4()), cell=0, name=f"east-{number}", created=2 * number) for number in range(5)
        ]
        self.west = [
            Thing(uuid=str(uuid.uuid4()), cell=1, name=f"west-{number}", created=2 * number + 1) for number in range(5)
        ]
        world.clear(2)
        world.put([*self.east, *self.west])

    def list(self, order: SortOrder, *, when_silent: WhenSilent = WhenSilent.SHOW) -> tuple[Page, float]:
        listing = Listing(
            filters={"deleted": False}, order=order, limit=6, when_silent=when_silent, deadline_s=DEADLINE_S
        )
        started = time.monotonic()
        page = asyncio.run(cells.listing.listing.list_servers(self.world.reach, listing))
        return page, time.monotonic() - started

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        self.server.freeze()
        try:
            yield
        finally:
            self.server.thaw()


@pytest.fixture(scope="module")
def west_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mariadb.MariaDB]:
    with running_mariadb(tmp_path_factory.mktemp("west")) as server:
        yield server


@pytest.fixture
def isolated(mariadb_server: mariadb.MariaDB, west_server: mariadb.MariaDB) -> Iterator[Isolated]:
    shared = [mariadb_server.create_schema(f"isolated_{name}") for name in ("api", "cell0", "east")]
    world = World(
        [*shared, west_server.create_schema("west"), mariadb_server.create_schema("isolated_all")],
        deadline_s=DEADLINE_S,
    )
    yield Isolated(world, west_server)
    world.close()


@pytest.mark.parametrize("order", [DEFAULT, BY_NAME])
@pytest.mark.alone
def test_a_frozen_cell_costs_the_deadline_once_and_then_nothing(isolated: Isolated, order: SortOrder) -> None:
    whole, _ = isolated.list(order)
    assert whole.silent == []

    with isolated.frozen():
        first, first_s = isolated.list(order)
        wait_until(lambda: isolated.list(order)[1] < DEADLINE_S / 2, what="the breaker to open", deadline_s=10.0)
        later, later_s = isolated.list(order)

    assert first_s < DEADLINE_S + SLACK_S
    assert later_s < DEADLINE_S / 2
    for page in (first, later):
        assert page.silent == ["cell2"]
        known = [item.uuid for item in page.items if not isinstance(item, Unreachable)]
        assert (
            known == [item.uuid for item in whole.items if item.uuid in {thing.uuid for thing in isolated.east}]
            or order is BY_NAME
        )
        assert {thing.uuid for thing in isolated.east} >= set(known) != set()


def test_servers_of_a_frozen_cell_keep_their_place(isolated: Isolated) -> None:
    whole, _ = isolated.list(DEFAULT)

    with isolated.frozen():
        page, _ = isolated.list(DEFAULT)

    assert [item.uuid for item in page.items] == [item.uuid for item in whole.items]
    assert {item.uuid for item in page.items if isinstance(item, Unreachable)} == {
        item.uuid for item in whole.items if item.uuid in {thing.uuid for thing in isolated.west}
    }


@pytest.mark.alone
def test_a_page_is_full_though_a_frozen_cells_servers_are_skipped(isolated: Isolated) -> None:
    with isolated.frozen():
        page, seconds = isolated.list(DEFAULT, when_silent=WhenSilent.SKIP)

    assert [item.uuid for item in page.items] == [thing.uuid for thing in reversed(isolated.east)]
    assert seconds < DEADLINE_S + SLACK_S


def test_the_cell_is_back_in_the_list_after_its_return(isolated: Isolated) -> None:
    whole, _ = isolated.list(BY_NAME)
    with isolated.frozen():
        wait_until(lambda: isolated.list(BY_NAME)[1] < DEADLINE_S / 2, what="the breaker to open", deadline_s=10.0)

    def is_whole() -> bool:
        for gate in isolated.world.cells_registry.gates():
            gate.probe()
        return isolated.list(BY_NAME)[0] == whole

    wait_until(is_whole, what="the whole list", deadline_s=5.0)
