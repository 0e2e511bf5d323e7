"""The table of actions as a page: `python -m lifecycle.states_page > docs/states.md`. A test keeps page and table
alike."""

from collections.abc import Collection, Iterable, Iterator

from lifecycle import states
from lifecycle.actions import ACTION_PATH, ACTIONS, ANY, CREATE, NOT_SOFT_DELETED, OPERATIONS, Action, At, Request

_HEAD = """\
# The states of a server

Made from `lifecycle/actions.py` by `python -m lifecycle.states_page > docs/states.md`; change the table, not this page.

A server has a `vm_state` (what it is), a `task_state` (what is being done to it; `-`: nothing) and a `power_state` (what its host said
last). The `status` of the Compute API follows from the first two. Where a build or a delete stands is kept apart from these three:
[decision 0006](decisions/0006-two-state-columns.md).
"""

# How a build begins and ends. The conductor writes these (cell_db.builds: insert, active, supersede).
_BUILDS = (
    ("[*]", states.BUILDING, CREATE.name),
    (states.BUILDING, CREATE.then, "built"),
    (states.BUILDING, CREATE.failed, "no host is left"),
)

_AT = {At.API: "record", At.HOST: "host"}
_POWER = {states.RUNNING: "running", states.POWER_PAUSED: "paused", states.SHUTDOWN: "shutdown"}


def page() -> str:
    """The page, whole."""
    return "\n".join([_HEAD, *_diagram(), "", *_actions(), "", *_requests(), "", *_statuses(), ""])


# ---- the diagram -----------------------------------------------------------------------------------------------------


def _diagram() -> Iterator[str]:
    yield "```mermaid"
    yield "stateDiagram-v2"
    edges = [*_BUILDS, *_edges(OPERATIONS)]
    for start, end in dict.fromkeys((start, end) for start, end, _ in edges):
        names = ", ".join(name for a, b, name in edges if (a, b) == (start, end))
        yield f"    {start} --> {end}: {names}"
    yield "```"
    yield ""
    yield "Not drawn, because every state allows it: " + ", ".join(f"`{name}`" for name in _from_anywhere()) + "."


def _edges(operations: dict[str, Action]) -> Iterator[tuple[str, str, str]]:
    drawn = {key: action for key, action in operations.items() if action.then and action.when != ANY}
    for key, action in drawn.items():
        for start in _ordered(action.when):
            yield start, _after(action, start), key


def _from_anywhere() -> dict[str, None]:
    """Their names, each once."""
    return dict.fromkeys(_label(action) for action in ACTIONS if action.when == ANY)


# ---- the tables ------------------------------------------------------------------------------------------------------


def _actions() -> Iterator[str]:
    yield "## Actions"
    yield ""
    yield "*Locked*: whether the plain owner may do it to a locked server. Whatever is refused is a 409 that names the state. All but those"
    yield "marked * need a server that has run at least once."
    yield "*On a fault*: the state of a server whose host failed in the midst of the work, or was silent for longer than *within*; a fault"
    yield "before anything was done to the guest leaves the server as it was. A failed rebuild, soft delete or restore does not: the record says"
    yield "already what the server should be. How long a build may take is [set](operations/settings.md)."
    yield "*delete (soft)* is what `DELETE /servers/{id}` does where `reclaim_instance_interval` is greater than 0"
    yield "([soft delete](operations/soft-delete.md)); `forceDelete` is recorded as `delete`."
    yield ""
    yield from _table(
        (
            "action",
            "from vm_state",
            "from task_state",
            "meanwhile",
            "then",
            "power",
            "on a fault",
            "within",
            "done at",
            "locked",
        ),
        dict.fromkeys(_action_row(action) for action in ACTIONS),
    )


def _action_row(action: Action) -> tuple[str, ...]:
    return (
        _label(action) + ("" if action.launched else " *"),
        _from_vm_state(action),
        _from_task_state(action),
        ", ".join(filter(None, (action.during, *action.steps))) or "-",
        _then(action),
        "-" if action.power is None else _POWER[action.power],
        action.failed or ("as it was" if action.operation else "-"),
        f"{action.deadline_s:g} s" if action.operation else "-",
        _AT[action.at],
        "yes" if action.even_if_locked else "no",
    )


def _label(action: Action) -> str:
    return f"{action.name} ({action.request.type.lower()})" if action.request.type else action.name


def _from_vm_state(action: Action) -> str:
    if action.when == NOT_SOFT_DELETED:
        return f"any but {states.SOFT_DELETED}"
    return "any" if action.when == ANY else ", ".join(_ordered(action.when)) or "no server yet"


def _from_task_state(action: Action) -> str:
    if action.while_task is None:
        return "any but " + ", ".join(sorted(action.except_task)) if action.except_task else "any"
    return ", ".join(sorted(task or "-" for task in action.while_task - action.except_task))


def _after(action: Action, start: str) -> str:
    return start if action.then is None or start in action.keeps else action.then


def _then(action: Action) -> str:
    if action.then is None:
        return "as it was"
    return action.then + "".join(f"; {kept} again" for kept in _ordered(action.keeps))


def _requests() -> Iterator[str]:
    yield "## Requests"
    yield ""
    yield f"A key alone is that of the body of `POST {ACTION_PATH}`. *Rule*: the policy rule that says who may; *by default*: the role that it"
    yield "takes in the server's project. An admin always may."
    yield ""
    yield from _table(
        ("request", "action", "microversions", "rule", "by default"), (_request_row(action) for action in ACTIONS)
    )


def _request_row(action: Action) -> tuple[str, ...]:
    return (
        _asked(action.request),
        _label(action),
        _span(action.request),
        f"`{action.rule.name}`",
        action.rule.default.value,
    )


def _asked(request: Request) -> str:
    if not request.key:
        return f"`{request.method} {request.path}`"
    return f"`{request.key}`" + (f", type {request.type}" if request.type else "")


def _span(request: Request) -> str:
    return f"{request.since} on" if request.until is None else f"{request.since} to {request.until}"


def _statuses() -> Iterator[str]:
    yield "## Status"
    yield ""
    yield "`UNKNOWN` is shown for a server whose cell does not answer. States that no action above leads to are kept for moves and shelving,"
    yield "which are not there yet."
    yield ""
    yield from _table(
        ("vm_state", "status", "while a task runs"), (_status_row(vm_state) for vm_state in states.VM_STATES)
    )


def _status_row(vm_state: str) -> tuple[str, ...]:
    plain = states.status(vm_state, states.IDLE)
    tasks = dict.fromkeys(action.during for action in OPERATIONS.values() if action.during and vm_state in action.when)
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
