"""The way of a request: routing, faults, bodies, ids, links."""

import logging
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import api.http.app
from api.http.app import Limits
from api.http.call import Call, Raw
from api.http.caller import Identity
from api.http.errors import HttpError
from api.http.paging import LIMIT, MARKER, limit_of, page_of
from api.http.policy import ADMIN as ADMIN_ONLY
from api.http.policy import READER, Rule
from api.http.routes import Access, ActionRoute, Route
from api.http.schema import NAME, Body, Property, Query
from api.http.versions import MAX
from api.http.view import Field, ListView, Value, View
from core import errors
from tests.api.http.harness import ADMIN, ALICE, BOB, Asker, serving_tables, settings

REQUEST_ID = re.compile(r"req-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
GLOBAL_ID = "req-01234567-89ab-cdef-0123-456789abcdef"

RAISED: dict[str, Callable[[], Exception]] = {
    "invalid": lambda: errors.Invalid("it is wrong", field="name"),
    "not-found": lambda: errors.NotFound("it is not there"),
    "conflict": lambda: errors.Conflict("it can't be"),
    "busy": lambda: errors.Busy("it is busy"),
    "locked": lambda: errors.Locked("it is locked"),
    "wrong-state": lambda: errors.WrongState("it is paused"),
    "forbidden": lambda: errors.Forbidden("you may not"),
    "over-quota": lambda: errors.OverQuota("it is too much", quota="cores"),
    "silent-cell": lambda: errors.Unavailable("db at 10.0.0.1 is away", cell="west"),
    "no-turn": lambda: errors.NoTurn("no thread was free", cell="west"),
    "unavailable": lambda: errors.Unavailable("db at 10.0.0.1 is away"),
    "broken": lambda: errors.Broken("the table is gone"),
    "bug": lambda: KeyError("secret"),
    "not-implemented": lambda: HttpError(501, "not here"),
    "gone": lambda: HttpError(410, "not any more"),
    "unprocessable": lambda: HttpError(429, "too fast"),
}


async def fail(call: Call) -> object:
    raise RAISED[call.path["how"]]()


async def say(call: Call) -> object:
    return {"path": dict(call.path), "body": call.body, "user": call.context.user_id}


async def who(call: Call) -> object:
    context = call.context
    return {"request": context.request_id, "global": context.global_request_id, "admin": context.is_admin}


async def links(call: Call) -> object:
    return {"links": call.links("/things/1")}


async def create(call: Call) -> object:
    call.set_header("Location", call.link("/things/1"))
    call.set_status(207)
    return {"made": call.body["name"]}


async def nothing(call: Call) -> None:
    return None


async def raw(call: Call) -> object:
    return Raw(b"counted 1\n", "text/plain; version=0.0.4")


async def numbers(call: Call) -> object:
    limit, after = limit_of(call), int(call.query.get("marker", -1))
    items = list(range(after + 1, 7))[:limit]
    return page_of(items, limit=limit, marker=str)


async def owned(call: Call) -> object:
    call.enforce("read", {"project_id": call.path["project"]})
    return {"may_admin": call.can("administer")}


TABLE = [
    Route("GET", "/things/{id}", say),
    Route("GET", "/things/detail", nothing, status=204),
    Route("GET", "/things/{thing}/parts/{part}", say),
    Route("POST", "/things", create, body=Body("thing", Property("name", NAME, required=True)), view=Value("thing")),
    Route("DELETE", "/things/{id}", nothing, status=204),
    Route("GET", "/fail/{how}", fail),
    Route("GET", "/who", who),
    Route("GET", "/links", links),
    Route(
        "GET", "/numbers", numbers, query=Query(LIMIT, MARKER), view=ListView("numbers", View(None, Field("n", int)))
    ),
    Route("GET", "/admin", nothing, policy="administer", status=204),
    Route("GET", "/owned/{project}", owned),
    Route("GET", "/open", who, access=Access.ANYBODY),
    Route("GET", "/plain", raw, access=Access.ANYBODY, under="/cellplane"),
    ActionRoute("/things/{id}/action", "stop", nothing),
    ActionRoute(
        "/things/{id}/action", "name", say, body=Body("name", Property("name", NAME, required=True)), status=200
    ),
    ActionRoute("/things/{id}/action", "old", say, until="2.5", status=200),
    ActionRoute("/things/{id}/action", "admin", nothing, policy="administer"),
]
RULES = [Rule("administer", ADMIN_ONLY), Rule("read", READER)]


@pytest.fixture
def asker(tmp_path: pathlib.Path) -> Iterator[Asker]:
    limits = Limits(max_limit=5, max_body_bytes=2000, read_timeout_s=5.0, link_prefix=None)
    with serving_tables(settings(tmp_path), [TABLE], rules=RULES, limits=limits) as asker:
        yield asker


@pytest.mark.parametrize(
    ("how", "status", "fault"),
    [
        ("invalid", 400, "badRequest: it is wrong"),
        ("not-found", 404, "itemNotFound: it is not there"),
        ("conflict", 409, "conflictingRequest: it can't be"),
        ("busy", 409, "conflictingRequest: it is busy"),
        ("locked", 409, "conflictingRequest: it is locked"),
        ("wrong-state", 409, "conflictingRequest: it is paused"),
        ("forbidden", 403, "forbidden: you may not"),
        ("over-quota", 403, "forbidden: it is too much"),
        ("silent-cell", 503, "serviceUnavailable: Cell west does not answer at the moment. Please try again."),
        ("no-turn", 503, "serviceUnavailable: The cloud has too many requests at the moment. Please try again."),
        (
            "unavailable",
            503,
            "serviceUnavailable: A part of the cloud does not answer at the moment. Please try again.",
        ),
        ("not-implemented", 501, "notImplemented: not here"),
        ("gone", 410, "computeFault: not any more"),
        ("unprocessable", 429, "overLimit: too fast"),
    ],
)
def test_errors_become_faults(asker: Asker, how: str, status: int, fault: str) -> None:
    reply = asker.get(f"/v2.1/fail/{how}")

    assert (reply.status, reply.fault) == (status, fault)
    assert reply.headers["Content-Type"] == "application/json"
    assert ("Retry-After" in reply.headers) == (status == 503)
    assert ("retryAfter" in reply.json.get("overLimit", {})) == (status == 429)


@pytest.mark.parametrize("how", ["broken", "bug"])
def test_an_unexpected_error_tells_the_request_id_and_no_more(
    asker: Asker, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        reply = asker.get(f"/v2.1/fail/{how}")

    request_id = reply.headers["X-Compute-Request-Id"]
    assert reply.status == 500
    assert reply.fault.startswith("computeFault: ") and request_id in reply.fault
    assert "secret" not in reply.fault and "table" not in reply.fault
    assert [request_id in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2.1/nothing"),
        ("GET", "/v2.1/things/1/2"),
        ("PATCH", "/v2.1/things/1"),
        ("PUT", "/v2.1/things/1"),
        ("HEAD", "/v2.1/things/1"),
        ("GET", "/v2.1/0a11ce/nothing"),
        ("GET", "/v2.1/Not-hex/things/1"),
        ("GET", "/v2.1/things//parts/2"),
        ("GET", "/other"),
        ("GET", "/cellplane/other"),
        ("GET", "/cellplane/0a11ce/plain"),
    ],
)
def test_what_has_no_route_is_not_found(asker: Asker, method: str, path: str) -> None:
    reply = asker.ask(method, path, user=ALICE)

    assert reply.status == 404
    if method != "HEAD":
        assert reply.fault == "itemNotFound: The resource could not be found."


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2.1/things/1", {"id": "1"}),
        ("/v2.1/things/1/", {"id": "1"}),
        ("/v2.1/0a11ce/things/1", {"id": "1"}),
        ("/v2.1/things/a%2Fb%20c", {"id": "a/b c"}),
        ("/v2.1/things/%C3%BC", {"id": "ü"}),
        ("/v2.1/things/%FF%00", {"id": "�\0"}),
        ("/v2.1/things/detail/parts/2", {"thing": "detail", "part": "2"}),
    ],
)
def test_paths_are_matched_segment_by_segment(asker: Asker, path: str, expected: dict[str, str]) -> None:
    assert asker.get(path, user=ALICE).json["path"] == expected


def test_a_literal_segment_wins_over_a_name(asker: Asker) -> None:
    assert asker.get("/v2.1/things/detail").status == 204


def test_the_project_in_the_path_must_be_the_callers(asker: Asker) -> None:
    reply = asker.get("/v2.1/0b0b/things/1", user=ALICE)

    assert reply.status == 400
    assert "URL's project_id '0b0b' doesn't match Context's project_id '0a11ce'" in reply.fault


def test_links_keep_the_project_of_the_path(asker: Asker) -> None:
    host = re.compile(r"http://127\.0\.0\.1:\d+")

    plain = asker.get("/v2.1/links", user=ALICE).json["links"]
    in_project = asker.get("/v2.1/0a11ce/links", user=ALICE).json["links"]

    assert [host.sub("", link["href"]) for link in plain] == ["/v2.1/things/1", "/things/1"]
    assert [host.sub("", link["href"]) for link in in_project] == ["/v2.1/0a11ce/things/1", "/0a11ce/things/1"]
    assert [link["rel"] for link in plain] == ["self", "bookmark"]


def test_links_begin_with_the_configured_prefix(tmp_path: pathlib.Path) -> None:
    limits = Limits(max_limit=5, max_body_bytes=2000, read_timeout_s=5.0, link_prefix="https://cloud.example/compute")
    with serving_tables(settings(tmp_path), [TABLE], rules=RULES, limits=limits) as asker:
        assert asker.get("/v2.1/links").json["links"][0]["href"] == "https://cloud.example/compute/v2.1/things/1"


def test_a_host_that_is_none_is_refused(asker: Asker) -> None:
    assert asker.get("/v2.1/links", headers={"Host": "a b\u00e9"}).status == 400


def test_every_response_has_its_own_request_id(asker: Asker) -> None:
    first, second = asker.get("/v2.1/who"), asker.get("/v2.1/nothing")

    for reply in (first, second):
        assert REQUEST_ID.fullmatch(reply.headers["X-Compute-Request-Id"])
        assert reply.headers["X-OpenStack-Request-ID"] == reply.headers["X-Compute-Request-Id"]
    assert first.json["request"] == first.headers["X-Compute-Request-Id"]
    assert first.headers["X-Compute-Request-Id"] != second.headers["X-Compute-Request-Id"]


@pytest.mark.parametrize(("sent", "taken"), [(GLOBAL_ID, GLOBAL_ID), ("req-x\tforged", None), ("nonsense", None)])
def test_an_inbound_request_id_is_the_global_one(asker: Asker, sent: str, taken: str | None) -> None:
    assert asker.get("/v2.1/who", headers={"X-OpenStack-Request-ID": sent}).json["global"] == taken


def test_a_body_is_checked_and_shown_by_the_view(asker: Asker) -> None:
    reply = asker.post("/v2.1/things", {"thing": {"name": "a"}})

    assert (reply.status, reply.json) == (207, {"thing": {"made": "a"}})
    assert reply.headers["Location"].endswith("/v2.1/things/1")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"thing": 1}', b'{"thing": {"name": ""}}', b"\xff"]
)
def test_a_malformed_body_is_a_bad_request(asker: Asker, body: bytes) -> None:
    reply = asker.ask("POST", "/v2.1/things", body=body, headers={"Content-Type": "application/json"})

    assert reply.status == 400
    assert reply.fault.startswith("badRequest: ")


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 207),
        ("application/json; charset=UTF-8", 207),
        ("application/vnd.openstack.compute+json", 207),
        ("text/plain", 415),
        ("application/xml", 415),
        ("application/x-www-form-urlencoded", 415),
    ],
)
def test_bodies_are_json(asker: Asker, content_type: str, status: int) -> None:
    reply = asker.post("/v2.1/things", {"thing": {"name": "a"}}, headers={"Content-Type": content_type})

    assert reply.status == status
    assert status != 415 or reply.fault.startswith("badMediaType: ")


def test_a_body_that_is_not_packed_as_it_says_is_a_bad_request(asker: Asker) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    assert asker.ask("POST", "/v2.1/things", body=b"not gzip", headers=headers).status == 400


def test_a_body_that_is_too_large_is_refused(asker: Asker) -> None:
    reply = asker.post("/v2.1/things", {"thing": {"name": "a" * 3000}})

    assert reply.status == 413
    assert reply.json["overLimit"]["retryAfter"]


def test_responses_without_a_body_are_empty(asker: Asker) -> None:
    reply = asker.delete("/v2.1/things/1")

    assert (reply.status, reply.body) == (204, b"")
    assert asker.post("/v2.1/things/1/action", {"stop": None}).body == b""


def test_what_is_no_json_is_sent_as_it_is(asker: Asker) -> None:
    reply = asker.get("/cellplane/plain", user=None)

    assert (reply.status, reply.body) == (200, b"counted 1\n")
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4"
    assert "OpenStack-API-Version" not in reply.headers


@pytest.mark.parametrize("value", [None, {}, {"any": "thing"}, "x", 5])
def test_an_action_without_a_body_takes_any_value(asker: Asker, value: Any) -> None:
    assert asker.post("/v2.1/things/1/action", {"stop": value}).status == 202


def test_an_action_gets_its_validated_body(asker: Asker) -> None:
    reply = asker.post("/v2.1/things/7/action", {"name": {"name": "b"}})

    assert reply.json["path"] == {"id": "7"}
    assert reply.json["body"] == {"name": "b"}
    assert asker.post("/v2.1/things/7/action", {"name": {"other": "b"}}).status == 400


@pytest.mark.parametrize(
    ("body", "status", "fault"),
    [
        ({}, 400, "badRequest: The body must hold exactly one key"),
        ({"stop": 1, "name": 2}, 400, "badRequest: The body must hold exactly one key"),
        ({"fly": None}, 400, "badRequest: There is no such action: fly"),
        ({"old": None}, 404, "itemNotFound: "),
    ],
)
def test_other_actions_are_refused(asker: Asker, body: dict[str, Any], status: int, fault: str) -> None:
    reply = asker.post("/v2.1/things/1/action", body, version="2.6")

    assert reply.status == status
    assert reply.fault.startswith(fault)


def test_the_policy_of_a_row_is_enforced_before_its_body_is_read(asker: Asker) -> None:
    assert asker.get("/v2.1/admin", user=ADMIN).status == 204
    refused = asker.get("/v2.1/admin", user=ALICE)
    assert (refused.status, refused.fault) == (403, "forbidden: Policy doesn't allow administer to be performed.")
    assert asker.post("/v2.1/things/1/action", {"admin": None}, user=ALICE).status == 403


@pytest.mark.parametrize(
    ("user", "project", "status"), [(BOB, "0b0b", 200), (BOB, "0a11ce", 403), (ADMIN, "0b0b", 200)]
)
def test_handlers_ask_the_policy_about_a_target(asker: Asker, user: Identity, project: str, status: int) -> None:
    reply = asker.get(f"/v2.1/owned/{project}", user=user)

    assert reply.status == status
    if status == 200:
        assert reply.json == {"may_admin": user is ADMIN}


def test_administrators_are_known_to_the_context(asker: Asker) -> None:
    assert asker.get("/v2.1/who", user=ADMIN).json["admin"] is True
    assert asker.get("/v2.1/who", user=ALICE).json["admin"] is False


def test_pages_follow_each_other_to_the_end(asker: Asker) -> None:
    path, seen, pages = "/v2.1/numbers?limit=3&other=kept", [], 0
    while path:
        reply = asker.get(path).json
        seen += [row["n"] for row in reply["numbers"]]
        pages += 1
        links = reply.get("numbers_links")
        path = (
            links[0]["href"].partition("/v2.1")[2] and "/v2.1" + links[0]["href"].partition("/v2.1")[2] if links else ""
        )
        assert not path or "other=kept" in path

    assert (seen, pages) == ([0, 1, 2, 3, 4, 5, 6], 3)


@pytest.mark.parametrize(
    ("query", "count", "more"),
    [
        ("", 5, True),
        ("?limit=100000000000", 5, True),
        ("?limit=2", 2, True),
        ("?limit=0", 0, False),
        ("?marker=6", 0, False),
    ],
)
def test_a_page_is_never_longer_than_the_maximum(asker: Asker, query: str, count: int, more: bool) -> None:
    reply = asker.get(f"/v2.1/numbers{query}").json

    assert len(reply["numbers"]) == count
    assert ("numbers_links" in reply) == more


@pytest.mark.parametrize("query", ["limit=-1", "limit=x", "limit=1.5", "limit="])
def test_a_bad_limit_is_a_bad_request(asker: Asker, query: str) -> None:
    reply = asker.get(f"/v2.1/numbers?{query}")

    assert reply.status == 400
    assert "limit" in reply.fault


def test_too_many_query_parameters_are_refused(asker: Asker) -> None:
    assert asker.get("/v2.1/numbers?" + "&".join(["a=b"] * 1500)).status == 400


def test_every_request_leaves_one_line_with_its_id(asker: Asker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="api.http.app"):
        reply = asker.get("/v2.1/things/1%0Aforged?x=1", user=ALICE, version="2.101")

    (line,) = [record.getMessage() for record in caplog.records]
    assert reply.headers["X-Compute-Request-Id"] in line
    assert "method=GET path=/v2.1/things/1%0Aforged?x=*** status=200" in line
    assert "user=alice-id project=0a11ce" in line


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v2.1/things/1?adminPass=hush&b=1", "/v2.1/things/1?adminPass=***&b=***"),
        ("/v2.1/nothing?token=hush", "/v2.1/nothing?token=***"),
        ("/v2.1/things/1?flag", "/v2.1/things/1?flag"),
        ("/v2.1/things/1?" + "a" * 5000, "/v2.1/things/1?" + "a" * 1009 + "..."),
    ],
)
def test_the_log_has_no_values_of_what_a_route_does_not_know(
    asker: Asker, caplog: pytest.LogCaptureFixture, path: str, shown: str
) -> None:
    with caplog.at_level(logging.INFO, logger="api.http.app"):
        asker.get(path, user=ALICE, version=str(MAX))

    (line,) = [record.getMessage() for record in caplog.records]
    assert f"path={shown} " in line


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/v2.1/tickets/hush", "/v2.1/%74ickets/hush/more", "/v2.1/0a11ce/tickets/hush?a=b"])
def test_a_secret_in_a_path_is_in_no_log_whatever_is_done_to_it(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    with serving_tables(settings(tmp_path), [[Route("GET", "/tickets/{token}", say)]]) as asker:
        with caplog.at_level(logging.INFO, logger="api.http.app"):
            asker.ask(method, path, user=ALICE)

    assert "hush" not in caplog.text and "tickets/***" in caplog.text


def test_a_line_break_in_a_path_is_a_fault_of_ours(asker: Asker) -> None:
    reply = asker.get("/v2.1/things%0a/1", user=ALICE)

    assert reply.fault == "itemNotFound: The resource could not be found."
    assert reply.headers["X-Compute-Request-Id"].startswith("req-")


@pytest.mark.parametrize("levels", [31, 32, 33, 320])
def test_a_body_is_nested_32_levels_at_most(asker: Asker, levels: int) -> None:
    body = b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)

    reply = asker.ask("POST", "/v2.1/things", body=body, headers={"Content-Type": "application/json"}, user=ALICE)

    assert reply.status == 400
    assert ("nested" in reply.fault or "no JSON" in reply.fault) == (levels > 32)


@pytest.mark.parametrize(
    "table",
    [
        [Route("GET", "/a", say), Route("GET", "/a", say, since="2.5")],
        [Route("GET", "/a", say, until="2.5"), Route("GET", "/a", say, since="2.5")],
        [ActionRoute("/a/action", "x", say), ActionRoute("/a/action", "x", say, since="2.90")],
        [Route("GET", "/a", say, policy="nobody-defined-this")],
        [Route("GET", "/a", say, view=ListView("a", View("x", Field("y", each=View("z", Field("w", policy="no")))))) ],
    ],
)
def test_contradicting_tables_are_refused_at_start(tmp_path: pathlib.Path, table: list[Route | ActionRoute]) -> None:
    with pytest.raises(errors.Broken):
        with serving_tables(settings(tmp_path), [table]):
            pass


async def weighty(call: Call) -> object:
    limit, after = limit_of(call), int(call.query.get("marker", -1))
    items = list(range(after + 1, 12))[:limit]
    return page_of(items, limit=limit, marker=str)


@pytest.mark.parametrize("piece", [1, 2, 50])
@pytest.mark.parametrize(("weight", "pages"), [(10, 3), (900, 6), (5000, 12)])
def test_a_page_ends_where_it_becomes_too_large(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, weight: int, pages: int, piece: int
) -> None:
    monkeypatch.setattr(api.http.app, "PIECE_ITEMS", piece)
    view = ListView("things", View(None, Field("n", int), Field("text", lambda item: "x" * weight)))
    table = [Route("GET", "/things", weighty, query=Query(LIMIT, MARKER), view=view)]
    limits = Limits(max_limit=5, max_body_bytes=2000, read_timeout_s=5.0, link_prefix=None, max_page_bytes=2048)
    with serving_tables(settings(tmp_path), [table], limits=limits) as asker:
        items: list[int] = []
        path, seen = "/v2.1/things", 0
        while path:
            document = asker.get(path, user=ALICE).json
            items += [each["n"] for each in document["things"]]
            links = document.get("things_links")
            path = "/v2.1/things" + links[0]["href"].partition("/things")[2] if links else ""
            seen += 1
    assert items == list(range(12))
    assert seen == pages
