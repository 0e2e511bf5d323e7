"""Views: which fields at which microversion, and how often the policy is asked."""

import datetime
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from api.http.paging import Page
from api.http.versions import Microversion
from api.http.view import Field, ListView, Value, View, with_microseconds, zulu


@dataclass
class FakeCall:
    allowed: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def can(self, rule: str) -> bool:
        self.asked.append(rule)
        return rule in self.allowed

    def next_page(self, marker: str) -> str:
        return f"next?marker={marker}"


EVENT = View("event", Field("event", "name"), Field("details", since="2.84"))
FAULT = View("fault", Field("code"))
SERVER = View(
    "server",
    Field("id", "uuid"),
    Field("locked", lambda server: server.locked_by is not None, since="2.9"),
    Field("flavor", lambda server: "link", until="2.46"),
    Field("flavor", "flavor.name", since="2.47"),
    Field("fault", view=FAULT, when=lambda server: server.status == "ERROR"),
    Field("image", view=FAULT),
    Field("events", each=EVENT),
    Field("host", policy="see-host"),
    Field("node", policy="see-host", when=lambda server: server.node),
    Field("via", lambda server, call: call.next_page(server.uuid), with_call=True),
)


def server(**changes: Any) -> Any:
    values = {
        "uuid": "u1",
        "locked_by": None,
        "flavor": SimpleNamespace(name="small"),
        "status": "ACTIVE",
        "fault": SimpleNamespace(code=500),
        "image": None,
        "events": [SimpleNamespace(name="spawn", details="all of it")],
        "host": "h1",
        "node": "n1",
    }
    return SimpleNamespace(**{**values, **changes})


def rendered(view: Any, value: Any, version: str, **call: Any) -> Any:
    return view.document(Microversion.parse(version))(value, FakeCall(**call))


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.8", {"flavor": "link"}),
        ("2.9", {"flavor": "link", "locked": False}),
        ("2.46", {"flavor": "link", "locked": False}),
        ("2.47", {"flavor": "small", "locked": False}),
    ],
)
def test_fields_are_shown_within_their_span(version: str, expected: dict[str, Any]) -> None:
    always = {"id": "u1", "image": None, "events": [{"event": "spawn"}], "via": "next?marker=u1"}

    assert rendered(SERVER, server(), version) == {"server": {**always, **expected}}


def test_nested_views_follow_the_microversion() -> None:
    assert rendered(SERVER, server(), "2.83")["server"]["events"] == [{"event": "spawn"}]
    assert rendered(SERVER, server(), "2.84")["server"]["events"] == [{"event": "spawn", "details": "all of it"}]


def test_fields_with_a_condition_are_left_out() -> None:
    assert "fault" not in rendered(SERVER, server(), "2.1")["server"]
    assert rendered(SERVER, server(status="ERROR"), "2.1")["server"]["fault"] == {"code": 500}


def test_the_policy_is_asked_once_per_response() -> None:
    call = FakeCall(allowed={"see-host"})

    document = ListView("servers", SERVER).document(Microversion(2, 1))([server(), server(node=None)], call)  # type: ignore[arg-type]

    assert [(row["host"], row.get("node")) for row in document["servers"]] == [("h1", "n1"), ("h1", None)]
    assert call.asked == ["see-host"]
    assert "host" not in rendered(SERVER, server(), "2.1")["server"]


def test_lists_link_to_the_next_page_where_there_is_one() -> None:
    view = ListView("servers", View(None, Field("id", "uuid")))

    assert rendered(view, Page([server()]), "2.1") == {"servers": [{"id": "u1"}]}
    assert rendered(view, [], "2.1") == {"servers": []}
    assert rendered(view, Page([server()], more=True, marker="u1"), "2.1") == {
        "servers": [{"id": "u1"}],
        "servers_links": [{"rel": "next", "href": "next?marker=u1"}],
    }
    assert "links" in rendered(ListView("a", view.item, links="links"), Page([server()], True, "u1"), "2.1")


def test_values_are_wrapped_or_bare() -> None:
    assert rendered(Value("tags"), ["a"], "2.1") == {"tags": ["a"]}
    assert rendered(Value(None), ["a"], "2.1") == ["a"]
    assert rendered(View(None, Field("id", "uuid")), server(), "2.1") == {"id": "u1"}


def test_a_field_that_is_no_attribute_is_refused_when_it_is_compiled() -> None:
    with pytest.raises(ValueError, match="no attribute"):
        View("x", Field("OS-EXT-AZ:zone")).document(Microversion(2, 1))


def test_times_are_written_in_two_forms() -> None:
    moment = datetime.datetime(2024, 1, 31, 12, 0, 5, 42)

    assert zulu(moment) == "2024-01-31T12:00:05Z"
    assert with_microseconds(moment) == "2024-01-31T12:00:05.000042"
    assert with_microseconds(moment.replace(microsecond=0)) == "2024-01-31T12:00:05.000000"
    assert zulu(None) is None and with_microseconds(None) is None
