"""The states of a server, and the `status` that the Compute API shows for them.

Source: OpenStack Compute API, server concepts; `vm_state` is the stable state, `task_state` the running operation
(None: idle).
"""

from collections.abc import Iterable

# vm_state
BUILDING = "building"
ACTIVE = "active"
PAUSED = "paused"
SUSPENDED = "suspended"
STOPPED = "stopped"
RESCUED = "rescued"
RESIZED = "resized"
SOFT_DELETED = "soft-delete"
DELETED = "deleted"
ERROR = "error"
SHELVED = "shelved"
SHELVED_OFFLOADED = "shelved_offloaded"
VM_STATES = (
    BUILDING, ACTIVE, PAUSED, SUSPENDED, STOPPED, RESCUED, RESIZED, SOFT_DELETED, DELETED, ERROR, SHELVED,
    SHELVED_OFFLOADED,
)  # fmt: skip

# task_state
IDLE = None
SCHEDULING = "scheduling"
NETWORKING = "networking"
SPAWNING = "spawning"
REBOOTING = "rebooting"
REBOOT_PENDING = "reboot_pending"
REBOOT_STARTED = "reboot_started"
REBOOTING_HARD = "rebooting_hard"
REBOOT_PENDING_HARD = "reboot_pending_hard"
REBOOT_STARTED_HARD = "reboot_started_hard"
POWERING_OFF = "powering-off"
POWERING_ON = "powering-on"
PAUSING = "pausing"
UNPAUSING = "unpausing"
SUSPENDING = "suspending"
RESUMING = "resuming"
RESCUING = "rescuing"
UNRESCUING = "unrescuing"
REBUILDING = "rebuilding"
REBUILD_SPAWNING = "rebuild_spawning"
IMAGE_SNAPSHOT_PENDING = "image_snapshot_pending"
IMAGE_SNAPSHOT = "image_snapshot"
IMAGE_PENDING_UPLOAD = "image_pending_upload"
IMAGE_UPLOADING = "image_uploading"
IMAGE_BACKUP = "image_backup"
UPDATING_PASSWORD = "updating_password"
MIGRATING = "migrating"
DELETING = "deleting"
SOFT_DELETING = "soft-deleting"
RESTORING = "restoring"

# power_state: what the hypervisor said last
NO_STATE = 0
RUNNING = 1
POWER_PAUSED = 3
SHUTDOWN = 4
CRASHED = 6
POWER_SUSPENDED = 7
# as the Compute API writes them
POWER_NAMES = {
    NO_STATE: "pending", RUNNING: "running", POWER_PAUSED: "paused", SHUTDOWN: "shutdown", CRASHED: "crashed",
    POWER_SUSPENDED: "suspended",
}  # fmt: skip

# state: where the build protocol stands (docs/build-protocol.md), independent of what the guest does
BUILD = "BUILD"
BUILD_ACTIVE = "ACTIVE"
BUILD_ERROR = "ERROR"
BUILD_DELETING = "DELETING"
BUILD_DELETED = "DELETED"
PROTOCOL_STATES = (BUILD, BUILD_ACTIVE, BUILD_ERROR, BUILD_DELETING, BUILD_DELETED)

_RESIZE = dict.fromkeys(("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"), "RESIZE")
_REBUILD = dict.fromkeys((REBUILDING, "rebuild_block_device_mapping", REBUILD_SPAWNING), "REBUILD")
_REBOOT = dict.fromkeys((REBOOTING, REBOOT_PENDING, REBOOT_STARTED), "REBOOT")
_HARD_REBOOT = dict.fromkeys((REBOOTING_HARD, REBOOT_PENDING_HARD, REBOOT_STARTED_HARD), "HARD_REBOOT")
_MIGRATING = {MIGRATING: "MIGRATING"}

# vm_state -> (status when nothing else applies, task_state -> status)
_STATUS: dict[str, tuple[str, dict[str, str]]] = {
    ACTIVE: ("ACTIVE", {**_REBOOT, **_HARD_REBOOT, UPDATING_PASSWORD: "PASSWORD", **_REBUILD, **_MIGRATING, **_RESIZE}),
    BUILDING: ("BUILD", {}),
    STOPPED: ("SHUTOFF", {**_RESIZE, **_REBUILD}),
    RESIZED: ("VERIFY_RESIZE", {"resize_reverting": "REVERT_RESIZE"}),
    PAUSED: ("PAUSED", _MIGRATING),
    SUSPENDED: ("SUSPENDED", {}),
    RESCUED: ("RESCUE", {}),
    ERROR: ("ERROR", _REBUILD),
    DELETED: ("DELETED", {}),
    SOFT_DELETED: ("SOFT_DELETED", {}),
    SHELVED: ("SHELVED", {}),
    SHELVED_OFFLOADED: ("SHELVED_OFFLOADED", {}),
}
UNKNOWN_STATUS = "UNKNOWN"
PROGRESS_STATUSES = frozenset({"ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING"})
FAULT_STATUSES = frozenset({"ERROR", "DELETED"})


def status(vm_state: str | None, task_state: str | None) -> str:
    """The `status` of the Compute API for a server in these states."""
    default, exceptions = _STATUS.get(vm_state or "", (UNKNOWN_STATUS, {}))
    return exceptions.get(task_state, default) if task_state else default


def states_of_status(wanted: Iterable[str]) -> list[tuple[str, tuple[str, ...] | None, tuple[str, ...]]]:
    """What a status filter asks of the rows.

    Returns a list of (vm_state, task_states or None for "any but the excluded", excluded task_states), to be joined
    with OR. An unknown status gives nothing.
    """
    states: list[tuple[str, tuple[str, ...] | None, tuple[str, ...]]] = []
    names = {name.upper() for name in wanted}
    for vm_state, (default, exceptions) in _STATUS.items():
        if default in names:
            states.append((vm_state, None, tuple(task for task, name in exceptions.items() if name not in names)))
        else:
            tasks = tuple(task for task, name in exceptions.items() if name in names)
            if tasks:
                states.append((vm_state, tasks, ()))
    return states


def known_statuses() -> frozenset[str]:
    """Every status that a filter may name."""
    return frozenset(name for default, more in _STATUS.values() for name in (default, *more.values()))
