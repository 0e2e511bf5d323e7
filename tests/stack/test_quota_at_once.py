"""Quota under fire: four API processes, many creates at the same moment, with all cells up and with one that is
down."""

import configparser
import contextlib
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

import api_db.tables
from core import errors
from devstack.accounts import write_private
from devstack.configure import project_id
from devstack.ports import free_port
from devstack.waiting import wait_until
from tests.stack.cloud import Cloud
from tests.stack.servers import Servers

PROCESSES = 4
LIMIT = 50
CREATES = 200
FREED = 20
HEADERS = {"OpenStack-API-Version": "compute 2.90"}
DOWN = "west"
TIMEOUT_S = 120.0
DEADLINE_S = 60.0


@pytest.fixture
def four_processes(full: Cloud) -> Iterator[Cloud]:
    """The full stack, its API in four processes."""
    before = full.state.config("api").read_text()
    _restart_api(full, _with_workers(before, PROCESSES))
    wait_until(
        lambda: len(psutil.Process(full.control.pid("api")).children()) == PROCESSES,
        what="four API processes",
        deadline_s=DEADLINE_S,
    )
    yield full
    _restart_api(full, before)


@pytest.mark.parametrize("is_down", [False, True], ids=["every cell up", "one cell down"])
def test_no_quota_is_ever_exceeded(four_processes: Cloud, is_down: bool) -> None:
    cloud, servers = four_processes, Servers(four_processes)
    standing = _used(cloud)
    with _limited(cloud, standing + LIMIT), _down(cloud, DOWN) if is_down else contextlib.nullcontext():
        accepted = _create_at_once(cloud, servers, CREATES, expected=LIMIT)
        assert _used(cloud) == standing + LIMIT
        assert _create_at_once(cloud, servers, 10, expected=0) == set()

        freed = set(sorted(accepted)[:FREED])
        servers.delete(freed)
        assert _used(cloud) == standing + LIMIT - FREED
        accepted = (accepted - freed) | _create_at_once(cloud, servers, 2 * FREED, expected=FREED)
        assert _used(cloud) == standing + LIMIT

    servers.wait_active(accepted)
    servers.delete(accepted)
    servers.wait_gone(accepted | freed)


def _create_at_once(cloud: Cloud, servers: Servers, number: int, *, expected: int) -> set[str]:
    """The servers accepted of so many creates that begin at the same moment; the rest must be refused for the quota."""
    body = servers.body("at-once")
    ready = threading.Barrier(number)

    def create(_: int) -> requests.Response:
        ready.wait(TIMEOUT_S)
        return requests.post(
            f"{cloud.compute}/servers",
            json=body,
            headers=HEADERS,
            auth=("demo", cloud.password("demo")),
            timeout=TIMEOUT_S,
        )

    with ThreadPoolExecutor(number) as threads:
        answers = list(threads.map(create, range(number)))
    accepted = [answer for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code != 202]
    assert len(accepted) == expected, Counter(f"{answer.status_code} {answer.text[:200]}" for answer in refused)
    for answer in refused:
        assert answer.status_code == 403, answer.text
        assert "Quota exceeded for instances" in answer.json()["forbidden"]["message"]
    return {str(answer.json()["server"]["id"]) for answer in accepted}


def _used(cloud: Cloud) -> int:
    """What the project is charged for, as it is told itself."""
    limits = cloud.api("demo").get("/limits")["limits"]["absolute"]
    charged = int(limits["totalInstancesUsed"])
    rows = cloud.rows("api", api_db.tables.instance_mappings)
    assert charged == sum(row.project_id == project_id("demo") and not row.deleted for row in rows)
    return charged


@contextlib.contextmanager
def _limited(cloud: Cloud, instances: int) -> Iterator[None]:
    """The project may have so many servers for a while."""
    url = f"{cloud.compute}/os-quota-sets/{project_id('demo')}"
    auth = ("admin", cloud.password("admin"))
    wanted: dict[str, Any] = {"quota_set": {"instances": instances, "cores": -1, "ram": -1}}
    requests.put(url, json=wanted, auth=auth, timeout=TIMEOUT_S).raise_for_status()
    yield
    requests.delete(url, auth=auth, timeout=TIMEOUT_S).raise_for_status()


@contextlib.contextmanager
def _down(cloud: Cloud, cell: str) -> Iterator[None]:
    """The API level cannot reach the cell for a while: its database is where nobody listens."""
    mapping = next(row for row in cloud.rows("api", api_db.tables.cell_mappings) if row.name == cell)
    nowhere = f"mysql+pymysql://nobody:nothing@127.0.0.1:{free_port()}/{cell}"
    _cellctl(cloud, "cell", "update", cell, "--database-connection", nowhere)
    try:
        wait_until(lambda: _is_missed(cloud, cell), what=f"silence of {cell}", deadline_s=DEADLINE_S)
        yield
    finally:
        _cellctl(cloud, "cell", "update", cell, "--database-connection", mapping.database_connection)


def _is_missed(cloud: Cloud, cell: str) -> bool:
    """Whether the process that answers has noticed."""
    with contextlib.suppress(errors.CellplaneError):
        cloud.api("demo").get("/servers/detail", limit="1", sort_key="display_name")
    return (
        cell
        in requests.get(f"{cloud.compute.removesuffix('/v2.1')}/cellplane/health", timeout=TIMEOUT_S).json()["cells"][
            "down"
        ]
    )


def _cellctl(cloud: Cloud, *arguments: str) -> None:
    program = str(Path(sys.executable).parent / "cellctl")
    subprocess.run(
        [program, "--config-file", str(cloud.state.cellctl), *arguments],
        check=True,
        timeout=TIMEOUT_S,
        stdout=subprocess.DEVNULL,
    )


def _with_workers(text: str, number: int) -> str:
    settings = configparser.ConfigParser(interpolation=None)
    settings.read_string(text)
    settings["api"]["workers"] = str(number)
    return "\n".join(
        line
        for name, section in settings.items()
        if section
        for line in (f"[{name}]", *(f"{key} = {value}" for key, value in section.items()))
    )


def _restart_api(cloud: Cloud, text: str) -> None:
    write_private(cloud.state.config("api"), text + "\n")
    cloud.control.restart("api")
    wait_until(cloud.api("demo").answers, what="answer of the API", deadline_s=DEADLINE_S)
