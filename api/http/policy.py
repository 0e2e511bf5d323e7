"""Who may do what: oslo.policy, with the defaults in code and an operator's ``policy.yaml`` above them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from cachetools import TTLCache
from oslo_config import cfg
from oslo_policy import policy as oslo_policy

from core import errors
from core.context import Context

ADMIN = "rule:context_is_admin"
MANAGER = "rule:project_manager_or_admin"
MEMBER = "rule:project_member_or_admin"
READER = "rule:project_reader_or_admin"
OWNER = "rule:owner_or_admin"
SERVICE = "rule:service_or_admin"
ANYBODY = "@"
NOBODY = "!"

# Decisions are remembered so that a request costs a look-up; a changed policy file takes effect within this time.
_REMEMBERED_S = 5.0
_MAX_REMEMBERED = 4096

_IN_PROJECT = "project_id:%(project_id)s"

# What rules may say of the caller, under OpenStack's names.
_CREDENTIALS = (
    "user_id", "user_domain_id", "project_id", "project_domain_id", "domain_id", "system_scope", "is_admin_project",
    "roles", "service_user_id", "service_roles",
)  # fmt: skip
_credentials_of = attrgetter(*_CREDENTIALS)


@dataclass(frozen=True, slots=True)
class Rule:
    """A name that operators may redefine, and what holds while they don't."""

    name: str
    default: str
    description: str = ""


_SHARED = (
    Rule("context_is_admin", "role:admin", "Who administers the cloud."),
    Rule("project_manager_or_admin", f"(role:manager and {_IN_PROJECT}) or {ADMIN}"),
    Rule("project_member_or_admin", f"(role:member and {_IN_PROJECT}) or {ADMIN}"),
    Rule("project_reader_or_admin", f"(role:reader and {_IN_PROJECT}) or {ADMIN}"),
    Rule("owner_or_admin", f"user_id:%(user_id)s or {ADMIN}"),
    Rule("service_or_admin", f"role:service or {ADMIN}"),
)

_IMPLIED = {
    "admin": ("manager", "member", "reader"),
    "manager": ("member", "reader"),
    "member": ("reader",),
}


def with_implied(roles: Iterable[str]) -> tuple[str, ...]:
    """The roles and those they imply, as an identity service would expand them; sorted."""
    expanded = {role.lower() for role in roles}
    for role in tuple(expanded):
        expanded.update(_IMPLIED.get(role, ()))
    return tuple(sorted(expanded))


class Policy:
    """The rules of a cloud; for one event loop."""

    def __init__(self, conf: cfg.ConfigOpts, rules: Iterable[Rule]) -> None:
        self._enforcer = oslo_policy.Enforcer(conf)
        self._names: set[str] = set()
        for rule in (*_SHARED, *rules):
            self._names.add(rule.name)
            self._enforcer.register_default(
                oslo_policy.RuleDefault(rule.name, rule.default, rule.description or None)
            )
        self._enforcer.load_rules()
        self._decisions: TTLCache[tuple[Any, ...], bool] = TTLCache(_MAX_REMEMBERED, _REMEMBERED_S)

    def knows(self, rule: str) -> bool:
        return rule in self._names

    def allows(self, rule: str, context: Context, target: Mapping[str, Any] | None = None) -> bool:
        """Whether the rule lets this caller act on the target; on their own project and user without one."""
        credentials = _credentials_of(context)
        key = (rule, credentials, None if target is None else tuple(target.items()))
        decision = self._decisions.get(key)
        if decision is None:
            about = {"user_id": context.user_id, "project_id": context.project_id} if target is None else dict(target)
            decision = bool(self._enforcer.enforce(rule, about, _for_oslo(credentials)))
            self._decisions[key] = decision
        return decision

    def enforce(self, rule: str, context: Context, target: Mapping[str, Any] | None = None) -> None:
        """
        Raises:
            Forbidden: the rule does not let this caller act on the target.
        """
        if not self.allows(rule, context, target):
            raise errors.Forbidden(f"Policy doesn't allow {rule} to be performed.")

    def is_admin(self, context: Context) -> bool:
        """Whether this caller administers the cloud."""
        return self.allows("context_is_admin", context)


def _for_oslo(credentials: tuple[Any, ...]) -> dict[str, Any]:
    """The credentials by name; oslo.policy looks into lists, not into tuples."""
    named = zip(_CREDENTIALS, credentials, strict=True)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in named}
