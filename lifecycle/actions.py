"""THE table of server actions: who may, how it is asked for, from which states, which states meanwhile and after, and
where.

Source: OpenStack Nova's behaviour as in the Compute API reference (states and legal actions). The API's routes and
policy rules, admission, the refusals, the history, the conductor's settling of a finished action, the hypervisor's work
and the drawn state graph all read the same row.
"""

import dataclasses
import enum

from lifecycle import states


class At(enum.Enum):
    """Where an action's work is done."""

    API = "api"  # a change of the record alone
    HOST = "host"  # the hypervisor's work, through the cell conductor


class Role(enum.Enum):
    """Who may by default: those who have the role in the server's project. An admin always may."""

    ADMIN = "admin"
    MEMBER = "member"


@dataclasses.dataclass(frozen=True)
class Rule:
    """A policy rule: its name, under which operators may redefine who may, and who may while they don't."""

    name: str
    default: Role
    description: str


ACTION_PATH = "/servers/{id}/action"
"""Where a body's one key names the action."""


@dataclasses.dataclass(frozen=True)
class Request:
    """How an action is asked for over HTTP.

    Attributes:
        method, path: of the route.
        key: of the body at `ACTION_PATH`; empty for other paths.
        type: the value of the body's `type` that asks for this action, where several actions have one key; of a
            delete, which kind the settings make of it. Empty: the rest says it all.
        since, until: the microversions that have it; `until` None: all that follow.
    """

    method: str
    path: str
    key: str = ""
    type: str = ""
    since: str = "2.1"
    until: str | None = None


# Both are met by states that this release does not know, too.
ANY: frozenset[str] = frozenset(states.VM_STATES) - {states.DELETED}
NOT_SOFT_DELETED: frozenset[str] = ANY - {states.SOFT_DELETED}
ANY_TASK: frozenset[str | None] | None = None  # no look at the task state


@dataclasses.dataclass(frozen=True, kw_only=True)
class Action:
    """One row.

    Attributes:
        name: the name that the instance action record and a refusal show, which is the one that OpenStack's clients
            know.
        rule: who may.
        request: how it is asked for. An action with several requests has a row for each.
        when: vm_states from which it may begin; none for the action that makes the server.
        while_task: task_states in which it may begin; `ANY_TASK` for all.
        except_task: task_states in which it may not begin, whatever `while_task` says.
        during: task_state while it runs (host actions).
        steps: task_states that its host may report meanwhile, after `during`.
        then: vm_state afterwards; None leaves it.
        keeps: vm_states that the server has again afterwards, instead of `then`.
        power: power_state afterwards; None leaves it.
        failed: vm_state after a fault in the midst of the work; None: as it was. A fault before anything was done
            leaves it, too.
        in_any_case: whether a fault before anything was done leads to `failed`, too: the record, or the mapping, says
            already what the server is to be.
        until_answered: whether the order is sent again, after `failed`, until the host has said that nothing runs.
        at: where it runs.
        operation: the key under which the cell conductor and the host's agent know it; empty: it is no operation on a
            living server.
        even_if_locked: whether a locked server allows it to its plain owner.
        launched: whether the server must have run at least once.
        with_spec: whether the record is changed when it begins, and its order carries the server's specification.
        event: the name of its event; None: made of the action's name.
        deadline_s: seconds after which the conductor gives it up, with a fault.
        host_deadline_s: of these, seconds that the host's work may take; None: what the host's settings say.
    """

    name: str
    rule: Rule
    request: Request
    when: frozenset[str]
    while_task: frozenset[str | None] | None = frozenset({states.IDLE})
    except_task: frozenset[str] = frozenset()
    during: str | None = None
    steps: tuple[str, ...] = ()
    then: str | None = None
    keeps: frozenset[str] = frozenset()
    power: int | None = None
    failed: str | None = None
    in_any_case: bool = False
    until_answered: bool = False
    at: At = At.HOST
    operation: str = ""
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


def _key(key: str, *, type: str = "", since: str = "2.1", until: str | None = None) -> Request:
    return Request("POST", ACTION_PATH, key=key, type=type, since=since, until=until)


# ---- the server itself -----------------------------------------------------------------------------------------------

CREATE = Action(
    name="create",
    rule=Rule("os_compute_api:servers:create", Role.MEMBER, "Create servers"),
    request=Request("POST", "/servers"),
    when=frozenset(),
    during=states.SCHEDULING,
    steps=(states.SPAWNING,),
    then=states.ACTIVE,
    failed=states.ERROR,
    launched=False,
    event="compute__do_build_and_run_instance",
)
UPDATE = Action(
    name="update",
    rule=Rule("os_compute_api:servers:update", Role.MEMBER, "Change a server's name, description, addresses"),
    request=Request("PUT", "/servers/{id}"),
    when=ANY,
    while_task=ANY_TASK,
    at=At.API,
    even_if_locked=True,
    launched=False,
)
DELETE = Action(
    name="delete",
    rule=Rule("os_compute_api:servers:delete", Role.MEMBER, "Delete a server"),
    request=Request("DELETE", "/servers/{id}"),
    when=ANY,
    while_task=ANY_TASK,
    during=states.DELETING,
    then=states.DELETED,
    launched=False,
    event="compute_terminate_instance",
)
# What becomes of a delete where deleted servers can be restored for a while.
SOFT_DELETE = dataclasses.replace(
    DELETE,
    request=Request("DELETE", "/servers/{id}", type="SOFT"),
    during=states.SOFT_DELETING,
    then=states.SOFT_DELETED,
    power=states.SHUTDOWN,
    failed=states.SOFT_DELETED,
    in_any_case=True,
    until_answered=True,
    operation="soft-delete",
    event="compute_soft_delete_instance",
)
# Its record is that of a delete.
FORCE_DELETE = dataclasses.replace(
    DELETE,
    name="forceDelete",
    rule=Rule("os_compute_api:os-deferred-delete:force", Role.MEMBER, "Delete a server for good"),
    request=_key("forceDelete"),
)
RESTORE = Action(
    name="restore",
    rule=Rule("os_compute_api:os-deferred-delete:restore", Role.MEMBER, "Restore a server that is soft-deleted"),
    request=_key("restore"),
    when=_in(states.SOFT_DELETED),
    during=states.RESTORING,
    then=states.ACTIVE,
    power=states.RUNNING,
    failed=states.STOPPED,
    in_any_case=True,
    operation="restore",
)

# ---- whether and how the guest runs ----------------------------------------------------------------------------------

START = Action(
    name="start",
    rule=Rule("os_compute_api:servers:start", Role.MEMBER, "Start a server"),
    request=_key("os-start"),
    when=_in(states.STOPPED),
    during=states.POWERING_ON,
    then=states.ACTIVE,
    power=states.RUNNING,
    operation="start",
)
STOP = Action(
    name="stop",
    rule=Rule("os_compute_api:servers:stop", Role.MEMBER, "Stop a server"),
    request=_key("os-stop"),
    when=_in(states.ACTIVE, states.ERROR),
    during=states.POWERING_OFF,
    then=states.STOPPED,
    power=states.SHUTDOWN,
    operation="stop",
)
REBOOT_SOFT = Action(
    name="reboot",
    rule=Rule("os_compute_api:servers:reboot", Role.MEMBER, "Reboot a server"),
    request=_key("reboot", type="SOFT"),
    when=_in(states.ACTIVE),
    during=states.REBOOTING,
    then=states.ACTIVE,
    power=states.RUNNING,
    operation="reboot-soft",
)
REBOOT_HARD = dataclasses.replace(
    REBOOT_SOFT,
    request=_key("reboot", type="HARD"),
    when=_in(states.ACTIVE, states.STOPPED, states.PAUSED, states.SUSPENDED, states.ERROR),
    while_task=frozenset(
        {
            states.IDLE, states.REBOOTING, states.REBOOT_PENDING, states.REBOOT_STARTED, states.REBOOTING_HARD,
            states.RESUMING, states.UNPAUSING, states.PAUSING, states.SUSPENDING,
        }
    ),
    during=states.REBOOTING_HARD,
    operation="reboot-hard",
)  # fmt: skip
PAUSE = Action(
    name="pause",
    rule=Rule("os_compute_api:os-pause-server:pause", Role.MEMBER, "Pause a server"),
    request=_key("pause"),
    when=_in(states.ACTIVE),
    during=states.PAUSING,
    then=states.PAUSED,
    power=states.POWER_PAUSED,
    operation="pause",
)
UNPAUSE = Action(
    name="unpause",
    rule=Rule("os_compute_api:os-pause-server:unpause", Role.MEMBER, "Unpause a server"),
    request=_key("unpause"),
    when=_in(states.PAUSED),
    during=states.UNPAUSING,
    then=states.ACTIVE,
    power=states.RUNNING,
    operation="unpause",
)
SUSPEND = Action(
    name="suspend",
    rule=Rule("os_compute_api:os-suspend-server:suspend", Role.MEMBER, "Suspend a server"),
    request=_key("suspend"),
    when=_in(states.ACTIVE),
    during=states.SUSPENDING,
    then=states.SUSPENDED,
    power=states.SHUTDOWN,
    operation="suspend",
)
RESUME = Action(
    name="resume",
    rule=Rule("os_compute_api:os-suspend-server:resume", Role.MEMBER, "Resume a server"),
    request=_key("resume"),
    when=_in(states.SUSPENDED),
    during=states.RESUMING,
    then=states.ACTIVE,
    power=states.RUNNING,
    operation="resume",
)

# ---- other operations on the host ------------------------------------------------------------------------------------

# These may have to fetch an image first.
RESCUE = Action(
    name="rescue",
    rule=Rule("os_compute_api:os-rescue", Role.MEMBER, "Rescue a server"),
    request=_key("rescue"),
    when=_in(states.ACTIVE, states.STOPPED, states.ERROR),
    during=states.RESCUING,
    then=states.RESCUED,
    power=states.RUNNING,
    failed=states.ERROR,
    operation="rescue",
    deadline_s=1200.0,
    host_deadline_s=900.0,
)
UNRESCUE = Action(
    name="unrescue",
    rule=Rule("os_compute_api:os-unrescue", Role.MEMBER, "Unrescue a server"),
    request=_key("unrescue"),
    when=_in(states.RESCUED),
    during=states.UNRESCUING,
    then=states.ACTIVE,
    power=states.RUNNING,
    failed=states.ERROR,
    operation="unrescue",
)
REBUILD = Action(
    name="rebuild",
    rule=Rule("os_compute_api:servers:rebuild", Role.MEMBER, "Rebuild a server"),
    request=_key("rebuild"),
    when=_in(states.ACTIVE, states.STOPPED, states.ERROR),
    during=states.REBUILDING,
    steps=(states.REBUILD_SPAWNING,),
    then=states.ACTIVE,
    keeps=_in(states.STOPPED),
    power=states.RUNNING,
    failed=states.ERROR,
    in_any_case=True,
    operation="rebuild",
    with_spec=True,
    deadline_s=1200.0,
    host_deadline_s=900.0,
)
CREATE_IMAGE = Action(
    name="createImage",
    rule=Rule("os_compute_api:servers:create_image", Role.MEMBER, "Create an image of a server"),
    request=_key("createImage"),
    when=_in(states.ACTIVE, states.STOPPED, states.PAUSED, states.SUSPENDED),
    during=states.IMAGE_SNAPSHOT_PENDING,
    steps=(states.IMAGE_SNAPSHOT, states.IMAGE_PENDING_UPLOAD, states.IMAGE_UPLOADING),
    operation="create-image",
    even_if_locked=True,
    event="compute_snapshot_instance",
    deadline_s=7200.0,
    host_deadline_s=6600.0,
)
CREATE_BACKUP = dataclasses.replace(
    CREATE_IMAGE,
    name="createBackup",
    rule=Rule("os_compute_api:os-create-backup", Role.MEMBER, "Create a backup image of a server, and remove old ones"),
    request=_key("createBackup"),
    during=states.IMAGE_BACKUP,
    steps=(states.IMAGE_PENDING_UPLOAD, states.IMAGE_UPLOADING),
    operation="create-backup",
    event="compute_backup_instance",
)
CHANGE_PASSWORD = Action(
    name="changePassword",
    rule=Rule("os_compute_api:os-admin-password", Role.MEMBER, "Set the password of a server's administrator"),
    request=_key("changePassword"),
    when=_in(states.ACTIVE),
    during=states.UPDATING_PASSWORD,
    then=states.ACTIVE,
    operation="change-password",
    event="compute_set_admin_password",
    deadline_s=60.0,
    host_deadline_s=30.0,
)
TRIGGER_CRASH_DUMP = Action(
    name="trigger_crash_dump",
    rule=Rule(
        "os_compute_api:servers:trigger_crash_dump", Role.MEMBER, "Make the kernel of a server's guest dump itself"
    ),
    request=_key("trigger_crash_dump", since="2.17"),
    when=_in(states.ACTIVE, states.PAUSED, states.RESCUED, states.RESIZED, states.ERROR),
    operation="trigger-crash-dump",
    event="compute_trigger_crash_dump",
    deadline_s=60.0,
    host_deadline_s=30.0,
)

# ---- changes of the record -------------------------------------------------------------------------------------------

LOCK = Action(
    name="lock",
    rule=Rule("os_compute_api:os-lock-server:lock", Role.MEMBER, "Lock a server"),
    request=_key("lock"),
    when=ANY,
    while_task=ANY_TASK,
    at=At.API,
    even_if_locked=True,
    launched=False,
)
UNLOCK = dataclasses.replace(
    LOCK,
    name="unlock",
    rule=Rule("os_compute_api:os-lock-server:unlock", Role.MEMBER, "Unlock a server"),
    request=_key("unlock"),
)
RESET_STATE = dataclasses.replace(
    LOCK,
    name="resetState",
    rule=Rule("os_compute_api:os-admin-actions:reset_state", Role.ADMIN, "Set the state of a server's record"),
    request=_key("os-resetState"),
    # It would show what the mapping hides, or end what the mapping has decided.
    when=NOT_SOFT_DELETED,
    except_task=_in(states.SOFT_DELETING, states.RESTORING),
)
# The networks of guests are told nothing from inside: there is nothing to be done, but for whoever may ask.
INJECT_NETWORK_INFO = dataclasses.replace(
    LOCK,
    name="injectNetworkInfo",
    rule=Rule("os_compute_api:os-admin-actions:inject_network_info", Role.ADMIN, "Tell a server's guest its networks"),
    request=_key("injectNetworkInfo"),
    when=NOT_SOFT_DELETED,
    even_if_locked=False,
)
CLEAR_PASSWORD = dataclasses.replace(
    LOCK,
    name="clear password",
    rule=Rule("os_compute_api:os-server-password:clear", Role.MEMBER, "Clear the password that a server's guest left"),
    request=Request("DELETE", "/servers/{server_id}/os-server-password"),
    when=NOT_SOFT_DELETED,
)

_METADATA = "/servers/{server_id}/metadata"
MERGE_METADATA = Action(
    name="update metadata",
    rule=Rule("os_compute_api:server-metadata:create", Role.MEMBER, "Add items to a server's metadata"),
    request=Request("POST", _METADATA),
    when=_in(states.ACTIVE, states.PAUSED, states.SUSPENDED, states.STOPPED),
    while_task=ANY_TASK,
    at=At.API,
)
REPLACE_METADATA = dataclasses.replace(
    MERGE_METADATA,
    rule=Rule("os_compute_api:server-metadata:update_all", Role.MEMBER, "Replace a server's metadata"),
    request=Request("PUT", _METADATA),
)
SET_METADATA_ITEM = dataclasses.replace(
    MERGE_METADATA,
    rule=Rule("os_compute_api:server-metadata:update", Role.MEMBER, "Set one item of a server's metadata"),
    request=Request("PUT", _METADATA + "/{key}"),
)
DELETE_METADATA_ITEM = dataclasses.replace(
    MERGE_METADATA,
    name="delete metadata",
    rule=Rule("os_compute_api:server-metadata:delete", Role.MEMBER, "Delete one item of a server's metadata"),
    request=Request("DELETE", _METADATA + "/{key}"),
)

_TAGS = "/servers/{server_id}/tags"
REPLACE_TAGS = Action(
    name="update tags",
    rule=Rule("os_compute_api:os-server-tags:update_all", Role.MEMBER, "Replace a server's tags"),
    request=Request("PUT", _TAGS, since="2.26"),
    when=_in(states.ACTIVE, states.PAUSED, states.SUSPENDED, states.STOPPED),
    while_task=ANY_TASK,
    at=At.API,
    even_if_locked=True,
)
ADD_TAG = dataclasses.replace(
    REPLACE_TAGS,
    rule=Rule("os_compute_api:os-server-tags:update", Role.MEMBER, "Add a tag to a server"),
    request=Request("PUT", _TAGS + "/{tag}", since="2.26"),
)
DELETE_TAGS = dataclasses.replace(
    REPLACE_TAGS,
    name="delete tags",
    rule=Rule("os_compute_api:os-server-tags:delete_all", Role.MEMBER, "Delete all tags of a server"),
    request=Request("DELETE", _TAGS, since="2.26"),
)
DELETE_TAG = dataclasses.replace(
    DELETE_TAGS,
    rule=Rule("os_compute_api:os-server-tags:delete", Role.MEMBER, "Delete a tag of a server"),
    request=Request("DELETE", _TAGS + "/{tag}", since="2.26"),
)

# ---- questions to the host -------------------------------------------------------------------------------------------

CONSOLE_OUTPUT = Action(
    name="os-getConsoleOutput",
    rule=Rule("os_compute_api:os-console-output", Role.MEMBER, "Read a server's console log"),
    request=_key("os-getConsoleOutput"),
    when=NOT_SOFT_DELETED,
    while_task=ANY_TASK,
    even_if_locked=True,
    launched=False,
)
GET_DIAGNOSTICS = dataclasses.replace(
    CONSOLE_OUTPUT,
    name="get-diagnostics",
    rule=Rule("os_compute_api:os-server-diagnostics", Role.ADMIN, "See diagnostics of a server"),
    request=Request("GET", "/servers/{server_id}/diagnostics"),
)
GET_CONSOLE = dataclasses.replace(
    CONSOLE_OUTPUT,
    name="get-console",
    rule=Rule("os_compute_api:os-remote-consoles", Role.MEMBER, "Get an address that opens a console of a server"),
    request=Request("POST", "/servers/{server_id}/remote-consoles", since="2.6"),
    except_task=_in(states.DELETING, states.MIGRATING),
)
GET_VNC_CONSOLE = dataclasses.replace(GET_CONSOLE, request=_key("os-getVNCConsole", until="2.5"))
GET_SPICE_CONSOLE = dataclasses.replace(GET_CONSOLE, request=_key("os-getSPICEConsole", until="2.5"))
GET_SERIAL_CONSOLE = dataclasses.replace(GET_CONSOLE, request=_key("os-getSerialConsole", until="2.5"))

# ---- the table -------------------------------------------------------------------------------------------------------

ACTIONS: tuple[Action, ...] = (
    CREATE, UPDATE, DELETE, SOFT_DELETE, FORCE_DELETE, RESTORE,
    START, STOP, REBOOT_SOFT, REBOOT_HARD, PAUSE, UNPAUSE, SUSPEND, RESUME,
    RESCUE, UNRESCUE, REBUILD, CREATE_IMAGE, CREATE_BACKUP, CHANGE_PASSWORD, TRIGGER_CRASH_DUMP,
    LOCK, UNLOCK, RESET_STATE, INJECT_NETWORK_INFO, CLEAR_PASSWORD, MERGE_METADATA, REPLACE_METADATA, SET_METADATA_ITEM,
    DELETE_METADATA_ITEM,
    REPLACE_TAGS, ADD_TAG, DELETE_TAGS, DELETE_TAG,
    CONSOLE_OUTPUT, GET_DIAGNOSTICS, GET_CONSOLE, GET_VNC_CONSOLE, GET_SPICE_CONSOLE, GET_SERIAL_CONSOLE,
)  # fmt: skip

# the key under which the cell conductor and the host's agent know an operation
OPERATIONS: dict[str, Action] = {action.operation: action for action in ACTIONS if action.operation}

# operations that only change whether and how the guest runs: its power state is theirs to say, and a fault harms
# nothing
POWER_OPERATIONS: dict[str, Action] = {
    key: action for key, action in OPERATIONS.items() if action.power is not None and action.failed is None
}

# the action's key in the body of POST /servers/{id}/action; reboot, which is chosen by its type, is not among them
BY_REQUEST: dict[str, Action] = {
    action.request.key: action for action in ACTIONS if action.request.key and not action.request.type
}
