"""One cell of eight is broken, in every way a cell can be, under a steady load on the others.

Each cell has a MariaDB server and a RabbitMQ node of its own; each fault is a real one of real servers. What has to
hold, each time:

- requests about servers of the other cells succeed, all of them; lists hold every server of the cells that answer and
  name the one that does not; an operator's lists over all cells do the same;
- none takes longer than the deadline of a cell and 0.2 s;
- their p95 is at most 1.5 times that of the same requests a moment before, in the same run. Those take some 10 ms, of
  which a few more or less are the machine's own doing, so an increase of less than `NOISE_S` passes too, and a window
  that misses the mark is watched again: a busy machine spoils one window, a cell that holds up others spoils each. Of
  each request the time is left out in which the machine did not even let the load run;
- threads and memory of the API stay bounded;
- what is created meanwhile goes to other cells and becomes ACTIVE; what is written to the broken cell is refused with a
  Retry-After;
- the cell is back in the lists within 5 s of its return, by itself.
"""

import contextlib
import dataclasses
import io
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
import requests

import api_db.tables
import cellctl.main
from devstack.accounts import Accounts
from devstack.backing_services import schema_of
from devstack.ports import Ports
from devstack.services.mariadb import ADMIN
from devstack.waiting import wait_until
from tests.stack import cloud as clouds
from tests.stack import conftest, faults
from tests.stack.cloud import Cloud
from tests.stack.relay import Relay
from tests.stack.servers import Servers
from tests.stack.steady import EVERYTHING, MICROVERSION, OPERATOR, OTHERS, Done, Steady, own_seconds, servers_for

pytestmark = [pytest.mark.alone, pytest.mark.mariadb, pytest.mark.rabbitmq, pytest.mark.timeout(600)]

VICTIM, SPARE = "south", "cell8"
DEADLINE_S = 1.0
"""`[cells] deadline_s`."""
MARGIN_S = 0.2
MAX_TIMES_HEALTHY = 1.5
NOISE_S = 0.05
HEALTHY_S, FAULTY_S = 2.0, 3.5
WINDOWS = 3
SLOW_S = 0.7
BACK_WITHIN_S = 5.0
IN_A_ROW = 6
"""So many lists in a row that are whole: both workers of the API have answered some of them."""
CREATES = 4
TRIAL = "trial"
ACTIVE_WITHIN_S = 60.0
THREADS_OF_A_GATE = 6
"""`[cells] threads` for the database and two for the broker; opened when they are needed."""
OTHER_THREADS = 25
"""Of a worker: the gate of the API database, periodic work, the event loop and its own few threads."""
MAX_MORE_MIB = 40.0
STATUS_WITHIN_S = 10.0
NOTICED_WITHIN_S = 30.0


@dataclasses.dataclass(frozen=True)
class Eight:
    """The cloud, the load on it, and the victim's ways to break."""

    cloud: Cloud
    load: Steady
    relay: Relay
    demos: dict[str, str]
    """Cell -> the server of the demo project there."""
    bystander: str
    """One more server in the victim."""

    def database(self) -> pymysql.Connection:
        """The victim's server, as its administrator and past the relay."""
        name = f"mariadb-{VICTIM}"
        password = Accounts(self.cloud.state.path / name / "accounts.json").password(ADMIN)
        port = Ports(self.cloud.state.ports).of(name)
        return pymysql.connect(
            host="127.0.0.1", port=port, user=ADMIN, password=password, autocommit=True, ssl_disabled=True
        )


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Eight]:
    """The victim is reached by the API level through the relay; its own processes reach it directly."""
    conftest.skip_without_servers()
    options = ("--profile", "full", "--isolate", "--cells", "8", "--hosts", "1")
    with contextlib.ExitStack() as stack:
        cloud = stack.enter_context(clouds.running(tmp_path_factory.mktemp("eight") / "state", *options))
        relay = stack.enter_context(Relay(Ports(cloud.state.ports).of(f"mariadb-{VICTIM}")))
        _re_address(cloud, relay.port)
        admins, demos = servers_for(cloud, victim=VICTIM, spare=SPARE)
        [bystander] = Servers(cloud).create("bystander", zone=VICTIM)
        Servers(cloud).wait_active({bystander})
        load = stack.enter_context(Steady(cloud, admins=admins, demos=demos, victim=VICTIM))
        yield Eight(cloud, load, relay, demos, bystander)


# ---- the faults ------------------------------------------------------------------------------------------------------


def _frozen_database(eight: Eight) -> contextlib.AbstractContextManager[None]:
    return faults.frozen(eight.cloud, f"mariadb-{VICTIM}")


def _black_hole(eight: Eight) -> contextlib.AbstractContextManager[None]:
    """Packets to the database's port are dropped: see `tests.stack.relay`, which needs no firewall for it."""
    return eight.relay.black()


def _frozen_broker(eight: Eight) -> contextlib.AbstractContextManager[None]:
    return faults.frozen(eight.cloud, f"rabbitmq-{VICTIM}")


@contextlib.contextmanager
def _wrong_password(eight: Eight) -> Iterator[None]:
    """Changed at the server; who was let in before is thrown out."""
    user = schema_of(VICTIM)
    password = Accounts(eight.cloud.state.path / f"mariadb-{VICTIM}" / "accounts.json").password(user)
    with contextlib.closing(eight.database()) as connection, connection.cursor() as cursor:
        cursor.execute("ALTER USER %s@'127.0.0.1' IDENTIFIED BY 'another'", (user,))
        cursor.execute("KILL USER %s@'127.0.0.1'", (user,))
        try:
            yield
        finally:
            cursor.execute("ALTER USER %s@'127.0.0.1' IDENTIFIED BY %s", (user, password))


@contextlib.contextmanager
def _missing_schema(eight: Eight) -> Iterator[None]:
    """Dropped, its tables put aside."""
    schema, aside = schema_of(VICTIM), "aside"
    with contextlib.closing(eight.database()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (schema,))
        tables = [row[0] for row in cursor.fetchall()]
        cursor.execute(f"CREATE DATABASE `{aside}`")
        cursor.execute("RENAME TABLE " + ", ".join(f"`{schema}`.`{table}` TO `{aside}`.`{table}`" for table in tables))
        cursor.execute(f"DROP DATABASE `{schema}`")
        try:
            yield
        finally:
            cursor.execute(f"CREATE DATABASE `{schema}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
            cursor.execute(
                "RENAME TABLE " + ", ".join(f"`{aside}`.`{table}` TO `{schema}`.`{table}`" for table in tables)
            )
            cursor.execute(f"DROP DATABASE `{aside}`")


def _slow_database(eight: Eight) -> contextlib.AbstractContextManager[None]:
    """Every question, a BEGIN and a ping among them, takes `SLOW_S` more."""
    return eight.relay.slow(SLOW_S)


Fault = Callable[[Eight], contextlib.AbstractContextManager[None]]


# ---- the tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [_frozen_database, _black_hole, _wrong_password, _missing_schema])
def test_a_cell_without_its_database_spoils_nothing_but_itself(eight: Eight, fault: Fault) -> None:
    def meanwhile(faulty: list[Done]) -> None:
        assert any(each.missing == [VICTIM] for each in faulty if each.group == EVERYTHING), (
            "no list names the missing cell"
        )
        assert any(each.missing == [VICTIM] for each in faulty if each.group == OPERATOR), (
            "no list of hosts names the missing cell"
        )
        _expect_refusal(eight)
        _expect_status(eight, f"cell {VICTIM}: database does not answer")

    _survives(eight, fault, meanwhile, target="database")


def test_a_cell_without_its_broker_spoils_nothing_at_all(eight: Eight) -> None:
    def meanwhile(faulty: list[Done]) -> None:
        assert not [each for each in faulty if each.missing]
        began = time.monotonic()
        assert _post(eight, f"/servers/{eight.bystander}/action", {"os-stop": None}).status_code == 202
        assert time.monotonic() - began < DEADLINE_S, "the hint held up the request"
        _expect_status(eight, f"cell {VICTIM}: broker does not answer")

    _survives(eight, _frozen_broker, meanwhile, target="broker")

    _wait_for_status(eight, eight.bystander, "SHUTOFF")
    assert _post(eight, f"/servers/{eight.bystander}/action", {"os-start": None}).status_code == 202
    _wait_for_status(eight, eight.bystander, "ACTIVE")


def test_a_cell_that_is_merely_slow_spoils_nothing_but_itself(eight: Eight) -> None:
    def meanwhile(_: list[Done]) -> None:
        assert _show(eight, eight.demos[VICTIM])["status"] in ("ACTIVE", "UNKNOWN")
        _expect_status(eight, "")

    _survives(eight, _slow_database, meanwhile, target=None)


def test_after_all_that_the_cell_builds_again(eight: Eight) -> None:
    servers = Servers(eight.cloud)
    ids = servers.create("after-all", zone=VICTIM)
    servers.wait_active(ids, deadline_s=ACTIVE_WITHIN_S)


def test_cells_come_go_and_move_without_a_restart_of_anything(eight: Eight) -> None:
    """Disabled, enabled, removed, added, re-addressed, while the load goes on: no process is another one afterwards."""
    cloud, servers = eight.cloud, Servers(eight.cloud)
    before = _processes(cloud)
    address = next(
        cell
        for cell in json.loads(_cellctl(cloud, "cell", "list", "--show-secrets", "-f", "json")[1])
        if cell["name"] == SPARE
    )

    _cellctl(cloud, "cell", "disable", SPARE)
    wait_until(
        lambda: _build_in(cloud, SPARE) == "ERROR",
        what="end of builds in the disabled cell",
        deadline_s=NOTICED_WITHIN_S,
    )
    _cellctl(cloud, "cell", "enable", SPARE)
    wait_until(
        lambda: _build_in(cloud, SPARE) == "ACTIVE", what="build in the enabled cell", deadline_s=NOTICED_WITHIN_S
    )

    mine = _servers_in(cloud, SPARE)
    servers.delete(mine)
    servers.wait_gone(mine)
    _cellctl(cloud, "cell", "delete", "--force", SPARE)
    wait_until(lambda: not _hosts_listed(cloud, SPARE), what="end of the removed cell", deadline_s=NOTICED_WITHIN_S)
    expect_well(eight.load.for_seconds(1.0))

    where = ["--database-connection", address["database_connection"], "--transport-url", address["transport_url"]]
    _cellctl(cloud, "cell", "create", SPARE, *where)
    # Its zone is one again as soon as its hosts are mapped.
    wait_until(
        lambda: _hosts_listed(cloud, SPARE) and _zone_listed(cloud, SPARE),
        what="the added cell",
        deadline_s=NOTICED_WITHIN_S,
    )
    wait_until(lambda: _build_in(cloud, SPARE) == "ACTIVE", what="build in the added cell", deadline_s=NOTICED_WITHIN_S)

    _re_address(cloud, Ports(cloud.state.ports).of(f"mariadb-{VICTIM}"))
    with eight.relay.black():  # Nobody goes by the old address any more.
        done = eight.load.for_seconds(1.5)
    expect_well(done)
    assert not [each for each in done if each.missing]
    _re_address(cloud, eight.relay.port)

    assert _processes(cloud) == before


# ---- a fault from its beginning to its end ---------------------------------------------------------------------------


def _survives(eight: Eight, fault: Fault, meanwhile: Callable[[list[Done]], None], *, target: str | None) -> None:
    """`meanwhile` is handed what the load did since the fault began; `target`: what the super-conductor says is away
    before anything is created.
    """
    healthy = eight.load.for_seconds(HEALTHY_S)
    expect_well(healthy)
    mib = _mib(eight.cloud)
    servers = Servers(eight.cloud)
    with fault(eight):
        meanwhile(_expect_as_good_as(healthy, lambda: eight.load.for_seconds(FAULTY_S)))
        wait_until(
            lambda: not target or _is_away(eight.cloud, target), what="notice of the fault", deadline_s=NOTICED_WITHIN_S
        )
        created = servers.create(*(f"meanwhile-{number}" for number in range(CREATES)))
        servers.wait_active(created, deadline_s=ACTIVE_WITHIN_S)
        assert VICTIM not in _cells_of(eight.cloud, created)
        assert _most_threads(eight.cloud) <= THREADS_OF_A_GATE * (len(eight.cloud.shape.cell_names) + 1) + OTHER_THREADS
        assert _mib(eight.cloud) <= mib + MAX_MORE_MIB
    returned = time.monotonic()
    wait_until(lambda: _is_back(eight), what=f"{VICTIM} in the lists", deadline_s=BACK_WITHIN_S)
    print(f"back in the lists after {time.monotonic() - returned:.1f} s")
    wait_until(
        lambda: not target or not _is_away(eight.cloud, target),
        what="notice of the return",
        deadline_s=NOTICED_WITHIN_S,
    )


def _expect_as_good_as(healthy: list[Done], watch: Callable[[], list[Done]]) -> list[Done]:
    """What was watched, once that holds which is promised of the time of a fault; see above for what is noise."""
    was = p95_s(healthy)
    for _ in range(WINDOWS):
        faulty = watch()
        expect_well(faulty)
        now = p95_s(faulty)
        late = [each for each in faulty if each.took_s - each.withheld_s > DEADLINE_S + MARGIN_S]
        print(f"p95 {was * 1000:.0f} ms healthy, {now * 1000:.0f} ms now; slowest: {_slowest(faulty)}")
        if not late and now <= max(was * MAX_TIMES_HEALTHY, was + NOISE_S):
            return faulty
    assert not late, late
    raise AssertionError(f"p95 was {was:.3f} s and is {now:.3f} s")


def expect_well(done: list[Done]) -> None:
    """Every request had a good answer, and there were some of each group."""
    assert {each.group for each in done} == {OTHERS, EVERYTHING, OPERATOR}
    bad = [each for each in done if each.status not in (200, 202) or each.problem]
    assert not bad, bad[:5]


def p95_s(done: list[Done]) -> float:
    """Of the requests about the other cells."""
    return statistics.quantiles(own_seconds(done), n=20)[-1]


def _slowest(done: list[Done]) -> str:
    slowest = max(done, key=lambda each: each.took_s)
    return f"{slowest.kind} {slowest.took_s:.2f} s, {slowest.withheld_s:.2f} of it withheld"


# ---- the victim ------------------------------------------------------------------------------------------------------


def _expect_refusal(eight: Eight) -> None:
    """A write is refused in time and says when to come back; a show tells what the mapping tells."""
    server = eight.demos[VICTIM]
    assert _show(eight, server)["status"] == "UNKNOWN"
    refusal = _post(eight, f"/servers/{server}/metadata", {"metadata": {"a": "b"}})
    assert (refusal.status_code, "Retry-After" in refusal.headers) == (503, True), refusal.text
    assert VICTIM in refusal.json()["serviceUnavailable"]["message"]


def _expect_status(eight: Eight, line: str) -> None:
    """`cellctl` says what is wrong, and does not wait for it."""
    began = time.monotonic()
    _, told = _cellctl(eight.cloud, "status", may_fail=True)
    _cellctl(eight.cloud, "cell", "list")
    assert line in told
    assert time.monotonic() - began < STATUS_WITHIN_S


def _is_back(eight: Eight) -> bool:
    """Lists are whole, whoever answers."""
    return all(
        Servers(eight.cloud).listed().get(eight.demos[VICTIM], {}).get("status") == "ACTIVE" for _ in range(IN_A_ROW)
    )


def _show(eight: Eight, server: str) -> dict[str, Any]:
    server_shown: dict[str, Any] = eight.cloud.api("demo").get(f"/servers/{server}")["server"]
    return server_shown


def _wait_for_status(eight: Eight, server: str, status: str) -> None:
    wait_until(
        lambda: _show(eight, server)["status"] == status,
        what=f"{status} server",
        deadline_s=ACTIVE_WITHIN_S,
        every_s=0.2,
    )


def _post(eight: Eight, path: str, body: dict[str, Any]) -> requests.Response:
    auth = ("demo", eight.cloud.password("demo"))
    return requests.post(
        eight.cloud.compute + path,
        json=body,
        auth=auth,
        headers={"OpenStack-API-Version": f"compute {MICROVERSION}"},
        timeout=30,
    )


# ---- the cloud -------------------------------------------------------------------------------------------------------


def _re_address(cloud: Cloud, port: int) -> None:
    """Tells the API level that the victim's database is at another port now; returns once all its processes go
    there."""
    logs = [cloud.state.log("api")] * len(_workers(cloud)) + [cloud.state.log("super-conductor")]
    line = f"cell {VICTIM} was removed, or its addresses were changed"
    before = [log.read_text().count(line) for log in logs]
    cells = json.loads(_cellctl(cloud, "cell", "list", "--show-secrets", "-f", "json")[1])
    url = next(cell["database_connection"] for cell in cells if cell["name"] == VICTIM)
    head, _, tail = url.rpartition("/")
    _cellctl(cloud, "cell", "update", VICTIM, "--database-connection", f"{head.rpartition(':')[0]}:{port}/{tail}")

    def all_know() -> bool:
        return all(
            log.read_text().count(line) >= seen + logs.count(log) for log, seen in zip(logs, before, strict=True)
        )

    wait_until(all_know, what="re-addressed cell", deadline_s=NOTICED_WITHIN_S)


def _cellctl(cloud: Cloud, *arguments: str, may_fail: bool = False) -> tuple[int, str]:
    output, remarks = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(remarks):
        code = cellctl.main.main(["--config-file", str(cloud.state.cellctl), *arguments])
    assert may_fail or code == 0, remarks.getvalue()
    return code, output.getvalue()


def _is_away(cloud: Cloud, target: str) -> bool:
    """Whether the super-conductor has found that the victim's database or broker is away, and not yet that it is
    back."""
    log = cloud.state.log("super-conductor").read_text()
    return log.rfind(f"cell unreachable cell={VICTIM} target={target}") > log.rfind(
        f"cell reachable again cell={VICTIM} target={target}"
    )


def _build_in(cloud: Cloud, zone: str) -> str:
    """How a build in this zone ends."""
    servers = Servers(cloud)
    [server] = servers.create(TRIAL, zone=zone)
    return str(cloud.api("demo").wait_for_server(server, deadline_s=ACTIVE_WITHIN_S)["status"])


def _hosts_listed(cloud: Cloud, cell: str) -> bool:
    listed = {service["host"] for service in cloud.api("admin").get("/os-services", binary="nova-compute")["services"]}
    return set(cloud.shape.hosts_of(cell)) <= listed


def _zone_listed(cloud: Cloud, zone: str) -> bool:
    return zone in {
        each["zoneName"] for each in cloud.api("admin").get("/os-availability-zone")["availabilityZoneInfo"]
    }


def _cells_of(cloud: Cloud, servers: set[str]) -> set[str]:
    names = {row.uuid: row.name for row in cloud.rows("api", api_db.tables.cell_mappings)}
    return {names[row.cell_uuid] for row in cloud.rows("api", api_db.tables.instance_mappings) if row.uuid in servers}


def _servers_in(cloud: Cloud, cell: str) -> set[str]:
    uuids = {row.uuid for row in cloud.rows("api", api_db.tables.cell_mappings) if row.name == cell}
    return {
        row.uuid
        for row in cloud.rows("api", api_db.tables.instance_mappings)
        if row.cell_uuid in uuids and not row.deleted
    }


def _processes(cloud: Cloud) -> dict[str, object]:
    pids: dict[str, object] = {path.stem: path.read_text() for path in cloud.state.run.glob("*.pid")}
    return pids | {"workers": _workers(cloud)}


def _workers(cloud: Cloud) -> list[int]:
    return faults.children(cloud.control.pid("api"))


def _most_threads(cloud: Cloud) -> int:
    most = max(_status(pid, "Threads") for pid in _workers(cloud))
    print(f"{most} threads, {_mib(cloud):.0f} MiB")
    return most


def _mib(cloud: Cloud) -> float:
    return sum(_status(pid, "VmRSS") for pid in _workers(cloud)) / 1024


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))
