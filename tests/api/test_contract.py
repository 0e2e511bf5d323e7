"""Every microversion that is announced is in the tables, or in the list of what is not here yet, with its reason."""

from collections import Counter

import pytest

from api.http.routes import ActionRoute
from api.http.versions import MAX, MIN, Microversion, Span
from api.resources.absent import ABSENT, Absent, Refusal
from api.resources.table import RESOURCES
from tests.docs.contract import IN_NO_ROW, VERSIONS, asked, changes

WAITING = {version for absent in ABSENT for version in absent.microversions}
REQUESTS = [(absent, request) for absent in ABSENT for request in absent.requests]


def test_the_newest_microversion_is_that_of_nova_2026_1() -> None:
    assert (str(MIN), str(MAX)) == ("2.1", "2.104")


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_a_microversion_changes_rows_or_waits_for_something(version: Microversion) -> None:
    assert changes()[version] or str(version) in WAITING or str(version) in IN_NO_ROW


def test_what_is_in_no_row_is_in_none() -> None:
    assert [version for version in IN_NO_ROW if changes()[Microversion.parse(version)] or version in WAITING] == []


@pytest.mark.parametrize("absent", ABSENT, ids=lambda absent: absent.what)
def test_what_waits_says_what_it_waits_for(absent: Absent) -> None:
    assert absent.because
    assert absent.requests or absent.microversions
    assert all(MIN <= Microversion.parse(version) <= MAX for version in absent.microversions)


@pytest.mark.parametrize(("absent", "request_"), REQUESTS, ids=lambda each: str(getattr(each, "path", "")))
def test_a_request_that_begins_later_names_the_microversion_it_begins_with(absent: Absent, request_: Refusal) -> None:
    assert request_.since == str(MIN) or request_.since in absent.microversions


def test_nothing_is_here_and_waits_at_once() -> None:
    rows = [row for resource in RESOURCES for row in resource.ROUTES]
    spans = Counter(
        (asked(row), version)
        for row in rows
        for version in (MIN, MAX, *(Microversion(2, minor) for minor in range(5, MAX.minor, 5)))
        if Span.between(row.since, row.until).applies(version)
    )

    assert [each for each, number in spans.items() if number > 1] == []
    assert any(isinstance(row, ActionRoute) for row in rows)
