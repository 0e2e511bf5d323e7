"""Policy: the defaults, an operator's file above them, and what a decision costs."""

import pathlib
from collections.abc import Callable

import pytest

from api.http import policy
from api.http.policy import Policy, Rule, with_implied
from core import errors
from core.context import Context
from tests.api.http.harness import settings

RULES = [
    Rule("admin", policy.ADMIN),
    Rule("manager", policy.MANAGER),
    Rule("member", policy.MEMBER),
    Rule("reader", policy.READER),
    Rule("owner", policy.OWNER),
    Rule("service", policy.SERVICE),
    Rule("anybody", policy.ANYBODY),
    Rule("nobody", policy.NOBODY),
]


def somebody(*roles: str) -> Context:
    return Context("me", "mine", with_implied(roles))


@pytest.fixture
def rules(tmp_path: pathlib.Path) -> Policy:
    return Policy(settings(tmp_path), RULES)


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("admin", {"admin", "manager", "member", "reader", "owner", "service", "anybody"}),
        ("manager", {"manager", "member", "reader", "owner", "anybody"}),
        ("member", {"member", "reader", "owner", "anybody"}),
        ("Reader", {"reader", "owner", "anybody"}),
        ("service", {"service", "owner", "anybody"}),
        ("other", {"owner", "anybody"}),
    ],
)
def test_each_role_may_what_the_table_says(rules: Policy, role: str, allowed: set[str]) -> None:
    assert {rule.name for rule in RULES if rules.allows(rule.name, somebody(role))} == allowed


@pytest.mark.parametrize("role", ["manager", "member", "reader", "service"])
def test_roles_reach_no_further_than_their_project(rules: Policy, role: str) -> None:
    theirs = {"project_id": "theirs", "user_id": "them"}

    allowed = {rule.name for rule in RULES if rules.allows(rule.name, somebody(role), theirs)}

    assert allowed <= {"anybody", "service"}
    assert rules.allows("member", somebody("admin"), theirs)


def test_a_refusal_names_the_rule(rules: Policy) -> None:
    with pytest.raises(errors.Forbidden, match="Policy doesn't allow admin to be performed"):
        rules.enforce("admin", somebody("member"))


def test_a_policy_file_stands_above_the_defaults(tmp_path: pathlib.Path) -> None:
    (tmp_path / "policy.yaml").write_text('"admin": "role:boss"\n"context_is_admin": "role:boss"\n')
    rules = Policy(settings(tmp_path), RULES)

    assert rules.allows("admin", somebody("boss"))
    assert not rules.allows("admin", somebody("admin"))
    assert rules.is_admin(somebody("boss"))
    assert not rules.is_admin(somebody("admin"))


def test_a_decision_is_remembered(rules: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real: Callable[..., bool] = rules._enforcer.enforce
    monkeypatch.setattr(rules._enforcer, "enforce", lambda *args: asked.append(args[0]) or real(*args))

    for _ in range(3):
        rules.allows("reader", somebody("reader"), {"project_id": "mine"})
        rules.allows("reader", somebody("reader"), {"project_id": "theirs"})

    assert len(asked) == 2
