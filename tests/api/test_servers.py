"""Create, show, change, delete servers: from the request to the rows."""

import base64
from typing import Any

import pytest

import api_db.aggregates
import api_db.instances
from cells.gate.answers import Unknown
from objects.build_request import RequestSpec
from tests.api.http.harness import ADMIN, ALICE, BOB
from tests.api.small_cloud import BIG_IMAGE, CARL, IMAGE, QUEUED_IMAGE, SmallCloud

# ---- create ----------------------------------------------------------------------------------------------------------


def test_a_created_server_is_in_the_journal_and_says_where_to_look(cloud: SmallCloud) -> None:
    reply = cloud.create(metadata={"role": "web"}, tags=["blue"], key_name="laptop", description="first")

    assert reply.status == 202
    server = reply.json["server"]
    assert set(server) == {"id", "links", "OS-DCF:diskConfig", "security_groups", "adminPass"}
    assert reply.headers["Location"].endswith(f"/v2.1/servers/{server['id']}")
    entry = cloud.entry(server["id"])
    assert entry is not None and entry.build_request is not None
    build = entry.build_request.build
    assert (build.name, build.hostname, build.metadata, build.tags) == ("web", "web", {"role": "web"}, ["blue"])
    assert build.public_key == "ssh-ed25519 AAAA"
    assert build.image is not None and build.image.image_id == IMAGE
    assert server["adminPass"] not in repr(entry)


def test_the_client_sends_image_and_boot_device_both(cloud: SmallCloud) -> None:
    device = {
        "uuid": IMAGE,
        "boot_index": 0,
        "source_type": "image",
        "destination_type": "local",
        "delete_on_termination": True,
    }

    assert cloud.create(block_device_mapping_v2=[device], min_count=1, max_count=1).status == 202
    assert cloud.create(block_device_mapping_v2=[device], imageRef="").status == 202
    other = {**device, "uuid": BIG_IMAGE}
    assert "block_device_mapping_v2" in _refused(cloud, block_device_mapping_v2=[other])


def test_several_servers_of_one_request_are_numbered_and_share_a_reservation(cloud: SmallCloud) -> None:
    reply = cloud.create(min_count="2", max_count="3", return_reservation_id=True)

    assert reply.status == 202 and set(reply.json) == {"reservation_id"}
    with cloud.api.reading() as connection:
        entries = [api_db.journal.find(connection, uuid) for uuid in _uuids(cloud)]
    orders = sorted(
        (e.build_request for e in entries if e and e.build_request), key=lambda order: order.build.launch_index
    )
    assert [order.build.name for order in orders] == ["web-1", "web-2", "web-3"]
    assert [order.build.hostname for order in orders] == ["web-1", "web-2", "web-3"]
    assert {order.build.reservation_id for order in orders} == {reply.json["reservation_id"]}


def _uuids(cloud: SmallCloud) -> list[str]:
    with cloud.api.reading() as connection:
        return list(connection.exec_driver_sql("select uuid from instance_mappings").scalars())


def test_max_count_takes_what_the_quota_leaves(cloud: SmallCloud) -> None:
    assert cloud.create(min_count=1, max_count=50).status == 202
    assert len(_uuids(cloud)) == 10


def test_the_eleventh_server_is_over_quota(cloud: SmallCloud) -> None:
    assert cloud.create(min_count=10).status == 202

    reply = cloud.create()

    assert reply.status == 403
    assert reply.fault == "forbidden: Quota exceeded for instances: Requested 1, but already used 10 of 10 instances"
    assert cloud.create(user=CARL).status == 202


def test_cores_are_counted_too(cloud: SmallCloud) -> None:
    assert cloud.create(flavorRef="wide", min_count=2).status == 202
    assert "Quota exceeded for cores" in cloud.create(flavorRef="wide").fault


def test_a_guest_may_be_given_user_data(cloud: SmallCloud) -> None:
    text = base64.b64encode(b"#cloud-config\n").decode()
    uuid = cloud.created(user_data=text)

    assert cloud.show(uuid, user=ADMIN)["OS-EXT-SRV-ATTR:user_data"] == text


_BAD = [
    ({"name": ""}, "name"),
    ({"name": "x" * 256}, "name"),
    ({"name": ...}, "name"),
    ({"flavorRef": ...}, "flavorRef"),
    ({"flavorRef": "nowhere"}, "flavorRef"),
    ({"flavorRef": "secret"}, "flavorRef"),
    ({"flavorRef": "old"}, "flavorRef"),
    ({"imageRef": ...}, "imageRef"),
    ({"imageRef": "not-a-uuid"}, "imageRef"),
    ({"imageRef": "11111111-2222-3333-4444-555555555555"}, "imageRef"),
    ({"imageRef": QUEUED_IMAGE}, "not active"),
    ({"imageRef": BIG_IMAGE}, "memory is too small"),
    ({"key_name": "nowhere"}, "key_name"),
    ({"availability_zone": "nowhere"}, "availability_zone"),
    ({"availability_zone": "a:b:c:d"}, "availability_zone"),
    ({"user_data": "not base64!"}, "user_data"),
    ({"user_data": "A" * 65536}, "user_data"),
    ({"metadata": {"": "x"}}, "metadata"),
    ({"metadata": {"k": "v" * 256}}, "k"),
    ({"metadata": {"k": None}}, "k"),
    ({"networks": ...}, "networks"),
    ({"networks": "all"}, "networks"),
    ({"networks": [{"uuid": "11111111-2222-3333-4444-555555555555"}]}, "networks"),
    ({"min_count": 3, "max_count": 2}, "min_count"),
    ({"min_count": 0}, "min_count"),
    ({"min_count": "two"}, "min_count"),
    ({"tags": ["a/b"]}, "a/b"),
    ({"tags": ["a"] * 51}, "tags"),
    ({"name": " web"}, "name"),
    ({"name": "web "}, "name"),
    ({"name": " "}, "name"),
    ({"availability_zone": " east"}, "availability_zone"),
    ({"hostname": "-bad"}, "hostname"),
    ({"hostname": "a..b"}, "hostname"),
    ({"hostname": "a\n"}, "hostname"),
    ({"accessIPv4": "::1"}, "accessIPv4"),
    ({"accessIPv6": "127.0.0.1"}, "accessIPv6"),
    ({"config_drive": "perhaps"}, "config_drive"),
    ({"trusted_image_certificates": ["a"]}, "trusted_image_certificates"),
    ({"personality": []}, "personality"),
    ({"OS-DCF:diskConfig": "auto"}, "OS-DCF:diskConfig"),
    ({"colour": "blue"}, "colour"),
    ({"block_device_mapping": [{"device_name": "vda"}]}, "block_device_mapping"),
    ({"block_device_mapping_v2": [{"source_type": "volume", "destination_type": "volume"}]}, "block_device_mapping_v2"),
    ({"block_device_mapping_v2": [{"source_type": "blank", "destination_type": "local"}]}, "block_device_mapping_v2"),
    ({"block_device_mapping_v2": [{"source_type": "image", "destination_type": "volume", "uuid": IMAGE}]},
        "block_device_mapping_v2"),
    *(
        ({"block_device_mapping_v2": [{"source_type": "image", "boot_index": 0, "uuid": IMAGE, **wish}]}, "".join(wish))
        for wish in (
            {"disk_bus": "ide"}, {"device_type": "cdrom"}, {"volume_size": 50}, {"delete_on_termination": False},
            {"tag": "root"}, {"guest_format": "swap"}, {"device_name": "/dev/sda"},
        )
    ),
    ({"security_groups": [{"name": "web"}]}, "security_groups"),
    ({"flavorRef": "greedy"}, "resources:VCPU"),
    ({"flavorRef": "otherworldly"}, "vmware:hw_version"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "named"), _BAD)
def test_bad_input_is_refused_and_names_the_field(cloud: SmallCloud, more: dict[str, object], named: str) -> None:
    assert named in _refused(cloud, **more)
    assert _uuids(cloud) == []


def test_a_security_group_without_a_name_is_none(cloud: SmallCloud) -> None:
    reply = cloud.create(security_groups=[{}, {"name": "default"}])

    assert (reply.status, reply.json["server"]["security_groups"]) == (202, [{"name": "default"}])


def _refused(cloud: SmallCloud, **more: object) -> str:
    reply = cloud.create(**more)
    assert reply.status == 400, reply.body
    return reply.fault


def test_old_and_new_microversions_know_different_fields(cloud: SmallCloud) -> None:
    assert cloud.create(version="2.36", networks=...).status == 202
    assert cloud.create(version="2.36", networks="none").status == 400
    assert cloud.create(version="2.1", networks=[], personality=[]).status == 202
    assert cloud.create(version="2.56", personality=[{"path": "/a", "contents": "aGk="}]).status == 400
    assert cloud.create(version="2.18", networks=..., description="x").status == 400
    assert cloud.create(version="2.51", tags=["a"]).status == 400
    assert cloud.create(version="2.52", tags=["a"]).status == 202
    assert cloud.create(version="2.89", hostname="a").status == 400
    assert cloud.create(version="2.90", hostname="a").status == 202
    assert cloud.create(version="2.94", hostname="a.b.c").status == 202


def test_until_2_18_a_server_is_described_by_its_name(cloud: SmallCloud) -> None:
    old, new = cloud.created(version="2.18", networks=...), cloud.created()

    assert cloud.show(old)["description"] == "web"
    assert cloud.show(new)["description"] is None


def test_only_admins_choose_hosts_and_diskless_flavors(cloud: SmallCloud) -> None:
    assert cloud.create(availability_zone="east:east-1").status == 403
    assert cloud.create(host="east-1").status == 403
    assert cloud.create(flavorRef="diskless").status == 403

    uuid = cloud.created(availability_zone="east:east-1", user=ADMIN)
    assert cloud.create(host="nowhere", user=ADMIN).status == 400
    assert cloud.create(host="east-1", user=ADMIN).status == 202
    assert cloud.create(host="east-1", availability_zone="east:east-1", user=ADMIN).status == 400
    assert cloud.create(flavorRef="diskless", user=ADMIN).status == 202
    entry = cloud.entry(uuid)
    assert entry is not None
    with cloud.api.reading() as connection:
        request = api_db.instances.request_spec(connection, entry.request_uuid)
    assert (request.availability_zone, request.host, request.forced) == ("east", "east-1", True)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        # A zone is where hosts are.
        ({"availability_zone": "empty"}, "availability_zone"),
        ({"availability_zone": "internal"}, "availability_zone"),
        # The zone that is written down and the one in which the host lies are one.
        ({"availability_zone": "nova:east-1"}, "availability_zone"),
        ({"availability_zone": "east:west-1"}, "availability_zone"),
        ({"availability_zone": "east", "host": "west-1"}, "availability_zone"),
        ({"availability_zone": "nova", "hypervisor_hostname": "node-of-east-1"}, "availability_zone"),
        ({"availability_zone": "nova::node-of-east-1"}, "availability_zone"),
        # What can be known is known before the answer.
        ({"availability_zone": "east:nowhere"}, "availability_zone"),
        ({"availability_zone": "::nowhere"}, "availability_zone"),
        ({"availability_zone": ":east-2:node-of-east-1"}, "availability_zone"),
        ({"hypervisor_hostname": "nowhere"}, "hypervisor_hostname"),
        ({"hypervisor_hostname": "node-of-east-1", "host": "east-2"}, "hypervisor_hostname"),
        ({"host": "nowhere"}, "host"),
        ({"host": "EAST-1"}, "host"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_the_server_is_accepted(
    cloud: SmallCloud, more: dict[str, str], named: str
) -> None:
    cloud.greet("east-1", node="node-of-east-1")
    cloud.greet("east-2")
    with cloud.api.transaction() as connection:
        api_db.aggregates.insert(connection, name="empty", availability_zone="empty")

    assert f"field/attribute {named}." in _refused(cloud, user=ADMIN, **more)
    assert _uuids(cloud) == []


@pytest.mark.parametrize(
    "more",
    [
        {"availability_zone": "nova"},
        {"availability_zone": "nova:west-1"},
        {"availability_zone": "east::node-of-east-1"},
        {"availability_zone": ":east-1:node-of-east-1"},
        {"hypervisor_hostname": "node-of-east-1"},
        {"hypervisor_hostname": "node-of-east-1", "host": "east-1", "availability_zone": "east"},
    ],
)
def test_a_place_that_is_there_may_be_named_in_every_way(cloud: SmallCloud, more: dict[str, str]) -> None:
    cloud.greet("east-1", node="node-of-east-1")

    assert cloud.create(user=ADMIN, **more).status == 202


def test_while_a_cell_is_silent_nobody_knows_that_there_is_no_such_node(cloud: SmallCloud) -> None:
    cloud.greet("east-1", node="node-of-east-1")
    cloud.go_silent("west")

    assert cloud.create(user=ADMIN, hypervisor_hostname="node-of-east-1").status == 202
    reply = cloud.create(user=ADMIN, hypervisor_hostname="nowhere")
    assert reply.status == 503
    # A member is not told of hosts at all.
    assert cloud.create(hypervisor_hostname="nowhere").status == 403


NOBODY = "11111111-2222-3333-4444-555555555555"
HINTS = "os:scheduler_hints"


def test_hints_reach_the_scheduler_as_lists_whatever_their_name_and_form(cloud: SmallCloud) -> None:
    first = cloud.created()
    for key, hints, same, different in (
        (HINTS, {"same_host": first.upper()}, [first], []),
        (HINTS, {"same_host": [NOBODY, first], "different_host": [NOBODY]}, [NOBODY, first], [NOBODY]),
        ("OS-SCH-HNT:scheduler_hints", {"different_host": [first, first.upper()]}, [], [first]),
    ):
        entry = cloud.entry(cloud.created(beside={key: hints}))
        assert entry is not None
        with cloud.api.reading() as connection:
            request = api_db.instances.request_spec(connection, entry.request_uuid)
        assert (request.same_host, request.different_host) == (same, different)


@pytest.mark.parametrize(
    ("hints", "kept"),
    [
        ({"query": '[">=", "$free_ram_mb", 1]'}, {"query": '[">=", "$free_ram_mb", 1]'}),
        ({"query": ""}, {"query": ""}),
        ({"query": "[]"}, {"query": ""}),
        ({"build_near_host_ip": "192.0.2.7"}, {"near": "192.0.2.0/24"}),
        ({"build_near_host_ip": "192.0.2.7", "cidr": "/16"}, {"near": "192.0.0.0/16"}),
        ({"build_near_host_ip": "2001:db8::1", "cidr": "32"}, {"near": "2001:db8::/32"}),
    ],
)
def test_hints_about_hosts_reach_the_scheduler(cloud: SmallCloud, hints: dict[str, Any], kept: dict[str, Any]) -> None:
    request = _request(cloud, {HINTS: hints})

    assert {name: getattr(request, name) for name in kept} == kept


def test_hints_about_cells_reach_the_scheduler_as_uuids(cloud: SmallCloud) -> None:
    east, west = cell_of(cloud, "east"), cell_of(cloud, "west")

    assert _request(cloud, {HINTS: {"different_cell": "east"}}).different_cell == [east]
    assert _request(cloud, {HINTS: {"different_cell": ["top!east", west.upper()]}}).different_cell == [east, west]
    assert _request(cloud, {HINTS: {"target_cell": "west"}}).target_cell == west
    assert "different_cell" in _refused(cloud, beside={HINTS: {"target_cell": "west", "different_cell": ["west"]}})
    assert "target_cell" in _refused(cloud, beside={HINTS: {"target_cell": "cell0"}})


def _request(cloud: SmallCloud, beside: dict[str, Any]) -> RequestSpec:
    entry = cloud.entry(cloud.created(beside=beside))
    assert entry is not None
    with cloud.api.reading() as connection:
        return api_db.instances.request_spec(connection, entry.request_uuid)


@pytest.mark.parametrize("cidr", ["/33", "24/", "/-1", "/", "x"])
def test_a_prefix_that_is_none_is_refused(cloud: SmallCloud, cidr: str) -> None:
    assert "cidr" in _refused(cloud, beside={HINTS: {"build_near_host_ip": "192.0.2.7", "cidr": cidr}})


@pytest.mark.parametrize(
    "hints",
    [
        {"query": '["=", "$host", "host-1"]'},
        {"query": '["=", "$hypervisor_hostname", "host-1"]'},
        {"query": '["exec", "$free_ram_mb", 1]'},
        {"query": '["=", "$free_ram_mb"'},
        {"query": '["=", "$free_ram_mb"]'},
        {"query": '{"and": 1}'},
        {"query": "[" * 2000},
        {"query": '["not",' * 9 + "true" + "]" * 9},
        {"query": ["and", *[True] * 40]},
        {"query": {"=": ["$free_ram_mb", 1]}},
        {"query": [["not"] * 3]},
        {"query": " " * 5000},
        {"target_cell": "moon"},
        {"target_cell": ["east"]},
        {"different_cell": ["moon"]},
        {"different_cell": ["east"] * 101},
        {"build_near_host_ip": "10.0.0"},
        {"build_near_host_ip": "10.0.0.0/8"},
        {"cidr": "/24"},
        {"reservation": NOBODY},
        {"diffrent_host": NOBODY},
        {"group": NOBODY},
        {"same_host": ""},
        {"same_host": []},
        {"same_host": NOBODY},
        {"different_host": "web"},
        {"different_host": [NOBODY] * 101},
    ],
    ids=lambda hints: "".join(hints),
)
def test_a_hint_that_nobody_reads_or_that_cannot_be_is_refused_and_named(
    cloud: SmallCloud, hints: dict[str, Any]
) -> None:
    assert "".join(hints) in _refused(cloud, beside={HINTS: hints})


def test_hints_that_contradict_each_other_are_refused(cloud: SmallCloud) -> None:
    first = cloud.created()

    assert "different_host" in _refused(cloud, beside={HINTS: {"same_host": first, "different_host": first}})
    assert HINTS in _refused(
        cloud, beside={HINTS: {"same_host": first}, "OS-SCH-HNT:scheduler_hints": {"same_host": first}}
    )


def test_a_hint_tells_nothing_of_servers_of_other_projects(cloud: SmallCloud) -> None:
    foreign, gone = cloud.created(user=CARL), cloud.created()
    assert cloud.ask.delete(f"/v2.1/servers/{gone}", user=ALICE).status == 204

    for user in (ALICE, ADMIN):
        told = {
            _refused(cloud, beside={HINTS: {"same_host": server}}, user=user).replace(server, "X")
            for server in (foreign, gone, NOBODY)
        }
        assert len(told) == 1
        assert {
            cloud.create(beside={HINTS: {"different_host": server}}, user=user).status
            for server in (foreign, gone, NOBODY)
        } == {202}


def test_more_metadata_than_the_quota_is_refused(cloud: SmallCloud) -> None:
    assert cloud.create(metadata={f"k{number}": "v" for number in range(129)}).status == 403


def test_a_reader_may_not_create(cloud: SmallCloud) -> None:
    assert cloud.create(user=BOB).status == 403


# ---- show ------------------------------------------------------------------------------------------------------------


def test_a_server_shows_alike_in_the_journal_and_in_its_cell(cloud: SmallCloud) -> None:
    uuid = cloud.created(metadata={"a": "b"}, tags=["t"], availability_zone="east", key_name="laptop")
    waiting = cloud.show(uuid)
    cloud.place(uuid)
    building = cloud.show(uuid)
    cloud.run(uuid)
    active = cloud.show(uuid)

    assert (waiting["status"], waiting["OS-EXT-STS:task_state"]) == ("BUILD", "scheduling")
    assert (building["status"], building["OS-EXT-STS:task_state"]) == ("BUILD", "spawning")
    assert (active["status"], active["OS-EXT-STS:power_state"]) == ("ACTIVE", 1)
    assert active["OS-EXT-AZ:availability_zone"] == active["pinned_availability_zone"] == "east"
    for same in ("id", "name", "metadata", "tags", "created", "flavor", "image", "key_name", "links", "tenant_id"):
        assert waiting[same] == building[same] == active[same]
    assert active["flavor"]["extra_specs"] == {"hw:cpu_policy": "shared"}


def test_only_admins_see_hosts(cloud: SmallCloud) -> None:
    uuid = cloud.running()

    assert "OS-EXT-SRV-ATTR:host" not in cloud.show(uuid)
    assert "host_status" not in cloud.show(uuid)
    assert len(cloud.show(uuid)["hostId"]) == 56
    shown = cloud.show(uuid, user=ADMIN)
    assert shown["OS-EXT-SRV-ATTR:host"] == shown["OS-EXT-SRV-ATTR:hypervisor_hostname"] == "east-1"
    assert shown["host_status"] == "UNKNOWN"


def test_a_buried_server_shows_why(cloud: SmallCloud) -> None:
    uuid = cloud.created()
    cloud.bury(uuid)

    fault = cloud.show(uuid)["fault"]
    assert fault["code"] == 500 and "No valid host" in fault["message"] and "details" not in fault
    assert "details" in cloud.show(uuid, user=ADMIN)["fault"]


@pytest.mark.parametrize("path", ["11111111-2222-3333-4444-555555555555", "no-uuid", "%2e%2e"])
def test_what_does_not_exist_is_not_found(cloud: SmallCloud, path: str) -> None:
    for method in ("GET", "DELETE"):
        reply = cloud.ask.ask(method, f"/v2.1/servers/{path}", user=ALICE)
        assert reply.status == 404 and "could not be found" in reply.fault
    assert cloud.ask.put(f"/v2.1/servers/{path}", {"server": {}}, user=ALICE).status == 404


def test_another_projects_server_is_not_found(cloud: SmallCloud) -> None:
    uuid = cloud.running()

    assert cloud.ask.get(f"/v2.1/servers/{uuid}", user=CARL).status == 404
    assert cloud.ask.delete(f"/v2.1/servers/{uuid}", user=CARL).status == 404
    assert cloud.act(uuid, "os-stop", user=CARL).status == 404


def test_a_silent_cells_server_is_shown_as_unknown_from_2_69_on(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    cloud.go_silent("east")

    reply = cloud.ask.get(f"/v2.1/servers/{uuid}", user=ALICE, version="2.68")
    assert reply.status == 503 and "east" in reply.fault and "Retry-After" in reply.headers
    shown = cloud.show(uuid, version="2.69")
    assert shown["status"] == "UNKNOWN" and shown["tenant_id"] == ALICE.project_id
    assert shown["OS-EXT-AZ:availability_zone"] == "UNKNOWN" and "server_groups" not in shown
    assert cloud.show(uuid, version="2.71")["server_groups"] == []
    assert cloud.show(uuid)["flavor"]["original_name"] == "m1.small"


@pytest.mark.parametrize(("kept", "status"), [('{"project_id": "p", "user_id": "u"}', 200), ("[1", 409), ("{}", 409)])
def test_a_silent_cells_server_is_shown_without_a_flavor_that_its_request_does_not_tell(
    cloud: SmallCloud, kept: str, status: int
) -> None:
    """It was a 500."""
    uuid = cloud.running()
    cloud.go_silent("east")
    with cloud.api.transaction() as connection:
        connection.exec_driver_sql("UPDATE request_specs SET spec = ?", (kept,))

    reply = cloud.ask.get(f"/v2.1/servers/{uuid}", user=ALICE, version="2.96")

    assert reply.status == status
    assert status != 200 or ("flavor" not in reply.json["server"] and reply.json["server"]["status"] == "UNKNOWN")


def test_a_silent_cells_server_shows_its_flavor_and_its_group(cloud: SmallCloud) -> None:
    wanted = {"server_group": {"name": "apart", "policies": ["anti-affinity"]}}
    group = cloud.ask.post("/v2.1/os-server-groups", wanted, user=ALICE).json["server_group"]["id"]
    uuid = cloud.running(beside={"os:scheduler_hints": {"group": group}}, availability_zone="east")
    flavor = cloud.show(uuid)["flavor"]
    cloud.go_silent("east")

    shown = cloud.show(uuid)

    assert shown["flavor"] == flavor and shown["flavor"]["extra_specs"] == {"hw:cpu_policy": "shared"}
    assert shown["server_groups"] == [group]
    assert set(shown) == {
        "id", "status", "links", "tenant_id", "created", "user_id", "image", "flavor", "OS-EXT-AZ:availability_zone",
        "OS-EXT-STS:power_state", "server_groups",
    }  # fmt: skip


# ---- update ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("placed", [False, True])
def test_a_server_is_renamed_wherever_it_is(cloud: SmallCloud, placed: bool) -> None:
    uuid = cloud.running() if placed else cloud.created()
    changes = {
        "name": "new",
        "description": "d",
        "accessIPv4": "10.0.0.1",
        "hostname": "h",
        "OS-DCF:diskConfig": "AUTO",
    }

    reply = cloud.ask.put(f"/v2.1/servers/{uuid}", {"server": changes}, user=ALICE, version="2.90")

    assert reply.status == 200
    shown = cloud.show(uuid)
    for key, value in changes.items():
        where = "OS-EXT-SRV-ATTR:hostname" if key == "hostname" else key
        assert shown[where] == reply.json["server"][where] == value
    cloud.ask.put(
        f"/v2.1/servers/{uuid}", {"server": {"accessIPv4": "", "description": None}}, user=ALICE, version="2.90"
    )
    shown = cloud.show(uuid)
    assert (shown["accessIPv4"], shown["description"], shown["name"]) == ("", None, "new")


def test_a_server_on_its_way_to_a_cell_is_busy(cloud: SmallCloud) -> None:
    uuid = cloud.created()
    cloud.assign(uuid, "east", "east-1")

    reply = cloud.ask.put(f"/v2.1/servers/{uuid}", {"server": {"name": "new"}}, user=ALICE)
    assert reply.status == 409 and "scheduling" in reply.fault


def test_bad_changes_are_refused(cloud: SmallCloud) -> None:
    uuid = cloud.created()
    for changes, version in (
        ({"name": ""}, "2.1"),
        ({"description": "x"}, "2.18"),
        ({"hostname": "h"}, "2.89"),
        ({"x": 1}, "2.1"),
    ):
        assert cloud.ask.put(f"/v2.1/servers/{uuid}", {"server": changes}, user=ALICE, version=version).status == 400
    assert cloud.ask.put(f"/v2.1/servers/{uuid}", {"server": []}, user=ALICE).status == 400


# ---- delete ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["waiting", "building", "active", "buried"])
def test_a_server_is_deleted_at_any_time_and_once(cloud: SmallCloud, when: str) -> None:
    uuid = cloud.running() if when == "active" else cloud.created()
    if when == "building":
        cloud.place(uuid)
    if when == "buried":
        cloud.bury(uuid)

    assert cloud.ask.delete(f"/v2.1/servers/{uuid}", user=ALICE).status == 204

    assert cloud.ask.delete(f"/v2.1/servers/{uuid}", user=ALICE).status == 404
    assert cloud.ask.get(f"/v2.1/servers/{uuid}", user=ALICE).status == 404
    assert cloud.create(min_count=10).status == 202


def test_a_locked_server_is_not_deleted_but_by_admins(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    assert cloud.act(uuid, "lock").status == 202

    reply = cloud.ask.delete(f"/v2.1/servers/{uuid}", user=ALICE)

    assert reply.status == 409 and "locked" in reply.fault
    assert cloud.ask.delete(f"/v2.1/servers/{uuid}", user=ADMIN).status == 204


def test_while_a_cell_is_silent_only_locked_servers_are_not_deleted(cloud: SmallCloud) -> None:
    running, locked, on_its_way = cloud.running(), cloud.running(), cloud.created()
    cloud.assign(on_its_way, "east", "east-1")
    assert cloud.act(locked, "lock").status == 202
    cloud.go_silent("east")

    assert cloud.ask.delete(f"/v2.1/servers/{running}", user=ALICE).status == 204
    assert cloud.ask.delete(f"/v2.1/servers/{on_its_way}", user=ALICE).status == 204
    assert cloud.ask.delete(f"/v2.1/servers/{locked}", user=ALICE).status == 409
    assert cloud.ask.delete(f"/v2.1/servers/{locked}", user=ADMIN).status == 204


def test_a_commit_whose_answer_was_lost_is_accepted_all_the_same(cloud: SmallCloud) -> None:
    gate = cloud.cloud.api_db
    write = gate.write

    async def forgetful(*values: Any, **more: Any) -> Unknown:
        await write(*values, **more)
        return Unknown(gate.cell, "no answer")

    async def lost(*values: Any, **more: Any) -> Unknown:
        return Unknown(gate.cell, "no answer")

    gate.write = forgetful  # type: ignore[method-assign]
    accepted = cloud.create()
    gate.write = lost  # type: ignore[method-assign,assignment]

    assert accepted.status == 202 and _uuids(cloud) == [accepted.json["server"]["id"]]
    assert cloud.create().status == 503


def cell_of(cloud: SmallCloud, name: str) -> str:
    """The cell's uuid."""
    return cloud.cloud.cells.by_name(name).cell.uuid
