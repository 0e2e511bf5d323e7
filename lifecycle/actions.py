"""THE table of server actions: from which states, which state meanwhile, which after, and where the work runs.

Source: OpenStack Nova's behaviour as in the Compute API reference (states and legal actions). Admission, the conductor's settling of a
finished action, the hypervisor's work and the drawn state graph all read the same row.
"""

import dataclasses
import enum

from lifecycle import states


class At(enum.Enum):
    """Where an action's work is done."""

    API = "api"  # a change of the record alone
    HOST = "host"  # the hypervisor's work, through the cell conductor


ANY: frozenset[str] = frozenset(states.VM_STATES) - {states.DELETED}
ANY_TASK: frozenset[str | None] | None = None  # no look at the task state


@dataclasses.dataclass(frozen=True)
class Action:
    """One row.

    Attributes:
        name: the name that the instance action record shows, which is the one that OpenStack's clients know.
        when: vm_states from which it may begin.
        while_task: task_states in which it may begin; `ANY_TASK` for all.
        during: task_state while it runs (host actions).
        steps: task_states that its host may report meanwhile, after `during`.
        then: vm_state afterwards; None leaves it.
        keeps: vm_states that the server has again afterwards, instead of `then`.
        power: power_state afterwards; None leaves it.
        failed: vm_state after a fault in the midst of the work; None: as it was. A fault before anything was done leaves it, too.
        at: where it runs.
        even_if_locked: whether a locked server allows it to its plain owner.
        launched: whether the server must have run at least once.
        with_spec: whether the record is changed when it begins, and its order carries the server's specification.
        event: the name of its event; None: made of the action's name.
        deadline_s: seconds after which the conductor gives it up, with a fault.
        host_deadline_s: of these, seconds that the host's work may take; None: what the host's settings say.
    """

    name: str
    when: frozenset[str]
    while_task: frozenset[str | None] | None = frozenset({states.IDLE})
    during: str | None = None
    steps: tuple[str, ...] = ()
    then: str | None = None
    keeps: frozenset[str] = frozenset()
    power: int | None = None
    failed: str | None = None
    at: At = At.HOST
    even_if_locked: bool = False
    launched: bool = True
    with_spec: bool = False
    event: str | None = None
    deadline_s: float = 300.0
    host_deadline_s: float | None = None

    @property
    def event_name(self) -> str:
        """Under which name its work on the host is recorded."""
        return self.event or f"compute_{self.name.replace('-', '_')}_instance"


def _in(*names: str) -> frozenset[str]:
    return frozenset(names)


_HARD_REBOOT_TASKS: frozenset[str | None] = frozenset(
    {
        states.IDLE, states.REBOOTING, states.REBOOT_PENDING, states.REBOOT_STARTED, states.REBOOTING_HARD, states.RESUMING,
        states.UNPAUSING, states.PAUSING, states.SUSPENDING,
    }
)  # fmt: skip

START = Action("start", _in(states.STOPPED), during=states.POWERING_ON, then=states.ACTIVE, power=states.RUNNING)
STOP = Action("stop", _in(states.ACTIVE, states.ERROR), during=states.POWERING_OFF, then=states.STOPPED, power=states.SHUTDOWN)
REBOOT_SOFT = Action("reboot", _in(states.ACTIVE), during=states.REBOOTING, then=states.ACTIVE, power=states.RUNNING)
REBOOT_HARD = Action(
    "reboot",
    _in(states.ACTIVE, states.STOPPED, states.PAUSED, states.SUSPENDED, states.ERROR),
    while_task=_HARD_REBOOT_TASKS,
    during=states.REBOOTING_HARD,
    then=states.ACTIVE,
    power=states.RUNNING,
)
PAUSE = Action("pause", _in(states.ACTIVE), during=states.PAUSING, then=states.PAUSED, power=states.POWER_PAUSED)
UNPAUSE = Action("unpause", _in(states.PAUSED), during=states.UNPAUSING, then=states.ACTIVE, power=states.RUNNING)
SUSPEND = Action("suspend", _in(states.ACTIVE), during=states.SUSPENDING, then=states.SUSPENDED, power=states.SHUTDOWN)
RESUME = Action("resume", _in(states.SUSPENDED), during=states.RESUMING, then=states.ACTIVE, power=states.RUNNING)
# These may have to fetch an image first.
RESCUE = Action(
    "rescue",
    _in(states.ACTIVE, states.STOPPED, states.ERROR),
    during=states.RESCUING,
    then=states.RESCUED,
    power=states.RUNNING,
    failed=states.ERROR,
    deadline_s=1200.0,
    host_deadline_s=900.0,
)
UNRESCUE = Action(
    "unrescue", _in(states.RESCUED), during=states.UNRESCUING, then=states.ACTIVE, power=states.RUNNING, failed=states.ERROR
)
REBUILD = Action(
    "rebuild",
    _in(states.ACTIVE, states.STOPPED, states.ERROR),
    during=states.REBUILDING,
    steps=(states.REBUILD_SPAWNING,),
    then=states.ACTIVE,
    keeps=_in(states.STOPPED),
    power=states.RUNNING,
    failed=states.ERROR,
    with_spec=True,
    deadline_s=1200.0,
    host_deadline_s=900.0,
)
CREATE_IMAGE = Action(
    "createImage",
    _in(states.ACTIVE, states.STOPPED, states.PAUSED, states.SUSPENDED),
    during=states.IMAGE_SNAPSHOT_PENDING,
    steps=(states.IMAGE_SNAPSHOT, states.IMAGE_PENDING_UPLOAD, states.IMAGE_UPLOADING),
    even_if_locked=True,
    event="compute_snapshot_instance",
    deadline_s=7200.0,
    host_deadline_s=6600.0,
)
CHANGE_PASSWORD = Action(
    "changePassword",
    _in(states.ACTIVE),
    during=states.UPDATING_PASSWORD,
    then=states.ACTIVE,
    event="compute_set_admin_password",
    deadline_s=60.0,
    host_deadline_s=30.0,
)
TRIGGER_CRASH_DUMP = Action(
    "trigger_crash_dump",
    _in(states.ACTIVE, states.PAUSED, states.RESCUED, states.RESIZED, states.ERROR),
    event="compute_trigger_crash_dump",
    deadline_s=60.0,
    host_deadline_s=30.0,
)
LOCK = Action("lock", ANY, while_task=ANY_TASK, at=At.API, even_if_locked=True, launched=False)
UNLOCK = Action("unlock", ANY, while_task=ANY_TASK, at=At.API, even_if_locked=True, launched=False)
RESET_STATE = Action("resetState", ANY, while_task=ANY_TASK, at=At.API, even_if_locked=True, launched=False)
DELETE = Action(
    "delete", ANY, while_task=ANY_TASK, during=states.DELETING, then=states.DELETED, launched=False, event="compute_terminate_instance"
)
CONSOLE_OUTPUT = Action("os-getConsoleOutput", ANY, while_task=ANY_TASK, at=At.HOST, even_if_locked=True, launched=False)

# operations that only change whether and how the guest runs
POWER_OPERATIONS: dict[str, Action] = {
    "start": START,
    "stop": STOP,
    "reboot-soft": REBOOT_SOFT,
    "reboot-hard": REBOOT_HARD,
    "pause": PAUSE,
    "unpause": UNPAUSE,
    "suspend": SUSPEND,
    "resume": RESUME,
}

# the key under which the cell conductor and the host's agent know an operation
OPERATIONS: dict[str, Action] = {
    **POWER_OPERATIONS,
    "rescue": RESCUE,
    "unrescue": UNRESCUE,
    "rebuild": REBUILD,
    "create-image": CREATE_IMAGE,
    "change-password": CHANGE_PASSWORD,
    "trigger-crash-dump": TRIGGER_CRASH_DUMP,
}

# the action's key in the body of POST /servers/{id}/action; reboot is chosen by its type
BY_REQUEST: dict[str, Action] = {
    "os-start": START,
    "os-stop": STOP,
    "pause": PAUSE,
    "unpause": UNPAUSE,
    "suspend": SUSPEND,
    "resume": RESUME,
    "rescue": RESCUE,
    "unrescue": UNRESCUE,
    "rebuild": REBUILD,
    "createImage": CREATE_IMAGE,
    "changePassword": CHANGE_PASSWORD,
    "trigger_crash_dump": TRIGGER_CRASH_DUMP,
    "lock": LOCK,
    "unlock": UNLOCK,
    "os-resetState": RESET_STATE,
    "os-getConsoleOutput": CONSOLE_OUTPUT,
}
