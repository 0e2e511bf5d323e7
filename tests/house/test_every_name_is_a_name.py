"""Whatever users give a name to takes the one type of names: printable, and with no blanks at its ends."""

from collections.abc import Iterator
from typing import Any

import pytest

import api.main
import api.resources.table
import core.errors
from api.http.routes import ActionRoute, Route
from api.http.schema import NAME, Body, BodyCheck, Property, Schema, name
from api.http.versions import MAX, MIN, Microversion, Span

NAMES = ("name", "availability_zone")
# These name what is there already; what is written otherwise than there is not found.
REFERENCES = {("server", "security_groups")}


def _bodies() -> Iterator[tuple[str, Microversion, Schema]]:
    for resource in api.resources.table.RESOURCES:
        for row in resource.ROUTES:
            body = row.body if isinstance(row, Route | ActionRoute) else None
            if body is not None:
                for version in (MIN, MAX, Microversion.parse(row.since)):
                    if Span.between(row.since, row.until).applies(version):
                        yield (
                            f"{row.path} {getattr(row, 'action', row.since)} {version}",
                            version,
                            body.type.at(version).schema,
                        )


def _names(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Schema]]:
    if not isinstance(schema, dict):
        return
    for key, inner in schema.get("properties", {}).items():
        if key in NAMES:
            yield (*path, key), inner
        yield from _names(inner, (*path, key))
    for inner in (schema.get("items"), *schema.get("anyOf", ())):
        yield from _names(inner, path)


BODIES = {label: schema for label, _, schema in _bodies()}


@pytest.mark.parametrize("label", [label for label, schema in BODIES.items() if any(_names(schema))])
def test_every_name_in_a_body_is_of_the_type_of_names(label: str) -> None:
    wrong = [
        path
        for path, schema in _names(BODIES[label])
        if path[:2] not in REFERENCES
        and not all(
            each.get("type") == "null" or each.get("format") == "name" for each in schema.get("anyOf", [schema])
        )
    ]

    assert wrong == []


def test_names_are_looked_for_in_bodies_that_have_some() -> None:
    paths = {path for schema in BODIES.values() for path, _ in _names(schema)}

    assert {
        ("server", "name"),
        ("createImage", "name"),
        ("createBackup", "name"),
        ("keypair", "name"),
        ("aggregate", "availability_zone"),
        ("flavor", "name"),
    } <= paths


@pytest.mark.parametrize("kind", [NAME, name(pattern=r"^[a-zA-Z0-9_ -]+\Z")], ids=["any", "of a key pair"])
@pytest.mark.parametrize("text", ["", " ", " a", "a ", "\ta", "a\n", "a\u00a0", "\u3000a", "a\x00", "a\u200b"])
def test_blanks_at_the_ends_of_a_name_are_refused(kind: Any, text: str) -> None:
    with pytest.raises(core.errors.Invalid, match="name"):
        BodyCheck(Body("thing", Property("name", kind)), MIN)({"thing": {"name": text}})
