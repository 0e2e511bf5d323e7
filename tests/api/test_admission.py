"""Every row of the table of actions is admitted through HTTP exactly where it says; operations on hosts:
test_server_actions.py."""

import itertools
from typing import Any

import pytest

from lifecycle import actions, states
from lifecycle.actions import (
    ACTIONS,
    ANY,
    CREATE,
    DELETE,
    FORCE_DELETE,
    NOT_SOFT_DELETED,
    SOFT_DELETE,
    Action,
    At,
    Role,
)
from tests.api.http.harness import ADMIN, ALICE, Reply
from tests.api.small_cloud import IMAGE, SmallCloud

pytestmark = pytest.mark.slow

# What requests hold that need something, by their row: the body, or the value of its key.
_HELD: dict[Action, Any] = {
    actions.UPDATE: {"server": {"name": "other"}},
    actions.MERGE_METADATA: {"metadata": {"key": "1"}},
    actions.REPLACE_METADATA: {"metadata": {"key": "1"}},
    actions.SET_METADATA_ITEM: {"meta": {"key": "1"}},
    actions.REPLACE_TAGS: {"tags": ["tag"]},
    actions.GET_CONSOLE: {"remote_console": {"protocol": "vnc", "type": "novnc"}},
    actions.GET_VNC_CONSOLE: {"type": "novnc"},
    actions.GET_SPICE_CONSOLE: {"type": "spice-html5"},
    actions.GET_SERIAL_CONSOLE: {"type": "serial"},
    actions.REBOOT_SOFT: {"type": "SOFT"},
    actions.REBOOT_HARD: {"type": "HARD"},
    actions.RESET_STATE: {"state": "active"},
    actions.CONSOLE_OUTPUT: {},
    actions.REBUILD: {"imageRef": IMAGE},
    actions.CREATE_IMAGE: {"name": "copy"},
    actions.CREATE_BACKUP: {"name": "copy", "backup_type": "daily", "rotation": 1},
    actions.CHANGE_PASSWORD: {"adminPass": "secret"},
}
_TASKS = (None, states.POWERING_OFF, states.DELETING, states.MIGRATING, states.SOFT_DELETING, states.RESTORING)
# What a soft delete is asked for by is a delete; what becomes of it: test_soft_delete.py.
_OF_A_SERVER = [action for action in ACTIONS if action not in (CREATE, SOFT_DELETE)]
_CHANGES = [action for action in _OF_A_SERVER if action.at is At.API]
# No driver here has consoles of SPICE: they are refused whatever the server's state.
_QUESTIONS = [
    actions.CONSOLE_OUTPUT,
    actions.GET_DIAGNOSTICS,
    actions.GET_CONSOLE,
    actions.GET_VNC_CONSOLE,
    actions.GET_SERIAL_CONSOLE,
]


def label(action: Action) -> str:
    return f"{action.request.method} {action.request.key or action.request.path} {action.request.type}".strip()


def ask(cloud: SmallCloud, action: Action, uuid: str, *, as_admin: bool = False) -> Reply:
    """The reply to what the row says that the action is asked for by, from somebody who may."""
    request, held = action.request, _HELD.get(action)
    path = request.path.format(id=uuid, server_id=uuid, key="key", tag="tag")
    user = ADMIN if as_admin or action.rule.default is Role.ADMIN else ALICE
    return cloud.ask.ask(
        request.method,
        f"/v2.1{path}",
        {request.key: held} if request.key else held,
        version=request.until or "2.96",
        user=user,
    )


def put(cloud: SmallCloud, uuid: str, **columns: Any) -> None:
    """The server's row as it says, idle, unlocked and with a tag and an item of metadata if it says nothing else."""
    values = {
        "task_state": None,
        "locked_by": None,
        "operation_id": None,
        "metadata": '{"key": "1"}',
        "tags": '["tag"]',
        **columns,
    }
    assigned = ", ".join(f"{name} = ?" for name in values)
    with cloud.databases["east"].transaction() as connection:
        connection.exec_driver_sql(f"update instances set {assigned} where uuid = ?", (*values.values(), uuid))


def refused(action: Action, attribute: str, state: str | None, uuid: str) -> str:
    return f"conflictingRequest: Cannot '{action.name}' instance {uuid} while it is in {attribute} {state}"


def test_all_that_is_not_work_on_a_host_is_here() -> None:
    assert {*_CHANGES, *_QUESTIONS, actions.GET_SPICE_CONSOLE, DELETE, FORCE_DELETE} == {
        action for action in _OF_A_SERVER if not action.operation
    }


def test_changes_and_questions_are_admitted_exactly_where_the_table_says(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    for action, vm_state, task in itertools.product([*_CHANGES, *_QUESTIONS], states.VM_STATES, _TASKS):
        put(cloud, uuid, vm_state=vm_state, task_state=task, host=None)

        reply = ask(cloud, action, uuid)

        if vm_state not in action.when:
            assert reply.fault == refused(action, "vm_state", vm_state, uuid)
        elif task in action.except_task or (action.while_task is not None and task not in action.while_task):
            assert reply.fault == refused(action, "task_state", task, uuid)
        elif action in _CHANGES:
            assert reply.status < 300, (label(action), vm_state, task, reply.body)
        else:
            assert reply.fault == refused(action, "vm_state", vm_state, uuid) + ": it has no host"


def test_a_server_in_a_state_that_nobody_knows_can_be_changed_and_deleted(cloud: SmallCloud) -> None:
    """A newer release may have written it, or whoever broke into the cell."""
    for action in [action for action in (*_CHANGES, DELETE, FORCE_DELETE) if action.when in (ANY, NOT_SOFT_DELETED)]:
        uuid = cloud.running()
        put(cloud, uuid, vm_state="teleported")

        assert ask(cloud, action, uuid).status < 300, label(action)


@pytest.mark.parametrize("as_admin", [False, True], ids=["owner", "admin"])
def test_a_lock_stops_exactly_what_the_table_says(cloud: SmallCloud, as_admin: bool) -> None:
    for action in _OF_A_SERVER:
        uuid = cloud.running()
        put(
            cloud,
            uuid,
            vm_state=states.ACTIVE if states.ACTIVE in action.when else min(action.when),
            locked_by="owner",
            host=None,
        )

        reply = ask(cloud, action, uuid, as_admin=as_admin)

        is_stopped = reply.status == 409 and reply.fault == f"conflictingRequest: Instance {uuid} is locked"
        by_admin = as_admin or action.rule.default is Role.ADMIN
        assert is_stopped == (not action.even_if_locked and not by_admin), (label(action), reply.body)
        cloud.ask.delete(f"/v2.1/servers/{uuid}", user=ADMIN)


def test_a_server_that_never_ran_refuses_what_the_table_says(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    for action in [action for action in _OF_A_SERVER if action.launched]:
        put(cloud, uuid, vm_state=min(action.when), launched_at=None)

        assert ask(cloud, action, uuid).fault == refused(action, "launched_at", None, uuid)


def test_what_needs_a_host_says_so_in_one_sentence(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    for action in [action for action in _OF_A_SERVER if action.operation]:
        vm_state = min(action.when)
        put(cloud, uuid, vm_state=vm_state, host=None)

        assert ask(cloud, action, uuid).fault == refused(action, "vm_state", vm_state, uuid) + ": it has no host"
