"""Backups of servers, as requests, records and rows."""

from typing import Any

import pytest

import cell_db.history
import cell_db.image_tasks
from lifecycle import states
from tests.api.http.harness import ALICE, BOB
from tests.api.small_cloud import CARL, IMAGE, SmallCloud

BACKUP: dict[str, Any] = {"name": "copy", "backup_type": "daily", "rotation": 2}


def event(cloud: SmallCloud, uuid: str) -> str | None:
    """What the history calls the host's part of it."""
    with cloud.databases["east"].reading() as connection:
        record = next(each for each in cell_db.history.list_actions(connection, uuid) if each.action == "createBackup")
        return cell_db.history.get_action(connection, uuid, record.request_id)[1][0].event


def test_a_backup_says_of_which_server_and_type_it_is(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    lies = {
        "why": "x",
        "image_type": "y",
        "Backup_Type": "y",
        "instance_uuid": "y",
        " INSTANCE_UUID": "y",
        "owner": "y",
    }

    reply = cloud.act(uuid, "createBackup", {**BACKUP, "metadata": lies})

    assert reply.status == 202 and reply.json.keys() == {"image_id"} and "Location" not in reply.headers
    record = cloud.shelf.records[reply.json["image_id"]]
    assert record == {
        "id": reply.json["image_id"],
        "why": "x", "name": "copy", "visibility": "private", "disk_format": "qcow2", "container_format": "bare",
        "min_disk": 1, "min_ram": 64, "owner": ALICE.project_id, "image_type": "backup", "backup_type": "daily",
        "image_location": "snapshot", "image_state": "available", "base_image_ref": IMAGE, "instance_uuid": uuid,
        "user_id": ALICE.user_id, "owner_id": ALICE.project_id,
    }  # fmt: skip
    operation = cloud.operation(uuid)
    assert (operation.operation, operation.arguments) == ("create-backup", {"image_id": reply.json["image_id"]})
    assert cloud.show(uuid)["OS-EXT-STS:task_state"] == "image_backup"
    with cloud.databases["east"].reading() as connection:
        task = cell_db.image_tasks.find(connection, reply.json["image_id"])
    assert task is not None and (task.rotation, task.position.workflow) == (2, "create-backup")
    cloud.settle(uuid, power_state=states.RUNNING)
    assert cloud.show(uuid)["status"] == "ACTIVE"
    assert event(cloud, uuid) == "compute_backup_instance"


@pytest.mark.parametrize(
    ("version", "rotation", "has_location"), [("2.1", 1, True), ("2.44", "7", True), ("2.44", 0, False)]
)
def test_until_2_44_a_header_says_where_the_backup_is_unless_none_is_kept(
    cloud: SmallCloud, version: str, rotation: Any, has_location: bool
) -> None:
    reply = cloud.act(cloud.running(), "createBackup", {**BACKUP, "rotation": rotation}, version=version)

    assert (reply.status, reply.body, "Location" in reply.headers) == (202, b"", has_location)
    (image_id,) = cloud.shelf.records
    assert not has_location or reply.headers["Location"] == f"http://127.0.0.1:9/images/{image_id}"


def test_from_2_45_the_answer_names_the_backup_even_if_it_is_not_kept(cloud: SmallCloud) -> None:
    reply = cloud.act(cloud.running(), "createBackup", {**BACKUP, "rotation": 0}, version="2.45")

    assert (reply.status, [reply.json["image_id"]]) == (202, list(cloud.shelf.records))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""}, {"name": " copy"}, {"name": "x" * 256}, {"name": None}, {"backup_type": None}, {"backup_type": 1},
        {"backup_type": "x" * 256}, {"rotation": -1}, {"rotation": "-1"}, {"rotation": "many"}, {"rotation": 1.5},
        {"rotation": None}, {"rotation": True}, {"rotation": 2**31}, {"rotation": ""}, {"metadata": {"a": 1}},
        {"metadata": None}, {"more": 1},
    ],
)  # fmt: skip
def test_a_backup_that_is_asked_for_wrongly_is_refused(cloud: SmallCloud, wrong: dict[str, Any]) -> None:
    assert cloud.act(cloud.running(), "createBackup", {**BACKUP, **wrong}).status == 400

    assert cloud.shelf.records == {}


@pytest.mark.parametrize("missing", BACKUP)
def test_name_type_and_rotation_of_a_backup_are_needed(cloud: SmallCloud, missing: str) -> None:
    body = {name: value for name, value in BACKUP.items() if name != missing}

    assert cloud.act(cloud.running(), "createBackup", body).status == 400


def test_a_backup_without_a_type_has_an_empty_one(cloud: SmallCloud) -> None:
    """As the official client asks for it."""
    reply = cloud.act(cloud.running(), "createBackup", {**BACKUP, "backup_type": ""})

    assert cloud.shelf.records[reply.json["image_id"]]["backup_type"] == ""


def test_metadata_of_backups_is_limited_until_2_38(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    wanted = {**BACKUP, "metadata": {str(number): "" for number in range(129)}}

    assert cloud.act(uuid, "createBackup", wanted, version="2.38").status == 403
    assert cloud.act(uuid, "createBackup", wanted, version="2.39").status == 202


def test_a_refused_backup_names_the_action_and_the_state(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    cloud.act(uuid, "reboot", {"type": "HARD"})

    reply = cloud.act(uuid, "createBackup", BACKUP)

    assert reply.status == 409
    assert reply.json["conflictingRequest"]["message"] == (
        f"Cannot 'createBackup' instance {uuid} while it is in task_state rebooting_hard"
    )


def test_neither_strangers_nor_readers_make_backups(cloud: SmallCloud) -> None:
    uuid = cloud.running()

    assert cloud.act(uuid, "createBackup", BACKUP, user=CARL).status == 404
    assert cloud.act(uuid, "createBackup", BACKUP, user=BOB).status == 403


def test_a_locked_server_may_be_backed_up(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    cloud.act(uuid, "lock")

    assert cloud.act(uuid, "createBackup", BACKUP).status == 202
