"""What users are told who cannot have what they asked of a server. Each sentence is composed here and nowhere else."""

import core.errors
from lifecycle.actions import Action


def not_found(uuid: str) -> core.errors.NotFound:
    """There is no such server, or not for this caller; `uuid` in the caller's spelling."""
    return core.errors.NotFound(f"Instance {uuid} could not be found.", server=uuid)


def locked(uuid: str) -> core.errors.Locked:
    """The server is locked and the caller is no admin."""
    return core.errors.Locked(f"Instance {uuid} is locked", server=uuid)


def wrong_state(
    action: Action, uuid: str, *, attribute: str, state: str | None, why: str = ""
) -> core.errors.WrongState:
    """The server's state does not allow the action. `attribute`: which state it is; `why`: what the state alone does
    not say."""
    sentence = f"Cannot '{action.name}' instance {uuid} while it is in {attribute} {state}"
    return core.errors.WrongState(f"{sentence}: {why}" if why else sentence, server=uuid, state=state)


def no_host(action: Action, uuid: str, *, vm_state: str) -> core.errors.WrongState:
    """The action needs the server's host, and the server has none."""
    return wrong_state(action, uuid, attribute="vm_state", state=vm_state, why="it has no host")


def joins_no_group(uuid: str, *, vm_state: str) -> core.errors.WrongState:
    """The server cannot become a member of a server group: it has no host that it stays on."""
    sentence = f"Instance {uuid} cannot join a server group while it is in vm_state {vm_state}: it has no host"
    return core.errors.WrongState(sentence, server=uuid, state=vm_state)
