"""`/os-services` over two cells: every form of it, and what happens while a cell is silent."""

import pathlib
import uuid
from collections.abc import Iterator

import pytest

import cell_db.endings
import cell_db.hosts
from api.resources.hosts import aggregates, services
from cell_db.tables import compute_nodes
from cell_db.tables import services as service_rows
from tests.api.http.harness import ALICE
from tests.api.operators_cloud import LONG_AGO_S, OperatorsCloud, operators_cloud

pytestmark = pytest.mark.slow

URL = "/v2.1/os-services"


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Iterator[OperatorsCloud]:
    with operators_cloud(
        tmp_path, [services.ROUTES, aggregates.ROUTES], services.POLICIES + aggregates.POLICIES
    ) as made:
        made.east.add_host("e1")
        made.west.add_host("w1")
        yield made


def _listed(cloud: OperatorsCloud, version: str, query: str = "") -> dict[str, dict[str, object]]:
    reply = cloud.ask.get(URL + query, version=version)
    assert reply.status == 200
    return {each["host"]: each for each in reply.json["services"]}


def test_the_list_holds_the_processes_of_every_cell_and_of_the_api_level(cloud: OperatorsCloud) -> None:
    cloud.east.add_conductor("east-conductor")
    cloud.add_super_conductor("api-1")

    listed = _listed(cloud, "2.1")

    assert {host: (each["binary"], each["zone"]) for host, each in listed.items()} == {
        "e1": ("nova-compute", "nova"),
        "w1": ("nova-compute", "nova"),
        "east-conductor": ("nova-conductor", "internal"),
        "api-1": ("nova-conductor", "internal"),
    }
    assert {each["state"] for each in listed.values()} == {"up"}
    assert {each["status"] for each in listed.values()} == {"enabled"}


def test_a_name_that_is_another_cells_is_shown_once(cloud: OperatorsCloud) -> None:
    """An agent of east reported as w1: it stood twice in the list, and nobody could say which was which."""
    cloud.east.add_host("w1")

    listed = cloud.ask.get(URL, version="2.96").json["services"]

    assert [each["host"] for each in listed] == ["e1", "w1"]
    with cloud.west.database.reading() as conn:
        assert listed[1]["id"] == cell_db.hosts.list_services(conn, down_after_s=60, host="w1")[0].uuid


def test_the_list_can_be_narrowed_to_a_host_or_a_binary(cloud: OperatorsCloud) -> None:
    cloud.add_super_conductor("api-1")

    assert set(_listed(cloud, "2.1", "?host=w1")) == {"w1"}
    assert set(_listed(cloud, "2.1", "?binary=nova-conductor")) == {"api-1"}
    assert set(_listed(cloud, "2.1", "?binary=nova-compute&host=api-1")) == set()


def test_a_host_that_was_not_seen_lately_is_down(cloud: OperatorsCloud) -> None:
    cloud.east.add_host("e2", seen_s=LONG_AGO_S)

    listed = _listed(cloud, "2.1")

    assert (listed["e1"]["state"], listed["e2"]["state"]) == ("up", "down")


BASE = {"id", "binary", "host", "status", "zone", "state", "updated_at", "disabled_reason"}


@pytest.mark.parametrize(
    ("version", "fields"),
    [("2.1", BASE), ("2.10", BASE), ("2.11", BASE | {"forced_down"}), ("2.69", BASE | {"forced_down"})],
)
def test_fields_by_microversion(cloud: OperatorsCloud, version: str, fields: set[str]) -> None:
    assert set(_listed(cloud, version)["e1"]) == fields


def test_ids_are_numbers_until_2_52_and_uuids_after(cloud: OperatorsCloud) -> None:
    assert isinstance(_listed(cloud, "2.52")["e1"]["id"], int)
    assert uuid.UUID(str(_listed(cloud, "2.53")["e1"]["id"]))


def test_unknown_query_parameters_are_refused_from_2_75_on(cloud: OperatorsCloud) -> None:
    assert cloud.ask.get(URL + "?colour=red", version="2.74").status == 200
    assert "colour" in cloud.ask.get(URL + "?colour=red", version="2.75").fault


def test_a_silent_cells_hosts_are_left_out_until_2_68_and_unknown_after(cloud: OperatorsCloud) -> None:
    cloud.west.go_silent()

    assert set(_listed(cloud, "2.68")) == {"e1"}
    reply = cloud.ask.get(URL, version="2.69")
    assert {each["host"]: each["status"] for each in reply.json["services"]} == {"e1": "enabled", "w1": "UNKNOWN"}
    assert [each for each in reply.json["services"] if each["host"] == "w1"] == [
        {"binary": "nova-compute", "host": "w1", "status": "UNKNOWN"}
    ]
    assert reply.headers["X-Cellplane-Missing-Cells"] == "west"


def test_filters_hold_for_hosts_of_a_silent_cell_too(cloud: OperatorsCloud) -> None:
    cloud.west.go_silent()

    assert set(_listed(cloud, "2.69", "?host=w1")) == {"w1"}
    assert set(_listed(cloud, "2.69", "?host=e1")) == {"e1"}
    assert set(_listed(cloud, "2.69", "?binary=nova-conductor")) == set()


def test_only_administrators_see_services(cloud: OperatorsCloud) -> None:
    assert cloud.ask.get(URL, user=ALICE).status == 403


# ---- the verbs until 2.52 --------------------------------------------------------------------------------------------


def test_verbs_disable_with_and_without_a_reason_and_enable(cloud: OperatorsCloud) -> None:
    of_w1 = {"host": "w1", "binary": "nova-compute"}

    disabled = cloud.ask.put(URL + "/disable", of_w1, version="2.1")
    assert disabled.json == {"service": {**of_w1, "status": "disabled"}}
    assert _listed(cloud, "2.1")["w1"]["status"] == "disabled"
    assert _listed(cloud, "2.1")["e1"]["status"] == "enabled"

    with_reason = cloud.ask.put(URL + "/disable-log-reason", {**of_w1, "disabled_reason": "disks"}, version="2.52")
    assert with_reason.json == {"service": {**of_w1, "status": "disabled", "disabled_reason": "disks"}}
    assert _listed(cloud, "2.1")["w1"]["disabled_reason"] == "disks"

    assert cloud.ask.put(URL + "/enable", of_w1).json == {"service": {**of_w1, "status": "enabled"}}
    assert _listed(cloud, "2.1")["w1"]["disabled_reason"] is None


def test_force_down_exists_from_2_11_to_2_52(cloud: OperatorsCloud) -> None:
    body = {"host": "e1", "binary": "nova-compute", "forced_down": True}

    assert cloud.ask.put(URL + "/force-down", body, version="2.10").status == 404
    assert cloud.ask.put(URL + "/force-down", body, version="2.11").json == {"service": body}
    assert (_listed(cloud, "2.11")["e1"]["state"], _listed(cloud, "2.11")["e1"]["forced_down"]) == ("down", True)
    assert (
        cloud.ask.put(URL + "/force-down", {**body, "forced_down": "False"}, version="2.52").json["service"][
            "forced_down"
        ]
        is False
    )
    assert _listed(cloud, "2.11")["e1"]["state"] == "up"


@pytest.mark.parametrize(
    ("verb", "body", "status", "why"),
    [
        ("enable", {"binary": "nova-compute"}, 400, "host"),
        ("enable", {"host": "e1"}, 400, "binary"),
        ("enable", {"host": "e1", "binary": "nova-compute", "x": 1}, 400, "x"),
        ("enable", {"host": "e 1", "binary": "nova-compute"}, 400, "host"),
        ("disable-log-reason", {"host": "e1", "binary": "nova-compute"}, 400, "disabled_reason"),
        (
            "disable-log-reason",
            {"host": "e1", "binary": "nova-compute", "disabled_reason": "x" * 256},
            400,
            "disabled_reason",
        ),
        ("force-down", {"host": "e1", "binary": "nova-compute"}, 400, "forced_down"),
        ("force-down", {"host": "e1", "binary": "nova-compute", "forced_down": "perhaps"}, 400, "forced_down"),
        ("enable", {"host": "nobody", "binary": "nova-compute"}, 404, "nobody"),
        ("enable", {"host": "e1", "binary": "nova-cert"}, 404, "nova-cert"),
        # Whether it is there or not: no process but an agent can be disabled, and that is why.
        (
            "disable",
            {"host": "east-conductor", "binary": "nova-conductor"},
            400,
            "Only nova-compute services can be updated",
        ),
        (
            "force-down",
            {"host": "api-1", "binary": "nova-conductor", "forced_down": True},
            400,
            "Only nova-compute services can be updated",
        ),
        ("disable", {"host": "nobody", "binary": "nova-novncproxy"}, 400, "Only nova-compute services can be updated"),
        ("explode", {"host": "e1", "binary": "nova-compute"}, 404, "explode"),
    ],
)
def test_verbs_refuse(cloud: OperatorsCloud, verb: str, body: dict[str, object], status: int, why: str) -> None:
    reply = cloud.ask.put(f"{URL}/{verb}", body, version="2.52")

    assert reply.status == status
    assert why in reply.fault


# ---- PUT by uuid from 2.53 on ----------------------------------------------------------------------------------------


def test_put_by_uuid_changes_and_shows_the_whole_service(cloud: OperatorsCloud) -> None:
    of_w1 = f"{URL}/{cloud.service_ids(version='2.53')['w1']}"

    disabled = cloud.ask.put(of_w1, {"status": "disabled", "disabled_reason": "disks"}, version="2.53")
    assert set(disabled.json["service"]) == BASE | {"forced_down"}
    assert disabled.json["service"]["disabled_reason"] == "disks"

    forced = cloud.ask.put(of_w1, {"forced_down": True}, version="2.69").json["service"]
    assert (forced["state"], forced["status"], forced["forced_down"]) == ("down", "disabled", True)

    enabled = cloud.ask.put(of_w1, {"status": "enabled", "forced_down": False}, version="2.53").json["service"]
    assert (enabled["state"], enabled["status"], enabled["disabled_reason"]) == ("up", "enabled", None)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "status"),
        ({"disabled_reason": "x"}, "status"),
        ({"status": "enabled", "disabled_reason": "x"}, "disabled_reason"),
        ({"status": "perhaps"}, "status"),
        ({"forced_down": "perhaps"}, "forced_down"),
        ({"host": "e1", "binary": "nova-compute", "status": "enabled"}, "host"),
    ],
)
def test_put_by_uuid_refuses_bad_bodies(cloud: OperatorsCloud, body: dict[str, object], why: str) -> None:
    reply = cloud.ask.put(f"{URL}/{cloud.service_ids(version='2.53')['e1']}", body, version="2.53")

    assert reply.status == 400
    assert why in reply.fault


def test_put_by_uuid_refuses_what_is_no_compute_service(cloud: OperatorsCloud) -> None:
    cloud.east.add_conductor("east-conductor")
    cloud.add_super_conductor("api-1")
    ids = {each["host"]: each["id"] for each in cloud.ask.get(URL, version="2.53").json["services"]}

    for host in ("east-conductor", "api-1"):
        reply = cloud.ask.put(f"{URL}/{ids[host]}", {"status": "disabled"}, version="2.53")
        assert reply.status == 400
        assert "nova-conductor" in reply.fault
    assert cloud.ask.put(f"{URL}/{uuid.uuid4()}", {"status": "disabled"}, version="2.53").status == 404
    assert cloud.ask.put(f"{URL}/1", {"status": "disabled"}, version="2.53").status == 400


def test_a_service_of_a_silent_cell_cannot_be_changed_and_the_others_can(cloud: OperatorsCloud) -> None:
    ids = cloud.service_ids(version="2.53")
    cloud.west.go_silent()

    assert cloud.ask.put(f"{URL}/{ids['e1']}", {"status": "disabled"}, version="2.53").status == 200
    refused = cloud.ask.put(f"{URL}/{ids['w1']}", {"status": "disabled"}, version="2.53")
    assert refused.status == 503
    assert "west" in refused.fault


# ---- delete ----------------------------------------------------------------------------------------------------------


def test_deleting_a_host_removes_service_mapping_and_memberships(cloud: OperatorsCloud) -> None:
    aggregate = cloud.ask.post("/v2.1/os-aggregates", {"aggregate": {"name": "a", "availability_zone": "z"}}).json[
        "aggregate"
    ]["id"]
    cloud.ask.post(f"/v2.1/os-aggregates/{aggregate}/action", {"add_host": {"host": "w1"}})

    reply = cloud.ask.delete(f"{URL}/{cloud.service_ids(version='2.53')['w1']}", version="2.53")

    assert (reply.status, reply.body) == (204, b"")
    assert set(_listed(cloud, "2.53")) == {"e1"}
    assert cloud.mapped_hosts() == ["e1"]
    assert cloud.ask.get(f"/v2.1/os-aggregates/{aggregate}").json["aggregate"]["hosts"] == []


def test_a_deleted_hosts_node_waits_for_the_conductor_to_delete_its_provider(cloud: OperatorsCloud) -> None:
    cloud.ask.delete(f"{URL}/{cloud.service_ids(version='2.53')['w1']}", version="2.53")

    with cloud.west.database.transaction() as conn:
        departed = cell_db.hosts.list_departed(conn)
        assert [node.host for node in departed] == ["w1"]
        assert cell_db.hosts.forget_node(conn, departed[0].uuid)
    assert cloud.west.rows(compute_nodes) == []
    with cloud.east.database.transaction() as conn:
        assert cell_db.hosts.list_departed(conn) == []
        assert not cell_db.hosts.forget_node(conn, cloud.east.rows(compute_nodes)[0]["uuid"])


def test_a_host_with_servers_is_not_deleted(cloud: OperatorsCloud) -> None:
    cloud.west.add_server("w1")

    reply = cloud.ask.delete(f"{URL}/{cloud.service_ids(version='2.53')['w1']}", version="2.53")

    assert reply.status == 409
    assert "w1" in reply.fault
    assert cloud.mapped_hosts() == ["e1", "w1"]
    assert len(cloud.west.rows(service_rows)) == 1


def test_a_refusal_names_the_servers_and_what_helps(cloud: OperatorsCloud) -> None:
    """A delete that waits for its host is in no list of servers, and yet it keeps the host."""
    for _ in range(12):
        cloud.west.add_server("w1")
    hidden = cloud.west.add_server("w1")
    with cloud.west.database.transaction() as conn:
        cell_db.endings.tombstone(conn, uuid=hidden, project_id="p", user_id="u", is_cell0=False)

    fault = cloud.ask.delete(f"{URL}/{cloud.service_ids(version='2.53')['w1']}", version="2.53").fault

    assert f"has 13 servers: {hidden} (deleted, waits for the host), " in fault
    assert "and 3 more" in fault
    assert "`cellctl cleanup forget --host w1`" in fault


def test_deleted_servers_do_not_hold_a_host(cloud: OperatorsCloud) -> None:
    cloud.west.add_server("w1", deleted=True)

    assert cloud.ask.delete(f"{URL}/{cloud.service_ids(version='2.53')['w1']}", version="2.53").status == 204


def test_a_host_whose_cell_is_silent_is_not_deleted(cloud: OperatorsCloud) -> None:
    ids = cloud.service_ids(version="2.53")
    cloud.west.go_silent()

    assert cloud.ask.delete(f"{URL}/{ids['w1']}", version="2.53").status == 503
    assert cloud.mapped_hosts() == ["e1", "w1"]


def test_conductors_that_have_gone_can_be_deleted(cloud: OperatorsCloud) -> None:
    cloud.east.add_conductor("east-conductor")
    cloud.add_super_conductor("api-1")
    ids = {each["host"]: each["id"] for each in cloud.ask.get(URL, version="2.53").json["services"]}

    assert cloud.ask.delete(f"{URL}/{ids['east-conductor']}", version="2.53").status == 204
    assert cloud.ask.delete(f"{URL}/{ids['api-1']}", version="2.53").status == 204
    assert set(_listed(cloud, "2.53")) == {"e1", "w1"}


def test_a_number_is_one_services_over_all_cells_and_the_api_level(cloud: OperatorsCloud) -> None:
    """Each database numbers its own rows from 1 on."""
    cloud.add_super_conductor("api-1")
    services = _listed(cloud, "2.52")
    assert len({each["id"] for each in services.values()}) == 3

    assert cloud.ask.delete(f"{URL}/{services['w1']['id']}", version="2.52").status == 204
    assert set(_listed(cloud, "2.1")) == {"api-1", "e1"}
    assert cloud.ask.delete(f"{URL}/{services['api-1']['id']}", version="2.52").status == 204
    assert set(_listed(cloud, "2.1")) == {"e1"}


@pytest.mark.parametrize(
    ("name", "version", "status"),
    [
        ("x", "2.52", 400),
        ("77", "2.52", 404),
        ("9" * 40, "2.52", 404),
        ("1", "2.53", 400),
        ("3f1d6a0e-7b52-4c7f-9d38-5f0c0a1b2c3d", "2.53", 404),
    ],
)
def test_delete_refuses_ids(cloud: OperatorsCloud, name: str, version: str, status: int) -> None:
    assert cloud.ask.delete(f"{URL}/{name}", version=version).status == status
