"""What can be done to a server, and when it cannot."""

import itertools
from typing import Any

import pytest

from lifecycle import states
from lifecycle.actions import BY_REQUEST, OPERATIONS, REBOOT_HARD, REBOOT_SOFT, RESTORE
from messaging.verbs import cell, compute
from tests.api.host import host_that_answers
from tests.api.http.harness import ADMIN, ALICE, BOB
from tests.api.small_cloud import IMAGE, SmallCloud

_VALUES: dict[str, Any] = {
    "rebuild": {"imageRef": IMAGE},
    "createImage": {"name": "copy"},
    "createBackup": {"name": "copy", "backup_type": "daily", "rotation": 1},
    "changePassword": {"adminPass": "secret"},
}
_STATUS = {"rescue": 200}
# A restore is decided by the mapping, not by the row: test_soft_delete.py.
_KEYS = {
    key: (action, _VALUES.get(key))
    for key, action in BY_REQUEST.items()
    if action in OPERATIONS.values() and action is not RESTORE
}
_KEYS |= {"reboot soft": (REBOOT_SOFT, {"type": "SOFT"}), "reboot hard": (REBOOT_HARD, {"type": "hard"})}


def _set(cloud: SmallCloud, uuid: str, **columns: Any) -> None:
    assigned = ", ".join(f"{name} = ?" for name in columns)
    with cloud.databases["east"].transaction() as connection:
        connection.exec_driver_sql(f"update instances set {assigned} where uuid = ?", (*columns.values(), uuid))


def test_every_action_is_admitted_exactly_where_the_table_says(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    cloud.greet("east-1")
    # The hints go nowhere: no conductor listens. The rows say it all.
    tasks = (None, states.REBOOTING, states.POWERING_OFF, states.PAUSING, states.DELETING)
    for (name, (action, value)), vm_state, task in itertools.product(_KEYS.items(), states.VM_STATES, tasks):
        _set(cloud, uuid, vm_state=vm_state, task_state=task, operation_id=None)

        reply = cloud.act(uuid, name.split()[0], value)

        allowed = vm_state in action.when and (action.while_task is None or task in action.while_task)
        assert reply.status == (_STATUS.get(name, 202) if allowed else 409), (name, vm_state, task, reply.body)
        if allowed:
            assert OPERATIONS[cloud.operation(uuid).operation] == action
            assert cloud.show(uuid)["OS-EXT-STS:task_state"] == action.during
        elif vm_state not in action.when:
            assert f"vm_state {vm_state}" in reply.fault
        else:
            assert f"task_state {task}" in reply.fault


def test_a_stop_is_recorded_and_ends_as_the_table_says(cloud: SmallCloud) -> None:
    uuid = cloud.running()

    assert cloud.act(uuid, "os-stop").status == 202
    assert cloud.act(uuid, "os-stop").status == 409
    cloud.settle(uuid)

    shown = cloud.show(uuid)
    assert (shown["status"], shown["OS-EXT-STS:power_state"], shown["OS-EXT-STS:task_state"]) == ("SHUTOFF", 4, None)


@pytest.mark.parametrize("key", ["os-stop", "reboot", "lock", "unlock", "os-getConsoleOutput"])
def test_a_server_in_the_journal_refuses_and_names_its_state(cloud: SmallCloud, key: str) -> None:
    uuid = cloud.created()

    reply = cloud.act(uuid, key, {"type": "HARD"} if key == "reboot" else None if "lock" in key else {})

    assert reply.status == 409 and "scheduling" in reply.fault


def test_a_building_server_refuses(cloud: SmallCloud) -> None:
    uuid = cloud.created()
    cloud.place(uuid)
    assert "building" in cloud.act(uuid, "os-stop").fault


def test_a_buried_server_has_nothing_to_act_on(cloud: SmallCloud) -> None:
    uuid = cloud.created()
    cloud.bury(uuid)

    for key, value in (("os-stop", None), ("reboot", {"type": "HARD"}), ("os-getConsoleOutput", {})):
        assert cloud.act(uuid, key, value).status == 409


def test_a_locked_server_refuses_its_owner_but_not_an_admin(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    assert cloud.act(uuid, "lock", {"locked_reason": "mine"}).status == 202
    shown = cloud.show(uuid)
    assert shown["locked"] is True and shown["locked_reason"] == "mine"

    reply = cloud.act(uuid, "os-stop")
    assert reply.status == 409 and "locked" in reply.fault
    assert cloud.act(uuid, "os-stop", user=ADMIN).status == 202

    assert cloud.act(uuid, "unlock").status == 202
    shown = cloud.show(uuid)
    assert shown["locked"] is False and shown["locked_reason"] is None


def test_what_an_admin_locked_only_an_admin_unlocks(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    assert cloud.act(uuid, "lock", user=ADMIN).status == 202
    assert cloud.act(uuid, "lock").status == 202

    reply = cloud.act(uuid, "unlock")

    assert reply.status == 403
    assert cloud.show(uuid)["locked"] is True
    assert cloud.act(uuid, "unlock", user=ADMIN).status == 202


def test_what_may_follow_a_key_depends_on_the_microversion(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    assert cloud.act(uuid, "lock", "anything", version="2.72").status == 202
    assert cloud.act(uuid, "lock", "anything", version="2.73").status == 400
    assert cloud.act(uuid, "lock", {"locked_reason": ""}, version="2.73").status == 400
    assert cloud.act(uuid, "lock", {"reason": "mine"}, version="2.73").status == 400
    assert cloud.act(uuid, "lock", {}, version="2.73").status == 202
    for body in ({"type": "MEDIUM"}, {}, None, {"type": "HARD", "x": 1}):
        assert cloud.act(uuid, "reboot", body).status == 400
    assert cloud.act(uuid, "os-dance").status == 400
    assert cloud.act(uuid, "os-getConsoleOutput", {"length": "many"}).status == 400
    assert cloud.act(uuid, "os-getConsoleOutput", {"length": -2}).status == 400


def test_operators_reset_states(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    assert cloud.act(uuid, "os-resetState", {"state": "error"}).status == 403
    assert cloud.act(uuid, "os-resetState", {"state": "paused"}, user=ADMIN).status == 400

    assert cloud.act(uuid, "os-resetState", {"state": "error"}, user=ADMIN).status == 202
    assert cloud.show(uuid)["status"] == "ERROR"
    assert cloud.act(uuid, "os-resetState", {"state": "active"}, user=ADMIN).status == 202
    assert cloud.show(uuid)["status"] == "ACTIVE"


def test_a_guest_is_told_its_networks_by_itself(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    assert cloud.act(uuid, "injectNetworkInfo").status == 403

    reply = cloud.act(uuid, "injectNetworkInfo", user=ADMIN)

    assert (reply.status, reply.body) == (202, b"")
    assert cloud.act(cloud.created(), "injectNetworkInfo", user=ADMIN).status == 409


def test_a_server_has_no_numa_nodes(cloud: SmallCloud) -> None:
    path = f"/v2.1/servers/{cloud.running()}/topology"

    assert cloud.ask.get(path, version="2.78", user=ALICE).json == {"nodes": [], "pagesize_kb": None}
    assert cloud.ask.get(path, version="2.77", user=ALICE).status == 404


def test_readers_only_read(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    assert cloud.act(uuid, "os-stop", user=BOB).status in (403, 404)


@pytest.mark.parametrize(
    ("length", "lines"), [(None, None), (-1, None), ("-1", None), ("-7", None), (3, 3), ("10", 10), (0, 0)]
)
def test_the_console_log_comes_from_the_servers_host(cloud: SmallCloud, length: object, lines: int | None) -> None:
    uuid = cloud.running()
    with host_that_answers(cloud, cell.CONSOLE, compute.ConsoleOutput(output="line\n")) as asked:
        reply = cloud.act(uuid, "os-getConsoleOutput", {} if length is None else {"length": length})

    assert reply.status == 200 and reply.json == {"output": "line\n"}
    assert asked == [cell.ConsoleLogOnHost(uuid=uuid, host="east-1", lines=lines)]


def test_a_silent_cell_is_unavailable(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    cloud.go_silent("east")

    reply = cloud.act(uuid, "os-stop")

    assert reply.status == 503 and "east" in reply.fault
