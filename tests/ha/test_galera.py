"""Several nodes of one database take writes at the same time: what one machine's locks hide is found here, on real
Galera nodes."""

import concurrent.futures
import datetime
import pathlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence

import pytest
import sqlalchemy as sa

import api_db.aggregates
import api_db.hosts
import api_db.journal
import api_db.keypairs
import api_db.limits
import api_db.quota
import api_db.schema
import api_db.server_group_leases
import api_db.server_groups
import core.errors
from api_db.journal import Assignment
from api_db.server_groups import ServerGroup
from api_db.tables import build_requests, cell_mappings, instance_mappings
from cells.gate.answers import Answer, Cell, value_of
from cells.gate.gate import Gate
from core.clock import utcnow
from core.context import new_request_id
from database.engine import Database, OwnDatabase
from database.errors import OutcomeUnknown
from database.migrations import sync
from database.types import now_sql
from devstack.services import galera, mariadb
from devstack.waiting import wait_until
from objects.build import BuildSpec, Flavor
from objects.build_request import BuildRequest, RequestSpec

pytestmark = [pytest.mark.ha, pytest.mark.mariadb]

LIMIT = 50
DEFAULTS = {"instances": LIMIT, "cores": -1, "ram": -1, "server_groups": 3, "server_group_members": 5}
TINY = Flavor(flavor_id="tiny", name="m1.tiny", vcpus=1, memory_mib=64, root_gib=1)
THREADS_A_NODE = 6
CELL = "11111111-1111-4111-8111-111111111111"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[mariadb.MariaDB]]:
    """Three nodes with one API database."""
    if not (mariadb.is_installed() and mariadb.has_galera()):
        pytest.skip("Galera is not installed: apt-get install mariadb-server-core mariadb-client-core galera-4")
    with galera.running_cluster(pathlib.Path(tmp_path_factory.mktemp("galera"))) as members:
        database = Database(members[0].create_schema("api"), pool_size=1)
        sync(api_db.schema.SCHEMA, database)
        database.close()
        yield members


@pytest.fixture(scope="module")
def gates(nodes: list[mariadb.MariaDB]) -> Iterator[list[Gate]]:
    """An API process at each node."""
    made = [
        Gate(Cell("api", f"api-{node.port}", node.url("api"), "none://"), threads=THREADS_A_NODE, deadline_s=60.0)
        for node in nodes
    ]
    yield made
    for gate in made:
        gate.close()


@pytest.fixture(scope="module")
def cell(gates: list[Gate]) -> str:
    """A cell that orders may be assigned to."""

    def insert(connection: sa.Connection) -> None:
        row = {
            "uuid": CELL,
            "name": "east",
            "transport_url": "none://",
            "database_connection": "none://",
            "disabled": False,
        }
        connection.execute(sa.insert(cell_mappings).values(**row, created_at=now_sql()))

    value_of(gates[0].write_now(insert))
    for gate in gates:
        seen_by(gate, lambda connection: connection.execute(sa.select(cell_mappings.c.uuid)).scalar())
    return CELL


def seen_by(gate: Gate, question: Callable[[sa.Connection], object]) -> None:
    """Waits until the node knows what another wrote: milliseconds."""
    wait_until(lambda: bool(value_of(gate.read_now(question))), what="write at another node", deadline_s=10.0)


def accept(connection: sa.Connection, *, project: str, group: str | None = None, number: int = 1) -> list[str]:
    """Accepts servers of one request; gives their uuids."""
    orders = [
        BuildRequest(
            build=BuildSpec(uuid=str(uuid.uuid4()), project_id=project, user_id="u", name="n", hostname="n",
                flavor=TINY),
            request_id=new_request_id(), created_at=utcnow(),
        )
        for _ in range(number)
    ]  # fmt: skip
    api_db.journal.accept(
        connection, request=RequestSpec(project_id=project, user_id="u", server_group=group),
        request_uuid=str(uuid.uuid4()), requested=orders, quota_defaults=DEFAULTS,
        not_after=datetime.timedelta(minutes=10),
    )  # fmt: skip
    return [order.uuid for order in orders]


def at_once(
    gates: Sequence[Gate], number: int, work: Callable[[Gate], object]
) -> tuple[list[object], list[core.errors.CellplaneError]]:
    """So many calls at the same moment, spread over the nodes: what they gave, and the refusals."""
    ready = threading.Barrier(min(number, THREADS_A_NODE * len(gates)))

    def call(which: int) -> object:
        if which < ready.parties:
            ready.wait(30.0)
        return work(gates[which % len(gates)])

    given, refused = [], []
    with concurrent.futures.ThreadPoolExecutor(ready.parties) as threads:
        for future in [threads.submit(call, which) for which in range(number)]:
            try:
                given.append(future.result(120.0))
            except core.errors.CellplaneError as error:
                assert not isinstance(error, core.errors.Unavailable), error.message
                refused.append(error)
    return given, refused


# ---- locks that every node sees --------------------------------------------------------------------------------------


def test_three_writers_never_exceed_a_quota(gates: list[Gate]) -> None:
    for project in ("p", "q", "r"):
        accepted, refused = at_once(
            gates, 3 * LIMIT, lambda gate, project=project: value_of(gate.write_now(accept, project=project))
        )  # type: ignore[misc]

        assert (len(accepted), len(refused)) == (LIMIT, 2 * LIMIT)
        assert value_of(gates[0].read_now(api_db.quota.usage, project))["instances"] == LIMIT


def test_a_group_gets_no_more_members_than_its_user_may_have(gates: list[Gate]) -> None:
    group = make_group(gates)

    accepted, refused = at_once(
        gates, 18, lambda gate: value_of(gate.write_now(accept, project="grouped", group=group))
    )

    assert (len(accepted), len(refused)) == (5, 13)


def make_group(gates: Sequence[Gate], project: str = "grouped") -> str:
    made = value_of(
        gates[0].write_now(
            api_db.server_groups.insert, new_group(project), quota_defaults={**DEFAULTS, "server_groups": -1}
        )
    )
    for gate in gates:
        seen_by(
            gate, lambda connection: [one for one in api_db.server_groups.list_all(connection) if one.uuid == made.uuid]
        )
    return made.uuid


def new_group(project: str) -> ServerGroup:
    return api_db.server_groups.new(project_id=project, user_id="u", name="web", policy="anti-affinity", rules={})


def test_a_project_gets_no_more_groups_than_it_may_have(gates: list[Gate]) -> None:
    made, refused = at_once(
        gates,
        18,
        lambda gate: value_of(
            gate.write_now(api_db.server_groups.insert, new_group("groups"), quota_defaults=DEFAULTS)
        ),
    )

    assert (len(made), len(refused)) == (3, 15)


def test_a_user_gets_no_more_key_pairs_than_the_quota_allows(gates: list[Gate]) -> None:
    def make(gate: Gate) -> object:
        pair = {
            "user_id": "keys",
            "name": uuid.uuid4().hex,
            "kind": "ssh",
            "fingerprint": "f",
            "public_key": "k",
            "most": 5,
        }
        return value_of(gate.write_now(api_db.keypairs.insert, **pair))

    made, refused = at_once(gates, 18, make)

    assert (len(made), len(refused)) == (5, 13)


def test_a_host_is_in_one_zone_only(gates: list[Gate], cell: str) -> None:
    for number in range(5):
        host = f"host-{number}"
        value_of(gates[0].write_now(api_db.hosts.insert, [host], cell))
        zones = [
            value_of(
                gates[0].write_now(api_db.aggregates.insert, name=f"{host}-{zone}", availability_zone=f"{host}-{zone}")
            ).id
            for zone in range(3)
        ]
        for gate in gates:
            seen_by(
                gate,
                lambda connection, zones=zones: (
                    len([a for a in api_db.aggregates.list_all(connection) if a.id in zones]) == 3
                ),
            )  # type: ignore[misc]

        waiting = iter(zones)
        at_once(
            gates,
            3,
            lambda gate, waiting=waiting, host=host: value_of(
                gate.write_now(api_db.aggregates.add_host, next(waiting), host)
            ),
        )  # type: ignore[misc]

        aggregates = value_of(gates[0].read_now(api_db.aggregates.list_all))
        assert len([one for one in aggregates if one.id in zones and host in one.hosts]) == 1


# ---- leases ----------------------------------------------------------------------------------------------------------


def test_an_order_is_leased_by_one_super_conductor(gates: list[Gate]) -> None:
    value_of(gates[0].write_now(lambda connection: connection.execute(sa.delete(build_requests)).rowcount))
    for part in range(6):
        value_of(gates[0].write_now(accept, project=f"leases-{part}", number=LIMIT))
    for gate in gates:
        seen_by(
            gate,
            lambda connection: (
                connection.execute(sa.select(sa.func.count()).select_from(build_requests)).scalar() == 6 * LIMIT
            ),
        )

    def drain(gate: Gate) -> list[str]:
        taken: list[str] = []
        while entries := value_of(gate.write_now(api_db.journal.lease, seconds=600.0, most=10)):
            taken += [entry.uuid for entry in entries]
        return taken

    drained, _ = at_once(gates, 9, drain)
    taken = [one for part in drained for one in part]  # type: ignore[attr-defined]

    assert (len(taken), len(set(taken))) == (6 * LIMIT, 6 * LIMIT)


def test_members_are_handed_over_by_whoever_holds_their_group(gates: list[Gate], cell: str) -> None:
    """The first one is slow, and a second takes the group at another node meanwhile: it must not miss what the first
    hands over."""
    group = make_group(gates, "held")
    [server] = value_of(gates[0].write_now(accept, project="held"))
    [entry] = value_of(gates[0].write_now(api_db.journal.lease, seconds=600.0, most=1, uuids_wanted=[server]))
    held = value_of(gates[0].write_now(api_db.server_group_leases.take, group, seconds=0.0))
    assert held is not None
    assignment = Assignment(
        uuid=server, token=str(entry.token), project_id="held", cell_uuid=cell, host="h", alternates=[]
    )
    seen_by(gates[1], lambda connection: phase_of(connection, server))
    has_assigned, is_taken = threading.Event(), threading.Event()

    def slowly_assign(connection: sa.Connection) -> None:
        api_db.server_group_leases.assign(connection, [assignment], held[1])
        has_assigned.set()
        is_taken.wait(2.0)

    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        slow = threads.submit(gates[0].write_now, slowly_assign)
        assert has_assigned.wait(10.0)
        second = value_of(gates[1].write_now(api_db.server_group_leases.take, group, seconds=600.0))
        seen = value_of(gates[1].read_now(phase_of, server))
        is_taken.set()
        assert second is not None
        if seen == api_db.journal.NEW:
            with pytest.raises(core.errors.Unavailable, match="is held by another super-conductor"):
                slow.result(60.0)
        else:
            value_of(slow.result(60.0))


def phase_of(connection: sa.Connection, server: str) -> str | None:
    return connection.execute(sa.select(build_requests.c.phase).where(build_requests.c.uuid == server)).scalar()


# ---- conflicts at COMMIT ---------------------------------------------------------------------------------------------


def test_conductors_repeat_what_a_conflict_undid(nodes: list[mariadb.MariaDB], gates: list[Gate]) -> None:
    value_of(gates[0].write_now(accept, project="counted"))
    mine = sa.update(instance_mappings).where(instance_mappings.c.project_id == "counted")
    databases = [OwnDatabase(node.url("api")) for node in nodes]
    tries = 0

    def count(connection: sa.Connection) -> None:
        nonlocal tries
        tries += 1
        connection.execute(mine.values(vcpus=instance_mappings.c.vcpus + 1))

    def work(database: OwnDatabase) -> None:
        for _ in range(20):
            database.run(count)

    with concurrent.futures.ThreadPoolExecutor(len(databases)) as threads:
        list(threads.map(work, databases))
    with databases[0].reading() as connection:
        counted = connection.execute(
            sa.select(instance_mappings.c.vcpus).where(instance_mappings.c.project_id == "counted")
        ).scalar_one()

    assert counted == TINY.vcpus + 60
    assert tries > 60  # else nothing was tried here
    for database in databases:
        database.close()


# ---- a node without its cluster --------------------------------------------------------------------------------------


def test_a_node_without_majority_is_a_lost_connection(nodes: list[mariadb.MariaDB]) -> None:
    """It answers `SELECT 1` and pings, and refuses all else with 1047: nothing is wrong with the statements."""
    alone = nodes[-1]
    database = Database(alone.url("api"), pool_size=1)
    gate = Gate(Cell("api", "alone", alone.url("api"), "none://"), threads=1, deadline_s=3.0)
    value_of(gate.read_now(api_db.hosts.list_all))
    with database.reading() as connection:
        lost = connection.connection.dbapi_connection
    galera.isolate(alone, True)
    try:
        wait_until(lambda: not galera.is_synced(alone, len(nodes)), what="node alone", deadline_s=30.0)

        with pytest.raises(sa.exc.DBAPIError) as raised, database.transaction() as connection:
            connection.execute(sa.select(instance_mappings.c.id))
        assert raised.value.connection_invalidated
        with database.reading() as connection:
            assert connection.connection.dbapi_connection is not lost

        for _ in range(3):
            assert not isinstance(gate.read_now(api_db.hosts.list_all), Answer)
        assert gate.health()["database"] != "up"
        time.sleep(1.1)  # as long as a breaker waits with its next probe
        gate.probe()
        wait_until(
            lambda: not galera.is_synced(alone, len(nodes)) and gate.health()["database"] != "up",
            what="a probe that is not fooled",
            deadline_s=5.0,
        )
    finally:
        galera.isolate(alone, False)
        wait_until(lambda: galera.is_synced(alone, len(nodes)), what="node among the others", deadline_s=60.0)

    def answers() -> bool:
        gate.probe()
        return isinstance(gate.read_now(api_db.hosts.list_all), Answer)

    wait_until(answers, what="answer of the node that came back", deadline_s=30.0)
    gate.close()
    database.close()


def test_a_commit_on_a_node_that_loses_its_cluster_may_have_taken_effect(nodes: list[mariadb.MariaDB]) -> None:
    alone = nodes[-1]
    database = Database(alone.url("api"), pool_size=1, io_timeout_s=60.0)
    try:
        with pytest.raises((OutcomeUnknown, sa.exc.DBAPIError)) as raised, database.transaction() as connection:
            connection.execute(sa.insert(cell_mappings).values(
                uuid=str(uuid.uuid4()), name="late", transport_url="none://", database_connection="none://",
                disabled=False, created_at=now_sql()
            ))  # fmt: skip
            galera.isolate(alone, True)
            wait_until(lambda: not galera.is_synced(alone, len(nodes)), what="node alone", deadline_s=30.0)
        assert isinstance(raised.value, OutcomeUnknown), raised.value
    finally:
        galera.isolate(alone, False)
        wait_until(lambda: galera.is_synced(alone, len(nodes)), what="node among the others", deadline_s=60.0)
        database.close()
