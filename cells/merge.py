"""A lazy merge of sorted servers from many cells: pure, it asks nobody itself.

Each source gives the servers after the page's start in the order of the list, a few at a time. What all sources gave so far is sorted
together: up to the first end of a source that may have more, the order is final. Only sources whose end lies inside the page are asked
again, all of them at once.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from cell_db.listing import NOT_NULL, Found
from core.keyset import Order, Position

# Spread evenly, a cell's part of a page varies by the root of its mean; two of these and few cells are asked twice.
_DEVIATIONS = 2.0
_MARGIN = 1.25


class Place(msgspec.Struct, frozen=True, gc=False):
    """A server's place in the merged order; `item` is whatever is known of it, `source` the source that gave it, if one did."""

    position: Position
    item: Any
    source: str | None

    @property
    def uuid(self) -> str:
        uuid: str = self.position[-1]
        return uuid


class Ask(NamedTuple):
    """What to ask of a source: so many servers after the position; None: from the page's start."""

    after: Position | None
    number: int


@dataclasses.dataclass(slots=True)
class _Source:
    last: Position | None = None
    ended: bool = False
    asked: int = 0


class Merge:
    """The merge of one page.

    Args:
        limit: servers on the page.
        sources: names of those that are asked in batches.
        shares: how many of them are likely to have an even part of the page.
        hidden: uuids of servers that sources may give and that are not part of the list.
    """

    def __init__(
        self, order: Order, limit: int, sources: Collection[str], *, shares: int | None = None, hidden: Collection[str] = ()
    ) -> None:
        self._order = order
        self._limit = limit
        self._sources = {source: _Source() for source in sources}
        self._hidden = frozenset(hidden)
        self._places: list[Place] = []
        self._is_sorted = True
        self._first = first_batch(limit, len(sources) if shares is None else shares)

    def wanted(self) -> dict[str, Ask]:
        """What must be asked before the page is known; nothing: it is."""
        new = {name: Ask(None, self._first) for name, source in self._sources.items() if not source.asked and not source.ended}
        return new or self._short()

    def give(self, source: str, found: Sequence[Found], *, asked: int) -> None:
        """What a source gave when asked for so many: fewer, and it has no more."""
        state = self._sources[source]
        state.asked += asked
        state.ended = len(found) < asked
        if found:
            state.last = found[-1].position
        self._places += [Place(each.position, each.item, source) for each in found]
        self._is_sorted = False

    def give_all(self, places: Iterable[Place]) -> None:
        """All that some other source has, in any order. Of two with the same position the one given first is kept."""
        self._places += places
        self._is_sorted = False

    def give_up(self, source: str) -> None:
        """The source is silent: what it gave counts, more will not come."""
        self._sources[source].ended = True

    def page(self) -> list[Place]:
        """The page, no server twice."""
        return self._visible()[: self._limit]

    def _visible(self) -> list[Place]:
        """All servers given so far, in order, each once; those beyond the end of a source that has more may not be final."""
        if not self._is_sorted:
            self._places = in_order(self._places, self._order)
            self._is_sorted = True
        return visible(self._places, self._hidden)

    def _short(self) -> dict[str, Ask]:
        """The sources whose end lies before the page's, with an estimate of what is missing of each."""
        ends = {source.last: name for name, source in self._sources.items() if not source.ended and source.last is not None}
        if not ends:
            return {}
        visible = {id(place) for place in self._visible()}
        taken, total, short = Counter[str | None](), 0, dict[str, Ask]()
        for place in self._places:
            if id(place) in visible:
                taken[place.source] += 1
                total += 1
            if total >= self._limit:
                break
            if place.position in ends:
                name = ends[place.position]
                short[name] = Ask(place.position, self._estimate(taken[name], total))
        return short

    def _estimate(self, taken: int, total: int) -> int:
        """How many more servers a source is likely to have on the page, judging by its part of what lies before its end."""
        missing = self._limit - total
        share = taken / total if total else 1.0
        return min(missing, math.ceil(missing * share * _MARGIN) + 2)


def first_batch(limit: int, sources: int) -> int:
    """How many servers to ask each source for at first: its even part of the page and a margin, and never so many that all
    together give more than twice the page and two rows each.
    """
    if sources <= 1:
        return limit
    part = limit / sources
    return max(1, min(limit, math.ceil(part + _DEVIATIONS * math.sqrt(part)) + 1, math.floor(2 * part) + 2))


# ---- order ---------------------------------------------------------------------------------------------------------------


def is_after(position: Position, start: Position, order: Order) -> bool:
    """Whether a position comes after the start; as `core.keyset.after` asks it of rows."""
    for value, begin, sorting in zip(position, start, order, strict=True):
        if value != begin:
            is_smaller = value is None or (begin is not None and value < begin)
            return bool(is_smaller == sorting.descending)
    return False


def in_order(places: Sequence[Place], order: Order) -> list[Place]:
    """The places as the databases would sort them: text by code point, NULLs first ascending.

    One stable sort per run of keys of the same direction, the last run first: sorted parts are merged, not sorted again.
    """
    sorted_places = list(places)
    for key, descending in reversed(_passes(order)):
        sorted_places.sort(key=key, reverse=descending)
    return sorted_places


def first_of(positions: Iterable[Position], order: Order) -> Position:
    """The one that comes first."""
    return in_order([Place(position, None, None) for position in positions], order)[0].position


def visible(places: Iterable[Place], hidden: Collection[str]) -> list[Place]:
    """The places without hidden servers, and of each server the first one."""
    found, seen = list[Place](), set(hidden)
    for place in places:
        uuid = place.position[-1]
        if uuid not in seen:
            seen.add(uuid)
            found.append(place)
    return found


def _passes(order: Order) -> list[tuple[Callable[[Place], Any], bool]]:
    runs: list[tuple[list[int], bool]] = []
    for number, sorting in enumerate(order):
        if runs and runs[-1][1] == sorting.descending:
            runs[-1][0].append(number)
        else:
            runs.append(([number], sorting.descending))
    return [(_sort_key(numbers, order), descending) for numbers, descending in runs]


def _sort_key(numbers: list[int], order: Order) -> Callable[[Place], Any]:
    nullable = [number for number in numbers if order[number].name not in NOT_NULL]
    if not nullable and len(numbers) == len(order):
        return lambda place: place.position
    if not nullable:
        return lambda place: [place.position[number] for number in numbers]
    return lambda place: [(place.position[number] is not None, place.position[number]) for number in numbers]
