"""Rescue, rebuild, images of servers, passwords and crash dumps, as users of the `openstack` client see them, on both
profiles."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

import cell_db.tables
from devstack.waiting import wait_until
from tests.stack.client import Client
from tests.stack.cloud import Cloud

DEADLINE_S = 60.0
SECRET = "correct-horse-battery"


@pytest.fixture
def server(cloud: Cloud) -> Iterator[str]:
    """A server of the demo project, ACTIVE; its id."""
    client = cloud.client("demo")
    server = str(
        client.json("server create --flavor m1.tiny --image tiny --nic none --property role=old --wait patient")["id"]
    )
    yield server
    client.ok(f"server delete --wait {server}")
    held = cloud.shape.cell_names
    wait_until(
        lambda: not any(server in cloud.held(cell) for cell in held),
        what="end of its row",
        deadline_s=DEADLINE_S,
        every_s=0.2,
    )


def wait_for_status(client: Client, server: str, status: str) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    def has_it() -> bool:
        seen[:] = [client.json(f"server show {server}")]
        return bool((seen[0]["status"], seen[0]["OS-EXT-STS:task_state"]) == (status, None))

    wait_until(has_it, what=f"status {status} of server {server}", deadline_s=DEADLINE_S, every_s=0.2)
    return seen[0]


def events(client: Client, server: str) -> dict[str, list[tuple[str, str]]]:
    """Action -> its events and how they ended."""
    by_action: dict[str, list[tuple[str, str]]] = {}
    for row in client.json(f"server event list {server}"):
        shown = client.json(f"server event show {server} {row['Request ID']}")["events"]
        parts = json.loads(shown) if isinstance(shown, str) else shown
        by_action.setdefault(row["Action"], []).extend((event["event"], event["result"]) for event in parts)
    return by_action


def test_a_server_is_rescued_and_unrescued(cloud: Cloud, server: str) -> None:
    client = cloud.client("demo")

    client.ok(f"server rescue --image tiny --password {SECRET} {server}")
    wait_for_status(client, server, "RESCUE")
    assert "409" in client.refused(f"server stop {server}")
    client.ok(f"server unrescue {server}")
    wait_for_status(client, server, "ACTIVE")

    seen = events(client, server)
    assert seen["rescue"] == [("compute_rescue_instance", "Success")]
    assert seen["unrescue"] == [("compute_unrescue_instance", "Success")]


def test_a_server_is_rebuilt(cloud: Cloud, server: str) -> None:
    client = cloud.client("demo")
    before = cloud.client("admin").json(f"server show {server}")
    boots = client.ok(f"console log show {server}").count("GUEST-READY")

    client.ok(
        "--os-compute-api-version 2.90 server rebuild --image tiny --name anew --property role=new --hostname anew "
        f"--wait {server}"
    )

    after = cloud.client("admin").json(f"--os-compute-api-version 2.90 server show {server}")
    assert (after["name"], after["status"], after["properties"]) == ("anew", "ACTIVE", {"role": "new"})
    assert after["OS-EXT-SRV-ATTR:host"] == before["OS-EXT-SRV-ATTR:host"]
    wait_until(
        lambda: client.ok(f"console log show {server}").count("GUEST-READY") == boots + 1,
        what="boot",
        deadline_s=DEADLINE_S,
        every_s=0.2,
    )
    assert "hostname=anew" in client.ok(f"console log show {server}").rpartition("GUEST-READY")[2]
    assert events(client, server)["rebuild"] == [("compute_rebuild_instance", "Success")]


def test_a_stopped_server_stays_stopped_when_it_is_rebuilt(cloud: Cloud, server: str) -> None:
    client = cloud.client("demo")
    client.ok(f"server stop {server}")
    wait_for_status(client, server, "SHUTOFF")

    client.ok(f"server rebuild --image tiny {server}")

    wait_until(lambda: "rebuild" in events(client, server), what="rebuild", deadline_s=DEADLINE_S, every_s=0.2)
    shown = wait_for_status(client, server, "SHUTOFF")
    assert shown["OS-EXT-STS:power_state"] in ("Shutdown", 4, "SHUTDOWN")


@pytest.mark.parametrize("version", ["2.1", "2.104"])
def test_an_image_of_a_server_boots_another(cloud: Cloud, server: str, version: str) -> None:
    client = cloud.client("demo")

    client.ok(f"--os-compute-api-version {version} server image create --name copy --wait {server}")

    image = client.json("image show copy")
    assert (image["status"], image["disk_format"], image["visibility"]) == ("active", "qcow2", "private")
    assert (image["properties"]["instance_uuid"], image["properties"]["image_type"]) == (server, "snapshot")
    wait_for_status(client, server, "ACTIVE")
    assert events(client, server)["createImage"] == [("compute_snapshot_instance", "Success")]
    client.ok("server create --flavor m1.tiny --image copy --nic none --wait twin")
    client.ok("server delete --wait twin")
    client.ok("image delete copy")


@pytest.mark.parametrize("version", ["2.1", "2.96"])
def test_the_newest_backups_of_a_server_are_kept(cloud: Cloud, server: str, version: str) -> None:
    client = cloud.client("demo")
    create = f"--os-compute-api-version {version} server backup create --type daily --rotate 2 --wait"
    client.ok(f"{create} --name other --type weekly {server}")
    wait_for_status(client, server, "ACTIVE")

    for day in ("monday", "tuesday", "wednesday"):
        # The image service tells the age of images in seconds.
        second = int(time.time())
        wait_until(lambda second=second: time.time() >= second + 1, what="a later second", deadline_s=DEADLINE_S)  # type: ignore[misc]
        client.ok(f"{create} --name {day} {server}")
        wait_until(
            lambda: client.json(f"server show {server}")["OS-EXT-STS:task_state"] is None,
            what="backup",
            deadline_s=DEADLINE_S,
            every_s=0.2,
        )

    assert {image["Name"] for image in client.json("image list --private")} == {"other", "tuesday", "wednesday"}
    image = client.json("image show wednesday")
    assert image["status"] == "active"
    wanted = {"image_type": "backup", "backup_type": "daily", "instance_uuid": server}
    assert wanted.items() <= image["properties"].items()
    assert events(client, server)["createBackup"] == [("compute_backup_instance", "Success")] * 4
    client.ok("image delete other tuesday wednesday")


def test_another_project_s_image_is_none(cloud: Cloud, server: str) -> None:
    """Not to the image service, and not to the Compute API, which asks it under another name than the user's."""
    record = {"name": "secret", "visibility": "private", "disk_format": "raw", "container_format": "bare"}
    images, demo = f"{cloud.image}/v2/images", cloud.auth("demo")
    image_id = requests.post(images, json=record, auth=cloud.auth("admin"), timeout=30).json()["id"]
    requests.put(f"{images}/{image_id}/file", data=b"x" * 1024, auth=cloud.auth("admin"), timeout=30).raise_for_status()
    flavor = requests.get(f"{cloud.compute}/flavors", auth=demo, timeout=30).json()["flavors"][0]["id"]

    def answers(image_id: str) -> list[tuple[int, str]]:
        asked = (
            ("/servers", {"server": {"name": "thief", "flavorRef": flavor, "imageRef": image_id, "networks": "none"}}),
            (f"/servers/{server}/action", {"rebuild": {"imageRef": image_id}}),
            (f"/servers/{server}/action", {"rescue": {"rescue_image_ref": image_id}}),
        )
        version = {"OpenStack-API-Version": "compute 2.90"}
        replies = [
            requests.post(cloud.compute + path, json=body, auth=demo, headers=version, timeout=30)
            for path, body in asked
        ]
        return [(reply.status_code, reply.text.replace(image_id, "ID")) for reply in replies]

    secret, absent = answers(image_id), answers("c0ffee00-0000-4000-8000-000000000000")

    assert secret == absent
    assert [code for code, _ in secret] == [400, 400, 400]
    assert requests.get(f"{images}/{image_id}", auth=demo, timeout=30).status_code == 404
    assert requests.delete(f"{images}/{image_id}", auth=cloud.auth("admin"), timeout=30).status_code == 204


def test_a_password_is_set_and_readable_nowhere(cloud: Cloud, server: str) -> None:
    client = cloud.client("demo")

    client.ok(f"server set --password {SECRET} {server}")

    wait_for_status(client, server, "ACTIVE")
    assert events(client, server)["changePassword"] == [("compute_set_admin_password", "Success")]
    logs = b"".join(path.read_bytes() for path in cloud.state.logs.iterdir() if path.is_file())
    assert logs and SECRET.encode() not in logs
    for cell in cloud.shape.cell_names:
        assert SECRET not in str(cloud.rows(cell, cell_db.tables.instances))


def test_a_crash_dump_is_triggered(cloud: Cloud, server: str) -> None:
    client = cloud.client("demo")

    client.ok(f"--os-compute-api-version 2.17 server dump create {server}")

    wait_until(
        lambda: events(client, server).get("trigger_crash_dump") == [("compute_trigger_crash_dump", "Success")],
        what="crash dump", deadline_s=DEADLINE_S, every_s=0.2,
    )  # fmt: skip
    assert wait_for_status(client, server, "ACTIVE")


def test_no_password_was_left(cloud: Cloud, server: str) -> None:
    auth = ("demo", cloud.password("demo"))
    answer = requests.get(f"{cloud.compute}/servers/{server}/os-server-password", auth=auth, timeout=30)

    assert (answer.status_code, answer.json()) == (200, {"password": ""})
