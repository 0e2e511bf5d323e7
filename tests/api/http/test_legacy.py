"""Discovery, and the form in which `/v2` serves clients that know no microversions."""

import pathlib
from collections.abc import Iterator

import pytest

from api.http.call import Call
from api.http.routes import ActionRoute, Route
from api.http.schema import NAME, TEXT, Body, Property, either, list_of, nullable, structure
from api.http.versions import MAX
from api.http.view import Field, View
from api.resources import versions
from tests.api.http.harness import ALICE, Asker, serving_tables, settings

INNER = structure(Property("known", TEXT))
BODY = Body(
    "thing",
    Property("name", NAME, required=True),
    Property("parts", list_of(INNER)),
    Property("one", either(TEXT, INNER)),
    Property("maybe", nullable(INNER)),
    beside=[Property("beside", INNER)],
)


async def which(call: Call) -> object:
    return {"version": str(call.version), "link": call.link("/which"), "is_legacy": call.is_legacy}


async def made(call: Call) -> object:
    return call.document


@pytest.fixture
def asker(tmp_path: pathlib.Path) -> Iterator[Asker]:
    table = [
        Route("GET", "/which", which),
        Route("GET", "/later", which, since="2.2"),
        Route("POST", "/things", made, body=BODY),
        ActionRoute("/things/{id}/action", "change", made, body=Body("change", Property("known", TEXT)), status=200),
        Route("GET", "/own", which, under="/cellplane"),
    ]
    with serving_tables(settings(tmp_path), [table, versions.ROUTES]) as asker:
        yield asker


# ---- discovery -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/versions"])
def test_both_versions_are_listed(asker: Asker, path: str) -> None:
    reply = asker.get(path, user=None)

    legacy, current = reply.json["versions"]
    assert reply.status == 200
    assert (legacy["id"], legacy["version"], legacy["min_version"]) == ("v2.0", "", "")
    assert (current["id"], current["version"], current["min_version"]) == ("v2.1", str(MAX), "2.1")
    assert [each["links"][0]["href"].partition("/v2")[2] for each in (legacy, current)] == ["/", ".1/"]
    assert set(legacy) == {"id", "status", "version", "min_version", "updated", "links"}


@pytest.mark.parametrize(("under", "id"), [("/v2", "v2.0"), ("/v2.1", "v2.1")])
def test_each_version_describes_itself(asker: Asker, under: str, id: str) -> None:
    for path in (under, under + "/"):
        version = asker.get(path, user=None).json["version"]
        assert version["id"] == id
        assert [link["rel"] for link in version["links"]] == ["self", "describedby"]
        assert version["links"][0]["href"].endswith(under + "/")
        assert version["links"][1]["type"] == "text/html"
    assert asker.get(f"{under}/versions/v2.0").json["version"]["id"] == "v2.0"
    assert asker.get(f"{under}/versions/v3").status == 404


@pytest.mark.parametrize("path", ["/v3", "/v1.1/servers", "/servers/1?a=b", "/v2.2/", "/v2.1x"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH"])
def test_elsewhere_the_versions_are_offered_as_choices(asker: Asker, method: str, path: str) -> None:
    reply = asker.ask(method, path, user=None)

    choices = reply.json["choices"]
    assert reply.status == 300
    assert [choice["id"] for choice in choices] == ["v2.0", "v2.1"]
    assert choices[1]["links"][0]["href"].endswith("/v2.1" + path.partition("?")[0])
    assert set(choices[0]) == {"id", "status", "links", "media-types"}


@pytest.mark.parametrize("path", ["/v2.1/nothing", "/v2/nothing", "/v2.1/0a11ce/nothing", "/cellplane/nothing"])
def test_below_a_prefix_what_is_not_there_is_not_found(asker: Asker, path: str) -> None:
    assert asker.get(path).status == 404


# ---- /v2 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [None, "2.50", "latest", "nonsense", "9.9"])
def test_the_lowest_microversion_is_served_whatever_is_asked_for(asker: Asker, asked: str | None) -> None:
    reply = asker.get("/v2/which", version=asked)

    assert reply.json["version"] == "2.1" and reply.json["is_legacy"]
    assert reply.json["link"].endswith("/v2/which")
    assert not {"OpenStack-API-Version", "X-OpenStack-Nova-API-Version", "Vary"} & set(reply.headers)
    assert asker.get("/v2/later", version=asked).status == 404


def test_a_path_may_begin_with_the_project(asker: Asker) -> None:
    reply = asker.get("/v2/0a11ce/which", user=ALICE)

    assert reply.json["link"].endswith("/v2/0a11ce/which")
    assert asker.get("/v2/0b0b/which", user=ALICE).status == 400


def test_bodies_may_hold_what_nobody_knows(asker: Asker) -> None:
    extra = {"known": "a", "other": 1}
    thing = {"name": " a ", "other": {}, "parts": [extra, {"other": 2}], "one": extra, "maybe": extra}

    reply = asker.post("/v2/things", {"thing": thing, "beside": extra, "more": []})

    known = {"known": "a"}
    assert reply.json == {
        "thing": {"name": "a", "parts": [known, {}], "one": known, "maybe": known}, "beside": known,
    }  # fmt: skip
    assert asker.post("/v2.1/things", {"thing": {"name": "a", "other": 1}}).status == 400
    assert asker.post("/v2.1/things", {"thing": {"name": " a "}}).status == 400
    assert asker.post("/v2/things/1/action", {"change": {"known": "a", "other": 1}}).json == {"change": known}


@pytest.mark.parametrize(
    "body", [{"thing": {"other": 1}}, {"thing": {"name": 5}}, {"thing": {"name": "  "}}, {"other": {}}, {"thing": []}]
)
def test_what_is_known_is_still_checked(asker: Asker, body: object) -> None:
    assert asker.post("/v2/things", body).status == 400


def test_an_action_is_still_alone_in_its_body(asker: Asker) -> None:
    assert asker.post("/v2/things/1/action", {"change": {}, "other": {}}).status == 400


def test_a_view_is_that_of_the_lowest_microversion(tmp_path: pathlib.Path) -> None:
    view = View("thing", Field("old", lambda item: 1), Field("new", lambda item: 2, since="2.2"))
    with serving_tables(settings(tmp_path), [[Route("GET", "/thing", which, view=view)]]) as asker:
        assert asker.get("/v2/thing").json == {"thing": {"old": 1}}
