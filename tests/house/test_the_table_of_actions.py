"""`lifecycle/actions.py` is the only source of what users may do to a server: routes, policy, admission and refusals
say what its rows say.

`docs/states.md`, which is made of it, is held to it by tests/docs.
"""

import ast
import dataclasses
import itertools
import pathlib
import re
from collections.abc import Iterator

import pytest

import api.main
import api.resources.table
import core.errors
from api.http import policy
from api.http.routes import ActionRoute, Route
from api.http.versions import Microversion, Span
from api.resources import absent, gone
from lifecycle import actions, states
from lifecycle.actions import ACTION_PATH, ACTIONS, BY_REQUEST, OPERATIONS, POWER_OPERATIONS, Action, Role
from lifecycle.admit import admit, is_always_admitted
from tests.house.test_no_default_executor import PRODUCT

REPOSITORY = pathlib.Path(__file__).parents[2]
TABLE, REFUSALS = "lifecycle/actions.py", "lifecycle/refusals.py"
# What is refused always does nothing to a server.
ROUTES: list[Route | ActionRoute] = [
    row for resource in api.resources.table.RESOURCES if resource not in (absent, gone) for row in resource.ROUTES
]
RULES = {rule.name: rule for resource in api.resources.table.RESOURCES for rule in resource.POLICIES}
DEFAULTS = {Role.ADMIN: policy.ADMIN, Role.MEMBER: policy.MEMBER}


def asked(row: Route | ActionRoute) -> tuple[str, str, str]:
    return ("POST", row.path, row.action) if isinstance(row, ActionRoute) else (row.method, row.path, "")


def request(action: Action) -> tuple[str, str, str]:
    return action.request.method, action.request.path, action.request.key


def label(action: Action) -> str:
    return " ".join(filter(None, (*request(action), action.request.type)))


# ---- routes and policy -----------------------------------------------------------------------------------------------


def test_every_route_that_does_something_to_a_server_has_its_row() -> None:
    changing = {asked(row) for row in ROUTES if row.path.startswith("/servers") and asked(row)[0] != "GET"}
    keys = {row.action for row in ROUTES if isinstance(row, ActionRoute) and row.path == ACTION_PATH}

    assert changing - {request(action) for action in ACTIONS} == set()
    assert keys == {action.request.key for action in ACTIONS if action.request.key}


@pytest.mark.parametrize("action", ACTIONS, ids=label)
def test_every_row_has_its_route_with_its_policy_for_its_microversions(action: Action) -> None:
    mine = [row for row in ROUTES if asked(row) == request(action)]
    spans = sorted(Span.between(row.since, row.until) for row in mine)

    assert {row.policy for row in mine} == {action.rule.name}
    assert (spans[0].first, spans[-1].last) == Span.between(action.request.since, action.request.until)
    for before, after in itertools.pairwise(spans):
        assert before.last is not None and after.first == Microversion(2, before.last.minor + 1)


@pytest.mark.parametrize("action", ACTIONS, ids=label)
def test_the_policy_rule_of_a_row_is_registered_as_it_says(action: Action) -> None:
    rule = RULES[action.rule.name]

    assert (rule.default, rule.description) == (DEFAULTS[action.rule.default], action.rule.description)


def test_no_two_rows_are_asked_for_alike_or_known_by_one_key() -> None:
    assert len({(*request(action), action.request.type) for action in ACTIONS}) == len(ACTIONS)
    assert list(OPERATIONS.values()) == [action for action in ACTIONS if action.operation]
    assert list(BY_REQUEST.values()) == [action for action in ACTIONS if action.request.key and not action.request.type]
    assert POWER_OPERATIONS.keys() == {
        "start",
        "stop",
        "reboot-soft",
        "reboot-hard",
        "pause",
        "unpause",
        "suspend",
        "resume",
    }


def test_every_row_of_the_module_is_in_the_table() -> None:
    assert [name for name, value in vars(actions).items() if isinstance(value, Action) and value not in ACTIONS] == []


# ---- said once -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Module:
    """What a module says and calls."""

    texts: frozenset[str]
    called: frozenset[str]


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    """The product's, by their paths."""
    paths = [path for program in PRODUCT for path in sorted((REPOSITORY / program).rglob("*.py"))]
    return {path.relative_to(REPOSITORY).as_posix(): read(ast.parse(path.read_text())) for path in paths}


def read(tree: ast.Module) -> Module:
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return Module(frozenset(texts(tree)), frozenset(getattr(each, "attr", getattr(each, "id", "")) for each in calls))


def texts(tree: ast.Module) -> Iterator[str]:
    """The strings of a module but its docstrings; what is put into them as `{}`."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


SENTENCES = (
    "Cannot '",
    "while it (is in|has no) ",
    r"Instance (\{\}|%s) could not be found",
    "Instance .* is locked$",
    "has no host",
)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_refusal_of_a_server_is_composed_in_one_place(modules: dict[str, Module], sentence: str) -> None:
    assert {name for name, module in modules.items() if any(re.search(sentence, text) for text in module.texts)} == {
        REFUSALS
    }


@pytest.mark.parametrize("error", ["WrongState", "Locked"])
def test_nobody_who_serves_users_makes_a_refusal_by_hand(modules: dict[str, Module], error: str) -> None:
    makers = {name for name, module in modules.items() if error in module.called}

    assert {name for name in makers if name.startswith(("api/", "api_db/", "cell_db/", "cells/", "lifecycle/"))} == {
        REFUSALS
    }


def spellings() -> set[str]:
    """Rules, events, and the keys that are no words of English, which anything may use, nor states."""
    names = {
        name
        for action in ACTIONS
        for name in (action.rule.name, action.event_name, action.request.key, action.operation, action.name)
    }
    return {name for name in names if not re.fullmatch(r"[a-z]*|[a-z]+ [a-z]+", name)} - set(states.VM_STATES)


def test_what_an_action_is_called_is_said_by_its_row_alone(modules: dict[str, Module]) -> None:
    known = spellings()

    assert {"create-image", "createImage", "compute_snapshot_instance", "os_compute_api:servers:create_image"} <= known
    assert {(name, text) for name, module in modules.items() if name != TABLE for text in module.texts & known} == set()


# ---- admission -------------------------------------------------------------------------------------------------------


def is_admitted(
    action: Action, *, vm_state: str, task_state: str | None, launched: bool, locked: bool, caller_is_admin: bool
) -> bool:
    try:
        admit(
            action, server="x", vm_state=vm_state, task_state=task_state, launched=launched, locked=locked,
            caller_is_admin=caller_is_admin
        )  # fmt: skip
    except core.errors.Conflict:
        return False
    return True


@pytest.mark.parametrize("action", ACTIONS, ids=label)
@pytest.mark.parametrize("caller_is_admin", [True, False], ids=["admin", "owner"])
def test_nobody_need_be_asked_where_no_state_could_refuse(action: Action, caller_is_admin: bool) -> None:
    tasks = {
        None,
        states.DELETING,
        states.MIGRATING,
        *(task for each in ACTIONS for task in (each.during, *each.steps)),
    }
    every = itertools.product(
        [*(state for state in states.VM_STATES if state != states.DELETED), "teleported"],
        tasks,
        [True, False],
        [True, False],
    )
    admitted = {
        is_admitted(
            action,
            vm_state=vm_state,
            task_state=task,
            launched=launched,
            locked=locked,
            caller_is_admin=caller_is_admin,
        )
        for vm_state, task, launched, locked in every
    }

    assert is_always_admitted(action, caller_is_admin=caller_is_admin) == (admitted == {True})
