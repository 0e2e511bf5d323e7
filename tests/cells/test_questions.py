"""A question that fails says nothing about the cell: it is its asker's to hear of, and nobody else notices."""

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Iterator
from unittest import mock

import pymysql
import pytest
import sqlalchemy as sa

import cell_db.filters
import cell_db.listing
import cells.listing.listing
import core.errors
from cells.gate.answers import Answer, Cause, Cell, Silence
from cells.gate.async_connections import Question
from cells.gate.gate import Gate
from cells.listing.page import Listing, Page, Unreachable, WhenSilent
from core.context import asks_for
from database import engine
from database.compiled_statements import CompiledStatement
from database.keyset import Sorting
from devstack.services import mariadb
from devstack.waiting import wait_until
from tests.cells.world import Kept, Thing, World

DEADLINE_S = 1.0
SOON_S = 20.0
SCHEMA = "questioned"
ENDLESS = "(a+a+)+$"
BY_NAME = (Sorting("display_name"), Sorting("uuid"))


@pytest.fixture
def gate(server: mariadb.MariaDB) -> Iterator[Gate]:
    gate = Gate(
        Cell(str(uuid.uuid4()), "west", server.create_schema(SCHEMA), "none://"), threads=2, deadline_s=DEADLINE_S
    )
    assert isinstance(gate.read_now(_one), Answer)
    yield gate
    gate.close()


def _one(connection: sa.Connection) -> int:
    return int(connection.execute(sa.text("SELECT 1")).scalar_one())


def _too_long_for_us(connection: sa.Connection) -> None:
    """The server's own limit does not reach it, as it does not reach the optimizer."""
    connection.exec_driver_sql("SET STATEMENT max_statement_time = 0 FOR SELECT SLEEP(3)")


def _is_well(gate: Gate) -> bool:
    return gate.health()["database"] == "up" and isinstance(gate.read_now(_one), Answer)


# ---- at the gate -----------------------------------------------------------------------------------------------------


@pytest.mark.mariadb
def test_a_question_that_times_out_while_a_ping_is_answered_opens_nothing(gate: Gate) -> None:
    for _ in range(3):
        answer = gate.read_now(_too_long_for_us)

        assert isinstance(answer, Silence)
        assert answer.cause is not Cause.AWAY
        assert _is_well(gate)
    wait_until(lambda: gate._bulkhead._pool.busy_threads == 0, what="end of the threads' questions", deadline_s=SOON_S)
    assert _is_well(gate)


@pytest.mark.mariadb
def test_a_late_wire_opens_nothing_while_a_ping_is_answered(server: mariadb.MariaDB) -> None:
    slow = CompiledStatement(sa.select(sa.func.sleep(sa.bindparam("seconds", type_=sa.Float))))
    with mock.patch.object(engine, "_limit_statements"):
        gate = Gate(
            Cell(str(uuid.uuid4()), "west", server.create_schema(SCHEMA), "none://"), threads=2, deadline_s=DEADLINE_S
        )

    async def ask(seconds: float) -> Answer[object] | Silence:
        asked = gate.submit_query(
            Question(slow, {"seconds": seconds}, lambda _: "asynchronous connection"),
            lambda connection: slow.rows(connection, {"seconds": seconds}),
        )
        return await gate._await(asked, 2 * DEADLINE_S)

    def is_by_wire() -> bool:
        answer = asyncio.run(ask(0.0))
        return isinstance(answer, Answer) and answer.value == "asynchronous connection"

    wait_until(is_by_wire, what="asynchronous connection", deadline_s=SOON_S)
    answer = asyncio.run(ask(3.0))

    assert isinstance(answer, Silence)
    assert answer.cause is Cause.QUESTION
    assert _is_well(gate)
    gate.close()


@pytest.mark.mariadb
@pytest.mark.parametrize(
    "text",
    [
        "SELECT",  # 1064
        "SELECT 'a' REGEXP '('",  # 1139
        "SELECT " + "REPEAT(" * 3_000 + "1" + ", 1)" * 3_000,  # 1436
        "SELECT * FROM " + ", ".join(f"(SELECT 1) t{number}" for number in range(70)),  # 1116
    ],
)
def test_what_the_server_refuses_to_be_asked_is_its_askers_error(gate: Gate, text: str) -> None:
    for _ in range(3):
        with contextlib.suppress(core.errors.Invalid):
            answer = gate.read_now(lambda connection: connection.exec_driver_sql(text).all())
            assert isinstance(answer, Answer) or answer.cause is not Cause.AWAY
    assert _is_well(gate)


@pytest.mark.mariadb
def test_a_packet_that_is_too_large_opens_nothing(gate: Gate) -> None:
    longer_than_a_packet = "x" * (17 * 2**20)
    for _ in range(3):
        with contextlib.suppress(core.errors.Invalid):
            answer = gate.read_now(
                lambda connection: connection.execute(sa.select(sa.func.length(longer_than_a_packet))).all()
            )
            assert isinstance(answer, Silence)
            assert answer.cause is not Cause.AWAY
    assert _is_well(gate)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT " + " + ".join("1" for _ in range(2000)),  # Expression tree is too large
        "SELECT " + "(" * 200 + "1" + ")" * 200,  # parser stack overflow
        " UNION ALL ".join("SELECT 1" for _ in range(1000)),  # too many terms
    ],
)
def test_what_sqlite_refuses_to_be_asked_is_its_askers_error(world: World, text: str) -> None:
    gate = world.api_db
    for _ in range(3):
        with contextlib.suppress(core.errors.Invalid):
            gate.read_now(lambda connection: connection.exec_driver_sql(text).all())
    assert _is_well(gate)


def test_a_number_that_no_column_has_is_its_askers_error(sqlite_world: World) -> None:
    with pytest.raises(core.errors.Invalid):
        sqlite_world.api_db.read_now(
            lambda connection: connection.execute(sa.select(sa.literal(2**70, sa.Integer))).all()
        )
    assert _is_well(sqlite_world.api_db)


# ---- lists -----------------------------------------------------------------------------------------------------------


def _list(world: World, **filters: object) -> Page:
    listing = Listing(filters={"deleted": False, **filters}, order=BY_NAME, limit=50, deadline_s=5.0)
    return asyncio.run(cells.listing.listing.list_servers(world.reach, listing))


@pytest.mark.parametrize("field", ["tags", "tags_any", "not_tags", "not_tags_any", "status", "vm_state", "task_state"])
def test_a_filter_with_more_values_than_anything_has_is_refused(world: World, field: str) -> None:
    world.clear(2)
    values = tuple(f"t{number}" for number in range(51))

    with pytest.raises(core.errors.Invalid) as refused:
        _list(world, **{field: values})

    assert refused.value.fields["field"] == field.replace("_", "-" if "tags" in field else "_")
    assert all(gate.health()["database"] == "up" for gate in world.cells_registry.gates())


def test_as_many_tags_as_a_server_may_have_are_one_look_at_it(world: World) -> None:
    world.clear(2)
    tags = tuple(f"t{number}" for number in range(50))
    all_of_them = Thing(uuid=str(uuid.uuid4()), cell=0, tags=tags)
    less = Thing(uuid=str(uuid.uuid4()), cell=1, tags=tags[:-1])
    world.put([all_of_them, less])

    assert [item.uuid for item in _list(world, tags=tags).items] == [all_of_them.uuid]
    assert [item.uuid for item in _list(world, tags=(*tags[:3], tags[0])).items] != []
    assert [item.uuid for item in _list(world, not_tags=tags).items] == [less.uuid]
    condition = str(cell_db.filters.FILTERS["tags"].sql(tags))
    assert condition.count("SELECT") <= 2


def _takes_too_long(*_: object, **__: object) -> object:
    raise sa.exc.OperationalError(
        "SELECT", None, pymysql.err.OperationalError(2013, "Lost connection to MySQL server (timed out)")
    )


@pytest.mark.parametrize("when_silent", list(WhenSilent))
def test_a_list_is_not_short_because_of_what_it_asks(world: World, when_silent: WhenSilent) -> None:
    world.clear(2)
    world.put([Thing(uuid=str(uuid.uuid4()), cell=number) for number in range(2)])
    listing = Listing(
        filters={"deleted": False, "description": "x"}, order=BY_NAME, limit=50, deadline_s=5.0, when_silent=when_silent
    )

    with mock.patch.object(cell_db.listing.Query, "page", _takes_too_long):
        with pytest.raises((core.errors.TooExpensive, core.errors.Unavailable)) as refused:
            asyncio.run(cells.listing.listing.list_servers(world.reach, listing))

    assert not isinstance(refused.value, core.errors.TooExpensive) or refused.value.fields["field"] == "description"
    assert all(gate.health()["database"] == "up" for gate in world.cells_registry.gates())


# ---- many of them ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two cells whose gates have the usual four threads."""
    names = ("api", "cell0", "east", "west", "all")
    if request.param == "sqlite":
        folder = tmp_path_factory.mktemp("shared")
        urls = [f"sqlite:///{folder}/{name}.sqlite" for name in names]
    else:
        server = request.getfixturevalue("mariadb_server")
        urls = [server.create_schema(f"shared_{name}") for name in names]
    world = World(urls, deadline_s=5.0, threads=4)
    yield world
    world.close()


def test_forty_endless_expressions_of_one_project_leave_others_whole(shared: World) -> None:
    shared.clear(2)
    shared.put(
        [
            Thing(uuid=str(uuid.uuid4()), cell=number % 2, project_id="evil", name="a" * 40 + "!", created=number)
            for number in range(12)
        ]
    )
    others = [
        Thing(uuid=str(uuid.uuid4()), cell=number % 2, project_id="good", name=f"good-{number}", kept=Kept.IN_CELL)
        for number in range(4)
    ]
    shared.put(others)
    gates = shared.cells_registry.gates()
    by_cell = {gate.cell.uuid: gate for gate in gates}

    async def evil() -> object:
        asks_for("evil")
        filters = {"deleted": False, "project_id": "evil", "name": ENDLESS}
        try:
            return await cells.listing.listing.list_servers(
                shared.reach, Listing(filters=filters, order=BY_NAME, limit=50, deadline_s=5.0)
            )
        except core.errors.CellplaneError as error:
            return error

    async def look() -> tuple[list[object], Page]:
        asks_for("good")
        rows = [
            await by_cell[shared.cell_of(thing).uuid].read(cell_db.listing.one, thing.uuid, hosts_down_after_s=None)
            for thing in others
        ]
        filters = {"deleted": False, "project_id": "good", "name": "good"}
        with contextlib.suppress(core.errors.Unavailable):  # An expression waits for its turn behind those of others.
            await cells.listing.listing.list_servers(
                shared.reach, Listing(filters=filters, order=BY_NAME, limit=50, deadline_s=5.0)
            )
        del filters["name"]
        return list(rows), await cells.listing.listing.list_servers(
            shared.reach, Listing(filters=filters, order=BY_NAME, limit=50, deadline_s=5.0)
        )

    async def both() -> tuple[list[object], list[tuple[list[object], Page]]]:
        attack = asyncio.gather(*(evil() for _ in range(40)))
        await asyncio.sleep(0)
        looks = [await look()]
        while not attack.done():
            looks.append(await look())
        return await attack, looks

    ends, looks = asyncio.run(both())

    for rows, page in looks:
        assert all(isinstance(row, Answer) for row in rows), rows
        assert [item.uuid for item in page.items if not isinstance(item, Unreachable)] == [
            thing.uuid for thing in others
        ]
        assert page.silent == []
    # They are told; and a page that came about all the same leaves nothing out.
    assert all(
        end.silent == [] if isinstance(end, Page) else isinstance(end, core.errors.Invalid | core.errors.Unavailable)
        for end in ends
    ), ends
    assert all(gate.health()["database"] == "up" for gate in gates)


def test_a_project_has_a_share_of_a_gate_and_others_the_rest(shared: World) -> None:
    gate = Gate(shared.cells[1], threads=1, waiting=9, project_share=0.5, deadline_s=20.0)

    async def read() -> object:
        try:
            return await gate.read(_one)
        except core.errors.OverShare as error:
            return error

    async def of(project: str | None, number: int) -> list[object]:
        asks_for(project)
        return await asyncio.gather(*(read() for _ in range(number)))

    async def together() -> tuple[list[object], list[object], list[object]]:
        # The one thread is busy until all have asked.
        busy = asyncio.ensure_future(gate.read(lambda _: may_end.wait(20.0)))
        await asyncio.sleep(0)
        asked = asyncio.gather(of("one", 8), of("other", 3), of(None, 1))
        for _ in range(5):
            await asyncio.sleep(0)
        may_end.set()
        one, other, ours = await asked
        await busy
        return one, other, ours

    may_end = threading.Event()
    one, other, ours = asyncio.run(together())
    gate.close()

    assert sum(isinstance(each, core.errors.OverShare) for each in one) == 3
    assert all(isinstance(each, Answer) for each in (*other, *ours))
