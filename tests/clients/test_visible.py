"""Who may see what another service was asked for with our own credentials."""

import inspect
import pathlib
import re
import typing

import msgspec
import pytest

import clients.glance
from clients.visible import Access, Audience, visible_to
from core.context import Context

OWNER = Context("u", "blue")
STRANGER = Context("u", "red")
NOBODY = Context("u", None)
ADMIN = Context("u", "gold", is_admin=True)


@pytest.mark.parametrize(
    ("owner", "audience", "seen_by"),
    [
        ("blue", Audience.EVERYBODY, {OWNER, STRANGER, NOBODY, ADMIN}),
        ("blue", Audience.MEMBERS, {OWNER, ADMIN}),
        ("blue", Audience.NOBODY, {OWNER, ADMIN}),
        (None, Audience.NOBODY, {ADMIN}),
        ("", Audience.NOBODY, {ADMIN}),
        (None, Audience.EVERYBODY, {OWNER, STRANGER, NOBODY, ADMIN}),
    ],
)
def test_a_thing_is_seen_by_its_owner_its_audience_and_admins(
    owner: str | None, audience: Audience, seen_by: set[Context]
) -> None:
    access = Access(owner=owner, audience=audience)

    assert {
        caller for caller in (OWNER, STRANGER, NOBODY, ADMIN) if visible_to(caller, access, lambda project_id: False)
    } == seen_by


def test_who_was_given_access_sees_what_is_shared_and_nothing_else() -> None:
    seen = {
        audience: visible_to(STRANGER, Access(owner="blue", audience=audience), lambda project_id: project_id == "red")
        for audience in Audience
    }

    assert seen == {Audience.EVERYBODY: True, Audience.MEMBERS: True, Audience.NOBODY: False}
    assert not visible_to(NOBODY, Access(owner="blue", audience=Audience.MEMBERS), lambda project_id: True)


def test_a_stranger_is_answered_after_the_same_questions_whether_the_thing_is_there_or_not() -> None:
    for access in (
        None,
        Access(owner="blue", audience=Audience.NOBODY),
        Access(owner="blue", audience=Audience.MEMBERS),
    ):
        asked: list[str] = []
        assert not visible_to(STRANGER, access, lambda project_id, asked=asked: bool(asked.append(project_id)))  # type: ignore[misc]
        assert asked == ["red"]


def test_what_has_an_owner_leaves_a_client_for_a_named_caller_only() -> None:
    """A new client, or a new method, that hands out what belongs to a project must ask who wants to see it."""
    told = {clients.glance.Image, clients.glance.ImageRecord}
    for name, method in inspect.getmembers(clients.glance.Images, inspect.isfunction):
        if name.startswith("_"):
            continue
        hints = typing.get_type_hints(method, localns={"Headers": object, "Reply": object})
        if _mentions(hints.pop("return", None), told):
            assert hints.get("context") is Context, f"Images.{name} hands out an image and does not ask for whom"
    for kind in told:
        assert not {"owner", "visibility"} & set(kind.__struct_fields__), (
            "whoever has an Image may use it: nobody judges that again"
        )


def test_nothing_of_a_client_s_own_rows_is_used_outside_of_it() -> None:
    root = pathlib.Path(clients.glance.__file__).parent.parent
    sources = [path for package in ("api", "cells", "conductor", "compute") for path in (root / package).rglob("*.py")]

    assert sources
    for path in sources:
        text = path.read_text()
        assert "glance._" not in text and "images._" not in text, path
    for path in (root / "api").rglob("*.py"):
        for line in path.read_text().splitlines():
            if re.search(r"images\.(look|download|delete|void)\b", line):
                pytest.fail(f"{path}: a user's request asks for an image without saying who asks: {line.strip()}")


def _mentions(hint: object, kinds: set[type[msgspec.Struct]]) -> bool:
    return hint in kinds or any(_mentions(inner, kinds) for inner in typing.get_args(hint))
