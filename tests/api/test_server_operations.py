"""Rescue, rebuild, images of servers, passwords and crash dumps, as requests and as rows."""

import pathlib
import threading
from typing import Any

import pytest
import sqlalchemy as sa

import cell_db.history
import cell_db.instances
import cell_db.operations
import cell_db.rebuilds
import cell_db.tables
import core.errors
from cells.gate.answers import Unknown
from core.sealed import Opener
from lifecycle import states
from tests.api.http.harness import ADMIN, ALICE, BOB
from tests.api.small_cloud import BIG_IMAGE, IMAGE, QUEUED_IMAGE, SmallCloud, small_cloud

OTHER = "0c7f3f0e-6b1a-4f6e-9a44-2f9b3b1f7f10"


def action(cloud: SmallCloud, uuid: str, name: str) -> tuple[cell_db.history.ActionRecord, list[cell_db.history.Event]]:
    with cloud.databases["east"].reading() as connection:
        done = next(record for record in cell_db.history.list_actions(connection, uuid) if record.action == name)
        return cell_db.history.get_action(connection, uuid, done.request_id)


def spec_of(cloud: SmallCloud, uuid: str) -> Any:
    with cloud.databases["east"].reading() as connection:
        return cell_db.instances.build_spec(connection, uuid)


def shelf(cloud: SmallCloud) -> Any:
    return cloud.shelf


# ---- rescue ----------------------------------------------------------------------------------------------------------


def test_a_rescue_is_of_the_servers_own_image_unless_told_otherwise(cloud: SmallCloud) -> None:
    uuid = cloud.running()

    reply = cloud.act(uuid, "rescue")

    assert reply.status == 200 and len(reply.json["adminPass"]) == 12
    operation = cloud.operation(uuid)
    assert (operation.operation, operation.arguments["image"]["image_id"]) == ("rescue", IMAGE)
    assert reply.json["adminPass"] not in str(operation)
    cloud.settle(uuid, power_state=states.RUNNING)
    assert cloud.show(uuid)["status"] == "RESCUE"
    record, (event,) = action(cloud, uuid, "rescue")
    assert (record.message, event.event, event.result) == (None, "compute_rescue_instance", "Success")

    assert cloud.act(uuid, "unrescue").status == 202
    cloud.settle(uuid, power_state=states.RUNNING)
    assert cloud.show(uuid)["status"] == "ACTIVE"
    assert action(cloud, uuid, "unrescue")[1][0].event == "compute_unrescue_instance"


def test_a_rescue_image_is_checked(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    for body in (
        {"rescue_image_ref": OTHER},
        {"rescue_image_ref": QUEUED_IMAGE},
        {"rescue_image_ref": "x"},
        {"image": IMAGE},
        "now",
    ):
        assert cloud.act(uuid, "rescue", body).status == 400, body

    reply = cloud.act(uuid, "rescue", {"rescue_image_ref": BIG_IMAGE, "adminPass": "chosen"})

    assert reply.json == {"adminPass": "chosen"}
    assert cloud.operation(uuid).arguments["image"]["image_id"] == BIG_IMAGE


def test_operators_may_name_the_rescue_image(tmp_path: pathlib.Path) -> None:
    with small_cloud(tmp_path, f"[api]\nrescue_image_id = {BIG_IMAGE}\n") as cloud:
        uuid = cloud.running()
        assert cloud.act(uuid, "rescue", {}).status == 200
        assert cloud.operation(uuid).arguments["image"]["image_id"] == BIG_IMAGE


@pytest.mark.parametrize(("unharmed", "status"), [(True, "SHUTOFF"), (False, "ERROR")])
def test_a_rescue_that_fails_is_an_error_only_if_something_was_done(
    cloud: SmallCloud, unharmed: bool, status: str
) -> None:
    uuid = cloud.running()
    cloud.act(uuid, "os-stop")
    cloud.settle(uuid)
    cloud.act(uuid, "rescue")

    cloud.settle(uuid, fault="the image is gone", unharmed=unharmed)

    shown = cloud.show(uuid)
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == (status, None)
    assert ("fault" in shown) == (status == "ERROR")
    record, (event,) = action(cloud, uuid, "rescue")
    assert (record.message, event.details) == ("Error", "the image is gone")


# ---- rebuild ---------------------------------------------------------------------------------------------------------


def test_a_rebuild_changes_record_and_specification_together(cloud: SmallCloud) -> None:
    uuid = cloud.running(metadata={"old": "1"}, key_name="laptop", user_data="b2xk")
    before = spec_of(cloud, uuid)
    body = {
        "imageRef": IMAGE, "name": "renamed", "metadata": {"new": "2"}, "adminPass": "chosen",
        "OS-DCF:diskConfig": "AUTO", "accessIPv4": "192.0.2.1", "accessIPv6": "2001:db8::1", "description": "anew",
        "key_name": None, "user_data": "bmV3", "trusted_image_certificates": None, "hostname": "other",
        "preserve_ephemeral": False,
    }  # fmt: skip

    reply = cloud.act(uuid, "rebuild", body)

    assert reply.status == 202, reply.body
    assert reply.headers["Location"].endswith(f"/v2.1/servers/{uuid}")
    server = reply.json["server"]
    assert (server["id"], server["status"], server["adminPass"]) == (uuid, "REBUILD", "chosen")
    assert (server["name"], server["metadata"], server["description"], server["key_name"]) == (
        "renamed",
        {"new": "2"},
        "anew",
        None,
    )
    assert (server["user_data"], server["OS-EXT-SRV-ATTR:hostname"]) == ("bmV3", "other")
    assert (server["accessIPv4"], server["accessIPv6"], server["OS-DCF:diskConfig"]) == (
        "192.0.2.1",
        "2001:db8::1",
        "AUTO",
    )
    spec = spec_of(cloud, uuid)
    assert (spec.name, spec.hostname, spec.metadata, spec.user_data) == ("renamed", "other", {"new": "2"}, "bmV3")
    assert (spec.key_name, spec.public_key, spec.flavor) == (None, None, before.flavor)
    operation = cloud.operation(uuid)
    assert (operation.operation, operation.arguments, operation.attempt, operation.vm_state) == (
        "rebuild",
        {},
        1,
        "active",
    )
    assert operation.spec is not None and operation.spec.name == "renamed"
    with cloud.databases["east"].reading() as connection:
        kept = connection.exec_driver_sql("select `key`, value from instance_metadata where uuid = ?", (uuid,)).all()
        assert [tuple(row) for row in kept] == [("new", "2")]
    cloud.settle(uuid, power_state=states.RUNNING)
    assert cloud.show(uuid)["status"] == "ACTIVE"
    assert action(cloud, uuid, "rebuild")[1][0].event == "compute_rebuild_instance"


def test_a_rebuild_leaves_what_it_does_not_name(cloud: SmallCloud) -> None:
    uuid = cloud.running(metadata={"old": "1"}, key_name="laptop", user_data="b2xk", description="mine")
    assert (
        cloud.ask.put(f"/v2.1/servers/{uuid}", {"server": {"name": "renamed"}}, version="2.96", user=ALICE).status
        == 200
    )

    server = cloud.act(uuid, "rebuild", {"imageRef": IMAGE}).json["server"]

    assert (server["name"], server["metadata"], server["key_name"], server["description"]) == (
        "renamed",
        {"old": "1"},
        "laptop",
        "mine",
    )
    spec = spec_of(cloud, uuid)
    assert (spec.name, spec.public_key, spec.user_data) == ("renamed", "ssh-ed25519 AAAA", "b2xk")
    assert len(server["adminPass"]) == 12


@pytest.mark.parametrize(
    ("version", "more", "status"),
    [
        ("2.18", {"description": "x"}, 400),
        ("2.19", {"description": "x"}, 202),
        ("2.53", {"key_name": "laptop"}, 400),
        ("2.54", {"key_name": "laptop"}, 202),
        ("2.54", {"key_name": "nobody's"}, 400),
        ("2.56", {"personality": []}, 202),
        ("2.56", {"personality": [{"path": "/a", "contents": "YQ=="}]}, 400),
        ("2.57", {"personality": []}, 400),
        ("2.56", {"user_data": "YQ=="}, 400),
        ("2.57", {"user_data": "YQ=="}, 202),
        ("2.57", {"user_data": "no base64!"}, 400),
        ("2.62", {"trusted_image_certificates": None}, 400),
        ("2.63", {"trusted_image_certificates": ["a"]}, 400),
        ("2.89", {"hostname": "a"}, 400),
        ("2.90", {"hostname": "a"}, 202),
        ("2.90", {"hostname": "a.b"}, 400),
        ("2.94", {"hostname": "a.b"}, 202),
        ("2.96", {"preserve_ephemeral": True}, 400),
        ("2.96", {"imageRef": OTHER}, 400),
        ("2.96", {"imageRef": QUEUED_IMAGE}, 400),
        ("2.96", {"imageRef": BIG_IMAGE}, 400),
        ("2.96", {"imageRef": ""}, 400),
        ("2.96", {"metadata": {str(number): "" for number in range(129)}}, 403),
        ("2.96", {"flavorRef": "small"}, 400),
    ],
)
def test_what_a_rebuild_may_ask_for(cloud: SmallCloud, version: str, more: dict[str, Any], status: int) -> None:
    uuid = cloud.running()

    reply = cloud.act(uuid, "rebuild", {"imageRef": IMAGE, **more}, version=version)

    assert reply.status == status, reply.body
    if status != 202:
        assert cloud.show(uuid)["status"] == "ACTIVE"


@pytest.mark.parametrize(
    ("version", "shown"), [("2.53", set()), ("2.54", {"key_name"}), ("2.57", {"key_name", "user_data"})]
)
def test_a_rebuilt_servers_view_grows(cloud: SmallCloud, version: str, shown: set[str]) -> None:
    server = cloud.act(cloud.running(), "rebuild", {"imageRef": IMAGE}, version=version).json["server"]

    assert server.keys() & {"key_name", "user_data", "OS-EXT-STS:vm_state"} == shown


def test_a_stopped_server_is_stopped_again_after_its_rebuild(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    cloud.act(uuid, "os-stop")
    cloud.settle(uuid)
    assert cloud.act(uuid, "rebuild", {"imageRef": IMAGE}).json["server"]["status"] == "REBUILD"
    assert cloud.operation(uuid).vm_state == states.STOPPED

    cloud.settle(uuid, power_state=states.SHUTDOWN)

    shown = cloud.show(uuid)
    assert (shown["status"], shown["OS-EXT-STS:power_state"]) == ("SHUTOFF", states.SHUTDOWN)


@pytest.mark.parametrize("unharmed", [True, False])
def test_a_failed_rebuild_is_an_error_in_any_case_and_can_be_tried_again(cloud: SmallCloud, unharmed: bool) -> None:
    uuid = cloud.running()
    cloud.act(uuid, "rebuild", {"imageRef": IMAGE})

    cloud.settle(uuid, fault="the disk is full", unharmed=unharmed)

    shown = cloud.show(uuid, user=ADMIN)
    assert shown["status"] == "ERROR" and "the disk is full" in shown["fault"]["message"]
    assert cloud.act(uuid, "rebuild", {"imageRef": IMAGE}).status == 202
    cloud.settle(uuid, power_state=states.RUNNING)
    assert "fault" not in cloud.show(uuid)


# ---- images of servers -----------------------------------------------------------------------------------------------


def test_an_image_of_a_server_is_recorded_with_what_its_own_image_had(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    reply = cloud.act(uuid, "createImage", {"name": "copy", "metadata": {"why": "backup", "image_type": "mine"}})

    assert reply.status == 202 and reply.json.keys() == {"image_id"} and "Location" not in reply.headers
    record = shelf(cloud).records[reply.json["image_id"]]
    assert record == {
        "id": reply.json["image_id"],
        "why": "backup", "name": "copy", "visibility": "private", "disk_format": "qcow2", "container_format": "bare",
        "min_disk": 1, "min_ram": 64, "owner": ALICE.project_id, "image_type": "snapshot", "image_location": "snapshot",
        "image_state": "available", "base_image_ref": IMAGE, "instance_uuid": uuid, "user_id": ALICE.user_id,
        "owner_id": ALICE.project_id,
    }  # fmt: skip
    operation = cloud.operation(uuid)
    assert (operation.operation, operation.arguments) == ("create-image", {"image_id": reply.json["image_id"]})
    assert cloud.show(uuid)["OS-EXT-STS:task_state"] == "image_snapshot_pending"
    cloud.settle(uuid, power_state=states.RUNNING)
    assert cloud.show(uuid)["status"] == "ACTIVE"
    assert action(cloud, uuid, "createImage")[1][0].event == "compute_snapshot_instance"


def test_until_2_44_a_header_says_where_the_image_is(cloud: SmallCloud) -> None:
    reply = cloud.act(cloud.running(), "createImage", {"name": "copy"}, version="2.44")

    assert (reply.status, reply.body) == (202, b"")
    (image_id,) = shelf(cloud).records
    assert reply.headers["Location"] == f"http://127.0.0.1:9/images/{image_id}"


def test_what_a_server_cannot_do_makes_no_image(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    cloud.act(uuid, "reboot", {"type": "HARD"})

    assert cloud.act(uuid, "createImage", {"name": "copy"}).status == 409

    assert shelf(cloud).records == {}


def test_an_image_whose_operation_cannot_begin_after_all_is_never_made(
    cloud: SmallCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = cloud.running()
    gate = cloud.cloud.cells.by_name("east")
    write = gate.write

    async def write_after_somebody_else(*arguments: Any, **more: Any) -> Any:
        with cloud.databases["east"].transaction() as connection:
            cell_db.instances.update(connection, uuid, {"vm_state": states.RESCUED})
        return await write(*arguments, **more)

    monkeypatch.setattr(gate, "write", write_after_somebody_else)

    assert cloud.act(uuid, "createImage", {"name": "copy"}).status == 409

    assert (shelf(cloud).records, image_tasks(cloud)) == ({}, [])


def image_tasks(cloud: SmallCloud) -> list[tuple[str, str]]:
    """Where the images that are being made stand."""
    with cloud.databases["east"].reading() as connection:
        rows = connection.execute(sa.select(cell_db.tables.image_tasks.c.heading, cell_db.tables.image_tasks.c.step))
        return [(row.heading, row.step) for row in rows]


def test_an_image_is_its_host_s_once_its_record_is_there(cloud: SmallCloud) -> None:
    cloud.act(cloud.running(), "createImage", {"name": "copy"})

    assert image_tasks(cloud) == [("forward", "agent.upload")]


@pytest.mark.parametrize(
    "refusal", [core.errors.Forbidden("the quota is used up"), core.errors.Unavailable("nobody answers")]
)
def test_an_image_whose_record_is_not_made_is_undone_by_the_conductor(
    cloud: SmallCloud, monkeypatch: pytest.MonkeyPatch, refusal: core.errors.CellplaneError
) -> None:
    """The service may have made it, whatever its answer was: its record is removed, and the host is never told."""
    uuid = cloud.running()

    def refuse(_: Any) -> Any:
        raise refusal

    monkeypatch.setattr(cloud.cloud.images, "create", refuse)

    assert cloud.act(uuid, "createImage", {"name": "copy"}).status in (403, 503)

    assert image_tasks(cloud) == [("undo", "cell.create-record")]
    with cloud.databases["east"].reading() as connection:
        assert cell_db.operations.operations(connection, [uuid]) == []


@pytest.mark.parametrize("took_effect", [True, False])
def test_an_answer_that_got_lost_decides_nothing(
    cloud: SmallCloud, monkeypatch: pytest.MonkeyPatch, took_effect: bool
) -> None:
    uuid = cloud.running()
    gate = cloud.cloud.cells.by_name("east")
    write = gate.write

    async def write_and_lose_the_answer(*arguments: Any, **more: Any) -> Unknown:
        if took_effect:
            await write(*arguments, **more)
        return Unknown(gate.cell, "it timed out")

    monkeypatch.setattr(gate, "write", write_and_lose_the_answer)

    reply = cloud.act(uuid, "createImage", {"name": "copy"})

    assert reply.status == (202 if took_effect else 503)
    assert len(shelf(cloud).records) == len(image_tasks(cloud)) == took_effect


def test_metadata_of_images_is_limited_until_2_38(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    wanted = {"name": "copy", "metadata": {str(number): "" for number in range(129)}}

    assert cloud.act(uuid, "createImage", wanted, version="2.38").status == 403
    assert cloud.act(uuid, "createImage", wanted, version="2.39").status == 202


def test_a_locked_server_may_be_copied_but_not_rebuilt(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    cloud.act(uuid, "lock")

    assert cloud.act(uuid, "rebuild", {"imageRef": IMAGE}).status == 409
    assert cloud.act(uuid, "rescue").status == 409
    assert cloud.act(uuid, "createImage", {"name": "copy"}).status == 202


# ---- passwords -------------------------------------------------------------------------------------------------------


def test_a_password_is_readable_nowhere_but_on_its_host(cloud: SmallCloud, tmp_path: pathlib.Path) -> None:
    uuid = cloud.running()
    opener = Opener(tmp_path / "own.key")
    cloud.greet("east-1", opener=opener)

    assert cloud.act(uuid, "changePassword", {"adminPass": "correct horse"}).status == 202

    operation = cloud.operation(uuid)
    assert operation.arguments["user"] == "root"
    assert opener.open(operation.arguments["sealed"], about=uuid) == "correct horse"
    assert cloud.show(uuid)["status"] == "PASSWORD"
    assert b"correct horse" not in b"".join(path.read_bytes() for path in cloud.folder.glob("*.sqlite*"))
    cloud.settle(uuid)
    assert cloud.show(uuid)["status"] == "ACTIVE"
    with cloud.databases["east"].reading() as connection:
        assert connection.exec_driver_sql(
            "select operation_arguments from instances where uuid = ?", (uuid,)
        ).scalar() in (None, "null")


def test_a_host_without_a_key_cannot_set_passwords(cloud: SmallCloud) -> None:
    reply = cloud.act(cloud.running(), "changePassword", {"adminPass": "x"})

    assert reply.status == 501 and "cannot set passwords" in reply.fault


def test_a_guest_without_an_agent_is_told_at_once(tmp_path: pathlib.Path) -> None:
    with small_cloud(tmp_path, "[api]\npassword_wait_s = 30\n") as cloud:
        uuid = cloud.running()
        cloud.greet("east-1")
        stopped = threading.Event()

        def answer() -> None:
            while not stopped.wait(0.02):
                with cloud.databases["east"].reading() as connection:
                    under_way = cell_db.operations.operations(connection, [uuid])
                if under_way:
                    cloud.settle(uuid, fault="The guest's agent does not answer")
                    return

        host = threading.Thread(target=answer)
        host.start()
        try:
            reply = cloud.act(uuid, "changePassword", {"adminPass": "x"})
        finally:
            stopped.set()
            host.join()

        assert reply.status == 409 and "agent does not answer" in reply.fault
        assert cloud.show(uuid)["status"] == "ACTIVE"
        assert action(cloud, uuid, "changePassword")[1][0].event == "compute_set_admin_password"


def test_the_password_that_a_guest_left(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    path = f"/v2.1/servers/{uuid}/os-server-password"
    assert cloud.ask.get(path, user=ALICE).json == {"password": ""}
    with cloud.databases["east"].transaction() as connection:
        cell_db.instances.update(connection, uuid, {"extra": {"password": "sealed text"}})

    assert cloud.ask.get(path, user=ALICE).json == {"password": "sealed text"}
    assert cloud.ask.delete(path, user=BOB).status in (403, 404)
    assert cloud.ask.delete(path, user=ALICE).status == 204
    assert cloud.ask.get(path, user=ALICE).json == {"password": ""}
    assert cloud.ask.get(f"/v2.1/servers/{OTHER}/os-server-password", user=ALICE).status == 404


# ---- crash dumps, and what is under way ------------------------------------------------------------------------------


def test_a_crash_dump_shows_no_task_and_lets_no_other_operation_lose_it(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    assert cloud.act(uuid, "trigger_crash_dump", version="2.16").status == 404
    assert cloud.act(uuid, "trigger_crash_dump", {}).status == 400

    assert cloud.act(uuid, "trigger_crash_dump", version="2.17").status == 202

    assert cloud.show(uuid)["OS-EXT-STS:task_state"] is None
    reply = cloud.act(uuid, "os-stop")
    assert reply.status == 409 and "trigger_crash_dump" in reply.fault
    cloud.settle(uuid)
    assert cloud.act(uuid, "os-stop").status == 202
    assert action(cloud, uuid, "trigger_crash_dump")[0].finish_time is not None


def test_a_crash_dump_leaves_state_and_fault_as_they_were(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    cloud.act(uuid, "rescue")
    cloud.settle(uuid, fault="broken", power_state=states.RUNNING)

    assert cloud.act(uuid, "trigger_crash_dump").status == 202
    cloud.settle(uuid)

    shown = cloud.show(uuid)
    assert (shown["status"], shown["OS-EXT-STS:power_state"]) == ("ERROR", states.RUNNING)
    assert "broken" in shown["fault"]["message"]


def test_a_hard_reboot_takes_the_place_of_what_hangs_and_ends_its_record(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    cloud.act(uuid, "suspend")

    assert cloud.act(uuid, "reboot", {"type": "HARD"}).status == 202

    assert action(cloud, uuid, "suspend")[0].message == "Error"
    assert cloud.operation(uuid).operation == "reboot-hard"


def test_only_steps_of_the_operation_under_way_are_shown(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    cloud.act(uuid, "createImage", {"name": "copy"})
    operation = cloud.operation(uuid)

    def note(step: str, host: str = "east-1", operation_id: str = operation.operation_id) -> bool:
        with cloud.databases["east"].transaction() as connection:
            return cell_db.operations.note_step(connection, uuid=uuid, operation_id=operation_id, host=host, step=step)

    assert note(states.IMAGE_UPLOADING)
    assert cloud.show(uuid)["OS-EXT-STS:task_state"] == states.IMAGE_UPLOADING
    assert not note(states.REBUILD_SPAWNING)
    assert not note(states.IMAGE_SNAPSHOT, host="east-2")
    assert not note(states.IMAGE_SNAPSHOT, operation_id=OTHER)
    cloud.settle(uuid)
    assert not note(states.IMAGE_SNAPSHOT)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rescue", None), ("unrescue", None), ("rebuild", {"imageRef": IMAGE}), ("createImage", {"name": "x"}),
        ("changePassword", {"adminPass": "x"}), ("trigger_crash_dump", None),
    ],
)  # fmt: skip
def test_whose_server_it_is_and_where(cloud: SmallCloud, key: str, value: Any) -> None:
    placed, waiting, buried = cloud.running(), cloud.created(), cloud.created()
    cloud.bury(buried)

    assert cloud.act(placed, key, value, user=BOB).status in (403, 404)
    assert cloud.act(OTHER, key, value).status == 404
    reply = cloud.act(waiting, key, value)
    assert reply.status == 409 and "scheduling" in reply.fault
    assert cloud.act(buried, key, value).status == 409


def test_a_rebuild_that_finds_another_state_changes_nothing(cloud: SmallCloud) -> None:
    """The request was prepared while the server could be rebuilt; its record changes only in the transaction that
    begins the operation."""
    uuid = cloud.running()
    with cloud.databases["east"].transaction() as connection:
        cell_db.instances.update(connection, uuid, {"vm_state": states.PAUSED})
    before = spec_of(cloud, uuid)
    image = before.image
    assert image is not None
    changes = cell_db.rebuilds.Changes(image=image, columns={"display_name": "renamed"}, metadata={"a": "b"})
    context = ALICE.context("req-1", None)

    with pytest.raises(core.errors.WrongState), cloud.databases["east"].transaction() as connection:
        cell_db.rebuilds.begin(connection, uuid, changes, context)

    assert spec_of(cloud, uuid) == before
    assert cloud.show(uuid)["name"] == "web"
