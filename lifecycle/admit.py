"""May this action begin on this server? One function over the table, for every action."""

import core.errors
from lifecycle import actions


def admit(
    action: actions.Action,
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
    if locked and not action.even_if_locked and not caller_is_admin:
        raise core.errors.Locked(f"Instance {server} is locked", server=server)
    if vm_state not in action.when:
        raise _refused(action, server, "vm_state", vm_state)
    if action.while_task is not None and task_state not in action.while_task:
        raise _refused(action, server, "task_state", task_state)
    if action.launched and not launched:
        raise _refused(action, server, "launched_at", None)


def _refused(action: actions.Action, server: str, attribute: str, state: str | None) -> core.errors.WrongState:
    return core.errors.WrongState(
        f"Cannot '{action.name}' instance {server} while it is in {attribute} {state}", server=server, state=state
    )
