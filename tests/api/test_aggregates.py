"""`/os-aggregates` and `/os-availability-zone`."""

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from api.resources.hosts import aggregates, availability_zones, services
from tests.api.http.harness import ALICE, Reply
from tests.api.operators_cloud import LONG_AGO_S, OperatorsCloud, operators_cloud

pytestmark = pytest.mark.slow

URL = "/v2.1/os-aggregates"
ZONES = "/v2.1/os-availability-zone"


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Iterator[OperatorsCloud]:
    tables = [aggregates.ROUTES, availability_zones.ROUTES, services.ROUTES]
    with operators_cloud(
        tmp_path, tables, aggregates.POLICIES + availability_zones.POLICIES + services.POLICIES
    ) as made:
        made.east.add_host("e1")
        made.east.add_host("e2")
        made.west.add_host("w1")
        yield made


def _create(cloud: OperatorsCloud, name: str, zone: str | None = None, *hosts: str) -> int:
    reply = cloud.ask.post(URL, {"aggregate": {"name": name, "availability_zone": zone}})
    assert reply.status == 200, reply.body
    number = int(reply.json["aggregate"]["id"])
    for host in hosts:
        assert _act(cloud, number, "add_host", {"host": host}).status == 200
    return number


def _act(cloud: OperatorsCloud, number: int, action: str, body: dict[str, Any]) -> Reply:
    return cloud.ask.post(f"{URL}/{number}/action", {action: body})


def _zone_of(cloud: OperatorsCloud, host: str) -> str:
    return {each["host"]: each["zone"] for each in cloud.ask.get("/v2.1/os-services").json["services"]}[host]


# ---- aggregates ------------------------------------------------------------------------------------------------------

CREATED = {"id", "name", "availability_zone", "created_at", "updated_at", "deleted", "deleted_at"}


@pytest.mark.parametrize(("version", "more"), [("2.1", set()), ("2.40", set()), ("2.41", {"uuid"}), ("2.96", {"uuid"})])
def test_fields_by_microversion(cloud: OperatorsCloud, version: str, more: set[str]) -> None:
    body = {"aggregate": {"name": "a", "availability_zone": "zone1"}}

    created = cloud.ask.post(URL, body, version=version).json["aggregate"]
    shown = cloud.ask.get(f"{URL}/{created['id']}", version=version).json["aggregate"]

    assert set(created) == CREATED | more
    assert set(shown) == CREATED | more | {"hosts", "metadata"}
    assert (shown["name"], shown["availability_zone"], shown["deleted"]) == ("a", "zone1", False)
    assert (shown["hosts"], shown["metadata"]) == ([], {"availability_zone": "zone1"})
    assert cloud.ask.get(URL, version=version).json["aggregates"] == [shown]


@pytest.mark.parametrize(
    ("aggregate", "why"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": "a", "availability_zone": ""}, "availability_zone"),
        ({"name": "a", "availability_zone": "z:h"}, "availability_zone"),
        ({"name": "a", "availability_zone": 3}, "availability_zone"),
        ({"name": "a", "hosts": []}, "hosts"),
    ],
)
def test_create_refuses_bad_bodies(cloud: OperatorsCloud, aggregate: dict[str, Any], why: str) -> None:
    reply = cloud.ask.post(URL, {"aggregate": aggregate})

    assert reply.status == 400
    assert why in reply.fault


def test_names_are_unique(cloud: OperatorsCloud) -> None:
    _create(cloud, "a")
    other = _create(cloud, "b")

    assert cloud.ask.post(URL, {"aggregate": {"name": "a"}}).status == 409
    assert cloud.ask.put(f"{URL}/{other}", {"aggregate": {"name": "a"}}).status == 409


def test_update_renames_and_sets_a_zone_which_cannot_be_unset(cloud: OperatorsCloud) -> None:
    number = _create(cloud, "a", None, "e1")

    changed = cloud.ask.put(f"{URL}/{number}", {"aggregate": {"name": "b", "availability_zone": "zone1"}}).json[
        "aggregate"
    ]

    assert (changed["name"], changed["availability_zone"], changed["hosts"]) == ("b", "zone1", ["e1"])
    assert _zone_of(cloud, "e1") == "zone1"
    for body in ({}, {"availability_zone": None}, {"availability_zone": ""}, {"x": 1}):
        assert cloud.ask.put(f"{URL}/{number}", {"aggregate": body}).status == 400
    for value in (None, "", " ", "z:h"):
        refused = _act(cloud, number, "set_metadata", {"metadata": {"availability_zone": value}})
        assert refused.status == 400
        assert "availability_zone" in refused.fault


def test_metadata_is_merged_and_null_removes(cloud: OperatorsCloud) -> None:
    number = _create(cloud, "a", "zone1")

    _act(cloud, number, "set_metadata", {"metadata": {"ssd": "yes", "gpu": "no"}})
    changed = _act(cloud, number, "set_metadata", {"metadata": {"ssd": "no", "gpu": None, "other": None}})

    assert changed.status == 200
    assert changed.json["aggregate"]["metadata"] == {"availability_zone": "zone1", "ssd": "no"}
    assert changed.json["aggregate"]["updated_at"] is not None
    for metadata in ({"k" * 256: "v"}, {"k": "v" * 256}, {"k": 1}, "x"):
        assert _act(cloud, number, "set_metadata", {"metadata": metadata}).status == 400
    assert _act(cloud, number, "set_metadata", {}).status == 400


def test_hosts_are_added_and_removed(cloud: OperatorsCloud) -> None:
    number = _create(cloud, "a", "zone1", "e1", "w1")

    assert cloud.ask.get(f"{URL}/{number}").json["aggregate"]["hosts"] == ["e1", "w1"]
    assert _zone_of(cloud, "w1") == "zone1"
    assert _act(cloud, number, "add_host", {"host": "e1"}).status == 409
    assert _act(cloud, number, "add_host", {"host": "nobody"}).status == 404
    assert _act(cloud, 77, "add_host", {"host": "e1"}).status == 404
    assert _act(cloud, number, "add_host", {}).status == 400
    assert _act(cloud, number, "add_host", {"host": "e 1"}).status == 400

    assert _act(cloud, number, "remove_host", {"host": "w1"}).json["aggregate"]["hosts"] == ["e1"]
    assert _act(cloud, number, "remove_host", {"host": "w1"}).status == 404
    assert _zone_of(cloud, "w1") == "nova"
    assert _act(cloud, number, "explode", {"host": "w1"}).status == 400


def test_an_aggregate_with_hosts_is_not_deleted(cloud: OperatorsCloud) -> None:
    number = _create(cloud, "a", None, "e1")

    assert cloud.ask.delete(f"{URL}/{number}").status == 400
    _act(cloud, number, "remove_host", {"host": "e1"})
    deleted = cloud.ask.delete(f"{URL}/{number}")
    assert (deleted.status, deleted.body) == (200, b"")
    assert cloud.ask.get(f"{URL}/{number}").status == 404
    assert cloud.ask.delete(f"{URL}/{number}").status == 404


@pytest.mark.parametrize(
    ("name", "status"),
    [("x", 400), ("-1", 404), ("77", 404), ("9" * 40, 404), ("3f1d6a0e-7b52-4c7f-9d38-5f0c0a1b2c3d", 400)],
)
def test_ids_are_numbers(cloud: OperatorsCloud, name: str, status: int) -> None:
    assert cloud.ask.get(f"{URL}/{name}").status == status
    assert cloud.ask.put(f"{URL}/{name}", {"aggregate": {"name": "n"}}).status == status
    assert cloud.ask.delete(f"{URL}/{name}").status == status


def test_a_host_lies_in_one_zone_only(cloud: OperatorsCloud) -> None:
    _create(cloud, "a", "zone1", "e1")
    same, other, none = _create(cloud, "b", "zone1"), _create(cloud, "c", "zone2"), _create(cloud, "d")

    assert _act(cloud, same, "add_host", {"host": "e1"}).status == 200
    assert _act(cloud, none, "add_host", {"host": "e1"}).status == 200
    refused = _act(cloud, other, "add_host", {"host": "e1"})
    assert refused.status == 409
    assert "zone1" in refused.fault
    for reply in (
        cloud.ask.put(f"{URL}/{none}", {"aggregate": {"availability_zone": "zone2"}}),
        _act(cloud, none, "set_metadata", {"metadata": {"availability_zone": "zone2"}}),
    ):
        assert reply.status == 400
        assert "zone1" in reply.fault
    assert cloud.ask.put(f"{URL}/{none}", {"aggregate": {"availability_zone": "zone1"}}).status == 200


def test_a_host_with_servers_keeps_its_zone(cloud: OperatorsCloud) -> None:
    zoned, plain = _create(cloud, "a", "zone1", "e1"), _create(cloud, "b", None, "w1")
    cloud.east.add_server("e1")
    cloud.east.add_server("e2")
    cloud.west.add_server("w1")

    assert _act(cloud, zoned, "add_host", {"host": "e2"}).status == 409
    assert _act(cloud, zoned, "remove_host", {"host": "e1"}).status == 409
    assert cloud.ask.put(f"{URL}/{zoned}", {"aggregate": {"availability_zone": "zone2"}}).status == 400
    assert _act(cloud, plain, "set_metadata", {"metadata": {"availability_zone": "zone2"}}).status == 400
    # What changes no zone is fine.
    assert _act(cloud, plain, "add_host", {"host": "e2"}).status == 200
    assert _act(cloud, plain, "remove_host", {"host": "e2"}).status == 200
    assert cloud.ask.put(f"{URL}/{zoned}", {"aggregate": {"availability_zone": "zone1", "name": "c"}}).status == 200


def test_a_silent_cells_host_keeps_its_zone(cloud: OperatorsCloud) -> None:
    zoned = _create(cloud, "a", "zone1", "e1")
    cloud.west.go_silent()

    refused = _act(cloud, zoned, "add_host", {"host": "w1"})

    assert refused.status == 503
    assert "west" in refused.fault
    assert _act(cloud, zoned, "add_host", {"host": "e2"}).status == 200


def test_only_administrators_see_aggregates(cloud: OperatorsCloud) -> None:
    number = _create(cloud, "a")

    for method, path, body in (
        ("GET", "", None),
        ("GET", f"/{number}", None),
        ("POST", "", {"aggregate": {"name": "x"}}),
        ("PUT", f"/{number}", {"aggregate": {"name": "x"}}),
        ("DELETE", f"/{number}", None),
        ("POST", f"/{number}/action", {"add_host": {"host": "e1"}}),
        ("POST", f"/{number}/action", {"remove_host": {"host": "e1"}}),
        ("POST", f"/{number}/action", {"set_metadata": {"metadata": {}}}),
    ):
        assert cloud.ask.ask(method, URL + path, body, user=ALICE).status == 403


# ---- zones -----------------------------------------------------------------------------------------------------------


def _zones(cloud: OperatorsCloud, path: str = "", **more: Any) -> dict[str, dict[str, Any]]:
    return {each["zoneName"]: each for each in cloud.ask.get(ZONES + path, **more).json["availabilityZoneInfo"]}


def test_everybody_sees_the_zones_that_have_hosts(cloud: OperatorsCloud) -> None:
    _create(cloud, "a", "zone1", "w1")
    _create(cloud, "empty", "zone2")
    cloud.add_super_conductor("api-1")

    assert _zones(cloud, user=ALICE) == {
        "nova": {"zoneName": "nova", "zoneState": {"available": True}, "hosts": None},
        "zone1": {"zoneName": "zone1", "zoneState": {"available": True}, "hosts": None},
    }


def test_a_zone_whose_hosts_are_all_disabled_is_not_available(cloud: OperatorsCloud) -> None:
    _create(cloud, "a", "zone1", "w1")
    cloud.ask.put("/v2.1/os-services/disable", {"host": "w1", "binary": "nova-compute"})

    assert _zones(cloud)["zone1"]["zoneState"] == {"available": False}
    assert _zones(cloud, "/detail")["zone1"]["hosts"] is None


def test_a_zone_of_a_silent_cell_is_not_available(cloud: OperatorsCloud) -> None:
    _create(cloud, "a", "zone1", "w1")
    cloud.west.go_silent()

    reply = cloud.ask.get(ZONES)

    states = {each["zoneName"]: each["zoneState"]["available"] for each in reply.json["availabilityZoneInfo"]}
    assert states == {"nova": True, "zone1": False}
    assert reply.headers["X-Cellplane-Missing-Cells"] == "west"


def test_administrators_see_the_hosts_and_processes_of_zones(cloud: OperatorsCloud) -> None:
    cloud.east.add_host("e3", seen_s=LONG_AGO_S)
    cloud.east.add_conductor("c1")
    cloud.add_super_conductor("api-1")

    zones = _zones(cloud, "/detail")

    assert set(zones) == {"nova", "internal"}
    assert {host: each["nova-compute"]["available"] for host, each in zones["nova"]["hosts"].items()} == {
        "e1": True,
        "e2": True,
        "e3": False,
        "w1": True,
    }
    assert set(zones["nova"]["hosts"]["e1"]["nova-compute"]) == {"active", "available", "updated_at"}
    assert set(zones["internal"]["hosts"]) == {"c1", "api-1"}
    assert cloud.ask.get(ZONES + "/detail", user=ALICE).status == 403
