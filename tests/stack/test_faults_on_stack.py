"""A cell that is frozen, in part or whole; and processes that are killed while servers boot."""

import concurrent.futures
import threading
import time
from collections.abc import Callable

import pytest

from core import errors
from devstack.waiting import wait_until
from tests.stack import faults
from tests.stack.cloud import Cloud
from tests.stack.servers import Servers

BATCH = 4
LIST_DEADLINE_S = 1.0
"""`[cells] deadline_s`: after it, a list goes without the cells that are silent."""
MARGIN_S = 2.0
"""The machine that runs the tests has little else to give."""
LISTS = 5
JOURNAL_DEADLINE_S = 20.0
THAW_DEADLINE_S = 60.0
BURST = 60
CREATE_DEADLINE_S = 90.0
FROZEN_WEST = {
    "its conductor": lambda cloud: ["cell-conductor-west"],
    "its database": lambda cloud: ["mariadb-west"],
    "its broker": lambda cloud: ["rabbitmq-west"],
    "all its processes": lambda cloud: faults.processes_of_cell(cloud, "west"),
}


@pytest.mark.parametrize("what", FROZEN_WEST)
@pytest.mark.alone
def test_a_frozen_cell_does_not_hold_up_the_other(isolated: Cloud, what: str) -> None:
    servers = Servers(isolated, concurrency=BATCH)
    names = FROZEN_WEST[what](isolated)
    before = servers.create("before-east", zone="east") | servers.create("before-west", zone="west")
    servers.wait_active(before)

    with faults.frozen(isolated, *names):
        beside = servers.create(*(f"beside-{number}" for number in range(BATCH)), zone="east")
        anywhere = servers.create(*(f"anywhere-{number}" for number in range(BATCH)))
        waiting = servers.create("waiting", zone="west")
        servers.wait_active(beside)
        for _ in range(LISTS):
            assert _seconds(servers.listed) < LIST_DEADLINE_S + MARGIN_S
        assert before | beside <= set(servers.listed())

    everything = before | beside | anywhere | waiting
    servers.wait_active(everything, deadline_s=THAW_DEADLINE_S)
    servers.delete(everything)
    servers.wait_gone(everything)


@pytest.mark.alone
def test_servers_of_a_silent_cell_are_listed_as_unknown(isolated: Cloud) -> None:
    servers = Servers(isolated)
    here, there = servers.create("here", zone="east"), servers.create("there", zone="west")
    servers.wait_active(here | there)
    # As long as the journal has it too, the journal answers for the cell.
    wait_until(lambda: not (here | there) & isolated.journal(), what="empty journal", deadline_s=JOURNAL_DEADLINE_S)

    with faults.frozen(isolated, "mariadb-west"):
        statuses = {server: row["status"] for server, row in servers.listed().items() if server in here | there}
        assert statuses == {**dict.fromkeys(here, "ACTIVE"), **dict.fromkeys(there, "UNKNOWN")}

    servers.wait_active(here | there, deadline_s=THAW_DEADLINE_S)
    servers.delete(here | there)
    servers.wait_gone(here | there)


@pytest.mark.alone
def test_a_server_of_a_frozen_cell_is_deleted(isolated: Cloud) -> None:
    servers = Servers(isolated)
    ids = servers.create("doomed", zone="west")
    servers.wait_active(ids)

    with faults.frozen(isolated, *faults.processes_of_cell(isolated, "west")):
        assert _seconds(lambda: servers.delete(ids)) < LIST_DEADLINE_S + MARGIN_S

    servers.wait_gone(ids, deadline_s=THAW_DEADLINE_S)


def test_any_process_may_be_killed_in_a_burst_of_creates(full: Cloud) -> None:
    servers = Servers(full)
    burst = Burst(full, servers)
    victims: list[Callable[[], None]] = [lambda: faults.kill_api_worker(full)]
    victims += [lambda name=name: faults.kill(full, name) for name in _processes(full)]

    with concurrent.futures.ThreadPoolExecutor(BATCH) as threads:
        futures = [threads.submit(burst.create, f"burst-{number}") for number in range(BURST)]
        for number, kill in enumerate(victims):
            burst.wait_for(number * BURST // len(victims))
            kill()
        ids = {future.result() for future in futures}

    assert len(ids) == BURST
    servers.wait_active(ids)
    mine = {server for server, row in servers.listed().items() if row["name"].startswith("burst-")}
    assert mine == ids
    servers.delete(mine)
    servers.wait_gone(mine)


def _processes(cloud: Cloud) -> list[str]:
    """What is killed, one after another: each kind of process, the ones that others need among them."""
    cells = cloud.shape.cell_names
    return [
        "super-conductor", *(f"cell-conductor-{cell}" for cell in cells), *(f"compute-{cell}-1" for cell in cells),
        "placement", "rabbitmq", "mariadb", "api",
    ]  # fmt: skip


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


class Burst:
    """Creates that go on through refusals, as a careful user's would: no server is ordered twice."""

    def __init__(self, cloud: Cloud, servers: Servers) -> None:
        self._cloud = cloud
        self._servers = servers
        self._accepted = 0
        self._changed = threading.Condition()

    def create(self, name: str) -> str:
        """The id of a server of this name, ordered until the API has it."""
        ids: list[str] = []

        def is_ordered() -> bool:
            try:
                ids[:] = self._known(name) or [
                    str(self._cloud.api("demo").post("/servers", self._servers.body(name))["server"]["id"])
                ]
            except (errors.Unavailable, errors.Broken) as error:
                # The one good reason: somebody who is needed is away.
                assert error.fields.get("status", 503) == 503, error
                return False
            return True

        wait_until(is_ordered, what=f"acceptance of {name}", deadline_s=CREATE_DEADLINE_S, every_s=0.5)
        with self._changed:
            self._accepted += 1
            self._changed.notify_all()
        return ids[0]

    def wait_for(self, accepted: int) -> None:
        """Returns once so many were accepted."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._accepted >= accepted, CREATE_DEADLINE_S)

    def _known(self, name: str) -> list[str]:
        return [row["id"] for row in self._cloud.api("demo").get("/servers", name=f"^{name}$")["servers"]]
