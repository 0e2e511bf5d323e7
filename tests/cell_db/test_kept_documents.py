"""What rows keep as JSON: releases side by side read each other's documents, and what fits none is one server's
loss."""

import datetime
import json
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import given

import cell_db.history
from cell_db import packed
from database.types import UNREADABLE, Json, document
from lifecycle import states
from objects.build import BuildSpec, Flavor
from objects.build_request import BuildRequest
from objects.fault import Fault
from objects.server import Server, flavor_values, server_of_build_request

FLAVOR = Flavor(flavor_id="1", name="small", vcpus=1, memory_mib=64, root_gib=1)
ORDER = BuildRequest(
    build=BuildSpec(uuid="u", project_id="p", user_id="u", name="n", hostname="n", flavor=FLAVOR),
    request_id="req-1",
    created_at=datetime.datetime(2024, 1, 2),
)
JSON = [column.name for column in packed.SERVER_COLUMNS if isinstance(column.type, Json)]

texts = st.text('a"\\\n\0ß€😀', max_size=3)
maybe_texts = st.none() | texts
faults = st.fixed_dictionaries(
    {"code": st.integers(0, 599), "message": texts, "details": maybe_texts, "host": maybe_texts, "created": maybe_texts}
)
values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.lists(texts, max_size=1)
)
others = st.dictionaries(texts.map(lambda name: f"later_{name}"), values, max_size=2)


def packed_row(**texts: str | None) -> str:
    """A server's row with these documents."""
    row = {**msgspec.to_builtins(server_of_build_request(ORDER)), "state": states.BUILD_ACTIVE}
    row["flavor"] = flavor_values(FLAVOR)
    row |= {name: None if row[name] is None else msgspec.json.encode(row[name]).decode() for name in JSON} | texts
    return msgspec.json.encode([*row.values(), None]).decode()


def read(**texts: str | None) -> Server | packed.Unreadable:
    """The server of such a row."""
    return packed.server("u", packed_row(**texts))


def as_before(kind: Any, text: str) -> Any:
    """As documents were read when they were dictionaries: whatever fits this, in plain values."""
    value = msgspec.json.decode(text)
    msgspec.convert(value, kind)
    return value


def test_a_row_of_this_test_is_one() -> None:
    assert isinstance(read(), Server)


@given(faults, others)
def test_a_fault_is_read_as_it_was_written(kept: dict[str, Any], later: dict[str, Any]) -> None:
    text = json.dumps({**later, **kept})

    server = read(fault=text)

    assert isinstance(server, Server)
    assert msgspec.to_builtins(server.fault) == kept
    assert document(text, Fault) == server.fault
    assert msgspec.json.decode(msgspec.json.encode(server.fault)) == kept


@given(st.fixed_dictionaries({}, optional={"code": st.integers(0, 599), "message": texts, "details": texts}))
def test_what_a_fault_lacks_has_its_default(kept: dict[str, Any]) -> None:
    server = read(fault=json.dumps(kept))

    assert isinstance(server, Server) and server.fault is not None
    shown = {"code": 500, "message": "", "details": None, "host": None, "created": None} | kept
    assert msgspec.to_builtins(server.fault) == shown


def test_a_fault_is_written_with_the_keys_that_it_always_had() -> None:
    kept = msgspec.json.decode(msgspec.json.encode(cell_db.history.fault(500, "x" * 300, host="east-1")))

    assert list(kept) == ["code", "message", "details", "host", "created"]
    assert (len(kept["message"]), kept["details"], kept["host"]) == (
        cell_db.history.MESSAGE_LENGTH,
        "x" * 300,
        "east-1",
    )


def is_readable(kind: Any, text: str) -> bool:
    try:
        as_before(kind, text)
    except UNREADABLE:
        return False
    return True


@given(st.dictionaries(st.sampled_from(Fault.__struct_fields__), values) | values)
def test_a_fault_that_was_readable_still_is_and_no_other(kept: Any) -> None:
    text = json.dumps(kept)

    assert isinstance(read(fault=text), Server) == is_readable(Fault | None, text)


flavors = st.fixed_dictionaries(
    {
        "flavor_id": texts, "name": texts, "vcpus": st.integers(0, 999), "memory_mib": st.integers(0, 2**40),
        "root_gib": st.integers(0, 999), "ephemeral_gib": st.integers(0, 999), "swap_mib": st.integers(0, 999),
        "extra_specs": st.dictionaries(texts, texts, max_size=2),
    }
)  # fmt: skip


@given(flavors, others)
def test_a_flavor_is_read_as_it_was_written(kept: dict[str, Any], later: dict[str, Any]) -> None:
    server = read(flavor=json.dumps({**later, **kept}))

    assert isinstance(server, Server)
    assert flavor_values(server.flavor) == kept


@given(flavors, st.sets(st.sampled_from(("ephemeral_gib", "swap_mib", "extra_specs"))))
def test_what_a_flavor_lacks_is_none_of_it(kept: dict[str, Any], missing: set[str]) -> None:
    server = read(flavor=json.dumps({name: value for name, value in kept.items() if name not in missing}))

    assert isinstance(server, Server)
    assert flavor_values(server.flavor) == {**kept, **{name: {} if name == "extra_specs" else 0 for name in missing}}


@given(flavors, st.dictionaries(st.sampled_from(Flavor.__struct_fields__), values), values)
def test_a_flavor_that_was_readable_still_is_and_no_other(kept: dict[str, Any], changed: Any, other: Any) -> None:
    for text in (json.dumps({**kept, **changed}), json.dumps(changed), json.dumps(other)):
        assert isinstance(read(flavor=text), Server) == is_readable(Flavor, text)


def test_a_flavor_is_written_with_every_key_whatever_an_order_leaves_out() -> None:
    assert list(flavor_values(FLAVOR)) == list(Flavor.__struct_fields__)
    assert "swap_mib" not in msgspec.to_builtins(FLAVOR)


def test_equal_documents_of_many_servers_are_read_once() -> None:
    """What a list costs: a flavor for each of a thousand servers would be most of it."""
    rows = [packed_row(uuid=str(number)) for number in range(9)]

    servers = packed.servers(rows)

    assert len({id(server.flavor) for server in servers if isinstance(server, Server)}) == 1
