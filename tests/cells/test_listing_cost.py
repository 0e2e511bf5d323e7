"""What a list costs: queries, rows, and which cells are asked at all."""

import asyncio
import contextlib
import dataclasses
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import cells.listing
from cell_db.listing import Shape
from cells.gate import Gate
from cells.page import Listing, Page
from core.keyset import Order, Sorting
from tests.cells.world import Kept, Registry, Thing, World

DEFAULT = (Sorting("created_at", True), Sorting("uuid", True))
BY_NAME = (Sorting("display_name"), Sorting("uuid"))
ALL = {"deleted": False}
CELLS = 8


@dataclasses.dataclass
class Cost:
    queries: Counter[str]
    rows: int = 0

    @property
    def cells(self) -> set[str]:
        return set(self.queries) - {"api"}


@contextlib.contextmanager
def counted(world: World) -> Iterator[Cost]:
    """Counts at the gates' own connections."""
    cost, hooks = Cost(Counter()), []
    for gate in (world.api_db, *world.cells_registry.gates()):

        def count(_: Any, cursor: Any, *__: Any, name: str = gate.cell.name) -> None:
            cost.queries[name] += 1
            cost.rows += max(cursor.rowcount, 0)

        hooks.append((gate._database.engine, "after_cursor_execute", count))
    for hook in hooks:
        sa.event.listen(*hook)
    yield cost
    for hook in hooks:
        sa.event.remove(*hook)


def asked(world: World, listing: Listing) -> tuple[list[str], Cost]:
    with counted(world) as cost:
        page = asyncio.run(cells.listing.list_servers(world.reach, listing))
    return [item.uuid for item in page.items], cost


def spread(number: int, *, cells: int = CELLS) -> list[Thing]:
    """Servers at random in all cells, named and made at random."""
    rng = random.Random(7)
    return [
        Thing(uuid=str(uuid.UUID(int=rng.getrandbits(128), version=4)), cell=index % cells, name=f"n{rng.randrange(10**6)}",
              created=rng.randrange(10**5), project_id=f"p{index % cells}")
        for index in range(number)
    ]  # fmt: skip


@pytest.mark.mariadb
@pytest.mark.parametrize("order", [DEFAULT, BY_NAME])
@pytest.mark.parametrize("limit", [1, 7, 50, 400])
@pytest.mark.parametrize("shape", [Shape.BRIEF, Shape.DETAIL])
def test_queries_and_rows_are_bounded(mariadb_world: World, order: Order, limit: int, shape: Shape) -> None:
    mariadb_world.clear(CELLS)
    mariadb_world.put(spread(600))

    found, cost = asked(mariadb_world, Listing(filters=ALL, order=order, limit=limit, shape=shape, deadline_s=5.0))

    assert len(found) == limit
    assert cost.queries.total() <= 2 * len(cost.cells) + 6
    assert cost.rows <= 3 * limit + 2 * len(cost.cells)


@pytest.mark.mariadb
def test_the_worst_spread_costs_little_more(mariadb_world: World) -> None:
    """All winners are in one cell, which nobody could know."""
    mariadb_world.clear(CELLS)
    things = [dataclasses.replace(thing, name=("a" if thing.cell == 3 else "z") + (thing.name or "")) for thing in spread(600)]
    mariadb_world.put(things)

    found, cost = asked(mariadb_world, Listing(filters=ALL, order=BY_NAME, limit=70, deadline_s=5.0))

    assert found == [thing.uuid for thing in sorted(things, key=lambda thing: (thing.name or "", thing.uuid))[:70]]
    assert cost.queries.total() <= 2 * len(cost.cells) + 6
    assert cost.rows <= 3 * 70 + 2 * len(cost.cells)


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

    def __init__(self, gate: Gate, asked: asyncio.Barrier) -> None:
        self.cell = gate.cell
        self._gate = gate
        self._asked: asyncio.Barrier | None = asked

    async def read(self, *args: Any) -> Any:
        asked, self._asked = self._asked, None
        if asked is not None:
            await asked.wait()
        return await self._gate.read(*args)


def test_the_cells_are_asked_at_the_same_time(world: World) -> None:
    world.clear(CELLS)
    world.put(spread(80))

    async def list_together() -> Page:
        asked = asyncio.Barrier(CELLS + 1)
        gates = [Together(gate, asked) for gate in world.cells_registry.gates()]
        reach = dataclasses.replace(world.reach, cells=Registry(gates))  # type: ignore[arg-type]
        return await cells.listing.list_servers(reach, Listing(filters=ALL, order=BY_NAME, limit=50, deadline_s=5.0))

    page = asyncio.run(list_together())

    assert len(page.items) == 50
    assert page.silent == []


def test_servers_in_the_journal_cost_no_query_of_a_cell_that_is_not_chosen(world: World) -> None:
    world.clear(CELLS)
    world.put([Thing(uuid=str(uuid.uuid4()), kept=Kept.WAITING, created=number) for number in range(5)])

    found, cost = asked(world, Listing(filters=ALL, order=DEFAULT, limit=3, deadline_s=5.0))

    assert len(found) == 3
    assert cost.cells == set()
