"""Quota is counted in the API database alone: exact under any concurrency, and as the rules say for any sequence of
orders."""

import concurrent.futures
import datetime
import pathlib
import uuid
from collections.abc import Callable, Iterator, Mapping

import hypothesis
import pytest
import sqlalchemy as sa
from hypothesis import strategies

import api_db.cells
import api_db.instances
import api_db.journal
import api_db.limits
import api_db.quota
import api_db.schema
import api_db.soft_deletes
import api_db.tables
import core.errors
from api_db.instances import DELETED, LIVING, SOFT_DELETED
from api_db.journal import Kind
from cells.gate.answers import Cell, value_of
from cells.gate.gate import Gate
from core.clock import utcnow
from core.context import new_request_id, service_context
from database.engine import Database
from database.migrations import sync
from devstack.services import mariadb
from objects.build import BuildSpec, Flavor
from objects.build_request import BuildRequest, RequestSpec

DEFAULTS = {"instances": 50, "cores": -1, "ram": -1}
TINY = Flavor(flavor_id="tiny", name="m1.tiny", vcpus=1, memory_mib=64, root_gib=1)
PROCESSES = 4


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def url(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
    """An API database of each kind, empty."""
    if request.param == "sqlite":
        database_url = f"sqlite:///{tmp_path}/api.sqlite"
    else:
        server: mariadb.MariaDB = request.getfixturevalue("mariadb_server")
        database_url = server.create_schema(f"quota_{uuid.uuid4().hex[:8]}")
    database = Database(database_url, pool_size=1)
    sync(api_db.schema.SCHEMA, database)
    database.close()
    return database_url


@pytest.fixture
def processes(url: str) -> Iterator[list[Gate]]:
    """The gates of several API processes to the one database."""
    cell = Cell(uuid="api", name="api", database_connection=url, transport_url="none://", disabled=False)
    gates = [Gate(cell, threads=5, deadline_s=60.0) for _ in range(PROCESSES)]
    yield gates
    for gate in gates:
        gate.close()


def order(
    connection: sa.Connection,
    number: int,
    *,
    project: str,
    user: str = "u",
    flavor: Flavor = TINY,
    defaults: Mapping[str, int] = DEFAULTS,
) -> list[str]:
    """Accepts servers of one request; gives their uuids."""
    orders = [
        BuildRequest(
            build=BuildSpec(uuid=str(uuid.uuid4()), project_id=project, user_id=user, name="n", hostname="n",
                flavor=flavor),
            request_id=new_request_id(), created_at=utcnow(),
        )
        for _ in range(number)
    ]  # fmt: skip
    api_db.journal.accept(
        connection, request=RequestSpec(project_id=project, user_id=user), request_uuid=str(uuid.uuid4()),
        requested=orders, quota_defaults=defaults, not_after=datetime.timedelta(minutes=10),
    )  # fmt: skip
    return [one.uuid for one in orders]


def burst(gates: list[Gate], number: int, *, project: str) -> tuple[list[str], list[core.errors.OverQuota]]:
    """So many requests at once, spread over the processes: what was accepted, and the refusals."""

    def create(which: int) -> list[str]:
        return value_of(gates[which % len(gates)].write_now(order, 1, project=project))

    accepted: list[str] = []
    refusals: list[core.errors.OverQuota] = []
    with concurrent.futures.ThreadPoolExecutor(max_workers=5 * len(gates)) as users:
        for call in [users.submit(create, which) for which in range(number)]:
            try:
                accepted += call.result(120.0)
            except core.errors.OverQuota as refusal:
                refusals.append(refusal)
    return accepted, refusals


def test_a_burst_gets_exactly_what_the_quota_allows(processes: list[Gate]) -> None:
    accepted, refusals = burst(processes, 200, project="p")

    assert (len(accepted), len(refusals)) == (50, 150)
    assert all(refusal.fields["quota"] == ["instances"] for refusal in refusals)
    assert value_of(processes[0].read_now(api_db.quota.usage, "p"))["instances"] == 50


def test_after_deletes_exactly_as_many_fit_again(processes: list[Gate]) -> None:
    accepted, _ = burst(processes, 60, project="p")
    for one in accepted[:13]:
        value_of(processes[0].write_now(api_db.journal.request_delete, uuid=one, lease_s=5.0))

    again, refusals = burst(processes, 40, project="p")

    assert (len(again), len(refusals)) == (13, 27)


def test_another_project_is_not_kept_waiting_by_a_full_one(processes: list[Gate]) -> None:
    burst(processes, 60, project="p")

    accepted, refusals = burst(processes, 20, project="q")

    assert (len(accepted), len(refusals)) == (20, 0)


# ---- any sequence of orders, deletes and changed limits --------------------------------------------------------------

FLAVORS = (TINY, Flavor(flavor_id="big", name="m1.big", vcpus=4, memory_mib=512, root_gib=1))
RESOURCES = ("instances", "cores", "ram")
LIMITS = strategies.dictionaries(strategies.sampled_from(RESOURCES), strategies.sampled_from((-1, 0, 2, 5, 600)))
EVENTS = strategies.lists(
    strategies.one_of(
        strategies.tuples(
            strategies.just("create"),
            strategies.integers(1, 4),
            strategies.sampled_from(FLAVORS),
            strategies.sampled_from("ab"),
        ),
        strategies.tuples(strategies.just("delete"), strategies.integers(0, 10)),
        strategies.tuples(strategies.just("project"), LIMITS),
        strategies.tuples(strategies.just("user"), LIMITS, strategies.sampled_from("ab")),
        strategies.tuples(strategies.just("class"), LIMITS),
    ),
    max_size=15,
)


class Ledger:
    """What the rules say, kept in plain Python."""

    def __init__(self) -> None:
        self.servers: dict[str, tuple[str, Flavor]] = {}
        self.limits: dict[str, dict[str, int]] = {"class": {}, "project": {}, "a": {}, "b": {}}

    def usage(self, user: str | None = None) -> dict[str, int]:
        mine = [flavor for owner, flavor in self.servers.values() if user in (None, owner)]
        return {"instances": len(mine), "cores": sum(f.vcpus for f in mine), "ram": sum(f.memory_mib for f in mine)}

    def fits(self, number: int, flavor: Flavor, user: str) -> bool:
        wanted = {"instances": number, "cores": number * flavor.vcpus, "ram": number * flavor.memory_mib}
        for_all = DEFAULTS | self.limits["class"] | self.limits["project"]
        return self._within(self.usage(), wanted, for_all) and self._within(self.usage(user), wanted, self.limits[user])

    @staticmethod
    def _within(used: dict[str, int], wanted: dict[str, int], limits: Mapping[str, int]) -> bool:
        return all(limits.get(what, -1) == -1 or used[what] + wanted[what] <= limits[what] for what in RESOURCES)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('quota')}/api.sqlite", pool_size=1)
    sync(api_db.schema.SCHEMA, database)
    yield database
    database.close()


# Threads of other tests' worlds use `random` while hypothesis draws.
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
@hypothesis.given(events=EVENTS)
@hypothesis.settings(max_examples=60, deadline=None)
def test_what_is_accepted_is_what_the_rules_allow(database: Database, events: list[tuple[object, ...]]) -> None:
    project, ledger = str(uuid.uuid4()), Ledger()
    with database.transaction() as connection:
        connection.execute(sa.delete(api_db.tables.quota_classes))
    for what, *details in events:
        with database.transaction() as connection:
            _happen(connection, project, ledger, str(what), details)
            assert api_db.quota.usage(connection, project) == ledger.usage()
            assert api_db.quota.usage(connection, project, "a") == ledger.usage("a")


def _happen(connection: sa.Connection, project: str, ledger: Ledger, what: str, details: list[object]) -> None:
    match what, details:
        case "create", [int(number), Flavor() as flavor, str(user)]:
            fits = ledger.fits(number, flavor, user)
            try:
                accepted = order(connection, number, project=project, user=user, flavor=flavor)
            except core.errors.OverQuota:
                assert not fits
            else:
                assert fits
                ledger.servers.update((one, (user, flavor)) for one in accepted)
        case "delete", [int(which)] if which < len(ledger.servers):
            victim = sorted(ledger.servers)[which]
            api_db.journal.request_delete(connection, uuid=victim, lease_s=0.0)
            del ledger.servers[victim]
        case "project", [dict(limits)]:
            api_db.limits.set_project(connection, project, limits)
            ledger.limits["project"].update(limits)
        case "user", [dict(limits), str(user)]:
            api_db.limits.set_user(connection, project, user, limits)
            ledger.limits[user].update(limits)
        case "class", [dict(limits)]:
            api_db.limits.set_class(connection, api_db.limits.DEFAULT_CLASS, limits)
            ledger.limits["class"].update(limits)


def test_restores_at_once_get_exactly_what_the_quota_allows(processes: list[Gate]) -> None:
    accepted, _ = burst(processes, 30, project="p")
    value_of(processes[0].write_now(soft_delete_all, accepted))
    assert value_of(processes[0].read_now(api_db.quota.usage, "p"))["instances"] == 0
    value_of(processes[0].write_now(order, 40, project="p"))

    def restore(number: int, uuid: str) -> bool:
        gate = processes[number % PROCESSES]
        try:
            value_of(
                gate.write_now(
                    api_db.soft_deletes.request_restore, uuid=uuid, project_id="p", quota_defaults=DEFAULTS,
                    lease_s=5.0, by=service_context()
                )
            )  # fmt: skip
        except core.errors.OverQuota:
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(max_workers=16) as users:
        restored = list(users.map(restore, range(len(accepted)), accepted))

    assert restored.count(True) == 10
    assert value_of(processes[0].read_now(api_db.quota.usage, "p"))["instances"] == 50


def test_of_a_restore_and_a_delete_for_good_at_once_one_is_done(processes: list[Gate]) -> None:
    accepted, _ = burst(processes, 20, project="p")
    value_of(processes[0].write_now(soft_delete_all, accepted))

    def restore(uuid: str) -> bool:
        return _is_done(
            processes[0], api_db.soft_deletes.request_restore, uuid=uuid, project_id="p", quota_defaults=DEFAULTS,
            lease_s=5.0, by=service_context()
        )  # fmt: skip

    def reclaim(uuid: str) -> bool:
        return _is_done(
            processes[1], api_db.journal.request_delete, uuid=uuid, lease_s=0.0, was=(SOFT_DELETED,), mark=1
        )

    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as users:
        both = [(users.submit(restore, uuid), users.submit(reclaim, uuid)) for uuid in accepted]
        done = [(one.result(60.0), other.result(60.0)) for one, other in both]

    mappings = {one.uuid: one for one in value_of(processes[0].read_now(api_db.instances.list_of, accepted))}
    assert all(is_restored != is_reclaimed for is_restored, is_reclaimed in done)
    assert [mappings[uuid].deleted for uuid in accepted] == [LIVING if one else DELETED for one, _ in done]
    for server, (is_restored, _) in zip(accepted, done, strict=True):
        entry = value_of(processes[0].read_now(api_db.journal.find, server))
        assert entry is not None and entry.kind is (Kind.RESTORE if is_restored else Kind.DELETE)


def _is_done(gate: Gate, change: Callable[..., object], **values: object) -> bool:
    try:
        value_of(gate.write_now(change, **values))
    except core.errors.NotFound:
        return False
    return True


def soft_delete_all(connection: sa.Connection, wanted: list[str]) -> None:
    """As if a cell had them and their users had deleted them."""
    cell = api_db.cells.create(connection, name="east", database_connection="sqlite://", transport_url="none://")
    mappings, journal = api_db.tables.instance_mappings, api_db.tables.build_requests
    connection.execute(sa.delete(journal).where(journal.c.uuid.in_(wanted)))
    soft = sa.update(mappings).where(mappings.c.uuid.in_(wanted))
    connection.execute(soft.values(cell_uuid=cell.uuid, deleted=SOFT_DELETED, mark=1, soft_deleted_at=utcnow()))
