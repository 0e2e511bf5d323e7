"""What is accepted is read: no field is written down for a server and then forgotten.

A field counts as read where some program's code takes it as an attribute of that name, outside of the file that
declares it. That is looser than types, and enough: every field that has ever been forgotten had a name of its own.
"""

import ast
import dataclasses
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import scheduler.request
from api.prepare.extra_specs import KNOWN, LIBVIRT, SCHEDULER, UNREAD
from objects.build import BuildSpec, Flavor, ImageRef
from objects.build_request import BuildRequest, RequestSpec
from objects.host import Heartbeat, Inventory, Usage
from scheduler.request import Group, Hints, Request

REPOSITORY = pathlib.Path(__file__).parents[2]
PROGRAMS = ("api", "api_db", "cell_db", "cells", "clients", "compute", "conductor", "console", "scheduler", "objects")
WISHES: tuple[type[Any], ...] = (RequestSpec, BuildRequest, BuildSpec, Flavor, ImageRef, Inventory, Usage, Heartbeat)


def _trees() -> Iterator[tuple[pathlib.Path, ast.Module]]:
    for program in PROGRAMS:
        for path in sorted((REPOSITORY / program).rglob("*.py")):
            yield path, ast.parse(path.read_text())


@pytest.fixture(scope="module")
def read() -> set[str]:
    """Every attribute that is taken anywhere."""
    return {
        node.attr
        for _, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


@pytest.mark.parametrize("wish", WISHES, ids=lambda wish: wish.__name__)
def test_every_field_that_is_written_down_has_a_reader(read: set[str], wish: type[msgspec.Struct]) -> None:
    assert [name for name in wish.__struct_fields__ if name not in read] == []


@pytest.mark.parametrize("part", [Request, Group, Hints], ids=lambda part: part.__name__)
def test_everything_that_the_scheduler_is_asked_for_is_read(read: set[str], part: type[Any]) -> None:
    assert [field.name for field in dataclasses.fields(part) if field.name not in read] == []


def test_the_one_way_to_a_request_fills_every_field() -> None:
    (builder,) = (
        node
        for node in ast.parse(pathlib.Path(scheduler.request.__file__).read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "request_for"
    )
    (made,) = (node for node in ast.walk(builder) if isinstance(node, ast.Call) and _name_of(node) == "Request")

    assert {keyword.arg for keyword in made.keywords} == {
        field.name for field in dataclasses.fields(Request) if field.init
    }


def test_nobody_else_makes_a_request() -> None:
    makers = [
        path
        for path, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _name_of(node) == "Request"
    ]

    assert [path.relative_to(REPOSITORY).as_posix() for path in makers] == ["scheduler/request.py"]


NAMESPACES = {
    SCHEDULER: {"aggregate_instance_extra_specs", "capabilities", "cellplane", "group_policy", "resources", "trait"},
    LIBVIRT: {"hide_hypervisor_id", "hw", "hw_rng", "hw_video", "os", "quota"},
}
READ_IN = {SCHEDULER: ("scheduler", "core"), LIBVIRT: ("compute/libvirt",)}


def test_every_namespace_of_extra_specs_has_its_reader_or_is_refused() -> None:
    namespaces: dict[str, set[str]] = {}
    for known in KNOWN:
        namespaces.setdefault(known.reader, set()).add(re.split(r"[:({]", known.name.pattern)[0])

    assert namespaces == NAMESPACES
    assert set().union(*namespaces.values()).isdisjoint(UNREAD)


@pytest.mark.parametrize(
    ("reader", "namespace"), [(reader, space) for reader, spaces in NAMESPACES.items() for space in sorted(spaces)]
)
def test_the_reader_of_a_namespace_knows_its_name(reader: str, namespace: str) -> None:
    source = "\n".join(
        path.read_text() for folder in READ_IN[reader] for path in (REPOSITORY / folder).rglob("*.py")
    )

    assert re.search(rf"""["'^]{namespace}[:"'(\[]""", source)


def _name_of(call: ast.Call) -> str:
    return (
        call.func.id
        if isinstance(call.func, ast.Name)
        else call.func.attr
        if isinstance(call.func, ast.Attribute)
        else ""
    )
