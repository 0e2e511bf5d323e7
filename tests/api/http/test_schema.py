"""What request bodies and queries may hold, and what is said about those that may not."""

from typing import Any

import pytest

from api.http.schema import (
    BOOLEAN,
    DESCRIPTION,
    IPV4,
    IPV6,
    METADATA,
    NAME,
    NON_NEGATIVE_INT,
    POSITIVE_INT,
    QUOTA,
    TEXT,
    UUID,
    Body,
    BodyCheck,
    Param,
    Property,
    Query,
    QueryCheck,
    Type,
    checked,
    choice,
    either,
    fixed,
    list_of,
    map_of,
    nullable,
    structure,
    text,
)
from api.http.versions import MAX, MIN, Microversion
from core import errors


def converted(kind: Type, value: Any, version: Microversion = MAX) -> Any:
    return BodyCheck(Body("thing", Property("field", kind)), version)({"thing": {"field": value}})[0]["field"]


def refusal(kind: Type, value: Any, version: Microversion = MAX) -> str:
    with pytest.raises(errors.Invalid) as refused:
        converted(kind, value, version)
    return refused.value.message


UPPER = "6F70656E-7374-6163-6B20-342065766572"


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (NAME, "a name", "a name"),
        (NAME, "ü" * 255, "ü" * 255),
        (UUID, UPPER, UPPER.lower()),
        (UUID, UPPER.replace("-", ""), UPPER.lower()),
        *[(BOOLEAN, value, True) for value in (True, "True", "true", "TRUE", "1", "on", "ON", "yes", "Yes")],
        *[(BOOLEAN, value, False) for value in (False, "False", "false", "FALSE", "0", "off", "OFF", "no", "No")],
        (POSITIVE_INT, 1, 1),
        (POSITIVE_INT, "1", 1),
        (POSITIVE_INT, 2.0, 2),
        (NON_NEGATIVE_INT, "0", 0),
        (NON_NEGATIVE_INT, 0x7FFFFFFF, 0x7FFFFFFF),
        (QUOTA, "-1", -1),
        (IPV4, "192.0.2.1", "192.0.2.1"),
        (IPV6, "2001:db8::1", "2001:db8::1"),
        (METADATA, {"a key": "value", "b": ""}, {"a key": "value", "b": ""}),
        (DESCRIPTION, "two\nlines", "two\nlines"),
        (DESCRIPTION, None, None),
        (nullable(POSITIVE_INT), None, None),
        (nullable(POSITIVE_INT), "7", 7),
        (either(choice("auto", "none"), list_of(POSITIVE_INT)), "auto", "auto"),
        (either(choice("auto", "none"), list_of(POSITIVE_INT)), ["1", 2], [1, 2]),
        (map_of(POSITIVE_INT, keys="^[a-z]+$"), {"a": "5"}, {"a": 5}),
        (list_of(structure(Property("n", POSITIVE_INT))), [{"n": "3"}, {}], [{"n": 3}, {}]),
    ],
)
def test_values_become_what_handlers_want(kind: Type, value: Any, expected: Any) -> None:
    result = converted(kind, value)

    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (NAME, ""),
        (NAME, "   "),
        (NAME, "a\nb"),
        (NAME, "a\x00"),
        (NAME, "x" * 256),
        (NAME, 5),
        (UUID, "no"),
        (UUID, 5),
        *[(BOOLEAN, value) for value in (1, 0, None, "maybe", "2", "", [])],
        *[
            (POSITIVE_INT, value)
            for value in (0, "0", -1, "-1", 1.5, "1.5", "", "x", True, None, 2**31, str(2**31), "٣", [])
        ],
        *[(NON_NEGATIVE_INT, value) for value in (-1, "-0x1", "9" * 30)],
        (QUOTA, -2),
        (QUOTA, "-2"),
        (IPV4, "2001:db8::1"),
        (IPV4, "1.2.3"),
        (IPV6, "192.0.2.1"),
        (METADATA, {"": "v"}),
        (METADATA, {"k" * 256: "v"}),
        (METADATA, {"k\n": "v"}),
        (METADATA, {"k": "v" * 256}),
        (METADATA, {"k": None}),
        (METADATA, []),
        (DESCRIPTION, "a\x00b"),
        (DESCRIPTION, "x" * 256),
        (list_of(TEXT, maximum=1), ["a", "b"]),
        (list_of(TEXT, minimum=1), []),
        (list_of(TEXT, unique=True), ["a", "a"]),
        (map_of(TEXT, keys=".*", maximum=1), {"a": "b", "c": "d"}),
        (text(2, 3, "^a"), "bbb"),
    ],
)
def test_other_values_are_refused_and_the_field_is_named(kind: Type, value: Any) -> None:
    message = refusal(kind, value)

    assert message.startswith("Invalid input for field/attribute ")
    assert "Value: " in message


def test_the_message_names_the_field_the_value_and_the_reason() -> None:
    assert refusal(text(2), "x") == "Invalid input for field/attribute field. Value: x. 'x' is too short"


def test_long_values_are_cut_in_messages() -> None:
    assert len(refusal(NAME, "x" * 100_000)) < 1000
    assert len(refusal(choice("a"), "x" * 100_000)) < 1000


def test_a_conversion_may_refuse() -> None:
    def even(value: int) -> None:
        if value % 2:
            raise ValueError("it is odd")

    kind = checked(POSITIVE_INT, even)

    assert converted(kind, "4") == 4
    assert refusal(kind, "3") == "Invalid input for field/attribute field. Value: 3. it is odd"
    with pytest.raises(errors.Invalid, match="it is odd"):
        BodyCheck(Body.of(checked(fixed({"type": "object"}), lambda value: even(len(value)))), MIN)({"a": 1})


BODY = Body(
    "server",
    Property("name", NAME, required=True),
    Property("networks", list_of(TEXT), until="2.36"),
    Property("networks", either(choice("auto", "none"), list_of(TEXT)), required=True, since="2.37"),
    Property("tag", TEXT, since="2.32", until="2.36"),
    Property("tag", TEXT, since="2.42"),
    beside=[Property("os:scheduler_hints", structure(Property("group", UUID), closed=False))],
)


@pytest.mark.parametrize(
    ("version", "server", "fits"),
    [
        ("2.36", {"name": "a"}, True),
        ("2.37", {"name": "a"}, False),
        ("2.36", {"name": "a", "networks": "auto"}, False),
        ("2.37", {"name": "a", "networks": "auto"}, True),
        ("2.31", {"name": "a", "tag": "t"}, False),
        ("2.32", {"name": "a", "tag": "t"}, True),
        ("2.36", {"name": "a", "tag": "t"}, True),
        ("2.41", {"name": "a", "networks": [], "tag": "t"}, False),
        ("2.42", {"name": "a", "networks": [], "tag": "t"}, True),
        ("2.36", {}, False),
        ("2.36", {"name": "a", "unknown": 1}, False),
    ],
)
def test_properties_hold_within_their_span(version: str, server: dict[str, Any], fits: bool) -> None:
    check = BodyCheck(BODY, Microversion.parse(version))
    if fits:
        assert check({"server": server})[0] == server
    else:
        with pytest.raises(errors.Invalid):
            check({"server": server})


def test_keys_may_stand_beside_the_name() -> None:
    hints = {"group": UPPER, "own": 1}

    inner, document = BodyCheck(BODY, MIN)({"server": {"name": "a"}, "os:scheduler_hints": hints})

    assert inner == {"name": "a"}
    assert document == {"server": {"name": "a"}, "os:scheduler_hints": {"group": UPPER.lower(), "own": 1}}
    with pytest.raises(errors.Invalid) as refused:
        BodyCheck(BODY, MIN)({"server": {"name": "a"}, "beside": {}})
    assert refused.value.fields["field"] == "beside"


def test_bodies_without_a_name_or_with_a_plain_value() -> None:
    assert BodyCheck(Body(None, Property("host", TEXT, required=True)), MIN)({"host": "h"})[0] == {"host": "h"}
    assert BodyCheck(Body.with_value("tags", list_of(TEXT)), MIN)({"tags": ["a"]})[0] == ["a"]
    assert BodyCheck(Body.of(map_of(TEXT, keys=".*")), MIN)({"a": "b"})[0] == {"a": "b"}


QUERY = Query(
    Param("limit", NON_NEGATIVE_INT),
    Param("locked", BOOLEAN, since="2.73"),
    Param("host", TEXT, once=True),
    strict_since="2.75",
    refused=r"_|secret\Z",
)


def test_queries_are_converted_and_keep_repeated_values() -> None:
    check = QueryCheck(QUERY, Microversion(2, 73))

    assert check([("limit", "1"), ("limit", "2"), ("locked", "yes")]) == {"limit": [1, 2], "locked": [True]}


def test_a_bad_query_value_is_named() -> None:
    with pytest.raises(errors.Invalid) as refused:
        QueryCheck(QUERY, MIN)([("limit", "-1")])

    assert refused.value.message.startswith("Invalid input for query parameters limit. Value: -1.")


def test_a_parameter_that_may_be_given_once_is_refused_twice() -> None:
    with pytest.raises(errors.Invalid):
        QueryCheck(QUERY, MIN)([("host", "a"), ("host", "b")])


@pytest.mark.parametrize(
    ("version", "name", "outcome"),
    [
        ("2.74", "unknown", "dropped"),
        ("2.75", "unknown", "refused"),
        ("2.72", "locked", "dropped"),
        ("2.1", "_private", "refused"),
        ("2.1", "secret", "refused"),
        ("2.74", "secrets", "dropped"),
    ],
)
def test_unknown_parameters_are_dropped_or_refused(version: str, name: str, outcome: str) -> None:
    check = QueryCheck(QUERY, Microversion.parse(version))
    if outcome == "dropped":
        assert check([(name, "x")]) == {}
    else:
        with pytest.raises(errors.Invalid, match=name):
            check([(name, "x")])


def test_queries_are_strict_everywhere_from_2_102_on() -> None:
    assert QueryCheck(Query(), Microversion(2, 101))([("x", "y")]) == {}
    with pytest.raises(errors.Invalid):
        QueryCheck(Query(), Microversion(2, 102))([("x", "y")])
