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
        name: the name that the instance action record shows.
        when: vm_states from which it may begin.
        while_task: task_states in which it may begin; `ANY_TASK` for all.
        during: task_state while it runs (host actions).
        then: vm_state afterwards; None leaves it.
        power: power_state afterwards; None leaves it.
        at: where it runs.
        even_if_locked: whether a locked server allows it to its plain owner.
        launched: whether the server must have run at least once.
    """

    name: str
    when: frozenset[str]
    while_task: frozenset[str | None] | None = frozenset({states.IDLE})
    during: str | None = None
    then: str | None = None
    power: int | None = None
    at: At = At.HOST
    even_if_locked: bool = False
    launched: bool = True


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
LOCK = Action("lock", ANY, while_task=ANY_TASK, at=At.API, even_if_locked=True, launched=False)
UNLOCK = Action("unlock", ANY, while_task=ANY_TASK, at=At.API, even_if_locked=True, launched=False)
RESET_STATE = Action("reset-state", ANY, while_task=ANY_TASK, at=At.API, even_if_locked=True, launched=False)
DELETE = Action("delete", ANY, while_task=ANY_TASK, during=states.DELETING, then=states.DELETED, launched=False)
CONSOLE_OUTPUT = Action("console-output", ANY, while_task=ANY_TASK, at=At.HOST, even_if_locked=True, launched=False)

# the key under which the cell conductor and the host's agent know an operation
OPERATIONS: dict[str, Action] = {
    "start": START,
    "stop": STOP,
    "reboot-soft": REBOOT_SOFT,
    "reboot-hard": REBOOT_HARD,
    "pause": PAUSE,
    "unpause": UNPAUSE,
    "suspend": SUSPEND,
    "resume": RESUME,
}

# the action's key in the body of POST /servers/{id}/action; reboot is chosen by its type
BY_REQUEST: dict[str, Action] = {
    "os-start": START,
    "os-stop": STOP,
    "pause": PAUSE,
    "unpause": UNPAUSE,
    "suspend": SUSPEND,
    "resume": RESUME,
    "lock": LOCK,
    "unlock": UNLOCK,
    "os-resetState": RESET_STATE,
    "os-getConsoleOutput": CONSOLE_OUTPUT,
}
