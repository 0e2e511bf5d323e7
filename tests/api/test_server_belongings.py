"""Metadata, tags, addresses and the history of a server."""

import pytest

from tests.api.http.harness import ADMIN, ALICE
from tests.api.small_cloud import CARL, SmallCloud


def _of(uuid: str, rest: str) -> str:
    return f"/v2.1/servers/{uuid}/{rest}"


# ---- metadata --------------------------------------------------------------------------------------------------------


def test_metadata_is_merged_replaced_set_and_deleted(cloud: SmallCloud) -> None:
    uuid = cloud.running(metadata={"a": "1"})
    ask, path = cloud.ask, _of(uuid, "metadata")

    assert ask.get(path, user=ALICE).json == {"metadata": {"a": "1"}}
    assert ask.post(path, {"metadata": {"b": "2"}}, user=ALICE).json == {"metadata": {"a": "1", "b": "2"}}
    assert ask.put(f"{path}/b", {"meta": {"b": "3"}}, user=ALICE).json == {"meta": {"b": "3"}}
    assert ask.get(f"{path}/b", user=ALICE).json == {"meta": {"b": "3"}}
    assert ask.delete(f"{path}/a", user=ALICE).status == 204
    assert ask.delete(f"{path}/a", user=ALICE).status == 404
    assert ask.get(f"{path}/a", user=ALICE).status == 404
    assert ask.put(path, {"metadata": {}}, user=ALICE).json == {"metadata": {}}
    assert cloud.show(uuid)["metadata"] == {}


def test_bad_metadata_is_refused(cloud: SmallCloud) -> None:
    path = _of(cloud.running(), "metadata")
    for body in (
        {"metadata": {"a": 1}},
        {"metadata": None},
        {"metadata": {"a": "x" * 256}},
        {},
        {"metadata": {}, "x": 1},
    ):
        assert cloud.ask.post(path, body, user=ALICE).status == 400
    assert cloud.ask.put(f"{path}/a", {"meta": {"b": "1"}}, user=ALICE).status == 400
    assert cloud.ask.put(f"{path}/a", {"meta": {"a": "1", "b": "1"}}, user=ALICE).status == 400
    assert cloud.ask.put(path, {"metadata": {f"k{number}": "v" for number in range(129)}}, user=ALICE).status == 403


@pytest.mark.parametrize("rest", ["metadata", "tags"])
def test_a_server_that_does_not_run_yet_keeps_its_belongings(cloud: SmallCloud, rest: str) -> None:
    uuid = cloud.created(metadata={"a": "1"}, tags=["t"])
    for _ in range(2):
        assert cloud.ask.get(_of(uuid, rest), user=ALICE, version="2.26").status == 200
        body = {"metadata": {}} if rest == "metadata" else {"tags": []}
        assert cloud.ask.put(_of(uuid, rest), body, user=ALICE, version="2.26").status == 409
        if cloud.entry(uuid) is not None:
            cloud.place(uuid)


def test_a_lock_protects_metadata_and_not_tags(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    cloud.act(uuid, "lock")
    assert cloud.ask.put(_of(uuid, "metadata"), {"metadata": {}}, user=ALICE).status == 409
    assert cloud.ask.put(_of(uuid, "tags"), {"tags": ["a"]}, user=ALICE, version="2.26").status == 200


# ---- tags ------------------------------------------------------------------------------------------------------------


def test_tags_come_and_go(cloud: SmallCloud) -> None:
    uuid = cloud.running(tags=["b"])
    path = _of(uuid, "tags")

    def ask(method: str, more: str = "", body: object = None, version: str = "2.26") -> tuple[int, bytes]:
        reply = cloud.ask.ask(method, path + more, body, user=ALICE, version=version)
        return reply.status, reply.body

    assert ask("GET") == (200, b'{"tags":["b"]}')
    assert ask("PUT", "/a") == (201, b"")
    assert ask("PUT", "/a") == (204, b"")
    assert ask("GET", "/a") == (204, b"")
    assert ask("DELETE", "/b") == (204, b"")
    assert ask("DELETE", "/b")[0] == 404
    assert ask("GET", "/b")[0] == 404
    assert ask("PUT", "", {"tags": ["y", "x"]}) == (200, b'{"tags":["x","y"]}')
    assert ask("DELETE") == (204, b"")
    assert ask("GET") == (200, b'{"tags":[]}')
    assert ask("GET", version="2.25")[0] == 404
    assert cloud.show(uuid)["tags"] == []


def test_tags_are_a_set(cloud: SmallCloud) -> None:
    uuid = cloud.running(tags=["b", "a", "b"])

    assert sorted(cloud.show(uuid)["tags"]) == ["a", "b"]
    reply = cloud.ask.put(_of(uuid, "tags"), {"tags": ["c", "d", "c"]}, user=ALICE, version="2.26")
    assert (reply.status, reply.json) == (200, {"tags": ["c", "d"]})


def test_bad_tags_are_refused(cloud: SmallCloud) -> None:
    path = _of(cloud.running(), "tags")
    for tags in (["a,b"], ["a/b"], [""], ["x" * 61], ["a"] * 51, [f"t{number}" for number in range(51)], "a", [1]):
        assert cloud.ask.put(path, {"tags": tags}, user=ALICE, version="2.26").status == 400
    assert cloud.ask.put(f"{path}/{'x' * 61}", None, user=ALICE, version="2.26").status == 400
    assert cloud.ask.put(f"{path}/a%2Fb", None, user=ALICE, version="2.26").status == 400
    assert (
        cloud.ask.put(path, {"tags": [f"t{number}" for number in range(50)]}, user=ALICE, version="2.26").status == 200
    )
    assert cloud.ask.put(f"{path}/more", None, user=ALICE, version="2.26").status == 400


# ---- addresses -------------------------------------------------------------------------------------------------------


def test_there_are_no_addresses_without_networks(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    assert cloud.ask.get(_of(uuid, "ips"), user=ALICE).json == {"addresses": {}}
    assert cloud.ask.get(_of(uuid, "ips/private"), user=ALICE).status == 404


# ---- history ---------------------------------------------------------------------------------------------------------


def test_the_history_of_a_server_grows_with_what_is_done(cloud: SmallCloud) -> None:
    uuid = cloud.created()
    path = _of(uuid, "os-instance-actions")
    (waiting,) = cloud.ask.get(path, user=ALICE).json["instanceActions"]
    assert cloud.ask.get(f"{path}/{waiting['request_id']}", user=ALICE).json["instanceAction"]["action"] == "create"
    cloud.place(uuid)
    cloud.run(uuid)
    assert cloud.ask.get(path, user=ALICE).json["instanceActions"] == [waiting]
    stopped = cloud.act(uuid, "os-stop").headers["X-Compute-Request-Id"]
    cloud.settle(uuid, fault="no power")

    actions = cloud.ask.get(path, user=ALICE, version="2.58").json["instanceActions"]

    assert [action["action"] for action in actions] == ["stop", "create"]
    assert actions[0]["request_id"] == stopped and actions[0]["message"] == "Error"
    assert set(actions[0]) == {
        "action", "instance_uuid", "request_id", "user_id", "project_id", "message", "start_time", "updated_at",
    }  # fmt: skip
    assert "updated_at" not in cloud.ask.get(path, user=ALICE, version="2.57").json["instanceActions"][0]
    assert cloud.ask.get(path, user=CARL).status == 404


def test_who_sees_what_of_an_actions_events(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    request_id = cloud.act(uuid, "os-stop").headers["X-Compute-Request-Id"]
    cloud.settle(uuid, fault="no power")
    path = _of(uuid, f"os-instance-actions/{request_id}")

    def events(version: str, user: object = ALICE) -> object:
        return cloud.ask.get(path, user=user, version=version).json["instanceAction"].get("events")

    basic = {"event", "start_time", "finish_time", "result"}
    assert events("2.50") is None
    assert set(events("2.50", ADMIN)[0]) == basic | {"traceback"}
    assert set(events("2.51")[0]) == basic
    assert set(events("2.62")[0]) == basic | {"hostId"}
    assert set(events("2.84")[0]) == basic | {"hostId"}
    assert set(events("2.84", ADMIN)[0]) == basic | {"traceback", "hostId", "host", "details"}
    assert events("2.84", ADMIN)[0]["host"] == "east-1"
    assert events("2.62")[0]["hostId"] == cloud.show(uuid)["hostId"]
    assert cloud.ask.get(_of(uuid, "os-instance-actions/req-1"), user=ALICE).status == 404


def test_the_history_comes_in_pages(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    for key in ("os-stop", "os-start", "os-stop"):
        cloud.act(uuid, key)
        cloud.settle(uuid)
    path = _of(uuid, "os-instance-actions")

    first = cloud.ask.get(f"{path}?limit=2", user=ALICE, version="2.58").json
    assert [action["action"] for action in first["instanceActions"]] == ["stop", "start"]
    (link,) = first["links"]
    assert link["rel"] == "next"
    rest = link["href"].split("/v2.1", 1)[1]
    second = cloud.ask.get(f"/v2.1{rest}", user=ALICE, version="2.58").json["instanceActions"]
    assert [action["action"] for action in second] == ["stop", "create"]

    def status(query: str, version: str = "2.66") -> int:
        return cloud.ask.get(f"{path}?{query}", user=ALICE, version=version).status

    assert status("marker=req-1") == 400
    assert status("limit=x") == 400 and status("limit=-1") == 400
    assert status("changes-since=yesterday") == 400
    assert status("changes-since=0001-01-01T00:00:00%2B14:00") == 400
    assert status("changes-since=2030-01-01T00:00:00Z&changes-before=2020-01-01T00:00:00Z") == 400
    assert status("changes-before=2020-01-01T00:00:00Z", "2.65") == 400
    assert status("colour=blue", "2.57") == 200 and status("colour=blue", "2.58") == 400
    late = cloud.ask.get(f"{path}?changes-since=2999-01-01T00:00:00Z", user=ALICE, version="2.58")
    assert late.json == {"instanceActions": []}


def test_a_deleted_servers_history_is_shown_from_2_21_on(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    cloud.ask.delete(f"/v2.1/servers/{uuid}", user=ALICE)
    path = _of(uuid, "os-instance-actions")

    assert cloud.ask.get(path, user=ALICE, version="2.20").status == 404
    actions = cloud.ask.get(path, user=ALICE, version="2.21").json["instanceActions"]
    assert [action["action"] for action in actions] == ["delete", "create"]
