"""What a request for servers says of other servers, of hosts and of cells: `os:scheduler_hints`, or the same under its
older name.

Source: Nova's filters that read them. A hint is read by a filter, or refused (decision 0022).
"""

import dataclasses
import ipaddress
from collections.abc import Collection, Mapping
from typing import Any

from api.prepare.refusals import invalid
from objects.host_query import parse as parse_query

NAMES = ("os:scheduler_hints", "OS-SCH-HNT:scheduler_hints")
QUERY, NEAR, CIDR = "query", "build_near_host_ip", "cidr"
DIFFERENT_CELL, TARGET_CELL = "different_cell", "target_cell"
READERS: Mapping[str, str] = {
    "same_host": "SameHostFilter",
    "different_host": "DifferentHostFilter",
    QUERY: "JsonFilter",
    NEAR: "SimpleCIDRAffinityFilter",
    DIFFERENT_CELL: "DifferentCellFilter",
    TARGET_CELL: "TargetCellFilter",
}
"""Hint -> the scheduler's filter that reads it."""
GROUP_READERS: Mapping[str, str] = {
    "affinity": "ServerGroupAffinityFilter",
    "anti-affinity": "ServerGroupAntiAffinityFilter",
}
"""Policy of a server group -> the filter that keeps it; soft policies are kept by weights."""
_DEFAULT_PREFIX = {4: 24, 6: 64}


@dataclasses.dataclass(frozen=True, slots=True)
class Hints:
    """The uuid of the server group to join, and those of servers to be with or apart from; a condition on hosts (JSON),
    the network of their address, and cells by name or uuid. `given`: the names of all hints."""

    group: str | None = None
    same_host: tuple[str, ...] = ()
    different_host: tuple[str, ...] = ()
    query: str = ""
    near: str = ""
    different_cell: tuple[str, ...] = ()
    target_cell: str | None = None
    given: frozenset[str] = frozenset()


NONE = Hints()


def parse(document: Mapping[str, Any]) -> Hints:
    """The hints of a create request's document; its schema lets through only those that somebody reads.

    Raises:
        Invalid: they are given under both names, contradict each other, or one cannot be read; names it.
    """
    given = [name for name in NAMES if document.get(name)]
    if len(given) > 1:
        raise invalid(NAMES[1], f"The hints are given as {NAMES[0]} already.")
    hints = document[given[0]] if given else {}
    group, same_host, different_host, different_cell = (
        _listed(hints.get(name, ())) for name in ("group", "same_host", "different_host", DIFFERENT_CELL)
    )
    if same_host and set(same_host) <= set(different_host):
        raise invalid("different_host", "It names every server that same_host names.")
    return Hints(
        group=next(iter(group), None),
        same_host=same_host,
        different_host=different_host,
        query=_query(hints.get(QUERY, "")),
        near=_network(hints),
        different_cell=different_cell,
        target_cell=hints.get(TARGET_CELL),
        given=frozenset(name for name, value in hints.items() if value),
    )


def shown(document: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The hints of a create request's document as views show them: each a list."""
    given: Mapping[str, Any] = next((document[name] for name in NAMES if document.get(name)), {})
    return {name: value if isinstance(value, list) else [value] for name, value in given.items()}


def refuse_unread(hints: Hints, enabled: Collection[str], policy: str) -> None:
    """Returns if the filters of the scheduler's policy read all hints; no filters: the default ones, which do.

    Raises:
        Invalid: one is read by none of them; names the hint.
    """
    for name in sorted(hints.given & READERS.keys()):
        if enabled and READERS[name] not in enabled:
            raise invalid(
                name, f"The scheduler policy {policy} does not read this hint: {READERS[name]} is not enabled."
            )


def cells_named(hints: Hints, known: Mapping[str, str]) -> tuple[list[str], str | None]:
    """The uuids of the cells to stay out of, and of the one to go to. `known`: name -> uuid.

    Raises:
        Invalid: there is no such cell; names the hint.
    """
    different = [_cell(DIFFERENT_CELL, name, known) for name in hints.different_cell]
    target = None if hints.target_cell is None else _cell(TARGET_CELL, hints.target_cell, known)
    if target in different:
        raise invalid(DIFFERENT_CELL, "It names the cell that target_cell names.")
    return different, target


def _cell(hint: str, name: str, known: Mapping[str, str]) -> str:
    # Of a route such as top!east the cell is the last part.
    last = name.rpartition("!")[2]
    if last in known:
        return known[last]
    if last.lower() in known.values():
        return last.lower()
    raise invalid(hint, f"Cell {last} could not be found.")


def _listed(names: str | list[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))


def _query(text: str) -> str:
    """The condition as JSON text; "": there is none."""
    try:
        return "" if parse_query(text) is None else text
    except ValueError as error:
        raise invalid(QUERY, f"It is no condition on hosts. {error}") from None


def _network(hints: Mapping[str, Any]) -> str:
    """The network of the address with that prefix; "": none is asked for."""
    near, cidr = hints.get(NEAR), hints.get(CIDR)
    if near is None:
        if cidr is not None:
            raise invalid(CIDR, f"It says how near {NEAR} is, which is not given.")
        return ""
    try:
        address = ipaddress.ip_address(near)
    except ValueError:
        raise invalid(NEAR, "It is no IP address.") from None
    prefix = str(_DEFAULT_PREFIX[address.version]) if cidr is None else cidr.removeprefix("/")
    if not (prefix.isascii() and prefix.isdecimal() and int(prefix) <= address.max_prefixlen):
        raise invalid(CIDR, f"It is no length of a prefix, such as /{_DEFAULT_PREFIX[address.version]}.")
    return str(ipaddress.ip_network(f"{near}/{int(prefix)}", strict=False))
