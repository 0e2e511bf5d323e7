"""Why a server went where it is, or nowhere: kept with the server, the last few, within a size.

What operators read names hosts and cells; what the owner reads (`told`) has numbers and plain words alone.
"""

import datetime
from collections.abc import Sequence

import msgspec

MAX_KEPT = 3
MAX_BYTES = 16 * 1024
MAX_REASONS = 5
MAX_ALTERNATES = 5
MAX_TEXT = 255
MAX_FAULT = 2048


class Rejection(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hosts that one filter rejected. `reasons`: why -> how many, most first; `plain`: what the owner is told."""

    filter: str
    hosts: int
    reasons: dict[str, int] = {}
    plain: str = ""


class Weighed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A host that was chosen or would do. `parts`: weigher -> its share of the weight."""

    host: str
    cell_uuid: str
    weight: float
    parts: dict[str, float] = {}


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One choice. Version 1.0.

    `hosts` were looked at out of `known` (a choice among a few hundred is as good as one among thousands); `fit` of
    them passed every filter. `chosen` None: no host was found, and `fault` says why.
    """

    at: datetime.datetime
    policy: str = "default"
    known: int = 0
    hosts: int = 0
    fit: int = 0
    rejected: list[Rejection] = []
    chosen: Weighed | None = None
    alternates: list[Weighed] = []
    fault: str | None = None


def kept(explanations: Sequence[Explanation]) -> list[dict[str, object]]:
    """What a row keeps of these, oldest first: the last few, in as many bytes as it may have."""
    documents: list[dict[str, object]] = []
    room = MAX_BYTES
    for one in reversed(explanations[-MAX_KEPT:]):
        document = _within(one, room)
        if document is None:
            break
        room -= len(msgspec.json.encode(document)) + 1
        documents.insert(0, document)
    return documents


def _within(one: Explanation, room: int) -> dict[str, object] | None:
    """The document, with fewer details if need be; None: there is no room for any."""
    short = msgspec.structs.replace(
        one,
        alternates=[],
        fault=one.fault and one.fault[:MAX_TEXT],
        rejected=[msgspec.structs.replace(each, reasons={}) for each in one.rejected[:MAX_REASONS]],
    )
    for version in (one, short):
        if len(msgspec.json.encode(version)) < room:
            return dict(msgspec.to_builtins(version))
    return None


def read(document: object) -> list[Explanation]:
    """What a row keeps; nothing where that cannot be read."""
    try:
        return msgspec.convert(document, list[Explanation] | None, strict=False) or []
    except msgspec.ValidationError:
        return []


def rejected(one: Explanation) -> dict[str, int]:
    """Why hosts would not do, in plain words -> how many."""
    counts: dict[str, int] = {}
    for each in one.rejected:
        plain = each.plain or "do not suit the request"
        counts[plain] = counts.get(plain, 0) + each.hosts
    return counts


def told(one: Explanation) -> str:
    """The choice in plain words, without names of hosts or of others."""
    if not one.hosts:
        return "There are no hosts."
    looked = f"{_hosts(one.hosts)} {_were(one.hosts)} looked at"
    if one.known > one.hosts:
        looked += f", out of {one.known}"
    parts = [f"{number} {plain}" for plain, number in rejected(one).items()]
    why = f" Of these, {', '.join(parts)}." if parts else ""
    if one.chosen is not None:
        return f"{looked}.{why} {_hosts(one.fit)} would do, and the best was chosen."
    left = f" {_hosts(one.fit)} would do, which {'is' if one.fit == 1 else 'are'} too few." if one.fit else ""
    return f"{looked}.{why}{left} No host was chosen."


def _hosts(number: int) -> str:
    return f"{number} host{'' if number == 1 else 's'}"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"
