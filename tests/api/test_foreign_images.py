"""Images of other projects: what a request may name, whichever way it names it, and that a refusal tells nothing."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.api.http.harness import ADMIN, ALICE, Reply
from tests.api.small_cloud import CARL, IMAGE, SmallCloud, small_cloud

ABSENT = "c0ffee00-0000-4000-8000-000000000000"
OTHERS = "0ddba11e-0000-4000-8000-000000000000"
CARLS = "ca271ca2-0000-4000-8000-000000000000"

Naming = Callable[[SmallCloud, str, Any], Reply]


def _mapped(cloud: SmallCloud, image_id: str, user: Any) -> Reply:
    device = {"uuid": image_id, "boot_index": 0, "source_type": "image", "destination_type": "local"}
    return cloud.create(imageRef=..., block_device_mapping_v2=[device], user=user)


def _acting(action: str, key: str) -> Naming:
    def act(cloud: SmallCloud, image_id: str, user: Any) -> Reply:
        uuid = cloud.running(user=user)
        cloud.shelf.asked.clear()
        return cloud.act(uuid, action, {key: image_id}, user=user)

    return act


WAYS: dict[str, Naming] = {
    "create": lambda cloud, image_id, user: cloud.create(imageRef=image_id, user=user),
    "block_device_mapping_v2": _mapped,
    "rebuild": _acting("rebuild", "imageRef"),
    "rescue": _acting("rescue", "rescue_image_ref"),
}
HIDDEN: dict[str, dict[str, Any]] = {
    "private": {"visibility": "private"},
    "shared with nobody": {"visibility": "shared"},
    "of a visibility that is not known": {"visibility": "universal"},
    "of no visibility": {"visibility": None},
    "of nobody": {"visibility": "private", "owner": None},
    "private and not active": {"visibility": "private", "status": "queued"},
    "private and larger than any flavor": {"visibility": "private", "min_disk": 10_000},
    "private and in need of a kernel": {"visibility": "private", "kernel_id": IMAGE},
    "private and with too many properties": {"visibility": "private", "filler": "x" * 100_000},
    "public once, and deleted": {"status": "deleted"},
}


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Iterator[SmallCloud]:
    with small_cloud(tmp_path, "[quota]\ninstances = -1\ncores = -1\nram = -1\n") as cloud:
        cloud.shelf.put(CARLS, visibility="private", owner=CARL.project_id)
        yield cloud


def answer(cloud: SmallCloud, way: str, image_id: str) -> tuple[int, str, int]:
    """Status, text without the id, and how many questions the image service was asked: how long it took."""
    cloud.shelf.asked.clear()
    reply = WAYS[way](cloud, image_id, CARL)
    return reply.status, reply.body.decode().replace(image_id, "ID"), len(cloud.shelf.asked)


@pytest.mark.parametrize("way", WAYS)
def test_another_project_s_image_is_answered_as_one_that_is_not_there(cloud: SmallCloud, way: str) -> None:
    absent = answer(cloud, way, ABSENT)
    assert absent[0] == 400 and "could not be found" in absent[1]

    for what, row in HIDDEN.items():
        cloud.shelf.put(OTHERS, **{"owner": ALICE.project_id, **row})
        for _ in range(2):  # The second time it could be remembered.
            assert answer(cloud, way, OTHERS) == absent, what


@pytest.mark.parametrize("status", ["pending", "rejected", "accepted "])
def test_a_membership_counts_once_it_is_accepted(cloud: SmallCloud, status: str) -> None:
    cloud.shelf.put(OTHERS, owner=ALICE.project_id, visibility="shared")
    cloud.shelf.members[OTHERS, str(CARL.project_id)] = status

    assert answer(cloud, "create", OTHERS) == answer(cloud, "create", ABSENT)

    cloud.shelf.members[OTHERS, str(CARL.project_id)] = "accepted"
    assert answer(cloud, "create", OTHERS)[0] == 202


def test_a_membership_of_what_is_private_again_does_not_count(cloud: SmallCloud) -> None:
    cloud.shelf.put(OTHERS, owner=ALICE.project_id, visibility="private")
    cloud.shelf.members[OTHERS, str(CARL.project_id)] = "accepted"

    assert answer(cloud, "create", OTHERS) == answer(cloud, "create", ABSENT)


@pytest.mark.parametrize("way", WAYS)
def test_what_a_caller_may_see_is_used(cloud: SmallCloud, way: str) -> None:
    for row in ({"visibility": "public"}, {"visibility": "community"}, {"visibility": "public", "os_hidden": True}):
        cloud.shelf.put(OTHERS, owner=ALICE.project_id, **row)
        cloud.cloud.images._known.clear()
        assert WAYS[way](cloud, OTHERS, CARL).status in (200, 202), row
    assert WAYS[way](cloud, CARLS, CARL).status in (200, 202)
    assert WAYS[way](cloud, CARLS, ADMIN).status in (200, 202), "an administrator may use any"
    assert WAYS[way](cloud, CARLS, ALICE).status == 400, (
        "that its owner and an administrator used it makes it nobody else's"
    )


@pytest.mark.parametrize("status", ["queued", "saving", "importing", "deactivated", "killed"])
def test_an_image_without_bytes_to_be_had_is_refused_at_the_door(cloud: SmallCloud, status: str) -> None:
    cloud.shelf.put(CARLS, visibility="private", owner=CARL.project_id, status=status)

    for way in WAYS:
        reply = WAYS[way](cloud, CARLS, CARL)
        assert reply.status == 400 and "is not active" in reply.fault, way


@pytest.mark.parametrize("name", ["kernel_id", "ramdisk_id", "block_device_mapping"])
def test_an_image_cannot_lead_to_others(cloud: SmallCloud, name: str) -> None:
    cloud.shelf.put(CARLS, visibility="private", owner=CARL.project_id, **{name: OTHERS})

    for way in WAYS:
        reply = WAYS[way](cloud, CARLS, CARL)
        assert reply.status == 400 and name in reply.fault, way


def test_an_operator_s_rescue_image_is_for_those_who_may_see_it(tmp_path: pathlib.Path) -> None:
    with small_cloud(tmp_path, f"[api]\nrescue_image_id = {OTHERS}\n") as cloud:
        cloud.shelf.put(OTHERS, owner=ADMIN.project_id, visibility="private")
        uuid = cloud.running(user=CARL)

        assert cloud.act(uuid, "rescue", user=CARL).status == 400

        cloud.shelf.put(OTHERS, owner=ADMIN.project_id, visibility="public")
        assert cloud.act(uuid, "rescue", user=CARL).status == 200


def test_what_a_server_was_made_of_rescues_it_also_when_it_was_withdrawn(cloud: SmallCloud) -> None:
    """The server holds those bytes; to use the image anew is another thing."""
    cloud.shelf.put(OTHERS, owner=ALICE.project_id)
    uuid = cloud.running(user=CARL, imageRef=OTHERS)
    cloud.shelf.put(OTHERS, owner=ALICE.project_id, visibility="private")
    cloud.cloud.images._known.clear()

    assert cloud.act(uuid, "rebuild", {"imageRef": OTHERS}, user=CARL).status == 400
    assert cloud.act(uuid, "rescue", user=CARL).status == 200
    assert cloud.operation(uuid).arguments["image"]["image_id"] == OTHERS


def test_a_disk_that_only_its_image_bounds_stays_that_image_s(cloud: SmallCloud) -> None:
    uuid = cloud.running(user=ADMIN, flavorRef="diskless")
    cloud.shelf.put(OTHERS, virtual_size=2**60)

    assert cloud.act(uuid, "rebuild", {"imageRef": OTHERS}, user=ADMIN).status == 202

    server = cloud.running(user=ADMIN, flavorRef="small")
    reply = cloud.act(server, "rebuild", {"imageRef": OTHERS}, user=ADMIN)
    assert reply.status == 400 and "disk is too small" in reply.fault


# ---- images of servers -----------------------------------------------------------------------------------------------

RESERVED = (
    "visibility", "owner", "os_hidden", "protected", "id", "locations", "checksum", "os_hash_algo", "os_hash_value",
    "os_hash_other", "direct_url", "stores", "status", "size", "virtual_size", "tags", "file", "self", "schema",
    "location", "deleted", "is_public", "members", "created_at", "os_glance_import_task", "img_signature_hash_method",
    "Visibility", "OWNER", " owner", "Os_Hidden ",
)  # fmt: skip


def test_metadata_of_an_image_is_never_one_of_its_fields(cloud: SmallCloud) -> None:
    uuid = cloud.running(user=CARL)
    wanted = dict.fromkeys(RESERVED, "public")

    reply = cloud.act(
        uuid,
        "createImage",
        {"name": "copy", "metadata": {**wanted, "kept": "1", "instance_uuid": "x", "image_type": "y"}},
        user=CARL,
    )

    assert reply.status == 202
    record = cloud.shelf.records[reply.json["image_id"]]
    assert (record["visibility"], record["owner"], record["instance_uuid"], record["image_type"]) == (
        "private",
        CARL.project_id,
        uuid,
        "snapshot",
    )
    assert record["kept"] == "1"
    assert not {name for name in RESERVED if record.get(name) == "public"}


def test_a_server_s_image_is_its_project_s_whoever_makes_it(cloud: SmallCloud) -> None:
    uuid = cloud.running(user=CARL)

    image_id = cloud.act(uuid, "createImage", {"name": "copy"}, user=ADMIN).json["image_id"]
    cloud.shelf.images[image_id]["status"] = "active"

    assert cloud.create(imageRef=image_id, user=CARL).status == 202
    assert cloud.create(imageRef=image_id, user=ALICE).status == 400
