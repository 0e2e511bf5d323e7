"""What operators asked once, and clients still do: `/os-hosts`, the usage audit log, images for hosts, extensions."""

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from api.resources import assisted_volume_snapshots, extensions
from api.resources.hosts import aggregates, legacy_hosts, services, usage_audit_log
from messaging.verbs import cell
from objects.host import COMPUTE
from tests.api.http.harness import ALICE, Reply
from tests.api.operators_cloud import OperatorsCloud, operators_cloud
from tests.api.small_cloud import IMAGE, Shelf

RESOURCES = (legacy_hosts, usage_audit_log, services, aggregates, assisted_volume_snapshots, extensions)


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Iterator[OperatorsCloud]:
    rules = [rule for resource in RESOURCES for rule in resource.POLICIES]
    with operators_cloud(tmp_path, [resource.ROUTES for resource in RESOURCES], rules) as made:
        yield made


# ---- /os-hosts -------------------------------------------------------------------------------------------------------


def test_hosts_are_listed_with_their_service_and_zone(cloud: OperatorsCloud) -> None:
    cloud.east.add_host("e1")
    cloud.east.add_conductor("c1")
    cloud.west.add_host("w1")
    cloud.add_super_conductor("s1")

    hosts = cloud.ask.get("/v2.1/os-hosts").json["hosts"]

    assert {(host["host_name"], host["service"], host["zone"]) for host in hosts} == {
        ("e1", "compute", "nova"),
        ("w1", "compute", "nova"),
        ("c1", "conductor", "internal"),
        ("s1", "conductor", "internal"),
    }
    assert len(cloud.ask.get("/v2.1/os-hosts?zone=internal").json["hosts"]) == 2


def test_a_host_shows_what_it_has_and_who_uses_it(cloud: OperatorsCloud) -> None:
    cloud.east.add_host("e1", vcpus_used=3, memory_mib_used=100, disk_gib_used=7)
    cloud.east.add_server("e1")
    cloud.east.add_server("e1")
    cloud.east.add_server("e1", deleted=True)

    lines = [line["resource"] for line in cloud.ask.get("/v2.1/os-hosts/e1").json["host"]]

    assert lines == [
        {"host": "e1", "project": "(total)", "cpu": 8, "memory_mb": 16384, "disk_gb": 100},
        {"host": "e1", "project": "(used_now)", "cpu": 3, "memory_mb": 612, "disk_gb": 7},
        {"host": "e1", "project": "(used_max)", "cpu": 2, "memory_mb": 1024, "disk_gb": 2},
        {"host": "e1", "project": "p", "cpu": 2, "memory_mb": 1024, "disk_gb": 2},
    ]
    assert cloud.ask.get("/v2.1/os-hosts/e9").status == 404


def test_a_host_is_disabled_and_enabled(cloud: OperatorsCloud) -> None:
    cloud.east.add_host("e1")

    disabled = cloud.ask.put("/v2.1/os-hosts/e1", {"status": "Disable"})

    assert (disabled.status, disabled.json) == (200, {"host": "e1", "status": "disabled"})
    assert cloud.ask.get("/v2.1/os-hosts").json["hosts"] == []
    assert cloud.ask.put("/v2.1/os-hosts/e1", {"status": "enable"}).json["status"] == "enabled"
    assert cloud.ask.put("/v2.1/os-hosts/e9", {"status": "enable"}).status == 404
    assert cloud.ask.put("/v2.1/os-hosts/e1", {"status": "off"}).status == 400
    assert cloud.ask.put("/v2.1/os-hosts/e1", {}).status == 400


@pytest.mark.parametrize(("host", "status"), [("e1", 501), ("e9", 404)])
def test_no_machine_is_switched(cloud: OperatorsCloud, host: str, status: int) -> None:
    cloud.east.add_host("e1")

    for act in ("reboot", "shutdown", "startup"):
        assert cloud.ask.get(f"/v2.1/os-hosts/{host}/{act}").status == status
    both = {"status": "disable", "maintenance_mode": "enable"}
    assert cloud.ask.put(f"/v2.1/os-hosts/{host}", both).status == status
    assert len(cloud.ask.get("/v2.1/os-hosts").json["hosts"]) == 1


def test_hosts_end_with_2_42_and_are_for_admins(cloud: OperatorsCloud) -> None:
    cloud.east.add_host("e1")

    for path in ("/v2.1/os-hosts", "/v2.1/os-hosts/e1"):
        assert cloud.ask.get(path, version="2.42").status == 200
        assert cloud.ask.get(path, version="2.43").status == 404
        assert cloud.ask.get(path, user=ALICE).status == 403


# ---- the usage audit log ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "beginning", "ending"),
    [
        ("2012-07-05 10:00:00", "2012-06-01 00:00:00", "2012-07-01 00:00:00"),
        ("2012-07-05 10:00:00.5", "2012-06-01 00:00:00", "2012-07-01 00:00:00"),
        ("2012-01-01 00:00:01", "2011-12-01 00:00:00", "2012-01-01 00:00:00"),
        ("2012-01-01 00:00:00", "2011-11-01 00:00:00", "2011-12-01 00:00:00"),
    ],
)
def test_the_log_of_a_month_shows_that_no_host_told(
    cloud: OperatorsCloud, before: str, beginning: str, ending: str
) -> None:
    cloud.east.add_host("e1")
    cloud.west.add_host("w1")

    log = cloud.ask.get(f"/v2.1/os-instance_usage_audit_log/{before}").json["instance_usage_audit_log"]

    assert (log["period_beginning"], log["period_ending"]) == (beginning, ending)
    assert log["hosts_not_run"] == ["e1", "w1"] and log["log"] == {}
    assert log["overall_status"] == "0 of 2 hosts done. 0 errors."
    assert [log[name] for name in ("num_hosts", "num_hosts_not_run", "num_hosts_done", "num_hosts_running")] == [
        2,
        2,
        0,
        0,
    ]
    latest = cloud.ask.get("/v2.1/os-instance_usage_audit_log").json["instance_usage_audit_logs"]
    assert set(latest) == set(log)


@pytest.mark.parametrize(
    "before", ["yesterday", "2012-07-05", "0001-01-01 00:00:00", "0001-01-20 00:00:00", "2012-13-01 00:00:00", ".5"]
)
def test_what_is_no_time_is_refused(cloud: OperatorsCloud, before: str) -> None:
    assert cloud.ask.get(f"/v2.1/os-instance_usage_audit_log/{before}").status == 400


# ---- images for hosts ------------------------------------------------------------------------------------------------


@pytest.fixture
def hinted(cloud: OperatorsCloud, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What the cells are told: the cell, and the arguments."""
    cloud.cloud.images._http = Shelf()  # type: ignore[assignment]
    told: list[tuple[str, Any]] = []
    for gate in cloud.cloud.cells.gates():
        monkeypatch.setattr(
            gate, "hint", lambda queue, verb, arguments, context, gate=gate: told.append((gate.cell.name, arguments))
        )
    return told


def cache(cloud: OperatorsCloud, aggregate: Any, *ids: str, version: str = "2.81") -> Reply:
    body = {"cache": [{"id": image_id} for image_id in ids]}
    return cloud.ask.post(f"/v2.1/os-aggregates/{aggregate}/images", body, version=version)


def aggregate_of(cloud: OperatorsCloud, *hosts: str) -> Any:
    made = cloud.ask.post("/v2.1/os-aggregates", {"aggregate": {"name": "a"}}).json["aggregate"]["id"]
    for host in hosts:
        assert cloud.ask.post(f"/v2.1/os-aggregates/{made}/action", {"add_host": {"host": host}}).status == 200
    return made


def test_the_hosts_of_an_aggregate_are_told_which_images_to_fetch(
    cloud: OperatorsCloud, hinted: list[tuple[str, Any]]
) -> None:
    for host in ("e1", "e2"):
        cloud.east.add_host(host)
    cloud.west.add_host("w1")

    reply = cache(cloud, aggregate_of(cloud, "e1", "w1"), IMAGE)

    assert (reply.status, reply.body) == (202, b"")
    assert [(name, wanted.host, [image.image_id for image in wanted.images]) for name, wanted in hinted] == [
        ("east", "e1", [IMAGE]), ("west", "w1", [IMAGE]),
    ]  # fmt: skip
    assert all(isinstance(wanted, cell.ImagesOnHost) for _, wanted in hinted)


def test_images_that_cannot_be_fetched_are_refused(cloud: OperatorsCloud, hinted: list[tuple[str, Any]]) -> None:
    cloud.east.add_host("e1")
    aggregate = aggregate_of(cloud, "e1")
    nowhere = "11111111-2222-4333-8444-555555555555"

    assert cache(cloud, aggregate, IMAGE, IMAGE).status == 400
    assert cache(cloud, aggregate, nowhere).status == 400
    assert cache(cloud, aggregate).status == 400
    assert cache(cloud, aggregate, "x").status == 400
    assert cache(cloud, 999, IMAGE).status == 404
    assert cache(cloud, aggregate, IMAGE, version="2.80").status == 404
    assert hinted == []


# ---- ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["-1", "-9223372036854775808", "0", "-" + "9" * 100])
def test_a_number_that_no_row_has_is_not_found(cloud: OperatorsCloud, number: str) -> None:
    cloud.east.add_host("e1")

    assert cloud.ask.get(f"/v2.1/os-aggregates/{number}").status == 404
    assert cloud.ask.delete(f"/v2.1/os-aggregates/{number}").status == 404
    assert cloud.ask.delete(f"/v2.1/os-services/{number}", version="2.52").status == 404
    assert [each["binary"] for each in cloud.ask.get("/v2.1/os-services").json["services"]] == [COMPUTE]


@pytest.mark.parametrize("number", ["--1", "-", "1-", "one", "1.0"])
def test_what_is_no_number_is_refused(cloud: OperatorsCloud, number: str) -> None:
    assert cloud.ask.get(f"/v2.1/os-aggregates/{number}").status == 400


# ---- extensions and snapshots ----------------------------------------------------------------------------------------


def test_extensions_are_all_there(cloud: OperatorsCloud) -> None:
    found = cloud.ask.get("/v2.1/extensions", user=ALICE).json["extensions"]

    aliases = [each["alias"] for each in found]
    assert len(set(aliases)) == 99 and aliases == sorted(aliases)
    assert set(found[0]) == {"alias", "name", "description", "namespace", "updated", "links"}
    assert cloud.ask.get("/v2.1/extensions/os-keypairs").json["extension"]["name"] == "Keypairs"
    assert cloud.ask.get("/v2.1/extensions/os-nothing").status == 404
    assert cloud.ask.get("/v2.1/extensions/OS-EXT-VIF-NET").status == 404
    assert cloud.ask.get("/v2/extensions/OS-EXT-VIF-NET").status == 200


def test_snapshots_of_volumes_say_that_there_is_no_volume(cloud: OperatorsCloud) -> None:
    path = "/v2.1/os-assisted-volume-snapshots"
    info = {"snapshot_id": "s", "type": "qcow2", "new_file": "f"}

    refused = cloud.ask.post(path, {"snapshot": {"volume_id": "v", "create_info": info}})

    assert (refused.status, "no volume service" in refused.fault) == (400, True)
    assert cloud.ask.post(path, {"snapshot": {"volume_id": "v"}}).status == 400
    assert cloud.ask.post(path, {}, user=ALICE).status == 403
    assert "no volume service" in cloud.ask.delete(path + '/s?delete_info={"volume_id":"v"}').fault
    for query in ("", "?delete_info=v", "?delete_info=[]", "?delete_info={}"):
        assert cloud.ask.delete(f"{path}/s{query}").status == 400
