"""Whatever a body holds, judging it costs in proportion to its size: every type has a greatest number, and the first
error ends it."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

import api.main
import api.resources.table
from api.http.routes import ActionRoute, Route
from api.http.schema import TEXT, Body, BodyCheck, fixed, list_of
from api.http.versions import MAX, MIN, Microversion
from api.resources import flavors
from api.resources.servers import bodies, tags
from core import errors

pytestmark = pytest.mark.slow

ROWS = [row for resource in api.resources.table.RESOURCES for row in resource.ROUTES]
LARGEST_BYTES = 114688
# Anything may stand there, for nobody looks at it.
LOOKED_AT_BY_NOBODY = frozenset({"lock", "no_device"})
LENGTHY = ("type", "maxItems", "minItems", "maxProperties", "minProperties", "maxLength", "minLength")


def boundaries(row: Route | ActionRoute) -> list[Microversion]:
    """Where a schema may change: each microversion of the row, for the properties have spans of their own."""
    last = MAX if row.until is None else min(Microversion.parse(row.until), MAX)
    return [Microversion(2, minor) for minor in range(max(Microversion.parse(row.since), MIN).minor, last.minor + 1)]


def schemas() -> Iterator[tuple[str, Any]]:
    for row in ROWS:
        for version in boundaries(row):
            where = f"{row.path} {version}"
            if row.body is not None:
                yield from within(f"{where} body", row.body.type.at(version).schema)
            if isinstance(row, Route):
                for param in row.query.params:
                    yield from within(f"{where} {param.name}", param.type.at(version).schema)


def within(where: str, schema: Any) -> Iterator[tuple[str, Any]]:
    """The schema and all that are inside it."""
    yield where, schema
    for name, inner in schema.get("properties", {}).items():
        if name not in LOOKED_AT_BY_NOBODY:
            yield from within(f"{where}.{name}", inner)
    for number, inner in enumerate(schema.get("anyOf", ())):
        yield from within(f"{where}|{number}", inner)
    for inner in schema.get("patternProperties", {}).values():
        yield from within(f"{where}.*", inner)
    if "items" in schema:
        yield from within(f"{where}[]", schema["items"])


def unbounded(schema: Any) -> list[str]:
    """The greatest numbers that it lacks."""
    if "enum" in schema or "anyOf" in schema:
        return []
    kinds = schema.get("type")
    if kinds is None:
        return ["type"]
    needed = {"array": ("maxItems",), "object": ("maxProperties",), "string": ("maxLength",)}
    needed |= dict.fromkeys(("integer", "number"), ("minimum", "maximum"))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return [key for kind in kinds for key in needed.get(kind, ()) if key not in schema]


def test_every_type_of_every_route_has_a_greatest_number() -> None:
    without = {f"{where}: {missing}" for where, schema in schemas() if (missing := unbounded(schema))}
    assert without == set()


def test_how_much_there_is_comes_before_what_it_is() -> None:
    """An error ends the search: so nothing is looked at inside of what is too large."""
    for where, schema in schemas():
        keys = list(schema)
        first_other = next((at for at, key in enumerate(keys) if key not in LENGTHY), len(keys))
        assert not set(keys[first_other:]) & set(LENGTHY), (where, keys)
        assert keys[-1] == "uniqueItems" or "uniqueItems" not in keys, (where, keys)


def test_only_strings_are_compared_with_each_other() -> None:
    """Where the items can't be sorted the library compares every pair of them."""
    assert {schema["items"].get("type") for _, schema in schemas() if schema.get("uniqueItems")} == {"string"}


def test_lists_and_texts_have_limits_without_being_told() -> None:
    with pytest.raises(errors.Invalid, match="is too long"):
        judge(list_of(TEXT).at(MAX).schema, ["a"] * 256)


def judge(schema: Any, value: Any) -> None:
    BodyCheck(Body.of(fixed(schema)), MAX)(value)


SERVER = {"name": "n", "flavorRef": "1", "networks": "none"}
DEVICE = {
    "source_type": "blank",
    "destination_type": "local",
    "boot_index": 1,
    "device_name": "a",
    "disk_bus": "",
    "delete_on_termination": True,
    "uuid": "",
    "no_device": 1,
}
BODIES: dict[str, tuple[Any, Microversion, Callable[[int], Any]]] = {
    "tags of two kinds": (
        bodies.CREATE,
        MAX,
        lambda n: {"server": {**SERVER, "tags": [each for i in range(n // 14) for each in (i, str(i))]}},
    ),
    "tags of two kinds, few bad": (
        bodies.CREATE,
        MAX,
        lambda n: {"server": {**SERVER, "tags": [None, True, *(str(i) for i in range(n // 9))]}},
    ),
    "no uuids": (
        bodies.CREATE,
        MAX,
        lambda n: {"server": SERVER, "os:scheduler_hints": {"different_host": ["no"] * (n // 5)}},
    ),
    "empty networks": (bodies.CREATE, MAX, lambda n: {"server": {**SERVER, "networks": [{}] * (n // 3)}}),
    "wrong networks": (
        bodies.CREATE,
        MAX,
        lambda n: {"server": {**SERVER, "networks": [{"uuid": 1}] * (n // 12)}},
    ),
    "metadata": (
        bodies.CREATE,
        MAX,
        lambda n: {"server": {**SERVER, "metadata": {f"{i}": "" for i in range(n // 10)}}},
    ),
    "wide": (bodies.CREATE, MAX, lambda n: {"server": {**SERVER, **{f"k{i}": 1 for i in range(n // 10)}}}),
    "wide outside": (bodies.CREATE, MAX, lambda n: {"server": SERVER, **{f"k{i}": 1 for i in range(n // 10)}}),
    "a long name": (bodies.CREATE, MAX, lambda n: {"server": {**SERVER, "name": "a" * n}}),
    "a long host name": (bodies.CREATE, MAX, lambda n: {"server": {**SERVER, "hostname": "a." * (n // 2)}}),
    "a list for a name": (bodies.CREATE, MAX, lambda n: {"server": {**SERVER, "name": [[[1]]] * (n // 8)}}),
    "files": (
        bodies.CREATE,
        Microversion(2, 40),
        lambda n: {"server": {**SERVER, "personality": [{"path": "", "contents": 1}] * (n // 27)}},
    ),
    "devices, valid": (
        bodies.CREATE,
        MAX,
        lambda n: {"server": {**SERVER, "block_device_mapping_v2": [DEVICE] * min(255, n // 180)}},
    ),
    "user data, valid": (
        bodies.CREATE,
        MAX,
        lambda n: {"server": {**SERVER, "user_data": "A" * min(65532, n // 8 * 4)}},
    ),
    "extra specs": (
        flavors.ADD_SPECS,
        MAX,
        lambda n: {"extra_specs": {f"trait:T{i}": "required" for i in range(n // 25)}},
    ),
    "unique tags": (
        next(row.body for row in tags.ROUTES if row.method == "PUT" and row.body),
        MAX,
        lambda n: {"tags": [str(i) for i in range(n // 9)]},
    ),
}


def judging_s(check: BodyCheck, document: Any) -> float:
    """Seconds of this thread; the best of three."""
    spent = []
    for _ in range(3):
        began = time.thread_time()
        try:
            check(document)
        except errors.Invalid as error:
            assert len(error.message) < 2000
        spent.append(time.thread_time() - began)
    return min(spent)


@pytest.mark.parametrize(("body", "version", "grown"), BODIES.values(), ids=BODIES)
def test_twice_the_body_costs_twice_as_much_at_most(
    body: Any, version: Microversion, grown: Callable[[int], Any]
) -> None:
    check = BodyCheck(body, version)
    half, whole = grown(LARGEST_BYTES // 2), grown(LARGEST_BYTES - 500)
    assert len(orjson.dumps(whole)) <= LARGEST_BYTES
    assert judging_s(check, whole) <= 2.5 * judging_s(check, half) + 0.002


@pytest.mark.alone
@pytest.mark.parametrize(("body", "version", "grown"), BODIES.values(), ids=BODIES)
def test_the_largest_body_is_judged_within_50_ms(body: Any, version: Microversion, grown: Callable[[int], Any]) -> None:
    assert judging_s(BodyCheck(body, version), grown(LARGEST_BYTES - 500)) < 0.05


def hostile_values(size: int) -> list[Any]:
    """Of about so many bytes of JSON each."""
    deep: Any = 1
    for _ in range(28):
        deep = [deep]
    return [
        "a." * (size // 2),
        [each for number in range(size // 14) for each in (number, str(number))],
        [{}] * (size // 3),
        [deep] * (size // 58),
        ["no"] * (size // 5),
        {f"k{number}": "" for number in range(size // 11)},
    ]


def placed(schema: Any, value: Any) -> Iterator[Any]:
    """Documents that have the value in the place of each property, of the object and of those inside it."""
    yield value
    if "anyOf" in schema:
        for inner in schema["anyOf"]:
            yield from itertools.islice(placed(inner, value), 1, None)
    if "items" in schema:
        yield from ([inner] for inner in placed(schema["items"], value))
    properties = schema.get("properties", {})
    for name, inner in properties.items():
        for each in placed(inner, value):
            yield {**{other: valid(properties[other]) for other in schema.get("required", ())}, name: each}


def valid(schema: Any) -> Any:
    """Something that is let through, so that what stands beside it is looked at."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "null")
    kind = kind if isinstance(kind, str) else kind[0]
    if kind == "object":
        return {name: valid(schema["properties"][name]) for name in schema.get("required", ())}
    return {"array": [], "integer": 1, "string": "1", "null": None}.get(kind, 1)


WITH_BODIES = [row for row in ROWS if row.body is not None]


@pytest.mark.parametrize("row", WITH_BODIES, ids=lambda row: f"{row.path} {row.since}")
def test_no_body_of_any_route_costs_much(row: Route | ActionRoute) -> None:
    version = boundaries(row)[-1]
    assert row.body is not None
    check, schema = BodyCheck(row.body, version), row.body.type.at(version).schema
    for value in hostile_values(LARGEST_BYTES - 2000):
        for document in placed(schema, value):
            began = time.thread_time()
            with contextlib.suppress(errors.Invalid):
                check(document)
            assert time.thread_time() - began < 0.1, orjson.dumps(document)[:500]
