"""What an operator does with a request id, as docs/operations/running.md says: look for it in the logs of all
processes; on both profiles."""

import re

import requests

from devstack.waiting import wait_until
from tests.stack.cloud import Cloud
from tests.stack.servers import Servers

DEADLINE_S = 60.0
VERSION = {"OpenStack-API-Version": "compute 2.90"}
LINE = re.compile(r"^\S+ \S+ \d+ [A-Z]+ (?P<logger>\S+) (?P<text>.*)$")
AGENT, CELL_CONDUCTOR, SUPER_CONDUCTOR, API = "compute.", "conductor.cell.", "conductor.superconductor.", "api."


def log_lines(cloud: Cloud, request_id: str) -> list[tuple[str, str]]:
    """(logger, text) of the lines of all processes that have it."""
    lines = [
        line
        for path in cloud.state.logs.glob("*.log*")
        for line in path.read_text(errors="replace").splitlines()
        if request_id in line
    ]
    return [(match["logger"], match["text"]) for match in map(LINE.match, lines) if match is not None]


def check(cloud: Cloud, request_id: str, server: str, *parts: str) -> None:
    """Each of the parts has said what it did for the request, with server and request id as fields."""

    def missing() -> set[str]:
        lines = log_lines(cloud, request_id)
        said = {
            part
            for part in parts
            for logger, text in lines
            if logger.startswith(part) and (part == API or f"server={server} " in text)
        }
        return set(parts) - said

    wait_until(lambda: not missing(), what=f"lines of {parts} with {request_id}", deadline_s=DEADLINE_S, every_s=0.2)
    assert all(f"request_id={request_id}" in text for _, text in log_lines(cloud, request_id))


def test_one_search_finds_what_every_process_did_for_a_request(cloud: Cloud) -> None:
    auth, servers = cloud.auth("demo"), f"{cloud.compute}/servers"
    created = requests.post(servers, json=Servers(cloud).body("followed"), auth=auth, headers=VERSION, timeout=30)
    server = created.json()["server"]["id"]
    cloud.api("demo").wait_for_server(server, deadline_s=DEADLINE_S)
    stopped = requests.post(f"{servers}/{server}/action", json={"os-stop": None}, auth=auth, timeout=30)
    check(cloud, stopped.headers["X-OpenStack-Request-ID"], server, API, CELL_CONDUCTOR, AGENT)
    deleted = requests.delete(f"{servers}/{server}", auth=auth, timeout=30)

    check(cloud, created.headers["X-OpenStack-Request-ID"], server, API, SUPER_CONDUCTOR, CELL_CONDUCTOR, AGENT)
    check(cloud, deleted.headers["X-OpenStack-Request-ID"], server, API, CELL_CONDUCTOR, AGENT)
