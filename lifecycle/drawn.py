"""The table of actions as a page: `python -m lifecycle.drawn > docs/states.md`. A test keeps page and table alike."""

from collections.abc import Collection, Iterable, Iterator

from lifecycle import actions, states
from lifecycle.actions import Action, At

_HEAD = """\
# The states of a server

Made from `lifecycle/actions.py` by `python -m lifecycle.drawn > docs/states.md`; change the table, not this page.

A server has a `vm_state` (what it is), a `task_state` (what is being done to it; `-`: nothing) and a `power_state` (what its host said
last). The `status` of the Compute API follows from the first two. Where a build or a delete stands is kept apart from these three:
[decision 0006](decisions/0006-two-state-columns.md).
"""

# No action of a user: how a build ends. The conductor writes these (cell_db.instances: insert, active, supersede, lost_guest).
_BUILDS = (
    ("[*]", states.BUILDING, "create"),
    (states.BUILDING, states.ACTIVE, "built"),
    (states.BUILDING, states.ERROR, "no host is left"),
)

_AT = {At.API: "record", At.HOST: "host"}
_POWER = {states.RUNNING: "running", states.POWER_PAUSED: "paused", states.SHUTDOWN: "shutdown"}


def page() -> str:
    """The page, whole."""
    return "\n".join([_HEAD, *_diagram(), "", *_actions(), "", *_statuses(), ""])


# ---- the diagram -------------------------------------------------------------------------------------------------------


def _diagram() -> Iterator[str]:
    yield "```mermaid"
    yield "stateDiagram-v2"
    edges = [*_BUILDS, *_edges(actions.OPERATIONS)]
    for start, end in dict.fromkeys((start, end) for start, end, _ in edges):
        names = ", ".join(name for a, b, name in edges if (a, b) == (start, end))
        yield f"    {start} --> {end}: {names}"
    yield "```"
    yield ""
    yield "Not drawn, because every state allows it: " + ", ".join(f"`{action.name}`" for action in _from_anywhere()) + "."


def _edges(operations: dict[str, Action]) -> Iterator[tuple[str, str, str]]:
    for key, action in ((key, action) for key, action in operations.items() if action.then):
        for start in _ordered(action.when):
            yield start, _after(action, start), key


def _from_anywhere() -> list[Action]:
    return [action for action, _ in _rows() if action.when == actions.ANY]


# ---- the tables --------------------------------------------------------------------------------------------------------


def _actions() -> Iterator[str]:
    yield "## Actions"
    yield ""
    yield "*Request*: the key in the body of `POST /servers/{id}/action`. *Locked*: whether the plain owner may do it to a locked server."
    yield "Whatever is refused is a 409 that names the state. All but those marked * need a server that has run at least once."
    yield "*On a fault*: the state of a server whose host failed in the midst of the work, or was silent for longer than *within*; a fault"
    yield "before anything was done to the guest leaves the server as it was. A failed rebuild is an error in any case: the record says already"
    yield "what the guest should be."
    yield ""
    yield from _table(
        ("action", "request", "from vm_state", "from task_state", "meanwhile", "then", "power", "on a fault", "within", "done at", "locked"),
        (_action_row(action, request) for action, request in _rows()),
    )


def _rows() -> Iterator[tuple[Action, str]]:
    """Every action once, with how it is asked for."""
    shown: list[Action] = []
    for request, action in actions.BY_REQUEST.items():
        shown.append(action)
        yield action, f"`{request}`"
    for key, action in actions.OPERATIONS.items():
        if action not in shown:
            yield action, f"`reboot` ({key.removeprefix('reboot-')})"
    yield actions.DELETE, "`DELETE /servers/{id}`"


def _action_row(action: Action, request: str) -> tuple[str, ...]:
    return (
        action.name + ("" if action.launched else " *"),
        request,
        "any" if action.when == actions.ANY else ", ".join(_ordered(action.when)),
        "any" if action.while_task is None else ", ".join(sorted(task or "-" for task in action.while_task)),
        ", ".join(filter(None, (action.during, *action.steps))) or "-",
        _then(action),
        "-" if action.power is None else _POWER[action.power],
        action.failed or ("as it was" if _is_operation(action) else "-"),
        f"{action.deadline_s:g} s" if _is_operation(action) else "-",
        _AT[action.at],
        "yes" if action.even_if_locked else "no",
    )


def _after(action: Action, start: str) -> str:
    return start if action.then is None or start in action.keeps else action.then


def _then(action: Action) -> str:
    if action.then is None:
        return "as it was"
    return action.then + "".join(f"; {kept} again" for kept in _ordered(action.keeps))


def _is_operation(action: Action) -> bool:
    return action in actions.OPERATIONS.values()


def _statuses() -> Iterator[str]:
    yield "## Status"
    yield ""
    yield "`UNKNOWN` is shown for a server whose cell does not answer. States that no action above leads to are kept for moves and shelving,"
    yield "which are not there yet."
    yield ""
    yield from _table(("vm_state", "status", "while a task runs"), (_status_row(vm_state) for vm_state in states.VM_STATES))


def _status_row(vm_state: str) -> tuple[str, ...]:
    plain = states.status(vm_state, states.IDLE)
    tasks = dict.fromkeys(action.during for action in actions.OPERATIONS.values() if action.during and vm_state in action.when)
    others = [f"{task}: {status}" for task in tasks if (status := states.status(vm_state, task)) != plain]
    return vm_state, plain, ", ".join(others) or "-"


def _table(head: Collection[str], rows: Iterable[Collection[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _ordered(vm_states: Collection[str]) -> list[str]:
    return [vm_state for vm_state in states.VM_STATES if vm_state in vm_states]


if __name__ == "__main__":
    print(page(), end="")
