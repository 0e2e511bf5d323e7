"""May this action begin on this server? One function over the table, for every action."""

from lifecycle import refusals, states
from lifecycle.actions import ANY, ANY_TASK, NOT_SOFT_DELETED, Action


def admit(
    action: Action,
    *,
    server: str,
    vm_state: str | None,
    task_state: str | None,
    launched: bool,
    locked: bool,
    caller_is_admin: bool,
) -> None:
    """Returns if the action may begin.

    Raises:
        Locked: the server is locked and the caller is not an admin.
        WrongState: its state does not allow the action; the message names the state.
    """
    admit_lock(action, server=server, locked=locked, caller_is_admin=caller_is_admin)
    if not _is_from(action, vm_state):
        raise refusals.wrong_state(action, server, attribute="vm_state", state=vm_state)
    if not _fits(action, task_state):
        raise refusals.wrong_state(action, server, attribute="task_state", state=task_state)
    if action.launched and not launched:
        raise refusals.wrong_state(action, server, attribute="launched_at", state=None)


def admit_lock(action: Action, *, server: str, locked: bool, caller_is_admin: bool) -> None:
    """Returns if the server's lock allows the action: what can be asked where its states are not known.

    Raises:
        Locked: the server is locked and the caller is not an admin.
    """
    if locked and not action.even_if_locked and not caller_is_admin:
        raise refusals.locked(server)


def is_always_admitted(action: Action, *, caller_is_admin: bool) -> bool:
    """Whether no state of a living server, nor its lock, could refuse the action to this caller."""
    whatever_state = (
        action.when == ANY and action.while_task is ANY_TASK and not action.except_task and not action.launched
    )
    return whatever_state and (action.even_if_locked or caller_is_admin)


def _is_from(action: Action, vm_state: str | None) -> bool:
    """A state that this release does not know allows what nearly every state does: whoever owns such a server must be
    able to delete it."""
    is_unknown = vm_state not in states.VM_STATES
    return vm_state in action.when or (is_unknown and action.when in (ANY, NOT_SOFT_DELETED))


def _fits(action: Action, task_state: str | None) -> bool:
    return (action.while_task is None or task_state in action.while_task) and task_state not in action.except_task
