"""The cloud as users of the `openstack` client and of openstacksdk see it: on both profiles, and with Keystone."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keystoneauth1.discover
import pytest
import requests

from devstack.api_client import ApiClient
from devstack.configure import QUOTA
from devstack.layout import KEYSTONE
from devstack.waiting import wait_until
from tests.stack.client import Client
from tests.stack.cloud import Cloud

pytestmark = [  # the SDK warns of its own future
    pytest.mark.filterwarnings(f"ignore::openstack.warnings.{name}")
    for name in ("RemovedInSDK50Warning", "RemovedInSDK60Warning")
]

TINY = "--flavor m1.tiny --image tiny"
DEADLINE_S = 60.0
LEAST_NEWEST_MINOR = 90
"""The newest microversion announced is at least 2.90."""


def wait_for_status(client: Client, server: str, status: str) -> dict[str, Any]:
    """What `server show` prints once the server has this status."""
    seen: list[dict[str, Any]] = []

    def has_it() -> bool:
        seen[:] = [client.json(f"server show {server}")]
        return bool(seen[0]["status"] == status)

    wait_until(has_it, what=f"status {status} of server {server}", deadline_s=DEADLINE_S, every_s=0.2)
    return seen[0]


@pytest.fixture(scope="package", params=["embedded", "full", pytest.param("with_keystone", marks=pytest.mark.keystone)])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """Each profile in turn, and Keystone."""
    chosen: Cloud = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(scope="module")
def booted(cloud: Cloud) -> Iterator[list[str]]:
    """Servers `web-1`, `web-2` and `web-3` of the demo project, ACTIVE."""
    client = cloud.client("demo")
    client.ok(f"server create {TINY} --nic none --min 3 --max 3 --property role=web web")
    names = ["web-1", "web-2", "web-3"]
    for name in names:
        wait_for_status(client, name, "ACTIVE")
    yield names
    client.ok(f"server delete {' '.join(names)}")


# ---- versions --------------------------------------------------------------------------------------------------------


NO_CATALOG = (
    "the command walks a service catalog; keystoneauth's http_basic has none, "
    "and raises NotImplementedError before it asks anybody"
)


def test_versions_show(request: pytest.FixtureRequest, cloud: Cloud, admin: Client) -> None:
    if cloud.shape.auth != KEYSTONE:
        request.applymarker(pytest.mark.xfail(strict=True, reason=NO_CATALOG))

    shown = {each["Service Type"]: each for each in admin.json("versions show")}

    assert (shown["compute"]["Version"], shown["compute"]["Status"], shown["compute"]["Min Microversion"]) == (
        "2.1",
        "CURRENT",
        "2.1",
    )


def test_the_version_document_reads_as_the_client_wants_it(cloud: Cloud) -> None:
    with cloud.sdk("demo") as connection:
        versions = keystoneauth1.discover.Discover(connection.session, cloud.compute).version_data()

    assert [(data["version"], data["status"], data["min_microversion"]) for data in versions] == [
        ((2, 1), "CURRENT", (2, 1))
    ]
    assert versions[0]["max_microversion"] >= (2, LEAST_NEWEST_MINOR)
    assert versions[0]["url"].rstrip("/") == cloud.compute


@pytest.mark.parametrize("header", ["OpenStack-API-Version", "X-OpenStack-Nova-API-Version"])
def test_a_microversion_is_negotiated_with_both_headers(cloud: Cloud, header: str) -> None:
    prefix = "compute " if header == "OpenStack-API-Version" else ""

    def ask(version: str) -> requests.Response:
        return requests.get(
            f"{cloud.compute}/servers", auth=cloud.auth("demo"), headers={header: prefix + version}, timeout=30
        )

    assert ask("2.53").headers[header] == f"{prefix}2.53"
    assert ask("latest").status_code == 200
    refused = ask("2.999")
    assert refused.status_code == 406
    assert "2.999" in refused.text


def test_the_program_takes_an_old_version_when_told_to(cloud: Cloud) -> None:
    # By the program itself: in one process, later commands would inherit the option.
    assert cloud.command("demo", "--os-compute-api-version", "2.1", "server", "list").returncode == 0
    too_new = cloud.command("demo", "--os-compute-api-version", "2.999", "server", "list")
    assert too_new.returncode != 0


def test_the_program_works_as_the_documentation_says(cloud: Cloud, booted: list[str]) -> None:
    result = cloud.command("demo", "server", "list", "-f", "json")

    assert result.returncode == 0, result.stderr
    assert set(booted) <= {server["Name"] for server in json.loads(result.stdout)}


# ---- flavors, images, keypairs ---------------------------------------------------------------------------------------


def test_a_flavor_from_its_creation_to_its_end(admin: Client, demo: Client) -> None:
    admin.ok("flavor create --ram 64 --vcpus 2 --disk 3 --property hw:cpu_policy=shared passing")
    admin.ok("flavor set --property tier=gold passing")

    shown = demo.json("flavor show passing")
    assert (shown["ram"], shown["vcpus"], shown["disk"]) == (64, 2, 3)
    assert shown["properties"] == {"hw:cpu_policy": "shared", "tier": "gold"}
    assert "passing" in [flavor["Name"] for flavor in demo.json("flavor list")]

    admin.ok("flavor delete passing")
    assert "No Flavor found for passing" in demo.refused("flavor show passing")


def test_flavors_are_the_administrators(demo: Client) -> None:
    assert "403" in demo.refused("flavor create --ram 64 --vcpus 1 --disk 1 forbidden")


def test_a_flavor_twice_is_a_conflict(admin: Client) -> None:
    assert "409" in admin.refused("flavor create --ram 64 --vcpus 1 --disk 1 m1.tiny")


def test_images(demo: Client) -> None:
    assert "tiny" in [image["Name"] for image in demo.json("image list")]
    shown = demo.json("image show tiny")
    assert (shown["name"], shown["status"], shown["disk_format"]) == ("tiny", "active", "raw")
    assert shown["size"] > 0


def test_a_keypair_from_its_creation_to_its_end(demo: Client) -> None:
    private = demo.ok("keypair create passing")
    assert private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert "passing" in [pair["Name"] for pair in demo.json("keypair list")]
    assert "409" in demo.refused("keypair create passing")

    demo.ok("keypair delete passing")
    assert "passing" not in [pair["Name"] for pair in demo.json("keypair list")]


# ---- hosts -----------------------------------------------------------------------------------------------------------


def test_an_aggregate_from_its_creation_to_its_end(admin: Client) -> None:
    admin.ok("aggregate create --property disk=slow passing")
    admin.ok("aggregate set --name racks --property disk=fast passing")
    admin.ok("aggregate add host racks east-1")

    listed = {aggregate["Name"]: aggregate for aggregate in admin.json("aggregate list --long")}
    assert listed["racks"]["Properties"] == {"disk": "fast"}
    assert listed["racks"]["Hosts"] == ["east-1"]
    assert "400" in admin.refused("aggregate delete racks")

    admin.ok("aggregate remove host racks east-1")
    admin.ok("aggregate delete racks")
    assert "racks" not in [aggregate["Name"] for aggregate in admin.json("aggregate list")]


def test_availability_zones(cloud: Cloud, admin: Client, demo: Client) -> None:
    zones = demo.json("availability zone list --compute")

    assert sorted(zone["Zone Name"] for zone in zones) == sorted(cloud.shape.cell_names)
    assert {zone["Zone Status"] for zone in zones} == {"available"}
    assert {zone["Zone Name"] for zone in admin.json("availability zone list --compute")} == {
        *cloud.shape.cell_names,
        "internal",
    }


def test_availability_zones_of_all_services(cloud: Cloud, demo: Client) -> None:
    assert sorted(zone["Zone Name"] for zone in demo.json("availability zone list")) == sorted(cloud.shape.cell_names)


def test_compute_services(cloud: Cloud, admin: Client, demo: Client) -> None:
    services = admin.json("compute service list --service nova-compute")
    assert sorted(service["Host"] for service in services) == sorted(cloud.shape.all_hosts)
    assert {(service["Status"], service["State"]) for service in services} == {("enabled", "up")}
    assert "403" in demo.refused("compute service list")


def test_a_disabled_host_takes_no_servers(admin: Client, demo: Client) -> None:
    admin.ok("compute service set --disable --disable-reason broken east-1 nova-compute")
    try:
        service = admin.json("compute service list --long --host east-1 --service nova-compute")[0]
        assert (service["Status"], service["Disabled Reason"]) == ("disabled", "broken")
        refused = demo.refused(f"server create {TINY} --availability-zone east:east-1 nowhere")
        assert "403" in refused  # naming a host is the administrator's
        # The view of hosts that servers are placed by is about a second old.
        wait_until(
            lambda: _hosts_of_three(admin, demo) == {"east-2"},
            what="avoidance of the disabled host",
            deadline_s=DEADLINE_S,
        )
    finally:
        admin.ok("compute service set --enable east-1 nova-compute")
    assert admin.json("compute service list --host east-1 --service nova-compute")[0]["Status"] == "enabled"


def _hosts_of_three(admin: Client, demo: Client) -> set[str]:
    names = ["beside-1", "beside-2", "beside-3"]
    demo.ok(f"server create {TINY} --availability-zone east --min 3 --max 3 beside")
    for name in names:
        wait_for_status(demo, name, "ACTIVE")
    hosts = {server["Host"] for server in admin.json("server list --all-projects --name ^beside- --long")}
    demo.ok(f"server delete {' '.join(names)}")
    wait_until(lambda: demo.json("server list --name ^beside-") == [], what="end of the three", deadline_s=DEADLINE_S)
    return hosts


def test_a_service_that_runs_or_holds_servers_is_not_deleted_unseen(admin: Client) -> None:
    assert "404" in admin.refused("compute service delete 00000000-0000-0000-0000-000000000000")
    held = admin.json("server list --all-projects --long --name hello-east")[0]["Host"]
    service = admin.json(f"compute service list --host {held} --service nova-compute")[0]["ID"]
    assert "409" in admin.refused(f"compute service delete {service}")


def test_hypervisors(cloud: Cloud, admin: Client) -> None:
    listed = admin.json("hypervisor list --long")
    assert sorted(hypervisor["Hypervisor Hostname"] for hypervisor in listed) == sorted(cloud.shape.all_hosts)
    assert {hypervisor["State"] for hypervisor in listed} == {"up"}

    shown = admin.json("hypervisor show east-1")
    assert (shown["hypervisor_hostname"], shown["state"], shown["status"]) == ("east-1", "up", "enabled")

    stats = json.loads(admin.ok("hypervisor stats show -f json").partition("This command")[0])
    assert stats["count"] == len(cloud.shape.all_hosts)
    assert stats["running_vms"] >= len(cloud.shape.cell_names)


# ---- servers: creation -----------------------------------------------------------------------------------------------


def test_create_and_wait_and_delete_and_wait(demo: Client) -> None:
    created = demo.json(f"server create {TINY} --nic none --wait patient")
    assert created["status"] == "ACTIVE"
    assert created["addresses"] == {}

    demo.ok("server delete --wait patient")
    assert "No Server found" in demo.refused("server show patient")


def test_create_with_everything(demo: Client, tmp_path: Path) -> None:
    user_data = tmp_path / "user-data"
    user_data.write_text("#!/bin/sh\necho hello\n")
    demo.ok("keypair create dressed")
    demo.ok(
        f"server create {TINY} --availability-zone west --property role=db --property tier=1 --key-name dressed "
        f"--user-data {user_data} dressed"
    )
    try:
        shown = wait_for_status(demo, "dressed", "ACTIVE")
        assert shown["OS-EXT-AZ:availability_zone"] == "west"
        assert shown["properties"] == {"role": "db", "tier": "1"}
        assert shown["key_name"] == "dressed"
        assert shown["flavor"]["original_name"] == "m1.tiny"
    finally:
        demo.run("server delete dressed")
        demo.run("keypair delete dressed")


def test_the_administrator_sees_the_user_data(admin: Client, demo: Client, tmp_path: Path) -> None:
    user_data = tmp_path / "user-data"
    user_data.write_text("#!/bin/sh\necho hello\n")
    demo.ok(f"server create {TINY} --user-data {user_data} told")
    try:
        server = wait_for_status(demo, "told", "ACTIVE")["id"]
        seen = admin.json(f"server show {server}")["OS-EXT-SRV-ATTR:user_data"]
        assert base64.b64decode(seen) == user_data.read_bytes()
    finally:
        demo.run("server delete told")


def test_several_at_once_are_numbered(admin: Client, demo: Client, booted: list[str]) -> None:
    listed = admin.json("server list --all-projects --long --name web-")

    assert sorted(server["Name"] for server in listed) == booted
    assert {server["Properties"]["role"] for server in listed} == {"web"}
    assert all(server["Host"] for server in listed)


def test_names_are_looked_up_before_anything_is_asked_for(demo: Client) -> None:
    assert "No Flavor found for absent" in demo.refused("server create --flavor absent --image tiny nobody")
    assert "No Image found for absent" in demo.refused("server create --flavor m1.tiny --image absent nobody")


# ---- servers: lists --------------------------------------------------------------------------------------------------


def test_the_list_filters(admin: Client, demo: Client, booted: list[str]) -> None:
    def names(client: Client, options: str) -> list[str]:
        return [server["Name"] for server in client.json(f"server list {options}")]

    assert sorted(names(demo, "--name ^web-")) == booted
    assert names(demo, "--name web-2") == ["web-2"]
    assert set(booted) <= set(names(demo, "--status ACTIVE"))
    assert not set(booted) & set(names(demo, "--status SHUTOFF"))
    host = admin.json("server list --all-projects --long --name web-2")[0]["Host"]
    on_host = names(admin, f"--all-projects --host {host}")
    assert "web-2" in on_host
    assert len(on_host) < len(names(admin, "--all-projects"))
    assert not set(booted) & set(names(admin, ""))


def test_the_list_pages_and_sorts(cloud: Cloud, demo: Client, booted: list[str]) -> None:
    everything = [server["Name"] for server in demo.json("server list")]
    assert len(everything) == len(set(everything)) > len(booted)

    first = demo.json("server list --limit 2")
    after = demo.json(f"server list --limit 2 --marker {first[-1]['ID']}")
    assert [server["Name"] for server in first + after] == everything[:4]

    by_name = [server["Name"] for server in demo.json("server list --sort-column Name --sort-descending")]
    assert by_name == sorted(everything, reverse=True)
    with cloud.sdk("demo") as connection:
        by_the_server = [
            server.name for server in connection.compute.servers(sort_key="display_name", sort_dir="desc", limit=2)
        ]
    assert by_the_server == by_name


def test_a_marker_that_is_nothing_is_refused(cloud: Cloud) -> None:
    answer = _ask(cloud, "GET", "/servers?marker=00000000-0000-0000-0000-000000000000")

    assert answer.status_code == 400
    assert "marker" in answer.json()["badRequest"]["message"]


# ---- servers: what they go through -----------------------------------------------------------------------------------


def test_a_server_goes_through_its_states(demo: Client, booted: list[str]) -> None:
    server = booted[0]
    for command, status in (
        ("stop", "SHUTOFF"),
        ("start", "ACTIVE"),
        ("pause", "PAUSED"),
        ("unpause", "ACTIVE"),
        ("suspend", "SUSPENDED"),
        ("resume", "ACTIVE"),
        ("reboot --soft", "ACTIVE"),
        ("reboot --hard", "ACTIVE"),
    ):
        demo.ok(f"server {command} {server}")
        wait_until(
            lambda status=status: _rests(demo, server, status), what=f"{status} after {command}", deadline_s=DEADLINE_S,
            every_s=0.2
        )  # fmt: skip


def _rests(client: Client, server: str, status: str) -> bool:
    shown = client.json(f"server show {server}")
    return bool(shown["status"] == status and shown["OS-EXT-STS:task_state"] is None)


def test_what_happened_to_a_server_is_told(demo: Client, admin: Client) -> None:
    demo.ok(f"server create {TINY} eventful")
    try:
        server = wait_for_status(demo, "eventful", "ACTIVE")["id"]
        demo.ok(f"server stop {server}")
        wait_for_status(demo, server, "SHUTOFF")

        events = demo.json(f"server event list {server}")
        assert [event["Action"] for event in events] == ["stop", "create"]
        shown = demo.json(f"server event show {server} {events[0]['Request ID']}")
        assert (shown["action"], shown["message"]) == ("stop", None)
        assert admin.json(f"server event show {server} {events[1]['Request ID']}")["events"]
    finally:
        demo.run("server delete eventful")


def test_the_console_log(demo: Client, booted: list[str]) -> None:
    assert "GUEST-READY" in demo.ok(f"console log show {booted[1]}")
    # What follows the last line break counts, as with Nova.
    assert len(demo.ok(f"console log show --lines 2 {booted[1]}").strip().splitlines()) == 1


def test_a_server_is_renamed(demo: Client, booted: list[str]) -> None:
    demo.ok(f"server set --name renamed {booted[2]}")
    assert demo.json("server show renamed")["name"] == "renamed"
    demo.ok(f"server set --name {booted[2]} renamed")


def test_a_locked_server_stays_as_it_is(demo: Client, booted: list[str]) -> None:
    server = booted[1]
    demo.ok(f"server lock --reason held {server}")
    try:
        refused = demo.refused(f"server stop {server}")
        assert "409" in refused
        assert "locked" in refused
        shown = demo.json(f"server show {server}")
        assert (shown["locked"], shown["locked_reason"]) == (True, "held")
    finally:
        demo.ok(f"server unlock {server}")
    assert demo.json(f"server show {server}")["locked"] is False


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_a_wrong_state_is_a_conflict_that_names_it(demo: Client, booted: list[str]) -> None:
    refused = demo.refused(f"server unpause {booted[1]}")

    assert "409" in refused
    assert "vm_state active" in refused


def test_bad_input_names_the_field(cloud: Cloud, demo: Client) -> None:
    said = demo.refused(f"server create {TINY} --availability-zone nowhere lost")
    assert "400" in said
    assert "availability_zone" in said
    for wrong in (
        {"name": ""},
        {"min_count": 0},
        {"max_count": 0},
        {"key_name": "absent"},
        {"user_data": "%"},
        {"nonsense": 1},
    ):
        answer = _create(cloud, wrong)
        assert answer.status_code == 400
        assert next(iter(wrong)) in answer.json()["badRequest"]["message"]


def _create(cloud: Cloud, changes: dict[str, Any]) -> requests.Response:
    api = cloud.api("demo")
    flavor = next(flavor["id"] for flavor in api.pages("/flavors", "flavors") if flavor["name"] == "m1.tiny")
    image = requests.get(f"{cloud.image}/v2/images", params={"name": "tiny"}, timeout=30).json()["images"][0]["id"]
    body = {"server": {"name": "wrong", "flavorRef": flavor, "imageRef": image, "networks": "none", **changes}}
    return _ask(cloud, "POST", "/servers", body)


def _ask(cloud: Cloud, method: str, path: str, body: object = None, **headers: str) -> requests.Response:
    """The answer to the demo user, whatever it is."""
    wanted = {"OpenStack-API-Version": "compute 2.90", **headers}
    return requests.request(
        method, cloud.compute + path, json=body, auth=cloud.auth("demo"), headers=wanted, timeout=30
    )


@pytest.mark.parametrize(
    "path",
    ["/servers/00000000-0000-0000-0000-000000000000", "/flavors/absent", "/os-keypairs/absent", "/no-such-thing"],
)
def test_a_missing_thing_is_not_found(cloud: Cloud, path: str) -> None:
    answer = _ask(cloud, "GET", path)

    assert answer.status_code == 404
    assert answer.json()["itemNotFound"]["code"] == 404


def test_another_projects_server_is_not_found(cloud: Cloud, demo: Client, admin: Client) -> None:
    admin.ok(f"server create {TINY} hidden")
    try:
        hidden = wait_for_status(admin, "hidden", "ACTIVE")["id"]
        assert "No Server found" in demo.refused(f"server show {hidden}")
    finally:
        admin.ok("server delete hidden")


@pytest.mark.parametrize(
    ("flavor", "resource"), [("--ram 64 --vcpus 401", "cores"), (f"--ram {QUOTA['ram'] + 1} --vcpus 1", "ram")]
)
def test_over_quota_is_refused(admin: Client, demo: Client, flavor: str, resource: str) -> None:
    admin.ok(f"flavor create {flavor} --disk 1 greedy")
    try:
        said = demo.refused("server create --flavor greedy --image tiny greedy")
        assert "403" in said
        assert resource in said
    finally:
        admin.ok("flavor delete greedy")


def test_more_instances_than_the_quota_are_refused_together(api: ApiClient, demo: Client) -> None:
    before = len(list(api.pages("/servers", "servers")))

    said = demo.refused(f"server create {TINY} --min {QUOTA['instances'] + 1} --max {QUOTA['instances'] + 1} crowd")

    assert "403" in said
    assert "instances" in said
    assert len(list(api.pages("/servers", "servers"))) == before


# ---- openstacksdk ----------------------------------------------------------------------------------------------------


def test_the_sdk_creates_waits_lists_and_deletes(cloud: Cloud) -> None:
    with cloud.sdk("demo") as connection:
        image, flavor = (
            connection.image.find_image("tiny", ignore_missing=False),
            connection.compute.find_flavor("m1.tiny", ignore_missing=False),
        )
        created = connection.compute.create_server(
            name="by-sdk", image_id=image.id, flavor_id=flavor.id, networks="none"
        )
        server = connection.compute.wait_for_server(created, interval=0.2, wait=DEADLINE_S)

        assert server.status == "ACTIVE"
        assert "by-sdk" in [each.name for each in connection.compute.servers()]

        connection.compute.delete_server(server)
        connection.compute.wait_for_delete(server, interval=0.2, wait=DEADLINE_S)
        assert "by-sdk" not in [each.name for each in connection.compute.servers()]
