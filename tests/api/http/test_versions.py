"""Microversions, by themselves and through the headers of requests."""

import pathlib
from collections.abc import Iterator

import pytest

from api.http.call import Call
from api.http.routes import Route
from api.http.versions import MAX, MIN, Microversion, Span
from core import errors
from tests.api.http.harness import Asker, serving_tables, settings


async def which(call: Call) -> object:
    return {"version": str(call.version)}


async def old(call: Call) -> object:
    return {"answered": "old"}


async def new(call: Call) -> object:
    return {"answered": "new"}


@pytest.fixture
def asker(tmp_path: pathlib.Path) -> Iterator[Asker]:
    table = [
        Route("GET", "/which", which),
        Route("GET", "/both", old, until="2.5"),
        Route("GET", "/both", new, status=203, since="2.6"),
        Route("GET", "/gone", old, until="2.35"),
        Route("GET", "/later", new, since="2.26"),
    ]
    with serving_tables(settings(tmp_path), [table]) as asker:
        yield asker


def test_microversions_compare_by_number() -> None:
    assert Microversion.parse("2.9") < Microversion.parse("2.10")
    assert str(Microversion.parse("2.90")) == "2.90"
    assert len({Microversion(2, 1), Microversion.parse("2.1")}) == 1


@pytest.mark.parametrize(
    "text", ["", "2", "2.", ".1", "2.1.1", "2.01", "02.1", "v2.1", "2.-1", "2.1 ", "2." + "9" * 5000]
)
def test_malformed_microversions_are_refused(text: str) -> None:
    with pytest.raises(errors.Invalid):
        Microversion.parse(text)


def test_spans_hold_both_ends() -> None:
    span = Span.between("2.10", "2.20")

    assert [span.applies(Microversion(2, minor)) for minor in (9, 10, 20, 21)] == [False, True, True, False]
    assert Span.between("2.10", None).applies(MAX)
    assert span.overlaps(Span.between("2.20", None))
    assert not span.overlaps(Span.between("2.21", None))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, str(MIN)),
        ({"OpenStack-API-Version": "compute 2.53"}, "2.53"),
        ({"X-OpenStack-Nova-API-Version": "2.53"}, "2.53"),
        ({"OpenStack-API-Version": "compute latest"}, str(MAX)),
        ({"X-OpenStack-Nova-API-Version": "latest"}, str(MAX)),
        ({"OpenStack-API-Version": "compute 2.60", "X-OpenStack-Nova-API-Version": "2.10"}, "2.60"),
        ({"OpenStack-API-Version": "volume 3.50", "X-OpenStack-Nova-API-Version": "2.10"}, "2.10"),
        ({"OpenStack-API-Version": "volume 3.50, compute 2.7"}, "2.7"),
        ({"OpenStack-API-Version": "volume 3.50"}, str(MIN)),
    ],
)
def test_headers_choose_the_microversion(asker: Asker, headers: dict[str, str], expected: str) -> None:
    reply = asker.get("/v2.1/which", headers=headers)

    assert reply.json == {"version": expected}
    assert reply.headers["OpenStack-API-Version"] == f"compute {expected}"
    assert reply.headers["X-OpenStack-Nova-API-Version"] == expected
    assert reply.headers.getall("Vary") == ["OpenStack-API-Version", "X-OpenStack-Nova-API-Version"]


@pytest.mark.parametrize("version", ["2", "2.x", "two", "2.1.1", "2.007"])
def test_a_malformed_microversion_is_a_bad_request(asker: Asker, version: str) -> None:
    reply = asker.get("/v2.1/which", version=version)

    assert reply.status == 400
    assert reply.fault.startswith(f"badRequest: API Version String {version} is of invalid format")
    assert reply.headers["OpenStack-API-Version"] == "compute 2.1"


@pytest.mark.parametrize("version", ["2.0", f"2.{MAX.minor + 1}", "2.999", "3.1", "1.9"])
def test_a_microversion_out_of_range_is_not_acceptable(asker: Asker, version: str) -> None:
    reply = asker.get("/v2.1/which", version=version)

    assert reply.status == 406
    assert reply.fault.startswith(f"computeFault: Version {version} is not supported by the API.")


def test_errors_echo_the_microversion(asker: Asker) -> None:
    reply = asker.get("/v2.1/gone", version="2.36")

    assert reply.status == 404
    assert reply.headers["OpenStack-API-Version"] == "compute 2.36"
    assert len(reply.headers.getall("Vary")) == 2


@pytest.mark.parametrize(
    ("path", "version", "status"),
    [
        ("/gone", "2.35", 200),
        ("/gone", "2.36", 404),
        ("/later", "2.25", 404),
        ("/later", "2.26", 200),
        ("/both", "2.5", 200),
        ("/both", "2.6", 203),
    ],
)
def test_routes_answer_within_their_span(asker: Asker, path: str, version: str, status: int) -> None:
    assert asker.get(f"/v2.1{path}", version=version).status == status
