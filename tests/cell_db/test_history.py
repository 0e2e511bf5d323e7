"""Whatever is done to a server, and however it ends: one record of it, over, with its result."""

import contextlib
import datetime
import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import pytest
import sqlalchemy as sa

import cell_db.builds
import cell_db.cleanups
import cell_db.endings
import cell_db.history
import cell_db.instances
import cell_db.operations
import cell_db.tables
from cell_db.builds import Building, NewInstance, ReportedGuest
from cell_db.cleanups import Cleanup
from cell_db.history import ERROR, SUCCESS, ActionRecord, Event, Phase, Told
from cell_db.operations import Operation
from cell_db.tables import instance_faults
from core.clock import utcnow
from core.context import Context, new_request_id
from database.engine import Database
from lifecycle import states
from lifecycle.actions import CREATE, OPERATIONS, REBOOT_HARD, RESET_STATE
from objects.build import BuildSpec, Flavor
from objects.build_request import BuildRequest
from objects.candidate import Candidate
from objects.fault import Fault
from tests.cell_db.rows import insert_instance, update_instance

T = TypeVar("T")
HOST, OTHER = "host-1", "host-2"
TINY = Flavor(flavor_id="tiny", name="m1.tiny", vcpus=1, memory_mib=64, root_gib=1)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A cell's database for all tests: each has servers of its own."""
    url = f"sqlite:///{tmp_path_factory.mktemp('history')}/cell.sqlite"
    if request.param == "mariadb":
        url = request.getfixturevalue("mariadb_server").create_schema(f"history_{uuid.uuid4().hex[:8]}")
    database = Database(url)
    cell_db.tables.metadata.create_all(database.engine)
    yield database
    database.close()


def asked(user: str = "u") -> Context:
    return Context(user_id=user, project_id="p", request_id=new_request_id(), is_admin=True)


def write(database: Database, work: Callable[..., T], *args: object, **kwargs: object) -> T:
    return database.run(work, *args, **kwargs)


def history(database: Database, server: str) -> list[tuple[ActionRecord, list[Event]]]:
    """Oldest first."""
    with database.reading() as connection:
        records = cell_db.history.list_actions(connection, server)
        return [cell_db.history.get_action(connection, server, record.request_id) for record in reversed(records)]


def only(database: Database, server: str, action: str) -> tuple[ActionRecord, list[Event]]:
    """The one record of the action; all others are over, too."""
    pairs = history(database, server)
    assert all(record.finish_time is not None for record, _ in pairs), pairs
    [mine] = [pair for pair in pairs if pair[0].action == action]
    return mine


# ---- operations on living servers ------------------------------------------------------------------------------------


def begun(database: Database, key: str, context: Context) -> tuple[str, str]:
    """A server on which the operation is under way, and the operation's id."""
    action = OPERATIONS[key]
    server = insert_instance(database, host=HOST)
    update_instance(database, server, vm_state=min(action.when), launched_at=utcnow(), spec={})
    return server, write(database, cell_db.operations.begin_operation, server, action, context, arguments={})


def result_within(database: Database, key: str, server: str, operation: str, fault: str | None) -> None:
    assert write(
        database,
        cell_db.operations.settle_operation,
        uuid=server,
        operation_id=operation,
        action=OPERATIONS[key],
        power_state=None,
        fault=fault,
        host=HOST,
    )


def done(database: Database, key: str, server: str, operation: str) -> str | None:
    result_within(database, key, server, operation, None)
    return None


def failed(database: Database, key: str, server: str, operation: str) -> str | None:
    result_within(database, key, server, operation, "no disk")
    return ERROR


def given_up_by_a_sweep(database: Database, key: str, server: str, operation: str) -> str | None:
    update_instance(database, server, operation_deadline=utcnow() - datetime.timedelta(seconds=1))
    [late] = [one for one in write(database, cell_db.operations.overdue_operations, most=50) if one.uuid == server]
    result_within(database, key, late.uuid, late.operation_id, f"host {late.host} did not answer in time")
    return ERROR


def superseded_by_a_hard_reboot(database: Database, key: str, server: str, operation: str) -> str | None:
    reboot = write(database, cell_db.operations.begin_operation, server, REBOOT_HARD, asked(), arguments={})
    result_within(database, "reboot-hard", server, reboot, None)
    return ERROR


def reset(database: Database, key: str, server: str, operation: str) -> str | None:
    write(database, cell_db.instances.reset_state, server, "active", asked())
    return ERROR


def deleted(database: Database, key: str, server: str, operation: str) -> str | None:
    write(
        database, cell_db.endings.tombstone, uuid=server, project_id="p", user_id="u", is_cell0=False, context=asked()
    )
    write(database, cell_db.endings.gone, HOST, [(server, 1)])
    write(database, cell_db.endings.deleted, server)
    return ERROR


def gives_way(key: str) -> bool:
    """Whether a hard reboot may take its place."""
    action = OPERATIONS[key]
    return (
        action.during is not None
        and action.during in (REBOOT_HARD.while_task or ())
        and min(action.when) in REBOOT_HARD.when
    )


def may_be_reset(key: str) -> bool:
    """What the mapping has decided no operator ends."""
    return OPERATIONS[key].during not in RESET_STATE.except_task


ENDINGS = (done, failed, given_up_by_a_sweep, superseded_by_a_hard_reboot, reset, deleted)
ALL = [
    (key, ending)
    for key, ending in itertools.product(OPERATIONS, ENDINGS)
    if (ending is not superseded_by_a_hard_reboot or gives_way(key)) and (ending is not reset or may_be_reset(key))
]


@pytest.mark.parametrize(("key", "ending"), ALL, ids=lambda value: getattr(value, "__name__", value))
def test_every_operation_has_one_record_however_it_ends(
    database: Database, key: str, ending: Callable[..., str | None]
) -> None:
    context = asked("alice")
    server, operation = begun(database, key, context)

    message = ending(database, key, server, operation)

    records = history(database, server)
    assert all(record.finish_time is not None for record, _ in records)
    [mine] = [(record, events) for record, events in records if record.request_id == context.request_id]
    record, events = mine
    assert (record.action, record.message, record.user_id, record.project_id) == (
        OPERATIONS[key].name,
        message,
        "alice",
        "p",
    )
    if ending in (done, failed, given_up_by_a_sweep):
        assert [(event.event, event.host, event.result) for event in events] == [
            (OPERATIONS[key].event_name, HOST, ERROR if message else SUCCESS)
        ]
        assert (faults(database, server) == 0) == (message is None)


def faults(database: Database, server: str) -> int:
    with database.reading() as connection:
        return int(
            connection.execute(
                sa.select(sa.func.count()).select_from(instance_faults).where(instance_faults.c.uuid == server)
            ).scalar_one()
        )


def test_what_is_done_at_once_is_over_at_once(database: Database) -> None:
    server = insert_instance(database)

    write(database, cell_db.instances.lock, server, asked(), by="owner", reason=None)
    write(database, cell_db.instances.unlock, server, asked(), may_override=False)
    write(database, cell_db.instances.reset_state, server, "error", asked())

    assert [(record.action, record.message) for record, _ in history(database, server)] == [
        ("lock", None),
        ("unlock", None),
        ("resetState", None),
    ]
    assert all(record.finish_time is not None for record, _ in history(database, server))


# ---- builds ----------------------------------------------------------------------------------------------------------


def placed(*, fault: Fault | None = None, host: str | None = HOST, alternates: int = 0) -> NewInstance:
    build_request = BuildRequest(
        build=BuildSpec(uuid=str(uuid.uuid4()), project_id="p", user_id="alice", name="n", hostname="n", flavor=TINY),
        request_id=new_request_id(), created_at=utcnow(),
    )  # fmt: skip
    others = [Candidate(host=OTHER, node_uuid=str(uuid.uuid4()))] * alternates
    return NewInstance(
        build_request=build_request, host=host, node_uuid=str(uuid.uuid4()), hypervisor_hostname=host,
        availability_zone=None, alternates=others, resources={}, not_after=utcnow(), fault=fault,
    )  # fmt: skip


def insert(database: Database, *new: NewInstance) -> list[str]:
    write(database, cell_db.builds.insert, list(new), build_deadline_s=60.0)
    return [one.build_request.uuid for one in new]


def give_up(database: Database, server: str) -> None:
    with database.reading() as connection:
        [build] = cell_db.builds.building(connection, [server])
    assert write(database, cell_db.builds.supersede, build, reason="is full", host_said_so=True, build_deadline_s=60.0)


def test_builds_of_one_request_have_one_record_each(database: Database) -> None:
    new = [placed() for _ in range(3)]
    servers = insert(database, *new)
    write(database, cell_db.builds.active, [ReportedGuest(server, 1, HOST, states.RUNNING) for server in servers])

    for one in new:
        record, events = only(database, one.build_request.uuid, "create")
        assert (record.request_id, record.user_id, record.message) == (one.build_request.request_id, "alice", None)
        assert [(event.event, event.host, event.result) for event in events] == [(CREATE.event_name, HOST, SUCCESS)]


def test_a_build_that_finds_another_host_keeps_its_record(database: Database) -> None:
    [server] = insert(database, placed(alternates=1))
    give_up(database, server)
    [(record, _)] = history(database, server)
    assert record.finish_time is None
    write(database, cell_db.builds.active, [ReportedGuest(server, 2, OTHER, states.RUNNING)])

    record, events = only(database, server, "create")

    assert record.message is None
    assert [(event.host, event.result) for event in events] == [(OTHER, SUCCESS), (HOST, ERROR)]


@pytest.mark.parametrize("buried", [False, True], ids=["no host left", "buried"])
def test_a_build_that_fails_ends_its_record(database: Database, buried: bool) -> None:
    fault = cell_db.history.fault(500, "No valid host was found.") if buried else None
    [server] = insert(database, placed(fault=fault, host=None if buried else HOST))
    if not buried:
        give_up(database, server)

    record, events = only(database, server, "create")

    assert record.message == ERROR
    assert [event.result for event in events] == ([] if buried else [ERROR])
    assert faults(database, server) == 1


# ---- deletes ---------------------------------------------------------------------------------------------------------


def tombstone(
    database: Database, server: str, by: Context, *, build_request: BuildRequest | None = None, is_cell0: bool = False
) -> bool:
    return write(
        database,
        cell_db.endings.tombstone,
        uuid=server,
        project_id="p",
        user_id="u",
        is_cell0=is_cell0,
        context=by,
        build_request=build_request,
    )


@pytest.mark.parametrize("told", [1, 3])
def test_a_delete_is_recorded_once_however_often_the_cell_is_told(database: Database, told: int) -> None:
    [server] = insert(database, placed())
    write(database, cell_db.builds.active, [ReportedGuest(server, 1, HOST, states.RUNNING)])
    by = asked("bob")
    for _ in range(told):
        tombstone(database, server, by)
    write(database, cell_db.endings.gone, HOST, [(server, 1)])
    for _ in range(told):
        write(database, cell_db.endings.deleted, server)

    record, events = only(database, server, "delete")

    assert (record.request_id, record.user_id, record.message) == (by.request_id, "bob", None)
    assert [(event.event, event.host, event.result) for event in events] == [
        ("compute_terminate_instance", HOST, SUCCESS)
    ]


def test_a_delete_ends_the_record_of_the_build_under_way(database: Database) -> None:
    [server] = insert(database, placed())
    tombstone(database, server, asked())
    write(database, cell_db.endings.deleted, server)

    record, _ = only(database, server, "create")
    assert record.message == ERROR
    assert only(database, server, "delete")[0].message is None


@pytest.mark.parametrize("is_cell0", [False, True], ids=["cell", "cell0"])
def test_a_server_without_a_host_has_its_delete_recorded(database: Database, is_cell0: bool) -> None:
    [server] = insert(database, placed(fault=cell_db.history.fault(500, "No valid host was found."), host=None))
    by = asked()
    tombstone(database, server, by, is_cell0=is_cell0)
    if not is_cell0:
        assert server in write(database, cell_db.endings.ended_without_cleanups, most=50)
        write(database, cell_db.endings.deleted, server)

    record, events = only(database, server, "delete")

    assert (record.request_id, record.message, events) == (by.request_id, None, [])


@pytest.mark.parametrize("is_cell0", [False, True], ids=["cell", "cell0"])
def test_a_server_that_its_cell_never_got_has_both_records(database: Database, is_cell0: bool) -> None:
    new, by = placed(), asked("bob")
    server = new.build_request.uuid
    tombstone(database, server, by, build_request=new.build_request, is_cell0=is_cell0)
    insert(database, new)  # late
    write(database, cell_db.endings.deleted, server)

    created, _ = only(database, server, "create")
    ended, _ = only(database, server, "delete")

    assert (created.request_id, created.user_id, created.message, created.start_time) == (
        new.build_request.request_id,
        "alice",
        ERROR,
        new.build_request.created_at,
    )
    assert (ended.request_id, ended.user_id, ended.message) == (by.request_id, "bob", None)


# ---- the one place ---------------------------------------------------------------------------------------------------


def test_many_servers_are_told_of_with_as_many_statements_as_one(database: Database) -> None:
    def told(number: int) -> list[Told]:
        return [Told(uuid=insert_instance(database), by=asked(), event="e", host=HOST) for _ in range(number)]

    with counted(database) as one:
        write(database, cell_db.history.tell, "delete", Phase.ENDED, told(1), instead_of_all=True)
    with counted(database) as many:
        write(database, cell_db.history.tell, "delete", Phase.ENDED, told(20), instead_of_all=True)

    assert len(one) - 1 == len(many) - 20  # each server's own insert
    assert len(one) < 10


@contextlib.contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """The statements inside the `with`, BEGIN and COMMIT left out."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement not in ("BEGIN", "BEGIN IMMEDIATE", "COMMIT"):
            seen.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(database.engine, "before_cursor_execute", note)


# ---- whose request work under way is ---------------------------------------------------------------------------------


@pytest.mark.parametrize("key", OPERATIONS)
def test_an_operation_is_found_with_the_request_that_asked_for_it(database: Database, key: str) -> None:
    server, _ = begun(database, key, context := asked())
    write(
        database, cell_db.instances.lock, server, asked(), by="owner", reason=None
    )  # Other records of the server do not matter.
    update_instance(
        database,
        server,
        lease_until=utcnow() - datetime.timedelta(hours=1),
        operation_deadline=utcnow() - datetime.timedelta(hours=1),
    )

    assert ids_of(server, read(database, cell_db.operations.operations, [server])) == {context.request_id}
    assert ids_of(server, read(database, cell_db.operations.overdue_operations, most=1000)) == {context.request_id}
    assert ids_of(server, write(database, cell_db.operations.take_operations, lease_s=60.0, most=1000)) == {
        context.request_id
    }


def test_a_hard_reboot_in_the_midst_of_a_soft_one_is_its_own_request(database: Database) -> None:
    server, _ = begun(database, "reboot-soft", asked())
    write(database, cell_db.operations.begin_operation, server, REBOOT_HARD, context := asked(), arguments={})

    assert ids_of(server, read(database, cell_db.operations.operations, [server])) == {context.request_id}


def test_builds_are_found_with_their_own_requests_in_one_query(database: Database) -> None:
    new = [placed(alternates=1) for _ in range(3)]
    servers = insert(database, *new)
    wanted = {one.build_request.uuid: one.build_request.request_id for one in new}
    give_up(database, servers[0])

    with counted(database) as statements:
        building = read(database, cell_db.builds.building, servers)

    assert {build.uuid: build.request_id for build in building} == wanted
    assert len(statements) == 1
    for server in servers:
        update_instance(
            database,
            server,
            lease_until=utcnow() - datetime.timedelta(hours=1),
            deadline=utcnow() - datetime.timedelta(hours=1),
        )
    for builds in (
        read(database, cell_db.builds.overdue, hosts_down=[], most=1000),
        write(database, cell_db.builds.lease, lease_s=60.0, most=1000),
    ):
        assert {build.uuid: build.request_id for build in builds if build.uuid in wanted} == wanted
    ran = [
        ReportedGuest(servers[0], 2, OTHER, states.RUNNING),
        *(ReportedGuest(server, 1, HOST, states.RUNNING) for server in servers[1:]),
    ]
    assert {guest.uuid: guest.request_id for guest in write(database, cell_db.builds.active, ran)} == wanted


def test_what_is_destroyed_is_the_creates_and_from_the_delete_on_the_deletes(database: Database) -> None:
    [server] = insert(database, new := placed(alternates=1))
    with database.reading() as connection:
        [build] = cell_db.builds.building(connection, [server])
    write(database, cell_db.builds.supersede, build, reason="is silent", host_said_so=False, build_deadline_s=60.0)
    assert cleanups_of(database, server) == {new.build_request.request_id}

    write(
        database,
        cell_db.endings.tombstone,
        uuid=server,
        project_id="p",
        user_id="u",
        is_cell0=False,
        context=(context := asked()),
    )

    assert cleanups_of(database, server) == {context.request_id}


def test_a_server_without_records_has_no_request(database: Database) -> None:
    server = insert_instance(database, state=states.BUILD)

    assert ids_of(server, read(database, cell_db.builds.building, [server])) == {""}
    assert ids_of(server, read(database, cell_db.cleanups.of_guests, [(server, HOST, 1)])) == {""}


def cleanups_of(database: Database, server: str) -> set[str]:
    """The request ids with which they are found, each way."""
    ways = (
        read(database, cell_db.cleanups.list_of, [server]), read(database, cell_db.cleanups.list_on, HOST),
        read(database, cell_db.cleanups.of_guests, [(server, HOST, 1)]),
        write(database, cell_db.cleanups.unanswered, hosts_up=[HOST], again_after_s=0.0, most=1000),
    )  # fmt: skip
    assert all(ids_of(server, way) for way in ways)
    return set[str]().union(*(ids_of(server, way) for way in ways))


def read(database: Database, work: Callable[..., T], *args: object, **kwargs: object) -> T:
    with database.reading() as connection:
        return work(connection, *args, **kwargs)


def ids_of(server: str, records: Iterable[Building | Operation | Cleanup]) -> set[str]:
    return {one.request_id for one in records if one.uuid == server}
