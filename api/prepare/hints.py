"""What a request for servers says of other servers: `os:scheduler_hints`, or the same under its older name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from api.prepare.refusals import invalid

NAMES = ("os:scheduler_hints", "OS-SCH-HNT:scheduler_hints")


@dataclasses.dataclass(frozen=True, slots=True)
class Hints:
    """The uuid of the server group to join, and those of servers to be with or apart from."""

    group: str | None = None
    same_host: tuple[str, ...] = ()
    different_host: tuple[str, ...] = ()


def parse(document: Mapping[str, Any]) -> Hints:
    """The hints of a create request's document; its schema lets through only those that somebody reads.

    Raises:
        Invalid: they are given under both names, or contradict each other.
    """
    given = [name for name in NAMES if document.get(name)]
    if len(given) > 1:
        raise invalid(NAMES[1], f"The hints are given as {NAMES[0]} already.")
    hints = document[given[0]] if given else {}
    group, same_host, different_host = (
        _listed(hints.get(name, ())) for name in ("group", "same_host", "different_host")
    )
    found = Hints(next(iter(group), None), same_host, different_host)
    if found.same_host and set(found.same_host) <= set(found.different_host):
        raise invalid("different_host", "It names every server that same_host names.")
    return found


def shown(document: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The hints of a create request's document as views show them: each a list."""
    given: Mapping[str, Any] = next((document[name] for name in NAMES if document.get(name)), {})
    return {name: value if isinstance(value, list) else [value] for name, value in given.items()}


def _listed(uuids: str | list[str]) -> tuple[str, ...]:
    return (uuids,) if isinstance(uuids, str) else tuple(dict.fromkeys(uuids))
