"""What a list costs: queries, rows, and which cells are asked at all."""

import asyncio
import contextlib
import dataclasses
import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa
from pymysql.constants import COMMAND

import cells.listing.listing
from cell_db.listing import Shape
from cells.gate.gate import Gate
from cells.listing.page import Listing
from database.async_connection import AsyncConnection
from database.keyset import Sorting, SortOrder
from tests.cells.world import Kept, Registry, Thing, World

pytestmark = pytest.mark.slow

DEFAULT = (Sorting("created_at", True), Sorting("uuid", True))
BY_NAME = (Sorting("display_name"), Sorting("uuid"))
ALL = {"deleted": False}
CELLS = 8
MANY_CELLS = 80


@pytest.fixture(scope="module")
def many_cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """1,600 servers in eighty cells."""
    folder = tmp_path_factory.mktemp("many")
    world = World([f"sqlite:///{folder}/{name}.sqlite" for name in ("api", "cell0", *range(MANY_CELLS), "union")])
    world.clear(MANY_CELLS)
    world.put(spread(1600, cells=MANY_CELLS))
    yield world
    world.close()


@dataclasses.dataclass
class Cost:
    queries: Counter[str]
    rows: int = 0

    @property
    def cells(self) -> set[str]:
        return set(self.queries) - {"api"}


@contextlib.contextmanager
def counted(world: World) -> Iterator[Cost]:
    """Counts what the databases are asked and give, whichever way."""
    cost = Cost(Counter())
    gates = [world.api_db, *world.cells_registry.gates()]
    with contextlib.ExitStack() as stack:
        for gate in gates:
            if gate._database.is_sqlite:
                stack.enter_context(_counted_on_sqlite(gate, cost))
        stack.enter_context(_counted_on_mariadb({gate._database.url.database: gate.cell.name for gate in gates}, cost))
        yield cost


@contextlib.contextmanager
def _counted_on_mariadb(names: Mapping[str | None, str], cost: Cost) -> Iterator[None]:
    """At the connections, whether a thread or the event loop asks. What a new connection sets and asks about itself has
    no FROM."""
    send, receive = AsyncConnection._execute_command, AsyncConnection._read_query_result
    about_tables = set[AsyncConnection]()

    def counting_send(async_connection: AsyncConnection, command: int, text: str | bytes) -> None:
        if command == COMMAND.COM_QUERY and "FROM" in str(text):
            cost.queries[names[async_connection.db.decode()]] += 1
            about_tables.add(async_connection)
        send(async_connection, command, text)

    def counting_receive(async_connection: AsyncConnection, unbuffered: bool = False) -> int:
        number = receive(async_connection, unbuffered)
        if async_connection in about_tables:
            about_tables.remove(async_connection)
            cost.rows += len(async_connection._result.rows)
        return number

    with (
        mock.patch.object(AsyncConnection, "_execute_command", counting_send),
        mock.patch.object(AsyncConnection, "_read_query_result", counting_receive),
    ):
        yield


@contextlib.contextmanager
def _counted_on_sqlite(gate: Gate, cost: Cost) -> Iterator[None]:
    """At the gate's connections, of which it has one; a row is counted when it is read."""
    engine = gate._database.engine

    def count_query(*_: Any) -> None:
        cost.queries[gate.cell.name] += 1

    def count_row(_: Any, row: tuple[Any, ...]) -> tuple[Any, ...]:
        cost.rows += 1
        return row

    def set_row_factory(factory: Any) -> None:
        with gate._database.reading() as connection:
            connection.connection.dbapi_connection.row_factory = factory  # type: ignore[union-attr]

    set_row_factory(count_row)
    sa.event.listen(engine, "after_cursor_execute", count_query)
    yield
    sa.event.remove(engine, "after_cursor_execute", count_query)
    set_row_factory(None)


def asked(world: World, listing: Listing) -> tuple[list[str], Cost]:
    with counted(world) as cost:
        page = asyncio.run(cells.listing.listing.list_servers(world.reach, listing))
    return [item.uuid for item in page.items], cost


def spread(number: int, *, cells: int = CELLS) -> list[Thing]:
    """Servers at random in all cells, named and made at random."""
    rng = random.Random(7)
    return [
        Thing(uuid=str(uuid.UUID(int=rng.getrandbits(128), version=4)), cell=index % cells,
            name=f"n{rng.randrange(10**6)}",
              created=rng.randrange(10**5), project_id=f"p{index % cells}")
        for index in range(number)
    ]  # fmt: skip


def is_bounded(cost: Cost, limit: int) -> bool:
    """What a page may cost, however many cells there are."""
    return cost.queries.total() <= 2 * len(cost.cells) + 6 and cost.rows <= 3 * limit + 2 * len(cost.cells)


@pytest.mark.parametrize("order", [DEFAULT, BY_NAME])
@pytest.mark.parametrize("limit", [1, 7, 50, 400])
@pytest.mark.parametrize("shape", [Shape.BRIEF, Shape.DETAIL])
def test_queries_and_rows_are_bounded(world: World, order: SortOrder, limit: int, shape: Shape) -> None:
    world.clear(CELLS)
    world.put(spread(600))

    uuids, cost = asked(
        world, Listing(filters=ALL, order=order, limit=limit, shape=shape, hosts_down_after_s=60.0, deadline_s=5.0)
    )

    assert len(uuids) == limit <= cost.rows
    assert is_bounded(cost, limit), cost


@pytest.mark.parametrize("order", [DEFAULT, BY_NAME])
@pytest.mark.parametrize("limit", [1, 10, 50, 100, 400, 1000])
@pytest.mark.parametrize("shape", [Shape.BRIEF, Shape.DETAIL])
def test_queries_and_rows_are_bounded_with_eighty_cells(
    many_cells: World, order: SortOrder, limit: int, shape: Shape
) -> None:
    listing = Listing(filters=ALL, order=order, limit=limit, shape=shape, hosts_down_after_s=60.0, deadline_s=10.0)

    uuids, cost = asked(many_cells, listing)

    assert len(uuids) == limit <= cost.rows
    assert is_bounded(cost, limit), cost


def test_each_page_of_a_walk_over_eighty_cells_is_bounded(many_cells: World) -> None:
    listing, uuids = Listing(filters=ALL, order=BY_NAME, limit=100, deadline_s=10.0), list[str]()
    while len(uuids) < 1600:
        page, cost = asked(many_cells, dataclasses.replace(listing, marker=uuids[-1] if uuids else None))
        uuids += page
        assert is_bounded(cost, 100), cost

    assert len(set(uuids)) == 1600


def test_a_page_in_the_default_order_is_one_question_of_each_winners_cell(many_cells: World) -> None:
    _, cost = asked(many_cells, Listing(filters=ALL, order=DEFAULT, limit=50, deadline_s=10.0))

    assert cost.queries.pop("api") == 2
    assert set(cost.queries.values()) == {1}
    assert cost.rows <= 50 + 2 * len(cost.queries) + 2


@pytest.mark.mariadb
def test_the_worst_spread_costs_little_more(mariadb_world: World) -> None:
    """All winners are in one cell, which nobody could know."""
    mariadb_world.clear(CELLS)
    things = [
        dataclasses.replace(thing, name=("a" if thing.cell == 3 else "z") + (thing.name or "")) for thing in spread(600)
    ]
    mariadb_world.put(things)

    uuids, cost = asked(mariadb_world, Listing(filters=ALL, order=BY_NAME, limit=70, deadline_s=5.0))

    assert uuids == [thing.uuid for thing in sorted(things, key=lambda thing: (thing.name or "", thing.uuid))[:70]]
    assert is_bounded(cost, 70), cost


def test_in_the_default_order_only_the_winners_cells_are_asked(world: World) -> None:
    world.clear(CELLS)
    world.put(spread(80))
    world.put([Thing(uuid=str(uuid.uuid4()), cell=cell, created=10**6 + cell) for cell in (2, 5)])

    _, cost = asked(world, Listing(filters=ALL, order=DEFAULT, limit=2, deadline_s=5.0))

    assert cost.cells == {"cell3", "cell6"}


def test_of_a_project_only_its_cells_are_asked_whatever_the_order(world: World) -> None:
    world.clear(CELLS)
    world.put(spread(80))

    _, cost = asked(world, Listing(filters={**ALL, "project_id": "p4"}, order=BY_NAME, limit=50, deadline_s=5.0))

    assert cost.cells == {"cell5"}
    assert cost.queries == {"api": 2, "cell5": 1}


def test_nobody_is_asked_for_an_empty_page(world: World) -> None:
    world.clear(CELLS)

    _, cost = asked(world, Listing(filters=ALL, order=BY_NAME, limit=0))

    assert not cost.queries


class Together:
    """A gate whose first answer comes when all cells have been asked."""

    def __init__(self, gate: Gate, asked: threading.Barrier) -> None:
        self.cell = gate.cell
        self.result_within = gate.result_within
        self._gate = gate
        self._asked: threading.Barrier | None = asked

    def submit_query(self, _: Any, visit: Callable[[sa.Connection], Any]) -> Any:
        asked, self._asked = self._asked, None

        def together(connection: sa.Connection) -> Any:
            if asked is not None:
                asked.wait(timeout=5.0)
            return visit(connection)

        return self._gate.submit_read(together)


def test_the_cells_are_asked_at_the_same_time(world: World) -> None:
    world.clear(CELLS)
    world.put(spread(80))
    asked = threading.Barrier(CELLS + 1)
    gates = [Together(gate, asked) for gate in world.cells_registry.gates()]
    reach = dataclasses.replace(world.reach, cells=Registry(gates))  # type: ignore[arg-type]

    page = asyncio.run(
        cells.listing.listing.list_servers(reach, Listing(filters=ALL, order=BY_NAME, limit=50, deadline_s=5.0))
    )

    assert len(page.items) == 50
    assert page.silent == []


def test_servers_in_the_journal_cost_no_query_of_a_cell_that_is_not_chosen(world: World) -> None:
    world.clear(CELLS)
    world.put([Thing(uuid=str(uuid.uuid4()), kept=Kept.WAITING, created=number) for number in range(5)])

    uuids, cost = asked(world, Listing(filters=ALL, order=DEFAULT, limit=3, deadline_s=5.0))

    assert len(uuids) == 3
    assert cost.cells == set()
