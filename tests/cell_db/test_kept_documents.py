"""What rows keep as JSON: releases side by side read each other's documents, and what fits none is one server's loss."""

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
from objects.server import Server, server_of_build_request

FLAVOR = Flavor(flavor_id="1", name="small", vcpus=1, memory_mib=64, root_gib=1)
ORDER = BuildRequest(
    build=BuildSpec(uuid="u", project_id="p", user_id="u", name="n", hostname="n", flavor=FLAVOR),
    request_id="req-1",
    created_at=datetime.datetime(2024, 1, 2),
)
JSON = [column.name for column in packed.SERVER_COLUMNS if isinstance(column.type, Json)]

texts = st.text(st.characters(codec="utf-8"), max_size=5)
maybe_texts = st.none() | texts
faults = st.fixed_dictionaries(
    {"code": st.integers(0, 599), "message": texts, "details": maybe_texts, "host": maybe_texts, "created": maybe_texts}
)
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts | st.lists(texts, max_size=1)
others = st.dictionaries(texts.map(lambda name: f"later_{name}"), values, max_size=2)


def read(**texts: str | None) -> Server | packed.Unreadable:
    """The server of a row with these documents."""
    row = {**msgspec.to_builtins(server_of_build_request(ORDER)), "state": states.BUILD_ACTIVE}
    row |= {name: None if row[name] is None else msgspec.json.encode(row[name]).decode() for name in JSON} | texts
    (server,) = packed.servers([msgspec.json.encode([*row.values(), None]).decode()])
    return server


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
