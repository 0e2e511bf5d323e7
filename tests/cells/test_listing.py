"""The list over N cells equals the list over one cell that holds the union."""

import asyncio
import dataclasses
import itertools
import os
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cells.listing.listing
from cell_db.filters import Matches
from cell_db.listing import SORT_KEYS, ListedServer, Query, Shape, Wanted, position_of
from cell_db.packed import SERVER_COLUMNS
from cell_db.tables import instances
from cells.listing.merge import in_order, is_after
from cells.listing.page import Listing, Page, WhenSilent
from database.keyset import Sorting, SortOrder
from lifecycle import states
from objects.server import Server
from tests.cells.world import ONLY_IN_CELL, ONLY_ORDERED, WITH_ROW, Kept, Thing, World

pytestmark = pytest.mark.slow

ALL = 10_000
# Case, accents (composed and not), trailing spaces, an empty name, none, and beyond the first plane.
NAMES = [
    None, "", "null", "1", "a", "A", "a ", "a  ", "ab", "ä", "a\u0308", "Ä", "é", "e", "z", "Z", "web-1", "web-10",
    "\uffee", "\U0001d4b3", "ß", "ss", "q\"\\\\", "\n\t\x7f", "\U0001f600\u2028",
]  # fmt: skip

names = st.sampled_from(NAMES)
things = st.builds(
    Thing,
    uuid=st.uuids(version=4).map(str),
    kept=st.sampled_from([Kept.IN_CELL] * 6 + list(Kept)),
    cell=st.integers(0, 7),
    project_id=st.sampled_from(["p1", "p2"]),
    user_id=st.sampled_from(["u1", "u2"]),
    name=names,
    description=names,
    zone=st.sampled_from([None, "east", "west"]),
    key_name=st.sampled_from([None, "Key", "key", "key "]),
    host=st.sampled_from([None, "h1", "h2", "H1"]),
    vm_state=st.sampled_from([states.ACTIVE, states.STOPPED, states.ERROR, states.PAUSED]),
    task_state=st.sampled_from([None, states.REBOOTING, states.POWERING_OFF, "resize_prep"]),
    power_state=st.sampled_from([0, 1, 4]),
    launched=st.one_of(st.none(), st.integers(0, 2)),
    created=st.integers(0, 3),
    locked_by=st.sampled_from([None, "owner", "admin"]),
    config_drive=st.booleans(),
    flavor_id=st.sampled_from(["1", "2", "a"]),
    image=st.sampled_from(["", "image-1", "image-2"]),
    tags=st.lists(st.sampled_from(["red", "Red", "blue"]), unique=True).map(tuple),
)
populations = st.lists(things, max_size=40, unique_by=lambda thing: thing.uuid)

# `updated_at` is none of them: a server in the journal has none yet, a row always has.
sortable = sorted(SORT_KEYS.keys() - {"updated_at", "root_device_name", "uuid"})


@st.composite
def orders(draw: st.DrawFn) -> SortOrder:
    keys = draw(st.lists(st.sampled_from(sortable), max_size=3, unique=True))
    sortings = [Sorting(key, draw(st.booleans())) for key in keys]
    return (*sortings, Sorting("uuid", draw(st.booleans())))


DEFAULT = (Sorting("created_at", True), Sorting("uuid", True))
filters = st.fixed_dictionaries(
    {"deleted": st.sampled_from([False, False, False, None])},
    optional={
        "project_id": st.sampled_from(["p1", "p2", "nobody"]),
        "user_id": st.sampled_from(["u1", "u2"]),
        "status": st.lists(
            st.sampled_from(["ACTIVE", "error", "BUILD", "REBOOT", "RESIZE", "SHUTOFF", "SOFT_DELETED"]), min_size=1
        ).map(tuple),
        "name": st.sampled_from(["a", "^a$", "^A", "web-[0-9]$", "[äé]", r"\s$", "^$", "z|Z", r"^\w+$"]),
        "locked": st.booleans(),
        "tags": st.sampled_from([("red",), ("red", "blue")]),
        "tags_any": st.sampled_from([("red",), ("Red", "blue")]),
        "not_tags": st.sampled_from([("red",), ("red", "blue")]),
        "not_tags_any": st.sampled_from([("red",), ("Red", "blue")]),
        "availability_zone": st.sampled_from(["east", "nowhere"]),
        "flavor": st.sampled_from(["1", "a"]),
        "image": st.sampled_from(["", "image-1"]),
        "key_name": st.sampled_from(["key", "key "]),
        "host": st.sampled_from(["h1", "H1"]),
        "vm_state": st.sampled_from([("active",), ("building", "error"), ("soft-delete",)]),
        "power_state": st.sampled_from([0, 1]),
        "config_drive": st.booleans(),
    },
)
few_filters = st.one_of(
    st.fixed_dictionaries({"deleted": st.just(False)}), filters.map(lambda chosen: _some(chosen, 2)), filters
)

# Each example makes a population in up to eight databases; more of them for the night: CELLPLANE_EXAMPLES=1000.
EXAMPLES = int(os.environ.get("CELLPLANE_EXAMPLES", "40"))
slow = settings(
    deadline=None,
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _some(chosen: dict[str, Any], number: int) -> dict[str, Any]:
    kept = [name for name in chosen if name != "deleted"][:number]
    return {"deleted": chosen["deleted"], **{name: chosen[name] for name in kept}}


def of_union(world: World, listing: Listing) -> dict[str, Any]:
    """The filters. To its owner a server lives from the moment that he restores it."""
    filters = dict(listing.filters)
    if filters.get("deleted") is False:
        del filters["deleted"]
        filters["living"] = frozenset(world.restored)
    return filters


def union(world: World, listing: Listing) -> list[str]:
    """The uuids of the whole list, from the one cell that holds all, by one statement."""
    query = Query(Wanted(of_union(world, listing), listing.order, Shape.KEY), None)
    with world.reading_union() as connection:
        return [server.position[-1] for server in query.page(connection, ALL, within_s=5.0).servers]


def shown_in_union(world: World, listing: Listing) -> list[dict[str, Any]]:
    """The servers of the whole list, as far as the shape goes."""
    query = Query(Wanted(of_union(world, listing), listing.order, listing.shape), None)
    with world.reading_union() as connection:
        return [shown(server.item) for server in query.page(connection, ALL, within_s=5.0).servers]


def shown(item: Any) -> dict[str, Any]:
    """What the user sees of a server: not where its build or delete stands."""
    inner = {"state", "extra", "updated_at"}
    return {
        name: value
        for name in item.__struct_fields__
        if name not in inner and (value := getattr(item, name)) not in (None, [], {})
    }


def _brief(item: Any) -> dict[str, Any]:
    """A server of the journal is whole in a brief list, too."""
    return {name: value for name in ("uuid", "display_name") if (value := getattr(item, name)) is not None}


def page(world: World, listing: Listing) -> Page:
    return asyncio.run(cells.listing.listing.list_servers(world.reach, listing))


async def walk(world: World, listing: Listing, between: Callable[[int], None] | None = None) -> list[list[Any]]:
    """The servers of all pages."""
    pages: list[list[Any]] = []
    marker = listing.marker
    while len(pages) < ALL:
        answer = await cells.listing.listing.list_servers(world.reach, _at(listing, marker))
        pages.append(list(answer.items))
        if not answer.more:
            return pages
        marker = answer.marker
        if between is not None:
            between(len(pages))
    raise AssertionError("the list has no end")


def uuids(page: Page) -> list[str]:
    return [item.uuid for item in page.items]


def _at(listing: Listing, marker: str | None) -> Listing:
    return dataclasses.replace(listing, marker=marker)


@slow
@given(
    population=populations,
    number=st.integers(1, 8),
    order=st.one_of(st.just(DEFAULT), orders()),
    filters=few_filters,
    limit=st.integers(1, 15),
    shape=st.sampled_from([Shape.BRIEF, Shape.DETAIL]),
    keys_per_query=st.sampled_from([-1e9, 0.0, 90.0]),
)
def test_pages_over_many_cells_are_those_of_the_union(
    world: World,
    population: list[Thing],
    number: int,
    order: SortOrder,
    filters: dict[str, Any],
    limit: int,
    shape: Shape,
    keys_per_query: float,
) -> None:
    world.clear(number)
    world.put(population)
    listing = Listing(
        filters=filters, order=order, limit=limit, shape=shape, keys_per_query=keys_per_query, deadline_s=5.0
    )
    expected = shown_in_union(world, listing)

    pages = asyncio.run(walk(world, listing))

    everything = [_brief(item) if shape is Shape.BRIEF else shown(item) for items in pages for item in items]
    assert everything == expected
    assert all(len(items) == limit for items in pages[:-1])


@slow
@given(
    population=populations,
    later=st.lists(things, max_size=12, unique_by=lambda thing: thing.uuid),
    removed=st.lists(st.integers(0, 39), max_size=8, unique=True),
    number=st.integers(1, 8),
    order=st.one_of(st.just(DEFAULT), orders()),
    filters=few_filters,
    limit=st.integers(1, 6),
    keys_per_query=st.sampled_from([-1e9, 90.0]),
)
def test_a_walk_neither_skips_nor_repeats_what_stands_still(
    world: World, population: list[Thing], later: list[Thing], removed: list[int], number: int, order: SortOrder,
    filters: dict[str, Any], limit: int, keys_per_query: float,
) -> None:  # fmt: skip
    """Servers come, go, and move from the journal into their cells between the pages."""
    world.clear(number)
    world.put(population)
    listing = Listing(filters=filters, order=order, limit=limit, keys_per_query=keys_per_query, deadline_s=5.0)
    at_first = union(world, listing)
    known = {thing.uuid for thing in population}
    arriving = [thing for thing in later if thing.uuid not in known]
    leaving = [population[index] for index in removed if index < len(population)]
    if not listing.mappings_can_sort:
        # Of a server that is deleted before a cell has its row nothing is left but its mapping: as a marker it is
        # refused then.
        leaving = [thing for thing in leaving if thing.kept not in ONLY_ORDERED]
    moving = [thing for thing in population if thing.kept in (Kept.WAITING, Kept.ASSIGNED) and thing not in leaving]

    def between(pages: int) -> None:
        world.put(arriving[pages - 1 :: 3][:1])
        if pages <= len(leaving):
            world.remove([leaving[pages - 1]])
        if pages <= len(moving):
            world.hand_over(moving[pages - 1])

    seen = [item.uuid for items in asyncio.run(walk(world, listing, between)) for item in items]

    assert len(seen) == len(set(seen))
    gone = {thing.uuid for thing in leaving}
    stood_still = [uuid for uuid in at_first if uuid not in gone]
    assert [uuid for uuid in seen if uuid in stood_still] == stood_still


@slow
@given(
    population=st.lists(things, min_size=1, max_size=25, unique_by=lambda thing: thing.uuid),
    number=st.integers(1, 8),
    order=st.one_of(st.just(DEFAULT), orders()),
    filters=few_filters,
    limit=st.integers(1, 10),
    index=st.integers(0, 24),
)
def test_a_marker_of_any_kind_marks_its_place(
    world: World,
    population: list[Thing],
    number: int,
    order: SortOrder,
    filters: dict[str, Any],
    limit: int,
    index: int,
) -> None:
    world.clear(number)
    world.put(population)
    marker = population[index % len(population)]
    listing = Listing(filters=filters, order=order, limit=limit, deadline_s=5.0)
    everything = union(world, dataclasses.replace(listing, filters={"deleted": None}))
    if marker.uuid not in everything:
        return
    after = set(everything[everything.index(marker.uuid) + 1 :])

    following = page(world, _at(listing, marker.uuid))

    assert uuids(following) == [uuid for uuid in union(world, listing) if uuid in after][:limit]


@slow
@given(
    population=populations,
    number=st.integers(1, 8),
    order=st.one_of(st.just(DEFAULT), st.just((Sorting("user_id"), Sorting("uuid", True))), orders()),
    filters=few_filters,
    limit=st.integers(1, 10),
    silent=st.sets(st.integers(0, 8), min_size=1),
    keys_per_query=st.sampled_from([-1e9, 90.0]),
)
def test_a_silent_cell_does_not_hide_the_others(
    world: World,
    population: list[Thing],
    number: int,
    order: SortOrder,
    filters: dict[str, Any],
    limit: int,
    silent: set[int],
    keys_per_query: float,
) -> None:
    """What the mappings can tell of its servers stands in its place; otherwise they alone are missing. Skipping, pages
    are full."""
    world.clear(number)
    world.put(population)
    listing = Listing(filters=filters, order=order, limit=limit, keys_per_query=keys_per_query, deadline_s=5.0)
    # The journal knows what it has, whatever the cell may have made of it.
    lost = {thing.uuid for thing in population if thing.kept in ONLY_IN_CELL and world.index_of(thing) in silent}
    unsure = any(thing.kept in WITH_ROW - ONLY_IN_CELL and world.index_of(thing) in silent for thing in population)
    expected = union(world, listing)
    if unsure:
        return
    told = listing.mappings_can_sort and listing.mappings_can_filter

    with world.silent(silent):
        shown = [item.uuid for items in asyncio.run(walk(world, listing)) for item in items]
        skipping = dataclasses.replace(listing, when_silent=WhenSilent.SKIP)
        skipped = asyncio.run(walk(world, skipping))

    assert shown == (expected if told else [uuid for uuid in expected if uuid not in lost])
    assert [item.uuid for items in skipped for item in items] == [uuid for uuid in expected if uuid not in lost]
    assert all(len(items) == limit for items in skipped[:-1])


@slow
@given(population=populations, filters=filters, order=orders())
def test_filters_and_orders_are_alike_in_sql_and_in_python(
    world: World, population: list[Thing], filters: dict[str, Any], order: SortOrder
) -> None:
    """A server in the journal is filtered and sorted in Python, and by its cell's database once it is there."""
    world.clear(1)
    world.put(population)
    everything = Query(Wanted({"deleted": None}, order, Shape.DETAIL), None)
    asked = Query(Wanted(filters, order, Shape.KEY), None)
    with world.reading_union() as connection:
        all_servers = everything.page(connection, ALL, within_s=5.0).servers
        positions = [each.position for each in asked.page(connection, ALL, within_s=5.0).servers]

    matches = Matches(filters, regexp_within_s=5.0)
    kept = [ListedServer(each.position, None) for each in all_servers if matches(each.item)]

    assert [each.position for each in in_order(kept, order)] == positions
    assert [each.position for each in all_servers] == [position_of(each.item, order) for each in all_servers]
    assert all(is_after(later, earlier, order) for earlier, later in itertools.pairwise(positions))


@slow
@given(
    population=populations,
    documents=st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=5)), min_size=1, max_size=3),
)
def test_a_row_that_travels_packed_is_the_row(
    world: World, population: list[Thing], documents: list[dict[str, str]]
) -> None:
    world.clear(1)
    world.put(population)
    with world.reading_union() as connection:
        for number, document in enumerate(documents):
            column = ("metadata", "fault", "extra")[number]
            connection.execute(sa.update(instances).values({column: document, "user_data": "null"}))
        rows = connection.execute(sa.select(*SERVER_COLUMNS).order_by(instances.c.uuid)).all()
        plain = [msgspec.convert(dict(zip(Server.__struct_fields__, row, strict=True)), Server) for row in rows]
        query = Query(Wanted({"deleted": None}, (Sorting("uuid"),), Shape.DETAIL, user_data=True), None)
        packed = [server.item for server in query.page(connection, ALL, within_s=5.0).servers]

    assert packed == plain


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\w+$",
        r"^\W+$",
        r"^[\w-]+$",
        r"\d$",
        r"\s$",
        r"^[[:alpha:]]$",
        "^a",
        "^.$",
        "^..$",
        "[A-Z]",
        "(?i)^a",
        "a|z",
        "a{1}",
        r"\\",
        "^$",
        "^[^a]*$",
        "^[[:upper:]]",
        "[[:space:]]",
        "[[:digit:]]",
        "[[:alnum:]]$",
        "[[:lower:][:digit:]]",
        "[]a]",
        "^[^]a]",
        r"\p{Lu}",
        r"\P{L}",
        "a++",
        "^.{2,}?$",
        "(?!a)^.",
        r"\x41",
        r"[\s\d]",
    ],
)
def test_regular_expressions_mean_the_same_in_the_database_and_in_the_journal(world: World, pattern: str) -> None:
    world.clear(1)
    world.put([Thing(uuid=str(uuid.UUID(int=number)), name=name) for number, name in enumerate(NAMES)])
    order = (Sorting("uuid"),)
    matches = Matches({"name": pattern}, regexp_within_s=5.0)
    with world.reading_union() as connection:
        everything = (
            Query(Wanted({"deleted": False}, order, Shape.DETAIL), None).page(connection, ALL, within_s=5.0).servers
        )
        matching = (
            Query(Wanted({"deleted": False, "name": pattern}, order, Shape.DETAIL), None)
            .page(connection, ALL, within_s=5.0)
            .servers
        )

    assert [each.item.display_name for each in matching] == [
        each.item.display_name for each in everything if matches(each.item)
    ]
