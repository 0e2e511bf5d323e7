"""What one project asks, and a service that is silent, holds up nobody else."""

import pathlib
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

import core.context
import core.errors
import tests.api.small_cloud
from api.resources.keypairs import keypairs
from api.resources.servers import listing
from core.bounded_pool import BoundedPool
from tests.api.http.harness import ALICE
from tests.api.small_cloud import CARL, IMAGE, SmallCloud, small_cloud

FIFTY = ",".join(f"t{number}" for number in range(50))


@pytest.fixture
def cloud(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallCloud]:
    monkeypatch.setattr(tests.api.small_cloud, "RESOURCES", (*tests.api.small_cloud.RESOURCES, listing, keypairs))
    with small_cloud(tmp_path, "[image]\ntimeout_s = 0.3\n[cells]\ndeadline_s = 20\n") as small:
        yield small


@pytest.mark.parametrize("field", ["tags", "tags-any", "not-tags", "not-tags-any"])
@pytest.mark.parametrize("number", [51, 1500])
def test_a_filter_by_more_tags_than_a_server_may_have_is_refused(cloud: SmallCloud, field: str, number: int) -> None:
    cloud.running()
    tags = ",".join(str(each) for each in range(number))
    for _ in range(3):
        reply = cloud.ask.get(f"/v2.1/servers?{field}={tags}", version="2.96", user=ALICE)
        assert reply.status == 400
        assert field in reply.fault
    assert cloud.ask.get(f"/v2.1/servers?{field}={FIFTY}", version="2.96", user=ALICE).status == 200
    assert all(gate.health()["database"] == "up" for gate in cloud.cloud.cells.gates())


def test_a_status_that_is_asked_for_many_times_is_asked_for_once(cloud: SmallCloud) -> None:
    uuid = cloud.running()

    reply = cloud.ask.get("/v2.1/servers?" + "&".join(["status=ACTIVE"] * 500), version="2.96", user=ALICE)

    assert [server["id"] for server in reply.json["servers"]] == [uuid]


def test_requests_work_for_the_project_of_their_caller(cloud: SmallCloud) -> None:
    seen: set[str | None] = set()
    asker = core.context.asker

    def noted() -> str | None:
        seen.add(asker())
        return asker()

    with mock.patch.object(core.context, "asker", noted):
        cloud.ask.get("/v2.1/servers", version="2.96", user=ALICE)
        cloud.ask.get("/v2.1/servers", version="2.96", user=CARL)

    assert {ALICE.project_id, CARL.project_id} <= seen


def test_a_project_beyond_its_share_is_told_to_come_again_and_nothing_else(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    gate = cloud.cloud.cells.by_name("east")
    with mock.patch.object(gate._bulkhead, "_pool", BoundedPool("full", threads=1, waiting=1, project_share=0.5)):
        may_end = threading.Event()
        core.context.asks_for(ALICE.project_id)
        gate._bulkhead.submit(lambda: may_end.wait(20.0))
        core.context.asks_for(None)
        for version in ("2.1", "2.96"):
            for path in (f"/v2.1/servers/{uuid}", "/v2.1/servers/detail"):
                reply = cloud.ask.get(path, version=version, user=ALICE)
                assert reply.status == 503
                assert "Retry-After" in reply.headers
                assert "your project" in reply.fault
        may_end.set()
    assert cloud.show(uuid)["status"] == "ACTIVE"


def test_a_silent_image_service_holds_up_neither_lists_nor_key_pairs(cloud: SmallCloud) -> None:
    may_answer = threading.Event()
    uuid = cloud.running(name="here")

    def show(*_: object) -> Any:
        assert may_answer.wait(20.0)

    body = {"server": {"name": "n", "flavorRef": "small", "imageRef": IMAGE, "networks": "none"}}
    with mock.patch.multiple(cloud.cloud.images, show=show, known=lambda *_: None):
        for _ in range(10):
            assert cloud.ask.post("/v2.1/servers", body, version="2.96", user=ALICE).status == 503
        listed = cloud.ask.get("/v2.1/servers?name=here", version="2.96", user=CARL)
        assert listed.status == 200
        assert [
            server["id"]
            for server in cloud.ask.get("/v2.1/servers?name=here", version="2.96", user=ALICE).json["servers"]
        ] == [uuid]
        assert cloud.ask.post("/v2.1/os-keypairs", {"keypair": {"name": "k"}}, version="2.1", user=ALICE).status == 200
        may_answer.set()


def test_a_delete_is_a_delete_though_its_cell_cannot_be_told_yet(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    gate = cloud.cloud.cells.by_name("east")

    def refuses(*_: Any, **__: Any) -> Any:
        raise core.errors.OverShare("too many")

    with mock.patch.object(gate, "write", refuses):
        assert cloud.ask.ask("DELETE", f"/v2.1/servers/{uuid}", version="2.96", user=ALICE).status == 204

    assert cloud.ask.get("/v2.1/servers", version="2.96", user=ALICE).json["servers"] == []
