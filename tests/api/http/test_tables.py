"""The tables of all resources, as the program serves them."""

import pathlib

import pytest

import api.main
import api.resources.table
from api.http.policy import Policy
from api.http.routes import ActionRoute, Route, Router
from api.http.versions import MAX, MIN, Microversion
from tests.api.http.harness import settings

ROWS = [row for resource in api.resources.table.RESOURCES for row in resource.ROUTES]


def named(row: Route | ActionRoute) -> str:
    what = row.action if isinstance(row, ActionRoute) else row.method
    return f"{what} {row.path} {row.since}-{row.until or ''}"


def microversions(row: Route | ActionRoute) -> list[Microversion]:
    """The first and the last microversion of a row, and every fifth between them."""
    first = max(Microversion.parse(row.since), MIN).minor
    last = (MAX if row.until is None else min(Microversion.parse(row.until), MAX)).minor
    return [Microversion(2, minor) for minor in {*range(first, last + 1, 5), last}]


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_every_row_can_be_built_at_every_microversion_it_holds_for(row: Route | ActionRoute) -> None:
    (endpoint,) = Router([[row]]).endpoints

    for version in microversions(row):
        if isinstance(row, ActionRoute):
            assert endpoint.action_at(row.action, version) is not None
        else:
            assert endpoint.at(version) is not None


def test_the_tables_do_not_contradict_themselves(tmp_path: pathlib.Path) -> None:
    rules = [rule for resource in api.resources.table.RESOURCES for rule in resource.POLICIES]

    Router(resource.ROUTES for resource in api.resources.table.RESOURCES).check(Policy(settings(tmp_path), rules))


def test_every_rule_is_defined_once() -> None:
    names = [rule.name for resource in api.resources.table.RESOURCES for rule in resource.POLICIES]

    assert len(names) == len(set(names))
