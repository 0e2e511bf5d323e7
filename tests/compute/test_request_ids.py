"""The agent works, logs and reports under the request that each row of an order names, also after a restart."""

import logging

import pytest

from devstack.waiting import wait_until
from messaging.verbs import cell, compute
from tests.compute.conftest import DEADLINE_S, HOST, Bench, new_uuid, spec_of

SERVERS = [new_uuid() for _ in range(2)]
BUILDS = {server: f"req-build-{number}" for number, server in enumerate(SERVERS)}
DESTROYS = {server: f"req-destroy-{number}" for number, server in enumerate(SERVERS)}


def lines(log: pytest.LogCaptureFixture, begin: str) -> set[str]:
    return {
        record.getMessage().partition(" after_s")[0] for record in log.records if record.getMessage().startswith(begin)
    }


def said(requests: dict[str, str], what: str) -> set[str]:
    return {
        f"{what} server={server} attempt=1 host={HOST} request_id={request_id}"
        for server, request_id in requests.items()
    }


def heard(bench: Bench, verb: object) -> dict[str, str]:
    bench.cell.hear_of(SERVERS, verb)
    return {row.uuid: row.request_id for row in bench.cell.heard(verb)}


def order_builds(bench: Bench) -> None:
    bench.cell.order(
        compute.BUILD,
        compute.Build([compute.BuildAttempt(1, spec_of(server), request_id) for server, request_id in BUILDS.items()]),
    )


def test_rows_of_two_requests_in_one_message(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench.start()

    order_builds(bench)
    assert heard(bench, cell.ACTIVE) == BUILDS
    bench.cell.order(
        compute.DESTROY,
        compute.Destroy([compute.DestroyAttempt(server, 1, request_id) for server, request_id in DESTROYS.items()]),
    )
    assert heard(bench, cell.GONE) == DESTROYS

    assert lines(caplog, "build accepted") == said(BUILDS, "build accepted")
    assert lines(caplog, "build ended") == said(BUILDS, "build ended")
    assert lines(caplog, "destroy ended") == said(DESTROYS, "destroy ended")


def test_a_refusal_has_the_id_of_its_order(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench.faults(refuse="not here")
    bench.start()

    order_builds(bench)

    assert heard(bench, cell.REFUSED) == BUILDS
    assert len(lines(caplog, "build refused")) == 2
    assert all(
        any(f"request_id={request_id} " in line for line in lines(caplog, "build refused"))
        for request_id in BUILDS.values()
    )


def test_the_next_agent_goes_on_under_the_same_request(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench.faults(spawn_s=120.0)
    first = bench.start()
    order_builds(bench)
    wait_until(lambda: len(bench.intents()) == 2, what="intents", deadline_s=DEADLINE_S)
    first.stop(1.0)
    bench.faults()

    bench.start()

    assert heard(bench, cell.ACTIVE) == BUILDS
    assert said(BUILDS, "build ended") == lines(caplog, "build ended")


def test_an_operation_is_done_logged_and_answered_under_its_request(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.start()
    server = new_uuid()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)

    bench.cell.act(server, 1, "op-1", "stop", request_id="req-stop")
    bench.cell.act(server, 2, "op-2", "start", request_id="req-start")

    assert bench.cell.hear(cell.ACTED, lambda row: row.operation_id == "op-1").request_id == "req-stop"
    refused = bench.cell.hear(cell.ACTED, lambda row: row.operation_id == "op-2")
    assert (refused.unharmed, refused.request_id) == (True, "req-start")
    fields = f"server={server} attempt=1 host={HOST} request_id=req-stop"
    assert lines(caplog, "stop") == {f"stop accepted {fields}", f"stop ended {fields}"}
    assert (
        len(lines(caplog, f"start cannot be done server={server} attempt=2 host={HOST} request_id=req-start why=")) == 1
    )
    bench.cell.forget()
    bench.cell.act(
        server, 1, "op-1", "stop", request_id="req-stop"
    )  # The answer was lost: it is in the agent's records.
    assert bench.cell.hear(cell.ACTED).request_id == "req-stop"
