"""Microversions 2.97 to 2.104, each at both sides of its boundary; what waits for others: test_contract.py."""

import itertools
from typing import Any

import pytest

import api_db.instances
from api.resources.servers import listing
from tests.api import small_cloud as clouds
from tests.api.http.harness import ADMIN, ALICE
from tests.api.small_cloud import IMAGE, SmallCloud

NEWEST = "2.104"


@pytest.fixture(autouse=True)
def lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Served beside the servers."""
    monkeypatch.setattr(clouds, "RESOURCES", (*clouds.RESOURCES, listing))


PROPERTIES = {"architecture": "x86_64", "hw_machine_type": "q35"}


def shown(cloud: SmallCloud, uuid: str, version: str) -> list[dict[str, Any]]:
    """The server as show, list and update show it."""
    listed = cloud.ask.get("/v2.1/servers/detail", version=version, user=ALICE).json["servers"]
    updated = cloud.ask.put(f"/v2.1/servers/{uuid}", {"server": {"name": "web"}}, version=version, user=ALICE)
    return [
        cloud.show(uuid, version=version),
        next(each for each in listed if each["id"] == uuid),
        updated.json["server"],
    ]


# ---- 2.98 ------------------------------------------------------------------------------------------------------------


def with_properties(cloud: SmallCloud, **properties: str) -> str:
    return cloud.shelf.put(
        "00000000-0000-4000-8000-0000000000aa", name="i", disk_format="qcow2", min_ram=64, **properties
    )


@pytest.mark.parametrize("is_placed", [True, False], ids=["in a cell", "in the journal"])
def test_the_properties_of_the_image_are_shown_from_2_98_on(cloud: SmallCloud, is_placed: bool) -> None:
    image = with_properties(cloud, **PROPERTIES)
    uuid = cloud.running(imageRef=image) if is_placed else cloud.created(imageRef=image)

    for server in shown(cloud, uuid, "2.97"):
        assert set(server["image"]) == {"id", "links"}
    for server in shown(cloud, uuid, "2.98"):
        assert server["image"]["id"] == image
        assert server["image"]["properties"] == {
            **PROPERTIES, "base_image_ref": image, "disk_format": "qcow2", "min_disk": "0", "min_ram": "64",
        }  # fmt: skip


def test_they_are_those_that_the_image_had_when_the_server_was_built(cloud: SmallCloud) -> None:
    image = with_properties(cloud, **PROPERTIES)
    uuid = cloud.running(imageRef=image)

    with_properties(cloud, architecture="riscv64")

    assert cloud.show(uuid, version=NEWEST)["image"]["properties"]["architecture"] == "x86_64"


def test_a_rebuild_shows_those_of_its_image(cloud: SmallCloud) -> None:
    uuid = cloud.running(imageRef=with_properties(cloud, **PROPERTIES))
    cloud.greet("east-1")

    rebuilt = cloud.act(uuid, "rebuild", {"imageRef": IMAGE}, version=NEWEST).json["server"]

    assert rebuilt["image"]["id"] == IMAGE and "architecture" not in rebuilt["image"]["properties"]
    assert cloud.show(uuid, version=NEWEST)["image"] == rebuilt["image"]


# ---- 2.99 ------------------------------------------------------------------------------------------------------------


def test_the_direct_console_of_spice_is_a_type_from_2_99_on(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    cloud.greet("east-1")
    body = {"remote_console": {"protocol": "spice", "type": "spice-direct"}}

    replies = [
        cloud.ask.post(f"/v2.1/servers/{uuid}/remote-consoles", body, version=version, user=ALICE)
        for version in ("2.98", "2.99")
    ]

    # A type that nobody knows, and one that this cloud's hosts do not have.
    assert [reply.fault.partition("Value")[0] for reply in replies] == [
        "badRequest: Invalid input for field/attribute type. ", "badRequest: Unavailable console type spice-direct.",
    ]  # fmt: skip


# ---- 2.100 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["os:scheduler_hints", "OS-SCH-HNT:scheduler_hints"])
def test_hints_are_shown_from_2_100_on(cloud: SmallCloud, name: str) -> None:
    other = cloud.running()
    hints = {"same_host": other, "different_host": ["11111111-2222-4333-8444-555555555555"]}
    uuid = cloud.running(beside={name: hints})

    for server in shown(cloud, uuid, "2.99"):
        assert "scheduler_hints" not in server
    for server in shown(cloud, uuid, "2.100"):
        assert server["scheduler_hints"] == {"same_host": [other], "different_host": hints["different_host"]}
    for server in shown(cloud, other, "2.100"):
        assert server["scheduler_hints"] == {}


# ---- 2.102 and 2.103 -------------------------------------------------------------------------------------------------


def test_unknown_parameters_are_refused_everywhere_from_2_102_on(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    for path in (f"/v2.1/servers/{uuid}", f"/v2.1/servers/{uuid}/tags", f"/v2.1/servers/{uuid}/ips"):
        assert cloud.ask.get(f"{path}?colour=red", version="2.101", user=ALICE).status == 200
        assert "colour" in cloud.ask.get(f"{path}?colour=red", version="2.102", user=ALICE).fault
    act = {"lock": None}
    assert cloud.ask.post(f"/v2.1/servers/{uuid}/action?colour=red", act, version="2.101", user=ALICE).status == 202
    assert cloud.ask.post(f"/v2.1/servers/{uuid}/action?colour=red", act, version="2.102", user=ALICE).status == 400


# ---- 2.104 -----------------------------------------------------------------------------------------------------------


def pin(cloud: SmallCloud, uuid: str, zone: str | None, *, version: str = NEWEST, **more: Any) -> Any:
    body = {"server": {"pinned_availability_zone": zone, **more}}
    return cloud.ask.put(f"/v2.1/servers/{uuid}", body, version=version, user=ALICE)


def requested_zone(cloud: SmallCloud, uuid: str) -> str | None:
    """Where moves of the server may go."""
    with cloud.api.reading() as connection:
        mapping = api_db.instances.get(connection, uuid)
        return api_db.instances.request_spec(connection, mapping.request_uuid).availability_zone


def test_a_server_is_unpinned_and_pinned_to_where_it_is_again(cloud: SmallCloud) -> None:
    uuid = cloud.running(availability_zone="east")

    unpinned = pin(cloud, uuid, None, name="free")

    assert (unpinned.status, unpinned.json["server"]["pinned_availability_zone"]) == (200, None)
    assert cloud.show(uuid, version=NEWEST)["name"] == "free"
    assert cloud.show(uuid, version=NEWEST)["OS-EXT-AZ:availability_zone"] == "east"
    assert requested_zone(cloud, uuid) is None
    assert pin(cloud, uuid, "east").json["server"]["pinned_availability_zone"] == "east"
    assert requested_zone(cloud, uuid) == "east"
    assert cloud.show(uuid, version=NEWEST)["image"]["properties"]["base_image_ref"] == IMAGE


def test_it_is_not_pinned_to_where_it_is_not(cloud: SmallCloud) -> None:
    uuid = cloud.running(availability_zone="east")

    refused = pin(cloud, uuid, "nova", name="other")

    assert refused.status == 409 and "nova" in refused.fault
    assert cloud.show(uuid, version=NEWEST)["name"] == "web"
    assert requested_zone(cloud, uuid) == "east"


def test_servers_of_the_same_request_keep_their_zone(cloud: SmallCloud) -> None:
    reservation = cloud.create(availability_zone="east", min_count=2, max_count=2, return_reservation_id=True).json[
        "reservation_id"
    ]
    one, other = (
        server["id"]
        for server in cloud.ask.get(f"/v2.1/servers?reservation_id={reservation}", user=ALICE).json["servers"]
    )
    for uuid, host in zip((one, other), itertools.repeat("east-1"), strict=False):
        cloud.place(uuid, "east", host)

    assert pin(cloud, one, None).status == 200

    assert (requested_zone(cloud, one), requested_zone(cloud, other)) == (None, "east")
    assert cloud.show(other, version=NEWEST)["pinned_availability_zone"] == "east"


def test_a_server_that_is_being_scheduled_keeps_its_zone(cloud: SmallCloud) -> None:
    uuid = cloud.created(availability_zone="east")

    assert pin(cloud, uuid, None).status == 409
    assert requested_zone(cloud, uuid) == "east"


def test_before_2_104_nothing_is_unpinned(cloud: SmallCloud) -> None:
    assert pin(cloud, cloud.running(), None, version="2.103").status == 400


def test_nobody_unpins_the_servers_of_others(cloud: SmallCloud) -> None:
    uuid = cloud.running(availability_zone="east")
    body = {"server": {"pinned_availability_zone": None}}

    assert cloud.ask.put(f"/v2.1/servers/{uuid}", body, version=NEWEST, user=ADMIN).status == 200
    assert pin(cloud, "11111111-2222-4333-8444-555555555555", None).status == 404
