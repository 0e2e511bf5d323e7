"""Whose images are seen, and how they are shared: the stack's image service and Glance answer alike, and the client
judges alike by both."""

import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

import clients.glance
import core.errors
from clients.glance import Images
from core.context import Context
from devstack.services.glance_environment import GLANCE
from tests.clients.image_services import ADMIN, BLUE, CONTENT, RED, GlanceService, ImageService, OwnService


@pytest.fixture(scope="module", params=["own", pytest.param("glance", marks=[pytest.mark.glance, pytest.mark.long])])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageService]:
    folder = tmp_path_factory.mktemp("images")
    made = OwnService(folder) if request.param == "own" else GlanceService(folder, GLANCE.path() / "bin")
    with closing(made) as service:
        yield service


@pytest.fixture
def images(service: ImageService) -> Images:
    """It remembers nothing of the test before."""
    service.images._known.clear()
    return service.images


def is_seen(images: Images, image_id: str, user: Context) -> bool:
    images._known.clear()
    try:
        return images.show(image_id, user).id == image_id
    except core.errors.NotFound:
        return False


def codes(service: ImageService, image_id: str, user: Context) -> tuple[int, ...]:
    """What the service itself answers the user: of the image, its bytes, a change, a deletion."""
    asked = (
        service.ask(user, "GET", f"/{image_id}"),
        service.ask(user, "GET", f"/{image_id}/file"),
        service.change(user, image_id, "name", "x"),
    )
    return *(reply.status_code for reply in asked), service.ask(user, "DELETE", f"/{image_id}").status_code


def test_a_private_image_is_its_project_s(service: ImageService, images: Images) -> None:
    image_id = service.create(BLUE, visibility="private")

    assert [is_seen(images, image_id, user) for user in (BLUE, RED, ADMIN)] == [True, False, True]
    assert codes(service, image_id, RED) == (404, 404, 404, 404)
    assert service.ask(RED, "GET", "").json()["images"] == []
    assert image_id in [image["id"] for image in service.ask(BLUE, "GET", "").json()["images"]]
    assert codes(service, image_id, BLUE) == (200, 200, 200, 204)
    assert not is_seen(images, image_id, BLUE)


@pytest.mark.parametrize("visibility", ["public", "community"])
def test_what_is_for_everybody_is_its_owner_s_to_change(service: ImageService, images: Images, visibility: str) -> None:
    image_id = service.create(ADMIN, visibility=visibility)

    assert [is_seen(images, image_id, user) for user in (BLUE, RED, ADMIN)] == [True, True, True]
    assert codes(service, image_id, RED) == (200, 200, 403, 403)
    assert image_id in [image["id"] for image in service.ask(RED, "GET", f"?visibility={visibility}").json()["images"]]
    assert (image_id in [image["id"] for image in service.ask(RED, "GET", "").json()["images"]]) == (
        visibility == "public"
    )
    service.change(ADMIN, image_id, "visibility", "private")
    assert not is_seen(images, image_id, RED)
    assert service.ask(ADMIN, "DELETE", f"/{image_id}").status_code == 204


def test_a_share_counts_from_its_acceptance_to_its_end(service: ImageService, images: Images) -> None:
    image_id = service.create(BLUE)
    members = f"/{image_id}/members"
    assert service.ask(BLUE, "GET", f"/{image_id}").json()["visibility"] == "shared"
    assert service.ask(RED, "GET", members).status_code == 404
    assert not is_seen(images, image_id, RED)

    assert service.ask(BLUE, "POST", members, {"member": RED.project_id}).json()["status"] == "pending"
    assert service.ask(BLUE, "POST", members, {"member": RED.project_id}).status_code == 409
    assert not is_seen(images, image_id, RED)
    assert service.ask(BLUE, "PUT", f"{members}/{RED.project_id}", {"status": "accepted"}).status_code == 403
    assert service.ask(RED, "PUT", f"{members}/{RED.project_id}", {"status": "mine"}).status_code == 400

    member = service.ask(RED, "PUT", f"{members}/{RED.project_id}", {"status": "accepted"}).json()
    assert (member["member_id"], member["image_id"], member["status"]) == (RED.project_id, image_id, "accepted")
    assert is_seen(images, image_id, RED)
    assert codes(service, image_id, RED) == (200, 200, 403, 403)
    assert image_id in [image["id"] for image in service.ask(RED, "GET", "").json()["images"]]

    service.ask(RED, "PUT", f"{members}/{RED.project_id}", {"status": "rejected"})
    assert not is_seen(images, image_id, RED)
    service.ask(RED, "PUT", f"{members}/{RED.project_id}", {"status": "accepted"})
    assert service.ask(BLUE, "DELETE", f"{members}/{RED.project_id}").status_code == 204
    assert not is_seen(images, image_id, RED)
    assert service.ask(BLUE, "GET", f"{members}/{RED.project_id}").status_code == 404
    assert service.ask(BLUE, "GET", members).json()["members"] == []
    assert service.ask(BLUE, "DELETE", f"/{image_id}").status_code == 204


def test_only_shared_images_have_members(service: ImageService) -> None:
    image_id = service.create(BLUE, visibility="private")

    assert service.ask(BLUE, "POST", f"/{image_id}/members", {"member": RED.project_id}).status_code == 403
    assert service.ask(BLUE, "DELETE", f"/{image_id}").status_code == 204


@pytest.mark.parametrize("wish", [{"visibility": "public"}, {"owner": RED.project_id}])
def test_a_user_makes_no_image_of_others_or_of_everybody(service: ImageService, wish: dict[str, str]) -> None:
    assert service.ask(BLUE, "POST", "", {"name": "own", **wish}).status_code == 403

    image_id = service.create(BLUE, content=None, visibility="private")
    ((name, value),) = wish.items()
    assert service.change(BLUE, image_id, name, value).status_code == 403
    assert service.ask(BLUE, "DELETE", f"/{image_id}").status_code == 204


def test_a_deactivated_image_gives_its_bytes_to_administrators_only(service: ImageService, images: Images) -> None:
    image_id = service.create(BLUE, visibility="private")
    assert service.ask(RED, "POST", f"/{image_id}/actions/deactivate").status_code == 404

    assert service.ask(BLUE, "POST", f"/{image_id}/actions/deactivate").status_code == 204

    assert images.show(image_id, BLUE).status == "deactivated"
    assert service.ask(BLUE, "GET", f"/{image_id}/file").status_code == 403
    assert service.ask(ADMIN, "GET", f"/{image_id}/file").content == CONTENT
    assert service.ask(ADMIN, "POST", f"/{image_id}/actions/reactivate").status_code == 204
    assert service.ask(BLUE, "GET", f"/{image_id}/file").content == CONTENT
    assert service.ask(BLUE, "DELETE", f"/{image_id}").status_code == 204


def test_what_is_made_in_a_project_s_name_is_the_project_s(service: ImageService, images: Images) -> None:
    """As the API makes the record of a server's image."""
    made = images.create(
        {
            "name": "copy",
            "visibility": "private",
            "owner": BLUE.project_id,
            "disk_format": "raw",
            "container_format": "bare",
        }
    )

    assert [is_seen(images, made.id, user) for user in (BLUE, RED)] == [True, False]
    assert codes(service, made.id, BLUE)[::3] == (200, 204)


def test_whoever_is_in_no_project_sees_what_is_everybody_s(service: ImageService, images: Images) -> None:
    nobody = Context("n", None)
    private, public = service.create(BLUE, visibility="private"), service.create(ADMIN, visibility="public")

    assert [is_seen(images, image_id, nobody) for image_id in (private, public)] == [False, True]
    for image_id in (private, public):
        assert service.ask(ADMIN, "DELETE", f"/{image_id}").status_code == 204


def test_an_id_is_never_given_twice(images: Images) -> None:
    """Whoever makes a record late is refused, when it was given up meanwhile: whether it was ever there or not."""
    made, never_made = (
        {"id": str(uuid.uuid4()), "name": "copy", "disk_format": "qcow2", "container_format": "bare"} for _ in "12"
    )
    assert images.create_once(made).status == images.create_once(made).status == "queued"

    for record in (made, never_made):
        images.void(record)
        images.void(record)

        with pytest.raises(core.errors.NotFound):
            images.create_once(record)


# ---- a project's images of one kind ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backup_type", ["daily", "", "a&owner=x, y", "in:daily,weekly", "täglich"])
def test_a_list_has_the_active_images_of_one_project_with_all_these_properties(
    service: ImageService, images: Images, backup_type: str
) -> None:
    wanted = {"image_type": "backup", "backup_type": backup_type, "instance_uuid": str(uuid.uuid4())}
    mine = {service.create(BLUE, **wanted, visibility=visibility) for visibility in ("private", "shared")}
    service.create(BLUE, content=None, **wanted)
    service.create(RED, **wanted)
    for name in wanted:
        service.create(BLUE, **{**wanted, name: "other"})
        service.create(BLUE, **{key: value for key, value in wanted.items() if key != name})

    listed = images.list_active(owner=str(BLUE.project_id), properties=wanted)

    assert sorted(image.id for image in listed) == sorted(mine)
    assert all(image.created_at for image in listed)


def test_a_list_is_read_page_by_page(
    service: ImageService, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients.glance, "_PAGE", 2)
    wanted = {"instance_uuid": str(uuid.uuid4())}
    mine = {service.create(BLUE, content=b"x", **wanted) for _ in range(5)}

    assert {image.id for image in images.list_active(owner=str(BLUE.project_id), properties=wanted)} == mine
    monkeypatch.setattr(clients.glance, "MAX_LISTED", 4)
    assert len(images.list_active(owner=str(BLUE.project_id), properties=wanted)) == 4


def test_a_protected_image_is_not_removed(service: ImageService, images: Images) -> None:
    image_id = service.create(BLUE, protected=True)

    with pytest.raises(core.errors.Forbidden):
        images.delete(image_id)

    assert images.look(image_id).status == "active"


# ---- records ---------------------------------------------------------------------------------------------------------


def test_a_list_has_what_its_asker_may_see_the_newest_first(service: ImageService, images: Images) -> None:
    own = [service.create(BLUE, visibility="private") for _ in range(3)]
    public, hidden = service.create(ADMIN, visibility="public"), service.create(RED, visibility="private")

    found = images.records(BLUE, limit=100)

    assert [record.created_at for record in found] == sorted((record.created_at for record in found), reverse=True)
    seen = [record.id for record in found]
    assert {*own, public} <= set(seen) and hidden not in seen
    mine = [image_id for image_id in seen if image_id in own]
    assert [record.id for record in images.records(BLUE, limit=100, marker=mine[0]) if record.id in own] == mine[1:]
    assert len(images.records(BLUE, limit=1)) == 1
    assert hidden in {record.id for record in images.records(ADMIN, limit=100)}
    assert [record.id for record in images.records(BLUE, limit=10, filters={"id": own[0]})] == [own[0]]
    with pytest.raises(core.errors.Invalid):
        images.records(BLUE, limit=10, marker=str(uuid.uuid4()))


def test_properties_are_set_by_the_project_of_the_image(service: ImageService, images: Images) -> None:
    image_id = service.create(BLUE, visibility="community")

    images.set_properties(image_id, BLUE, {"a": "1", "b c": "2"})
    images.set_properties(image_id, BLUE, {"a": "3"}, ["b c"])

    properties = images.record(image_id, RED).properties
    assert properties["a"] == "3" and "b c" not in properties
    for act in (lambda: images.set_properties(image_id, RED, {"a": "4"}), lambda: images.delete_own(image_id, RED)):
        with pytest.raises(core.errors.Forbidden):
            act()
    images.delete_own(image_id, BLUE)
    with pytest.raises(core.errors.NotFound):
        images.record(image_id, BLUE)
