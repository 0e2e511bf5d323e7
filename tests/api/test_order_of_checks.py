"""In which order a request is judged: what the policy forbids is not looked into, and not asked of a database."""

import json
import pathlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from api.http.policy import ADMIN as ADMINS
from api.http.routes import ActionRoute, Route
from api.resources import absent, gone
from api.resources.quota.quota_sets import DEFAULTS
from api.resources.table import RESOURCES
from tests.api.http.harness import ADMIN, ALICE
from tests.api.operators_cloud import OperatorsCloud, operators_cloud

RULES = {rule.name: rule.default for resource in RESOURCES for rule in resource.POLICIES}
ROUTES = [route for resource in RESOURCES for route in resource.ROUTES if isinstance(route, Route)]
OF_ADMINS = [route for route in ROUTES if route.policy is not None and RULES[route.policy] == ADMINS]
NOWHERE = "11111111-2222-4333-8444-555555555555"
BAD_BODIES: list[Any] = [{}, {"nonsense": 1}, {"quota_set": {"instances": "many"}}, {"keypair": {"name": 5}}]
# The rule is about somebody whom the path, the query or the body names, so the handler asks for it: as Nova, whose
# schemas come first.
DECIDED_BY_HANDLER = {("POST", "/os-keypairs"), ("PUT", "/os-quota-sets/{id}")}


def named(route: Route) -> str:
    return f"{route.method} {route.path} {route.since}"


def path_of(route: Route, project: str = NOWHERE) -> str:
    words = [project if word.startswith("{") else word for word in route.path.split("/")]
    return "/v2.1" + "/".join(words)


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Iterator[OperatorsCloud]:
    """A cloud whose operator lets members see no limits of others, and no default ones either."""
    known = [rule for resource in RESOURCES for rule in resource.POLICIES]
    rules = [replace(rule, default=ADMINS) if rule.name == DEFAULTS else rule for rule in known]
    with operators_cloud(tmp_path, [resource.ROUTES for resource in RESOURCES], rules) as made:
        yield made


def test_what_only_admins_may_do_is_forbidden_before_anything_is_looked_into(cloud: OperatorsCloud) -> None:
    more = "?limit=nonsense&marker=&nonsense=%00"
    answered = {
        named(route): {
            cloud.ask.ask(route.method, path_of(route) + more, body, version=route.since, user=ALICE).status
            for body in (None, *BAD_BODIES)
        }
        for route in OF_ADMINS
    }

    assert len(answered) > 30
    assert {route: statuses for route, statuses in answered.items() if statuses != {403}} == {}


def test_every_route_with_a_body_has_a_rule_or_is_one_of_two() -> None:
    without = {(route.method, route.path) for route in ROUTES if route.policy is None and route.body is not None}

    assert without == DECIDED_BY_HANDLER
    # What is refused always is refused to everybody.
    assert [
        route
        for resource in RESOURCES
        for route in resource.ROUTES
        if isinstance(route, ActionRoute) and route.policy is None and resource not in (absent, gone)
    ] == []


@pytest.mark.parametrize("body", BAD_BODIES, ids=json.dumps)
def test_a_bad_body_tells_a_member_nothing_of_other_projects(cloud: OperatorsCloud, body: Any) -> None:
    """The schema is public, and the same for every project: one that there is not, another's, one with limits of its
    own."""
    good = {"quota_set": {"instances": 5}}
    assert cloud.ask.put("/v2.1/os-quota-sets/limited", good, user=ADMIN).status == 200

    projects = (ALICE.project_id, "limited", NOWHERE)
    bad = [cloud.ask.put(f"/v2.1/os-quota-sets/{project}", body, user=ALICE) for project in projects]
    well = [cloud.ask.put(f"/v2.1/os-quota-sets/{project}", good, user=ALICE) for project in projects]

    assert {reply.status for reply in bad} == {400} and len({json.dumps(reply.json) for reply in bad}) == 1
    assert {reply.status for reply in well} == {403}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        "/os-quota-sets/limited",
        "/os-quota-sets/limited/detail",
        "/os-quota-sets/limited/defaults",
        "/os-quota-class-sets/default",
    ],
)
def test_what_is_forbidden_asks_no_database(
    cloud: OperatorsCloud, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(cloud.cloud.api_db, "read", lambda *of, **more: asked.append(of))
    monkeypatch.setattr(cloud.cloud.api_db, "write", lambda *of, **more: asked.append(of))
    body = {"quota_set": {"instances": 5}} if "sets/limited" in path else {"quota_class_set": {"instances": 5}}

    reply = cloud.ask.ask(method, f"/v2.1{path}", body if method == "PUT" else None, user=ALICE)

    assert reply.status in (403, 404, 405)
    assert asked == []
