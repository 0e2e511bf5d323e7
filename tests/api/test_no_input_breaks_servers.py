"""No body makes the server routes fail: whatever comes in is accepted or refused."""

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.http.versions import MAX, MIN
from api.resources import server_actions, server_bodies
from tests.api.http.harness import ADMIN, ALICE
from tests.api.small_cloud import IMAGE, SmallCloud, small_cloud

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_LIKELY = st.sampled_from(["", "1", "0", "-1", "auto", "none", "east", "east:east-1", IMAGE, "small", "a" * 256, "AUTO", "SOFT", [], {}])
_VERSIONS = st.integers(MIN.minor, MAX.minor).map(lambda minor: f"2.{minor}")
_VALUES = _LIKELY | _JSON
_PATHS = ("", "/action", "/metadata", "/metadata/a", "/tags", "/tags/a")


def _properties(body: Any) -> list[str]:
    schema = body.type.at(MAX).schema["properties"]["server"]["properties"]
    return [*schema, "personality", "unknown"]


_CREATE = st.fixed_dictionaries(
    {}, optional={"name": st.just("n"), "flavorRef": st.just("small"), "imageRef": st.just(IMAGE), "networks": st.just("none")}
)
_FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def boundless(tmp_path: pathlib.Path) -> Iterator[SmallCloud]:
    """A cloud without quotas."""
    with small_cloud(tmp_path, "[quota]\ninstances = -1\ncores = -1\nram = -1\n") as small:
        yield small


@_FEW
@given(valid=_CREATE, more=st.dictionaries(st.sampled_from(_properties(server_bodies.CREATE)), _VALUES, max_size=3), version=_VERSIONS,
       hints=_VALUES, admin=st.booleans())  # fmt: skip
def test_create(boundless: SmallCloud, valid: dict[str, Any], more: dict[str, Any], version: str, hints: Any, admin: bool) -> None:
    body = {"server": {**valid, **more}, "os:scheduler_hints": hints if hints else {}}
    reply = boundless.ask.post("/v2.1/servers", body, version=version, user=ADMIN if admin else ALICE)
    assert reply.status in (202, 400, 403), reply.body


@_FEW
@given(changes=st.dictionaries(st.sampled_from(_properties(server_bodies.UPDATE)), _VALUES, max_size=3) | _JSON, version=_VERSIONS)
def test_update_and_actions(boundless: SmallCloud, changes: Any, version: str) -> None:
    uuid = boundless.running()
    for target in (uuid, boundless.created()):
        reply = boundless.ask.put(f"/v2.1/servers/{target}", {"server": changes}, version=version, user=ALICE)
        assert reply.status in (200, 400), reply.body
    for row in server_actions.ROUTES:
        if row.action != "os-getConsoleOutput":
            reply = boundless.act(uuid, row.action, changes, version=version, user=ADMIN)
            assert reply.status in (202, 400, 404, 409), reply.body


@_FEW
@given(document=_JSON.filter(lambda document: document is not None), version=_VERSIONS, path=st.sampled_from(_PATHS))
def test_any_document(boundless: SmallCloud, document: Any, version: str, path: str) -> None:
    uuid = boundless.created()
    for method, target in (("POST", "/v2.1/servers"), ("PUT", f"/v2.1/servers/{uuid}{path}"), ("POST", f"/v2.1/servers/{uuid}{path}")):
        reply = boundless.ask.ask(method, target, document, version=version, user=ALICE)
        assert reply.status in (400, 404, 409), reply.body
