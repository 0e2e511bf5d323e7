"""Rules of the build protocol that faults alone seldom put to the test, each on its own; and bugs that once broke
them."""

import datetime
import pathlib
import uuid
from collections.abc import Iterator

import msgspec
import pytest
import sqlalchemy as sa

import api_db.build_status
import api_db.cells
import api_db.journal
import api_db.listing
import api_db.schema
import api_db.tables
import cell_db.builds
import cell_db.cleanups
import cell_db.endings
import cell_db.heartbeats
import cell_db.history
import cell_db.schema
import cell_db.tables
import core.errors
from cell_db.builds import NewInstance
from core.clock import utcnow
from core.context import new_request_id
from database.engine import Database
from database.migrations import sync
from database.types import now_sql
from devstack.services import mariadb
from lifecycle import states
from objects.build import BuildSpec, Flavor
from objects.build_request import BuildRequest, RequestSpec
from objects.candidate import Candidate
from objects.host import Attempt
from tests.faults.harness import heartbeat_of

HOST, OTHER = "host-1", "host-2"
ALTERNATE = Candidate(host=OTHER, node_uuid=str(uuid.uuid4()))
NEVER = {"instances": -1, "cores": -1, "ram": -1}


class Databases:
    """An API database and a cell's, empty."""

    def __init__(self, api_url: str, cell_url: str) -> None:
        self.api, self.cell = Database(api_url, pool_size=3), Database(cell_url, pool_size=3)
        sync(api_db.schema.SCHEMA, self.api)
        sync(cell_db.schema.SCHEMA, self.cell)

    def close(self) -> None:
        self.api.close()
        self.cell.close()


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def databases(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Databases]:
    if request.param == "sqlite":
        made = Databases(f"sqlite:///{tmp_path}/api.sqlite", f"sqlite:///{tmp_path}/cell.sqlite")
    else:
        server: mariadb.MariaDB = request.getfixturevalue("mariadb_server")
        mark = uuid.uuid4().hex[:8]
        made = Databases(server.create_schema(f"rules_{mark}_api"), server.create_schema(f"rules_{mark}_cell"))
    yield made
    made.close()


def an_order() -> BuildRequest:
    flavor = Flavor(flavor_id="tiny", name="m1.tiny", vcpus=1, memory_mib=64, root_gib=1)
    build = BuildSpec(uuid=str(uuid.uuid4()), project_id="p", user_id="u", name="n", hostname="n", flavor=flavor)
    return BuildRequest(build=build, request_id=new_request_id(), created_at=utcnow())


def placed(order: BuildRequest, host: str = HOST, **changes: object) -> NewInstance:
    values = {
        "build_request": order, "host": host, "node_uuid": str(uuid.uuid4()), "hypervisor_hostname": host,
        "availability_zone": "nova", "alternates": [ALTERNATE], "resources": {"VCPU": 1},
        "not_after": utcnow() + datetime.timedelta(hours=1),
    }  # fmt: skip
    return NewInstance(**{**values, **changes})  # type: ignore[arg-type]


def insert(connection: sa.Connection, *orders: NewInstance) -> None:
    cell_db.builds.insert(connection, orders, build_deadline_s=600.0)


def tombstone(connection: sa.Connection, server: str) -> bool:
    return cell_db.endings.tombstone(connection, uuid=server, project_id="p", user_id="u", is_cell0=False)


def row_of(database: Database, server: str) -> sa.Row[tuple[object, ...]]:
    table = cell_db.tables.instances
    with database.reading() as connection:
        return connection.execute(sa.select(table).where(table.c.uuid == server)).one()


def accept(databases: Databases, order: BuildRequest) -> None:
    with databases.api.transaction() as connection:
        api_db.journal.accept(
            connection, request=RequestSpec(project_id="p", user_id="u"), request_uuid=str(uuid.uuid4()),
            requested=[order], quota_defaults=NEVER, not_after=datetime.timedelta(hours=1),
        )  # fmt: skip


# ---- tombstones ------------------------------------------------------------------------------------------------------


def test_a_tombstone_keeps_a_late_insert_out(databases: Databases) -> None:
    order = an_order()

    with databases.cell.transaction() as connection:
        tombstone(connection, order.uuid)
    with databases.cell.transaction() as connection:
        insert(connection, placed(order))

    assert row_of(databases.cell, order.uuid).state == states.BUILD_DELETING


@pytest.mark.mariadb
def test_a_tombstone_that_an_insert_forestalled_marks_its_row(request: pytest.FixtureRequest) -> None:
    """The insert of a slow super-conductor was committed between the look for the row and the tombstone's own insert:
    the tombstone was ignored, the delete's journal row went, and a server ran that nobody owned. SQLite lets one writer
    in at a time.
    """
    server: mariadb.MariaDB = request.getfixturevalue("mariadb_server")
    mark = uuid.uuid4().hex[:8]
    databases = Databases(server.create_schema(f"rules_{mark}_api"), server.create_schema(f"rules_{mark}_cell"))
    order = an_order()

    with databases.cell.transaction() as connection:

        @sa.event.listens_for(connection, "before_cursor_execute")
        def _insert_comes_in_between(conn: sa.Connection, cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("INSERT") and "instances" in statement:
                with databases.cell.transaction() as slow:
                    insert(slow, placed(order))

        tombstone(connection, order.uuid)

    row = row_of(databases.cell, order.uuid)
    with databases.cell.reading() as connection:
        owed = cell_db.cleanups.list_of(connection, [order.uuid])
    databases.close()
    assert (row.state, [(one.host, one.attempt) for one in owed]) == (states.BUILD_DELETING, [(HOST, 1)])


# ---- cleanups --------------------------------------------------------------------------------------------------------


def introduce(connection: sa.Connection, host: str, **more: object) -> None:
    beat = heartbeat_of(host, boot_id="1", intents=[], guests=None)
    cell_db.heartbeats.beat(connection, beat)
    cell_db.heartbeats.placed(connection, beat.inventory)


def owing(databases: Databases) -> list[str]:
    with databases.cell.reading() as connection:
        return [report.host for report in cell_db.heartbeats.hosts(connection) if report.cleanups_open]


def test_a_host_with_a_superseded_attempt_takes_nothing_new(databases: Databases) -> None:
    order = an_order()
    with databases.cell.transaction() as connection:
        introduce(connection, HOST)
        insert(connection, placed(order))
        (build,) = cell_db.builds.building(connection, [order.uuid])
        cell_db.builds.supersede(connection, build, reason="silence", host_said_so=False, build_deadline_s=600.0)

    assert owing(databases) == [HOST]


def test_a_host_that_is_destroying_a_deleted_server_is_open_for_others(databases: Databases) -> None:
    """Every ordinary delete closed its host until the scheduler's next look a second later: under a steady stream of
    deletes all hosts were closed, and builds were buried for want of a valid host. The deleted server's claim still
    stands, so nothing is over-used.
    """
    order = an_order()
    with databases.cell.transaction() as connection:
        introduce(connection, HOST)
        insert(connection, placed(order))
        tombstone(connection, order.uuid)

    assert owing(databases) == []


# ---- leases ----------------------------------------------------------------------------------------------------------


def test_only_the_current_attempt_on_its_own_host_keeps_the_lease(databases: Databases) -> None:
    """A returned host that still listed its superseded attempt kept the sweep away from the new one, whose order was
    lost."""
    order = an_order()
    with databases.cell.transaction() as connection:
        insert(connection, placed(order))
        (build,) = cell_db.builds.building(connection, [order.uuid])
        cell_db.builds.supersede(connection, build, reason="silence", host_said_so=False, build_deadline_s=600.0)

        cell_db.builds.renew_leases(connection, HOST, [(order.uuid, 1)], lease_s=30.0)
        assert [taken.attempt for taken in cell_db.builds.lease(connection, lease_s=0.0, most=10)] == [2]
        cell_db.builds.renew_leases(connection, OTHER, [(order.uuid, 2)], lease_s=30.0)
        assert cell_db.builds.lease(connection, lease_s=0.0, most=10) == []


def test_orders_that_wait_for_a_cell_keep_no_other_from_its_turn(databases: Databases) -> None:
    """Old orders for a cell that is away came first every time their second was over, and younger ones were never
    looked at."""
    waiting, fresh = [an_order() for _ in range(5)], an_order()
    for order in waiting:
        accept(databases, order)
    with databases.api.transaction() as connection:
        held = api_db.journal.lease(connection, seconds=15.0, most=5)
        api_db.journal.give_back(connection, [(entry.uuid, str(entry.token)) for entry in held], wait_s=0.0)
    with databases.api.transaction() as connection:
        journal = api_db.tables.build_requests
        connection.execute(sa.update(journal).values(lease_until=now_sql(-1.0)))
    accept(databases, fresh)
    with databases.api.transaction() as connection:
        connection.execute(sa.update(journal).where(journal.c.uuid == fresh.uuid).values(lease_until=now_sql(-2.0)))

        assert [entry.uuid for entry in api_db.journal.lease(connection, seconds=15.0, most=1)] == [fresh.uuid]


def test_what_was_given_back_does_not_count_as_a_try(databases: Databases) -> None:
    """Placement away for ten seconds made every waiting order count as poisonous, and it was buried."""
    accept(databases, an_order())
    with databases.api.transaction() as connection:
        for _ in range(20):
            (entry,) = api_db.journal.lease(connection, seconds=15.0, most=1)
            assert entry.tries == 1
            api_db.journal.give_back(connection, [(entry.uuid, str(entry.token))], wait_s=-1.0)


def test_a_stale_token_changes_nothing(databases: Databases) -> None:
    order = an_order()
    accept(databases, order)
    with databases.api.transaction() as connection:
        (first,) = api_db.journal.lease(connection, seconds=-1.0, most=1)
        (second,) = api_db.journal.lease(connection, seconds=15.0, most=1)
        assignment = api_db.journal.Assignment(
            uuid=order.uuid,
            token=str(first.token),
            project_id="p",
            cell_uuid=str(uuid.uuid4()),
            host=HOST,
            alternates=[],
        )

        assert first.token != second.token
        assert not api_db.journal.renew(connection, uuid=order.uuid, token=str(first.token), seconds=15.0)
        assert api_db.journal.assign(connection, [assignment]) == set()
        assert api_db.journal.drop(connection, [(order.uuid, str(first.token))]) == set()


def test_the_sweep_leaves_a_new_order_to_its_hint(databases: Databases) -> None:
    """It took part in every burst: two claims at once touched the same providers, and Placement refused one of them."""
    order = an_order()
    accept(databases, order)
    with databases.api.transaction() as connection:
        assert api_db.journal.lease(connection, seconds=15.0, most=5, hint_s=60.0) == []
        (hinted,) = api_db.journal.lease(connection, seconds=-1.0, most=5, uuids_wanted=[order.uuid])
        (swept,) = api_db.journal.lease(connection, seconds=15.0, most=5, hint_s=60.0)

    assert (hinted.uuid, swept.uuid) == (order.uuid, order.uuid)


# ---- the hand-over of many -------------------------------------------------------------------------------------------


def two_cells(databases: Databases) -> tuple[str, str]:
    uuids = str(uuid.uuid4()), str(uuid.uuid4())
    with databases.api.transaction() as connection:
        for cell_uuid in uuids:
            api_db.cells.create(
                connection,
                name=cell_uuid[:8],
                uuid=cell_uuid,
                database_connection=f"sqlite:///{cell_uuid}",
                transport_url="none:///",
            )
    return uuids


def test_of_many_that_are_assigned_together_each_is_compared_by_itself(databases: Databases) -> None:
    """Two statements for each cell, however many servers: those that were deleted or lost meanwhile are not among those
    that are done."""
    east, west = two_cells(databases)
    orders = [an_order() for _ in range(6)]
    for order in orders:
        accept(databases, order)
    deleted, lost = orders[1], orders[2]
    fault = cell_db.history.fault(500, "No valid host was found.")
    with databases.api.transaction() as connection:
        held = {entry.uuid: entry for entry in api_db.journal.lease(connection, seconds=-1.0, most=6)}
        api_db.journal.request_delete(connection, uuid=deleted.uuid, lease_s=5.0)
        api_db.journal.lease(connection, seconds=15.0, most=1, uuids_wanted=[lost.uuid])
        wanted = [
            api_db.journal.Assignment(
                uuid=order.uuid, token=str(held[order.uuid].token), project_id="p",
                cell_uuid=east if number < 4 else west, host=f"host-{number}",
                alternates=[msgspec.structs.replace(ALTERNATE, host=f"other-{number}")],
                fault=fault if number == 5 else None,
            )
            for number, order in enumerate(orders)
        ]  # fmt: skip

        done = api_db.journal.assign(connection, wanted)
        again = api_db.journal.assign(connection, wanted)

    kept = [order.uuid for order in orders if order not in (deleted, lost)]
    assert done == set(kept)
    assert again == set()
    with databases.api.reading() as connection:
        journal, mappings = api_db.tables.build_requests, api_db.tables.instance_mappings
        rows = {row.uuid: row for row in connection.execute(sa.select(journal))}
        cells = {row.uuid: row.cell_uuid for row in connection.execute(sa.select(mappings))}
    for number, order in enumerate(orders):
        row, cell_uuid = rows[order.uuid], east if number < 4 else west
        if order.uuid in kept:
            assert (row.phase, row.target, row.host, cells[order.uuid]) == (
                api_db.journal.ASSIGNED,
                cell_uuid,
                f"host-{number}",
                cell_uuid,
            )
            assert row.alternates == msgspec.to_builtins([msgspec.structs.replace(ALTERNATE, host=f"other-{number}")])
            assert row.fault == (msgspec.to_builtins(fault) if number == 5 else None)
        else:
            assert (row.phase, row.target, row.host, cells[order.uuid]) == (api_db.journal.NEW, None, None, None)


def test_of_many_that_are_dropped_together_those_that_are_being_deleted_stay(databases: Databases) -> None:
    orders = [an_order() for _ in range(3)]
    for order in orders:
        accept(databases, order)
    with databases.api.transaction() as connection:
        held = [(entry.uuid, str(entry.token)) for entry in api_db.journal.lease(connection, seconds=15.0, most=3)]
        api_db.journal.request_delete(connection, uuid=orders[1].uuid, lease_s=5.0)

        assert api_db.journal.drop(connection, held) == {orders[0].uuid, orders[2].uuid}
        assert api_db.journal.drop(connection, [(orders[1].uuid, str(uuid.uuid4()))]) == set()
        assert api_db.journal.waiting(connection, [order.uuid for order in orders]) == {orders[1].uuid}


def test_of_many_that_are_reported_active_each_is_compared_by_itself(databases: Databases) -> None:
    one, other, older = an_order(), an_order(), an_order()
    with databases.cell.transaction() as connection:
        insert(connection, placed(one), placed(other, OTHER), placed(older))
        (build,) = cell_db.builds.building(connection, [older.uuid])
        cell_db.builds.supersede(connection, build, reason="silence", host_said_so=False, build_deadline_s=600.0)
        ran = [
            cell_db.builds.ReportedGuest(one.uuid, 1, HOST, states.RUNNING),
            cell_db.builds.ReportedGuest(one.uuid, 1, OTHER, states.RUNNING),
            cell_db.builds.ReportedGuest(other.uuid, 1, OTHER, states.POWER_PAUSED),
            cell_db.builds.ReportedGuest(older.uuid, 1, HOST, states.RUNNING),
        ]  # fmt: skip

        assert cell_db.builds.active(connection, ran) == {ran[0], ran[2]}
        assert cell_db.builds.active(connection, ran) == set()
    assert [row_of(databases.cell, order.uuid).state for order in (one, other, older)] == [
        states.BUILD_ACTIVE,
        states.BUILD_ACTIVE,
        states.BUILD,
    ]
    assert [row_of(databases.cell, order.uuid).power_state for order in (one, other)] == [
        states.RUNNING,
        states.POWER_PAUSED,
    ]


# ---- hosts that come back --------------------------------------------------------------------------------------------


def test_a_late_hello_says_nothing_of_servers_launched_since(databases: Databases) -> None:
    """A hello that was handled late (its conductor was frozen, its broker away) declared the guests lost that were
    built meanwhile."""
    old, young = an_order(), an_order()
    with databases.cell.transaction() as connection:
        insert(connection, placed(old), placed(young))
        cell_db.builds.active(
            connection, [cell_db.builds.ReportedGuest(one.uuid, 1, HOST, states.RUNNING) for one in (old, young)]
        )
        table = cell_db.tables.instances
        connection.execute(sa.update(table).where(table.c.uuid == old.uuid).values(launched_at=now_sql(-60.0)))

        started_at = utcnow() - datetime.timedelta(seconds=30)
        assert cell_db.builds.live_on(connection, HOST, launched_before=started_at) == [(old.uuid, 1)]


# ---- a cell that was away for too long -------------------------------------------------------------------------------


def test_what_was_shown_as_a_fault_is_not_built_when_the_cell_returns(databases: Databases) -> None:
    """It became a BUILD row that carried a fault: the user had seen ERROR, and perhaps ordered another one."""
    order = an_order()
    fault = cell_db.history.fault(500, "Cell east has not answered in time for this build")
    with databases.cell.transaction() as connection:
        insert(connection, placed(order, fault=fault))

        assert cell_db.builds.building(connection, [order.uuid]) == []
        assert cell_db.endings.ended(connection, [order.uuid]) == [order.uuid]
    row = row_of(databases.cell, order.uuid)
    assert (row.state, row.vm_state, row.host, row.fault["message"]) == (
        states.BUILD_ERROR,
        states.ERROR,
        None,
        fault.message,
    )


def test_a_fault_does_not_touch_a_row_that_is_there_already(databases: Databases) -> None:
    order = an_order()
    with databases.cell.transaction() as connection:
        insert(connection, placed(order))
        insert(connection, placed(order, fault=cell_db.history.fault(500, "too late")))

    assert row_of(databases.cell, order.uuid).state == states.BUILD


# ---- reports ---------------------------------------------------------------------------------------------------------


def test_a_report_of_an_older_attempt_is_dropped(databases: Databases) -> None:
    order = an_order()
    with databases.cell.transaction() as connection:
        insert(connection, placed(order))
        (build,) = cell_db.builds.building(connection, [order.uuid])
        cell_db.builds.supersede(connection, build, reason="silence", host_said_so=False, build_deadline_s=600.0)

        assert (
            cell_db.builds.active(connection, [cell_db.builds.ReportedGuest(order.uuid, 1, HOST, states.RUNNING)])
            == set()
        )
    assert row_of(databases.cell, order.uuid).state == states.BUILD


def test_a_heartbeat_tells_which_attempts_are_under_way(databases: Databases) -> None:
    server = str(uuid.uuid4())
    with databases.cell.transaction() as connection:
        cell_db.heartbeats.beat(connection, heartbeat_of(HOST, boot_id="1", intents=[Attempt(server, 3)], guests=None))

        assert cell_db.heartbeats.listed_intents(connection) == {(HOST, server, 3)}


# ---- orders that cannot be read --------------------------------------------------------------------------------------

NONSENSE = ("[1", "null", '"text"', "[[]]", '{"a":' * 3000)


DOCUMENTS = ("instance", "alternates", "fault", "delete_context")


def test_orders_that_cannot_be_read_keep_no_other_from_being_leased_listed_or_shown(databases: Databases) -> None:
    """One document of one row failed the lease of all orders, every list of its project, and `cellctl build list`."""
    bad = {an_order().uuid: (column, nonsense) for column in DOCUMENTS for nonsense in NONSENSE}
    good = an_order()
    accept(databases, good)
    table = api_db.tables.build_requests
    for server, (column, nonsense) in bad.items():
        order = an_order()
        accept(databases, msgspec.structs.replace(order, build=msgspec.structs.replace(order.build, uuid=server)))
        with databases.api.transaction() as connection:
            mine = sa.update(table).where(table.c.uuid == server)
            connection.execute(mine.values({table.c[column]: sa.literal(nonsense, sa.Text())}))

    with databases.api.transaction() as connection:
        leased = api_db.journal.lease(connection, seconds=60, most=99)
    with databases.api.reading() as connection:
        listed = {each.uuid for each in api_db.listing.journal(connection, project_id="p") if each.server}
        shown = {each.uuid for each in api_db.build_status.list_all(connection, most=99)}
        for server, why in bad.items():
            with pytest.raises(core.errors.Unreadable, match=server):
                assert api_db.journal.find(connection, server) is None, why

    assert [entry.uuid for entry in leased] == [good.uuid]
    assert good.uuid in listed
    assert shown == {*bad, good.uuid}
