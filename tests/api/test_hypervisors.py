"""`/os-hypervisors` over two cells: every form of it."""

import json
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

import cell_db.tables
from api.resources.hosts import hypervisors, services
from tests.api.http.harness import ALICE
from tests.api.operators_cloud import INVENTORY, LONG_AGO_S, OperatorsCloud, operators_cloud

pytestmark = pytest.mark.slow

URL = "/v2.1/os-hypervisors"
BRIEF = {"id", "hypervisor_hostname", "state", "status"}
CAPACITY = {
    "cpu_info", "vcpus", "vcpus_used", "memory_mb", "memory_mb_used", "free_ram_mb", "local_gb", "local_gb_used",
    "free_disk_gb", "disk_available_least", "running_vms", "current_workload",
}  # fmt: skip
WHOLE = BRIEF | {"hypervisor_type", "hypervisor_version", "host_ip", "service"} | CAPACITY


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Iterator[OperatorsCloud]:
    with operators_cloud(
        tmp_path, [hypervisors.ROUTES, services.ROUTES], hypervisors.POLICIES + services.POLICIES
    ) as made:
        made.east.add_host("e1", vcpus_used=2, memory_mib_used=1024, disk_gib_used=10, guests=1)
        made.west.add_host("w1")
        made.west.add_host("w2", seen_s=LONG_AGO_S)
        yield made


def _names(cloud: OperatorsCloud, path: str = "", **more: Any) -> list[str]:
    reply = cloud.ask.get(URL + path, **more)
    assert reply.status == 200, reply.body
    return [each["hypervisor_hostname"] for each in reply.json["hypervisors"]]


def _by_name(cloud: OperatorsCloud, path: str, version: str) -> dict[str, dict[str, Any]]:
    return {
        each["hypervisor_hostname"]: each for each in cloud.ask.get(URL + path, version=version).json["hypervisors"]
    }


@pytest.mark.parametrize("version", ["2.1", "2.32", "2.33", "2.52", "2.53", "2.75", "2.88"])
def test_the_list_holds_the_hosts_of_every_cell(cloud: OperatorsCloud, version: str) -> None:
    by_name = _by_name(cloud, "", version)

    assert {name: each["state"] for name, each in by_name.items()} == {"e1": "up", "w1": "up", "w2": "down"}
    assert all(set(each) == BRIEF for each in by_name.values())


def test_ids_are_numbers_until_2_52_and_uuids_after(cloud: OperatorsCloud) -> None:
    old, new = _by_name(cloud, "/detail", "2.52")["w1"], _by_name(cloud, "/detail", "2.53")["w1"]

    assert isinstance(old["id"], int)
    assert isinstance(old["service"]["id"], int)
    assert uuid.UUID(new["id"])
    assert uuid.UUID(new["service"]["id"])


def test_capacity_in_detail(cloud: OperatorsCloud) -> None:
    shown = _by_name(cloud, "/detail", "2.28")["e1"]

    assert set(shown) == WHOLE
    assert {name: shown[name] for name in CAPACITY} == {
        "cpu_info": {"arch": "x86_64"},
        "vcpus": 8,
        "vcpus_used": 2,
        "memory_mb": 16384,
        "memory_mb_used": 1536,
        "free_ram_mb": 14848,
        "local_gb": 100,
        "local_gb_used": 10,
        "free_disk_gb": 90,
        "disk_available_least": None,
        "running_vms": 1,
        "current_workload": 0,
    }
    assert shown["host_ip"] == "10.0.0.1"
    assert shown["service"] == {"id": cloud.service_ids(version="2.28")["e1"], "host": "e1", "disabled_reason": None}


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        ("2.1", WHOLE),
        ("2.87", WHOLE),
        ("2.88", (WHOLE - CAPACITY) | {"uptime"}),
        ("2.96", (WHOLE - CAPACITY) | {"uptime"}),
    ],
)
def test_fields_in_detail_by_microversion(cloud: OperatorsCloud, version: str, fields: set[str]) -> None:
    shown = _by_name(cloud, "/detail", version)["e1"]

    assert set(shown) == fields
    assert set(cloud.ask.get(f"{URL}/{shown['id']}", version=version).json["hypervisor"]) == fields


def test_cpu_info_is_text_until_2_27_and_an_object_after(cloud: OperatorsCloud) -> None:
    assert json.loads(_by_name(cloud, "/detail", "2.27")["e1"]["cpu_info"]) == INVENTORY.cpu_info
    assert _by_name(cloud, "/detail", "2.28")["e1"]["cpu_info"] == INVENTORY.cpu_info


def test_a_disabled_host_says_so_and_why(cloud: OperatorsCloud) -> None:
    body = {"host": "e1", "binary": "nova-compute", "disabled_reason": "disks"}
    cloud.ask.put("/v2.1/os-services/disable-log-reason", body)

    shown = _by_name(cloud, "/detail", "2.53")["e1"]

    assert (shown["status"], shown["service"]["disabled_reason"]) == ("disabled", "disks")


# ---- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/detail"])
def test_pages_follow_each_other_by_uuid_and_hold_each_host_once(cloud: OperatorsCloud, path: str) -> None:
    for number in range(3):
        cloud.east.add_host(f"x{number}")
    seen, link = [], f"{URL}{path}?limit=2"
    while link:
        reply = cloud.ask.get(link, version="2.53")
        assert len(reply.json["hypervisors"]) <= 2
        seen += [each["hypervisor_hostname"] for each in reply.json["hypervisors"]]
        links = reply.json.get("hypervisors_links", [])
        link = links[0]["href"][links[0]["href"].index(URL) :] if links else ""

    assert seen == ["e1", "w1", "w2", "x0", "x1", "x2"]


def test_pages_by_number_neither_skip_nor_repeat(cloud: OperatorsCloud) -> None:
    for number in range(3):
        cloud.east.add_host(f"x{number}")
    for limit in (1, 2):
        seen, link = [], f"{URL}?limit={limit}"
        while link:
            page = cloud.ask.get(link, version="2.33").json
            assert len(page["hypervisors"]) <= limit
            seen += page["hypervisors"]
            links = page.get("hypervisors_links", [])
            link = links[0]["href"][links[0]["href"].index(URL) :] if links else ""

        assert sorted(each["hypervisor_hostname"] for each in seen) == ["e1", "w1", "w2", "x0", "x1", "x2"]
        assert [each["id"] for each in seen] == sorted({each["id"] for each in seen})


def test_there_are_no_pages_before_2_33(cloud: OperatorsCloud) -> None:
    assert len(_names(cloud, "?limit=1", version="2.32")) == 3
    assert _names(cloud, "?limit=0", version="2.33") == []


def test_a_marker_that_is_nobody_is_refused(cloud: OperatorsCloud) -> None:
    for version, marker in (("2.33", "99"), ("2.33", "x"), ("2.53", str(uuid.uuid4())), ("2.53", "1")):
        reply = cloud.ask.get(f"{URL}?marker={marker}", version=version)
        assert reply.status == 400
        assert "marker" in reply.fault


# ---- patterns and servers --------------------------------------------------------------------------------------------


def test_search_finds_parts_of_names_until_2_52(cloud: OperatorsCloud) -> None:
    assert sorted(_names(cloud, "/W/search", version="2.1")) == ["w1", "w2"]
    assert cloud.ask.get(f"{URL}/zzz/search", version="2.52").status == 404
    assert cloud.ask.get(f"{URL}/%25/search", version="2.52").status == 404
    assert cloud.ask.get(f"{URL}/w/search", version="2.53").status == 404


def test_servers_of_matching_hosts_until_2_52(cloud: OperatorsCloud) -> None:
    server = cloud.west.add_server("w1")
    cloud.west.add_server("w1", deleted=True)

    by_name = _by_name(cloud, "/w/servers", "2.1")

    assert by_name["w1"]["servers"] == [{"name": server, "uuid": server}]
    assert "servers" not in by_name["w2"]
    assert cloud.ask.get(f"{URL}/w/servers", version="2.53").status == 404


def test_the_pattern_is_a_parameter_from_2_53_on(cloud: OperatorsCloud) -> None:
    assert _names(cloud, "?hypervisor_hostname_pattern=w", version="2.53") == ["w1", "w2"]
    assert _names(cloud, "/detail?hypervisor_hostname_pattern=1", version="2.53") == ["e1", "w1"]
    assert cloud.ask.get(f"{URL}?hypervisor_hostname_pattern=zzz", version="2.53").status == 404
    assert len(_names(cloud, "?hypervisor_hostname_pattern=w", version="2.52")) == 3
    with_page = cloud.ask.get(f"{URL}?hypervisor_hostname_pattern=w&limit=1", version="2.53")
    assert with_page.status == 400
    assert "hypervisor_hostname_pattern" in with_page.fault


@pytest.mark.parametrize(("version", "of_empty_host"), [("2.53", None), ("2.74", None), ("2.75", [])])
def test_servers_are_a_parameter_from_2_53_on(cloud: OperatorsCloud, version: str, of_empty_host: object) -> None:
    server = cloud.west.add_server("w1")

    by_name = _by_name(cloud, "?with_servers=true", version)

    assert by_name["w1"]["servers"] == [{"name": server, "uuid": server}]
    assert by_name["w2"].get("servers") == of_empty_host
    one = cloud.ask.get(f"{URL}/{by_name['w1']['id']}?with_servers=1", version=version).json["hypervisor"]
    assert one["servers"] == [{"name": server, "uuid": server}]
    assert "servers" not in cloud.ask.get(f"{URL}/{by_name['w1']['id']}", version=version).json["hypervisor"]


def test_queries_are_strict_from_2_53_on(cloud: OperatorsCloud) -> None:
    assert cloud.ask.get(f"{URL}?colour=red", version="2.52").status == 200
    for query in ("colour=red", "with_servers=perhaps", "limit=-1", "limit=x"):
        reply = cloud.ask.get(f"{URL}?{query}", version="2.53")
        assert reply.status == 400
        assert query.partition("=")[0] in reply.fault


# ---- one -------------------------------------------------------------------------------------------------------------


def test_a_number_is_one_hosts_over_all_cells(cloud: OperatorsCloud) -> None:
    """Each cell's database numbers its own rows from 1 on."""
    assert [row["id"] for cell in (cloud.east, cloud.west) for row in cell.rows(cell_db.tables.compute_nodes)] == [
        1,
        1,
        2,
    ]
    by_name = _by_name(cloud, "", "2.52")

    assert len({each["id"] for each in by_name.values()}) == 3
    for name, each in by_name.items():
        assert cloud.ask.get(f"{URL}/{each['id']}", version="2.52").json["hypervisor"]["hypervisor_hostname"] == name


def test_a_number_stands_while_other_hosts_and_cells_come_and_go_silent(cloud: OperatorsCloud) -> None:
    of_w1 = _by_name(cloud, "", "2.52")["w1"]["id"]
    cloud.east.add_host("a0")
    assert _by_name(cloud, "", "2.52")["w1"]["id"] == of_w1
    of_e1 = _by_name(cloud, "", "2.52")["e1"]["id"]

    cloud.east.go_silent()

    assert cloud.ask.get(f"{URL}/{of_w1}", version="2.52").json["hypervisor"]["hypervisor_hostname"] == "w1"
    assert cloud.ask.get(f"{URL}/{of_e1}", version="2.52").status == 503


@pytest.mark.parametrize(
    ("name", "version", "status"),
    [
        ("77", "2.52", 404),
        ("x", "2.52", 404),
        ("9" * 40, "2.52", 404),
        ("77", "2.53", 400),
        ("3f1d6a0e-7b52-4c7f-9d38-5f0c0a1b2c3d", "2.53", 404),
    ],
)
def test_show_refuses_ids(cloud: OperatorsCloud, name: str, version: str, status: int) -> None:
    assert cloud.ask.get(f"{URL}/{name}", version=version).status == status


def test_uptime_is_a_route_until_2_87_which_no_driver_implements(cloud: OperatorsCloud) -> None:
    hypervisor = _by_name(cloud, "", "2.87")["e1"]["id"]

    assert cloud.ask.get(f"{URL}/{hypervisor}/uptime", version="2.87").status == 501
    assert cloud.ask.get(f"{URL}/{_by_name(cloud, '', '2.52')['e1']['id']}/uptime", version="2.52").status == 501
    assert cloud.ask.get(f"{URL}/{uuid.uuid4()}/uptime", version="2.53").status == 404
    assert cloud.ask.get(f"{URL}/{hypervisor}/uptime", version="2.88").status == 404
    assert cloud.ask.get(f"{URL}/{hypervisor}", version="2.88").json["hypervisor"]["uptime"] is None


def test_statistics_sum_the_enabled_hosts_of_all_cells_until_2_87(cloud: OperatorsCloud) -> None:
    cloud.ask.put("/v2.1/os-services/disable", {"host": "w2", "binary": "nova-compute"})

    assert cloud.ask.get(f"{URL}/statistics", version="2.87").json == {
        "hypervisor_statistics": {
            "count": 2,
            "vcpus": 16,
            "vcpus_used": 2,
            "memory_mb": 32768,
            "memory_mb_used": 2048,
            "free_ram_mb": 30720,
            "local_gb": 200,
            "local_gb_used": 10,
            "free_disk_gb": 190,
            "disk_available_least": None,
            "running_vms": 1,
            "current_workload": 0,
        }
    }
    assert cloud.ask.get(f"{URL}/statistics", version="2.88").status == 404


def test_a_silent_cell_is_left_out_and_named(cloud: OperatorsCloud) -> None:
    of_w1 = _by_name(cloud, "", "2.53")["w1"]["id"]
    cloud.west.go_silent()

    for path in ("", "/detail", "?with_servers=true"):
        reply = cloud.ask.get(URL + path, version="2.53")
        assert [each["hypervisor_hostname"] for each in reply.json["hypervisors"]] == ["e1"]
        assert reply.headers.getall("X-Cellplane-Missing-Cells") == ["west"]
    assert cloud.ask.get(f"{URL}/statistics").json["hypervisor_statistics"]["count"] == 1
    assert cloud.ask.get(f"{URL}/{of_w1}", version="2.53").status == 503
    assert cloud.ask.get(f"{URL}?marker={of_w1}", version="2.53").status == 503


def test_a_deleted_hosts_node_is_not_shown(cloud: OperatorsCloud) -> None:
    service = cloud.service_ids(version="2.53")["w2"]

    assert cloud.ask.delete(f"/v2.1/os-services/{service}", version="2.53").status == 204
    assert _names(cloud, version="2.53") == ["e1", "w1"]


def test_only_administrators_see_hypervisors(cloud: OperatorsCloud) -> None:
    for path in ("", "/detail", "/statistics", "/1", "/w/search", "/w/servers", "/1/uptime"):
        assert cloud.ask.get(URL + path, user=ALICE).status == 403
