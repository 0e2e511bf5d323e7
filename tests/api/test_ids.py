"""An id in another spelling is the same id: in paths, bodies, filters and markers. Names are not ids: their case
matters."""

import pathlib
import urllib.parse
import uuid as uuids
from collections.abc import Iterator
from typing import Any

import pytest

import tests.api.small_cloud
from api.http.routes import Route
from api.resources.hosts import hypervisors, services
from api.resources.servers import listing
from tests.api.http.harness import ADMIN, ALICE, BOB
from tests.api.operators_cloud import OperatorsCloud, operators_cloud
from tests.api.small_cloud import IMAGE, RESOURCES, SmallCloud, small_cloud

SPELLINGS = (str.upper, str.title, lambda uuid: uuid.replace("-", ""))
UNLIMITED = "[cells]\ndeadline_s = 20\n[quota]\ninstances = -1\ncores = -1\nram = -1\n"
NO_UUIDS = ("x", "urn:uuid:{id}", "%7B{id}%7D", "{id}0", "{id}%20", "_{id}")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCloud]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tests.api.small_cloud, "RESOURCES", (*RESOURCES, listing))
        with small_cloud(pathlib.Path(tmp_path_factory.mktemp("ids")), UNLIMITED) as small:
            yield small


# ---- servers ---------------------------------------------------------------------------------------------------------

_OF_SERVERS = sorted(
    {
        row.path
        for resource in RESOURCES
        for row in resource.ROUTES
        if isinstance(row, Route)
        and row.method == "GET"
        and row.path.startswith("/servers/{")
        and row.path.count("{") == 1
    }
)


@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("path", _OF_SERVERS)
def test_a_server_is_found_by_any_spelling(cloud: SmallCloud, path: str, placed: bool) -> None:
    uuid = cloud.running() if placed else cloud.created()

    def shown(spelling: str) -> tuple[int, bytes]:
        reply = cloud.ask.get(
            "/v2.1" + path.replace("{id}", spelling).replace("{server_id}", spelling), version="2.96", user=ADMIN
        )
        return reply.status, reply.body

    status, body = shown(uuid)
    assert status != 404 or b"could not be found" not in body, body
    for spell in SPELLINGS:
        assert shown(spell(uuid)) == (status, body)
    for template in NO_UUIDS:
        assert shown(template.replace("{id}", uuid))[0] == 404, template


@pytest.mark.parametrize("spell", SPELLINGS)
def test_a_server_is_acted_on_and_deleted_by_any_spelling(cloud: SmallCloud, spell: Any) -> None:
    running, building = cloud.running(), cloud.created()

    assert cloud.act(spell(running), "lock").status == 202
    assert cloud.show(running)["locked"]
    assert cloud.act(spell(running), "unlock").status == 202
    assert (
        cloud.ask.put(f"/v2.1/servers/{spell(building)}", {"server": {"name": "new"}}, user=ALICE).json["server"]["id"]
        == building
    )
    for uuid in (running, building):
        assert cloud.ask.delete(f"/v2.1/servers/{spell(uuid)}", user=ALICE).status == 204
        assert cloud.ask.get(f"/v2.1/servers/{uuid}", user=ALICE).status == 404


@pytest.mark.parametrize("spell", SPELLINGS)
def test_filters_and_markers_take_any_spelling(cloud: SmallCloud, spell: Any) -> None:
    uuid = cloud.running(name="spelt")

    def listed(query: str) -> set[str]:
        return {
            server["id"]
            for server in cloud.ask.get(f"/v2.1/servers?name=spelt&{query}", version="2.96", user=ADMIN).json["servers"]
        }

    for query in (
        f"uuid={spell(uuid)}",
        f"image={spell(IMAGE)}",
        f"image=http://images/v2/images/{spell(IMAGE)}/",
        f"image_ref={spell(IMAGE)}",
    ):
        assert uuid in listed(f"all_tenants=1&{query}")
    assert uuid in listed("all_tenants=1&flavor=http://cloud/v2.1/flavors/small")
    assert listed("all_tenants=1&flavor=SMALL") == set()
    pages = [
        cloud.ask.get(f"/v2.1/servers?marker={marker}", version="2.96", user=ALICE).json
        for marker in (uuid, spell(uuid))
    ]
    assert pages[0] == pages[1]
    assert "marker" in cloud.ask.get("/v2.1/servers?marker=nonsense", version="2.96", user=ALICE).fault


# ---- what a request for a server names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["http://[/flavors/small", "//[", "http://\u2100.example/a", "http://[::1/70a599e0", "//]/["]
)
def test_what_looks_like_an_address_and_is_none_names_nothing(cloud: SmallCloud, address: str) -> None:
    uuid = cloud.running()

    for more in ({"flavorRef": address}, {"imageRef": address}):
        assert cloud.create(**more).status in (400, 404)
    for action, body in (("rescue", {"rescue_image_ref": address}), ("rebuild", {"imageRef": address})):
        assert cloud.act(uuid, action, body).status in (400, 404)
    for name in ("image", "image_ref", "flavor"):
        reply = cloud.ask.get(
            f"/v2.1/servers?all_tenants=1&{name}={urllib.parse.quote(address)}", version="2.96", user=ADMIN
        )
        assert (reply.status, reply.json) == (200, {"servers": []}) or reply.status == 400


@pytest.mark.parametrize(
    "address", ["http://cloud:8774/v2.1/0a11ce/flavors/{}", "https://cloud/flavors/{}/", "/flavors/{}", "{}?x=1/"]
)
def test_flavors_and_images_may_be_named_by_their_addresses(cloud: SmallCloud, address: str) -> None:
    for more in (
        {"flavorRef": address.format("small")},
        {"imageRef": address.format(IMAGE)},
        {"imageRef": address.format(IMAGE.upper())},
    ):
        server = cloud.show(cloud.created(**more), version="2.46")
        assert (server["flavor"]["id"], server["image"]["id"]) == ("small", IMAGE)

    uuid = cloud.running()
    assert cloud.act(uuid, "rescue", {"rescue_image_ref": address.format(IMAGE)}).status == 200
    cloud.settle(uuid)
    assert cloud.act(uuid, "unrescue").status == 202
    cloud.settle(uuid)
    assert cloud.act(uuid, "rebuild", {"imageRef": address.format(IMAGE)}).status == 202


@pytest.mark.parametrize(
    "more",
    [{"flavorRef": "http://cloud/"}, {"flavorRef": "SMALL"}, {"imageRef": "http://images/small"}, {"imageRef": "/"}],
)
def test_an_address_of_nothing_is_refused_and_named(cloud: SmallCloud, more: dict[str, str]) -> None:
    reply = cloud.create(**more)

    assert reply.status == 400 and "".join(more) in reply.fault


def test_the_boot_device_may_spell_the_image_in_another_way(cloud: SmallCloud) -> None:
    device = {"source_type": "image", "destination_type": "local", "boot_index": 0, "uuid": IMAGE.upper()}

    assert cloud.create(block_device_mapping_v2=[device]).status == 202


def test_a_server_group_has_any_spelling(cloud: SmallCloud) -> None:
    group = {"name": "g", "policies": ["anti-affinity"]}
    uuid = cloud.ask.post("/v2.1/os-server-groups", {"server_group": group}, user=ALICE).json["server_group"]["id"]

    for spell in SPELLINGS:
        assert cloud.ask.get(f"/v2.1/os-server-groups/{spell(uuid)}", user=ALICE).json["server_group"]["id"] == uuid
        assert cloud.create(beside={"os:scheduler_hints": {"group": spell(uuid)}}).status == 202
    assert cloud.ask.get("/v2.1/os-server-groups/nonsense", user=ALICE).status == 404
    assert cloud.ask.delete(f"/v2.1/os-server-groups/{uuid.upper()}", user=ALICE).status == 204


# ---- hosts and services ----------------------------------------------------------------------------------------------


@pytest.fixture
def operators(tmp_path: pathlib.Path) -> Iterator[OperatorsCloud]:
    with operators_cloud(
        tmp_path,
        [services.ROUTES, hypervisors.ROUTES],
        [*services.POLICIES, *hypervisors.POLICIES],
        "[cells]\ndeadline_s = 20\n",
    ) as made:
        yield made


def test_hosts_and_services_have_any_spelling(operators: OperatorsCloud) -> None:
    node = operators.east.add_host("e1")
    service = operators.service_ids(version="2.53")["e1"]

    for spell in SPELLINGS:
        shown = operators.ask.get(f"/v2.1/os-hypervisors/{spell(node)}", version="2.53")
        assert (shown.status, shown.json["hypervisor"]["id"]) == (200, node)
        assert operators.ask.get(f"/v2.1/os-hypervisors?marker={spell(node)}", version="2.53").status == 200
        changed = operators.ask.put(f"/v2.1/os-services/{spell(service)}", {"status": "disabled"}, version="2.53")
        assert (changed.status, changed.json["service"]["id"]) == (200, service)


@pytest.mark.parametrize("spell", (str.lower, *SPELLINGS))
@pytest.mark.parametrize("path", _OF_SERVERS)
def test_no_spelling_tells_servers_of_others_from_none(cloud: SmallCloud, path: str, spell: Any) -> None:
    shown = []
    for uuid in (cloud.running(), str(uuids.uuid4())):
        reply = cloud.ask.get("/v2.1" + path.format(server_id=spell(uuid), id=spell(uuid)), version="2.96", user=BOB)
        assert reply.status in (404, 403)
        shown.append((reply.status, reply.body.replace(spell(uuid).encode(), b"")))

    assert shown[0] == shown[1]
