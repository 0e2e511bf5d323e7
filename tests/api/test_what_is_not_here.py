"""What this cloud does not have is answered in words that say so: nobody reads that a server is gone."""

from typing import Any

import pytest

from api.http.versions import MAX
from api.resources import absent, gone
from api.resources.absent import ABSENT, Refusal
from tests.api import small_cloud as clouds
from tests.api.http.harness import ADMIN, ALICE, Reply
from tests.api.small_cloud import SmallCloud
from tests.docs.contract import asked

REQUESTS = [(each.because, request) for each in ABSENT for request in each.requests]
HELD = {
    "addSecurityGroup": {"name": "web"},
    "removeSecurityGroup": {"name": "web"},
    "addFixedIp": {"networkId": "n"},
    "removeFixedIp": {"address": "10.0.0.1"},
    "addFloatingIp": {"address": "10.0.0.1", "fixed_address": "fe80::1"},
    "removeFloatingIp": {"address": "10.0.0.1"},
}
NOWHERE = "11111111-2222-4333-8444-555555555555"


@pytest.fixture(autouse=True)
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Served beside the servers."""
    monkeypatch.setattr(clouds, "RESOURCES", (*clouds.RESOURCES, absent, gone))


def ask(cloud: SmallCloud, request: Any, uuid: str, version: str | None = None) -> Reply:
    path = "/".join(uuid if part.startswith("{") else part for part in request.path.split("/"))
    body = {request.action: HELD.get(request.action)} if getattr(request, "action", "") else None
    method = getattr(request, "method", "POST")
    return cloud.ask.ask(method, f"/v2.1{path}", body, version=version or request.until or str(MAX), user=ALICE)


def test_each_request_is_answered_with_its_reason(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    for because, request in REQUESTS:
        reply = ask(cloud, request, uuid)

        assert reply.status == (request.status or (400 if request.action else 404)), (request, reply.body)
        assert because in reply.fault
        assert "Instance" not in reply.fault and "resource could not be found" not in reply.fault
        assert request.status or not request.action or f"There is no such action: {request.action}" in reply.fault


def test_a_server_that_is_not_there_is_said_not_to_be_there(cloud: SmallCloud) -> None:
    for _, request in REQUESTS:
        if request.path.startswith("/servers/"):
            assert ask(cloud, request, NOWHERE).fault == f"itemNotFound: Instance {NOWHERE} could not be found."


@pytest.mark.parametrize(
    ("request_", "version"),
    [
        (Refusal(method="GET", path="/servers/{server_id}/shares"), "2.96"),
        (Refusal(method="GET", path="/os-networks"), "2.36"),
        (Refusal(method="POST", path="/servers/{id}/action", action="addFixedIp"), "2.44"),
    ],
)
def test_outside_of_its_microversions_a_request_is_unknown(cloud: SmallCloud, request_: Refusal, version: str) -> None:
    reply = ask(cloud, request_, cloud.running(), version)

    assert (reply.status, reply.fault) == (404, "itemNotFound: The resource could not be found.")


def test_what_is_gone_is_gone_at_every_microversion(cloud: SmallCloud) -> None:
    for row in gone.ROUTES:
        for version in ("2.1", "2.50", str(MAX)):
            assert ask(cloud, row, NOWHERE, version).status == 410, asked(row)
    assert cloud.ask.get("/v2.1/os-agents", user=ADMIN).fault.startswith("computeFault: ")


def test_an_action_that_nobody_knows_is_no_action(cloud: SmallCloud) -> None:
    reply = cloud.act(cloud.running(), "levitate")

    assert (reply.status, reply.fault) == (400, "badRequest: There is no such action: levitate")


@pytest.mark.parametrize("key", HELD)
def test_what_such_an_action_holds_is_looked_at(cloud: SmallCloud, key: str) -> None:
    for held in (None, {}, {**HELD[key], "more": 1}, dict.fromkeys(HELD[key], "x" * 300)):
        reply = cloud.act(cloud.created(), key, held, version="2.43")

        assert reply.status == 400 and "network service" not in reply.fault
