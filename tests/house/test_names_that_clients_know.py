"""Actions, their events, states and statuses are called as OpenStack's clients know them.

The tables are written down here a second time, from the reference of the Compute API: a name is a promise, not a detail
of ours.
"""

import pytest

from lifecycle import actions, states
from lifecycle.actions import Action
from lifecycle.states import status

# What os-instance-actions shows for each key of a request, and the event of the work on the host; None: no host does
# anything.
ACTIONS: dict[str, tuple[str, str | None]] = {
    "os-start": ("start", "compute_start_instance"),
    "os-stop": ("stop", "compute_stop_instance"),
    "pause": ("pause", "compute_pause_instance"),
    "unpause": ("unpause", "compute_unpause_instance"),
    "suspend": ("suspend", "compute_suspend_instance"),
    "resume": ("resume", "compute_resume_instance"),
    "rescue": ("rescue", "compute_rescue_instance"),
    "unrescue": ("unrescue", "compute_unrescue_instance"),
    "rebuild": ("rebuild", "compute_rebuild_instance"),
    "createImage": ("createImage", "compute_snapshot_instance"),
    "createBackup": ("createBackup", "compute_backup_instance"),
    "changePassword": ("changePassword", "compute_set_admin_password"),
    "trigger_crash_dump": ("trigger_crash_dump", "compute_trigger_crash_dump"),
    "lock": ("lock", None),
    "unlock": ("unlock", None),
    "os-resetState": ("resetState", None),
    "injectNetworkInfo": ("injectNetworkInfo", None),
    "restore": ("restore", "compute_restore_instance"),
    "forceDelete": ("forceDelete", None),
    "os-getConsoleOutput": ("os-getConsoleOutput", None),
    "os-getVNCConsole": ("get-console", None),
    "os-getSPICEConsole": ("get-console", None),
    "os-getSerialConsole": ("get-console", None),
}
OTHERS: dict[str, tuple[Action, str, str]] = {
    "reboot, soft": (actions.REBOOT_SOFT, "reboot", "compute_reboot_instance"),
    "reboot, hard": (actions.REBOOT_HARD, "reboot", "compute_reboot_instance"),
    "create": (actions.CREATE, "create", "compute__do_build_and_run_instance"),
    "delete": (actions.DELETE, "delete", "compute_terminate_instance"),
    "delete, soft": (actions.SOFT_DELETE, "delete", "compute_soft_delete_instance"),
}

STATUSES: dict[str, str] = {
    "active": "ACTIVE", "building": "BUILD", "stopped": "SHUTOFF", "resized": "VERIFY_RESIZE", "paused": "PAUSED",
    "suspended": "SUSPENDED", "rescued": "RESCUE", "error": "ERROR", "deleted": "DELETED",
    "soft-delete": "SOFT_DELETED", "shelved": "SHELVED", "shelved_offloaded": "SHELVED_OFFLOADED",
}  # fmt: skip
WHILE: dict[tuple[str, str], str] = {
    **{("active", task): "REBOOT" for task in ("rebooting", "reboot_pending", "reboot_started")},
    **{("active", f"{task}_hard"): "HARD_REBOOT" for task in ("rebooting", "reboot_pending", "reboot_started")},
    ("active", "updating_password"): "PASSWORD",
    ("active", "rebuilding"): "REBUILD",
    ("active", "rebuild_spawning"): "REBUILD",
    ("stopped", "rebuilding"): "REBUILD",
    ("error", "rebuilding"): "REBUILD",
    ("active", "powering-off"): "ACTIVE",
    ("stopped", "powering-on"): "SHUTOFF",
    ("active", "deleting"): "ACTIVE",
    ("building", "spawning"): "BUILD",
}


def test_the_table_of_names_is_whole() -> None:
    assert set(ACTIONS) == set(actions.BY_REQUEST)
    named = {id(action) for action in (*actions.BY_REQUEST.values(), *(action for action, *_ in OTHERS.values()))}
    assert {id(action) for action in actions.OPERATIONS.values()} <= named
    assert set(STATUSES) == set(states.VM_STATES)


@pytest.mark.parametrize("key", ACTIONS)
def test_an_action_is_recorded_by_the_name_that_clients_know(key: str) -> None:
    action, (name, event) = actions.BY_REQUEST[key], ACTIONS[key]

    assert action.name == name
    assert event is None or action.event_name == event


@pytest.mark.parametrize("label", OTHERS)
def test_so_are_actions_that_are_asked_for_in_another_way(label: str) -> None:
    action, name, event = OTHERS[label]

    assert (action.name, action.event_name) == (name, event)


def test_statuses_are_those_of_the_reference() -> None:
    assert {vm_state: status(vm_state, None) for vm_state in states.VM_STATES} == STATUSES
    assert {pair: status(*pair) for pair in WHILE} == WHILE
