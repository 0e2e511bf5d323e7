"""The image service through the Compute API, until 2.35: everybody sees what they may, and changes what is their
project's."""

import pathlib
from collections.abc import Iterator

import pytest

from api.resources import images
from tests.api import small_cloud as clouds
from tests.api.http.harness import ADMIN, ALICE, BOB
from tests.api.small_cloud import BIG_IMAGE, CARL, IMAGE, QUEUED_IMAGE, SmallCloud, small_cloud

URL = "/v2.1/images"
OWN = "00000000-0000-4000-8000-0000000000a1"
OTHERS = "00000000-0000-4000-8000-0000000000c1"
SHARED = "00000000-0000-4000-8000-0000000000c2"
PUBLIC = [QUEUED_IMAGE, BIG_IMAGE, IMAGE]


@pytest.fixture
def cloud(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallCloud]:
    monkeypatch.setattr(clouds, "RESOURCES", (*clouds.RESOURCES, images))
    with small_cloud(tmp_path) as small:
        mine = {"visibility": "private", "owner": ALICE.project_id}
        small.shelf.put(OWN, name="own", **mine, hw_disk_bus="virtio", instance_uuid="u", auto_disk_config="True")
        small.shelf.put(OTHERS, name="theirs", visibility="private", owner=CARL.project_id)
        small.shelf.put(SHARED, name="shared", visibility="shared", owner=CARL.project_id)
        small.shelf.members[SHARED, ALICE.project_id] = "accepted"
        yield small


def listed(cloud: SmallCloud, query: str = "", user: object = ALICE) -> list[str]:
    return [image["id"] for image in cloud.ask.get(URL + query, user=user).json["images"]]


def test_an_image_is_shown_as_the_compute_api_shows_it(cloud: SmallCloud) -> None:
    image = cloud.ask.get(f"{URL}/{OWN}", user=ALICE).json["image"]

    links = image.pop("links")
    assert [link["rel"] for link in links] == ["self", "bookmark", "alternate"]
    assert image.pop("server")["id"] == "u"
    assert image == {
        "id": OWN, "name": "own", "minRam": 0, "minDisk": 0, "status": "ACTIVE", "progress": 100,
        "created": "2024-01-01T00:00:03Z", "updated": "2024-02-01T00:00:00Z", "OS-EXT-IMG-SIZE:size": 1,
        "OS-DCF:diskConfig": "AUTO", "metadata": {"hw_disk_bus": "virtio", "instance_uuid": "u",
            "auto_disk_config": "True"},
    }  # fmt: skip
    assert cloud.ask.get(f"{URL}/{QUEUED_IMAGE}", user=ALICE).json["image"]["status"] == "SAVING"


def test_everybody_sees_what_they_may(cloud: SmallCloud) -> None:
    assert listed(cloud) == [OWN, *PUBLIC]
    assert listed(cloud, user=CARL) == [SHARED, OTHERS, *PUBLIC]
    assert listed(cloud, user=ADMIN) == [SHARED, OTHERS, OWN, *PUBLIC]
    detail = cloud.ask.get(f"{URL}/detail", user=ALICE).json["images"]
    assert [image["id"] for image in detail] == [OWN, *PUBLIC]
    assert cloud.ask.get(f"{URL}/{SHARED}", user=ALICE).status == 200
    for image in (OTHERS, "11111111-2222-4333-8444-555555555555", "x"):
        assert cloud.ask.get(f"{URL}/{image}", user=ALICE).status == 404
        assert cloud.ask.get(f"{URL}/{image}/metadata", user=ALICE).status == 404
        assert cloud.ask.delete(f"{URL}/{image}", user=ALICE).status == 404


def test_lists_come_in_pages_and_are_filtered(cloud: SmallCloud) -> None:
    first = cloud.ask.get(f"{URL}?limit=2", user=ALICE).json

    assert [image["id"] for image in first["images"]] == [OWN, QUEUED_IMAGE]
    assert f"marker={QUEUED_IMAGE}" in first["images_links"][0]["href"]
    assert listed(cloud, f"?limit=2&marker={QUEUED_IMAGE}") == [BIG_IMAGE, IMAGE]
    assert listed(cloud, "?name=own") == [OWN]
    assert listed(cloud, "?minRam=64") == [IMAGE]
    assert listed(cloud, "?server=http://cloud/servers/u") == [OWN]
    assert listed(cloud, "?limit=0") == []
    assert cloud.ask.get(f"{URL}?marker={SHARED[:-1]}f", user=ALICE).status == 400
    assert cloud.ask.get(f"{URL}?status=lost", user=ALICE).status == 400


def test_only_its_owner_deletes_an_image(cloud: SmallCloud) -> None:
    for image in (IMAGE, SHARED):
        assert cloud.ask.delete(f"{URL}/{image}", user=ALICE).status == 403
    assert cloud.ask.delete(f"{URL}/{OWN}", user=ALICE).status == 204
    assert cloud.ask.delete(f"{URL}/{OWN}", user=ALICE).status == 404
    assert cloud.ask.delete(f"{URL}/{IMAGE}", user=BOB).status == 403
    assert cloud.ask.delete(f"{URL}/{OTHERS}", user=ADMIN).status == 204
    cloud.shelf.images[QUEUED_IMAGE]["protected"] = True
    assert cloud.ask.delete(f"{URL}/{QUEUED_IMAGE}", user=ADMIN).status == 403
    assert set(cloud.shelf.images) == {IMAGE, BIG_IMAGE, QUEUED_IMAGE, SHARED}


def test_metadata_is_read_and_written(cloud: SmallCloud) -> None:
    path = f"{URL}/{OWN}/metadata"

    merged = cloud.ask.post(path, {"metadata": {"a b": "1"}}, user=ALICE)
    assert merged.json["metadata"]["a b"] == "1" and merged.json["metadata"]["hw_disk_bus"] == "virtio"
    assert cloud.ask.put(path, {"metadata": {"c": "2", "d": ""}}, user=ALICE).json == {"metadata": {"c": "2", "d": ""}}
    assert cloud.ask.get(path, user=ALICE).json == {"metadata": {"c": "2", "d": ""}}
    assert cloud.ask.put(f"{path}/c", {"meta": {"c": "3"}}, user=ALICE).json == {"meta": {"c": "3"}}
    assert cloud.ask.get(f"{path}/c", user=ALICE).json == {"meta": {"c": "3"}}
    assert cloud.ask.put(f"{path}/c", {"meta": {"d": "3"}}, user=ALICE).status == 400
    assert cloud.ask.delete(f"{path}/c", user=ALICE).status == 204
    assert cloud.ask.delete(f"{path}/c", user=ALICE).status == 404
    assert cloud.ask.get(f"{path}/c", user=ALICE).status == 404


@pytest.mark.parametrize("name", ["owner", "visibility", "locations", "Owner", "id", "status"])
def test_what_the_image_service_keeps_for_itself_is_no_metadata(cloud: SmallCloud, name: str) -> None:
    before = dict(cloud.shelf.images[OWN])

    for method in ("POST", "PUT"):
        assert cloud.ask.ask(method, f"{URL}/{OWN}/metadata", {"metadata": {name: "x"}}, user=ALICE).status == 400
    assert cloud.ask.put(f"{URL}/{OWN}/metadata/{name}", {"meta": {name: "x"}}, user=ALICE).status == 400
    assert cloud.shelf.images[OWN] == before


def test_nobody_changes_the_metadata_of_others(cloud: SmallCloud) -> None:
    for image, user in ((IMAGE, ALICE), (SHARED, ALICE), (IMAGE, BOB)):
        path = f"{URL}/{image}/metadata"
        assert cloud.ask.post(path, {"metadata": {"a": "1"}}, user=user).status == 403
        assert cloud.ask.put(path, {"metadata": {}}, user=user).status == 403
        assert cloud.ask.put(f"{path}/a", {"meta": {"a": "1"}}, user=user).status == 403
    assert not [asked for asked in cloud.shelf.asked if asked.startswith("PATCH")]


def test_more_metadata_than_the_quota_allows_is_refused(cloud: SmallCloud) -> None:
    many = {str(number): "" for number in range(129)}

    assert cloud.ask.put(f"{URL}/{OWN}/metadata", {"metadata": many}, user=ALICE).status == 403


def test_a_changed_image_is_not_remembered_as_it_was(cloud: SmallCloud) -> None:
    cloud.shelf.images[OWN]["min_ram"] = 64
    assert cloud.create(imageRef=OWN).status == 202

    assert cloud.ask.put(f"{URL}/{OWN}/metadata/kernel_id", {"meta": {"kernel_id": IMAGE}}, user=ALICE).status == 200

    assert cloud.create(imageRef=OWN).status == 400


def test_images_end_with_2_35_and_their_metadata_with_2_38(cloud: SmallCloud) -> None:
    for path, last in ((URL, 35), (f"{URL}/detail", 35), (f"{URL}/{OWN}", 35), (f"{URL}/{OWN}/metadata", 38)):
        assert cloud.ask.get(path, version=f"2.{last}", user=ALICE).status == 200
        assert cloud.ask.get(path, version=f"2.{last + 1}", user=ALICE).status == 404
