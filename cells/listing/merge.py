"""A lazy merge of sorted servers from many cells: pure, it asks nobody itself.

Each source gives the servers after the page's start in the order of the list, a few at a time, and says where its rest
begins. What all sources gave so far is sorted together: up to the first rest of a source the order is final. Only
sources whose rest begins inside the page are asked again, all of them at once.
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from cell_db.listing import NOT_NULL, ListedServer, Part
from database.keyset import Position, SortOrder

# Spread evenly, a cell's part of a page varies by the root of its mean; two of these and few cells are asked twice.
_DEVIATIONS = 2.0
_MARGIN = 1.25
# Of a page, what is left for a second question of the few cells that need one.
_RESERVE = 0.15


class Ask(NamedTuple):
    """What to ask of a source: so many servers after the position; None: from the page's start."""

    after: Position | None
    number: int


@dataclasses.dataclass(slots=True)
class _Source:
    """What a source gave so far, and where the rest of it begins at the earliest; None: it has no more."""

    given: list[ListedServer] = dataclasses.field(default_factory=list)
    rest: Position | None = None
    was_asked: bool = False


class Merge:
    """The merge of one page.

    Args:
        limit: servers on the page.
        sources: names of those that are asked in batches.
        shares: how many of them are likely to have an even part of the page.
        hidden: uuids of servers that sources may give and that are not part of the list.
    """

    def __init__(
        self,
        order: SortOrder,
        limit: int,
        sources: Collection[str],
        *,
        shares: int | None = None,
        hidden: Collection[str] = (),
    ) -> None:
        self._order = order
        self._limit = limit
        self._sources = {source: _Source() for source in sources}
        self._hidden = frozenset(hidden)
        self._servers: list[ListedServer] = []
        self._is_sorted = True
        self._first = first_batches(limit, len(sources), shares=len(sources) if shares is None else shares)

    def wanted(self) -> dict[str, Ask]:
        """What must be asked before the page is known; nothing: it is."""
        sources = zip(self._sources.items(), self._first, strict=True)
        return {name: Ask(None, number) for (name, source), number in sources if not source.was_asked} or self._short()

    def give(self, source: str, part: Part) -> None:
        """What a source gave when asked."""
        state = self._sources[source]
        state.was_asked = True
        state.given += part.servers
        state.rest = part.rest
        self.give_all(part.servers)

    def give_all(self, servers: Iterable[ListedServer]) -> None:
        """All that some other source has, in any order. Of two with the same position the one given first is kept."""
        self._servers += servers
        self._is_sorted = False

    def give_up(self, source: str) -> None:
        """The source is silent: what it gave counts, more will not come."""
        self._sources[source].was_asked = True
        self._sources[source].rest = None

    def page(self) -> list[ListedServer]:
        """The page, no server twice."""
        return self._visible()[: self._limit]

    def sources(self) -> dict[str, str]:
        """uuid -> the source that gave the server."""
        return {server.uuid: name for name, source in self._sources.items() for server in source.given}

    def _visible(self) -> list[ListedServer]:
        """All servers given so far, in order, each once; those beyond the rest of a source may not be final."""
        if not self._is_sorted:
            self._servers = in_order(self._servers, self._order)
            self._is_sorted = True
        return visible(self._servers, self._hidden)

    def _short(self) -> dict[str, Ask]:
        """The sources whose rest may begin on the page, with an estimate of what is missing of each."""
        rests = {name: source.rest for name, source in self._sources.items() if source.rest is not None}
        if not rests:
            return {}
        page = self.page()
        if len(page) == self._limit:
            last = page[-1].position
            rests = {name: rest for name, rest in rests.items() if is_after(last, rest, self._order)}
        return {name: self._more(self._sources[name].given, page) for name in rests}

    def _more(self, given: Sequence[ListedServer], page: Sequence[ListedServer]) -> Ask:
        """As many more servers as the source is likely to have on the page, judging by its part of what lies before its
        end."""
        end = given[-1].position
        before = sum(not is_after(server.position, end, self._order) for server in page)
        own = sum(server.uuid not in self._hidden for server in given)
        missing, share = self._limit - before, own / before if before else 1.0
        return Ask(end, min(missing, math.ceil(missing * share * _MARGIN) + 2))


def first_batches(limit: int, sources: int, *, shares: int) -> list[int]:
    """How many servers to ask each source for at first: its even part of the page and a margin.

    Those who share the page give no more than three times the page and two servers each, together and with what is
    asked of a few again.
    """
    if shares <= 1:
        return [limit] * sources
    part = limit / shares
    likely = min(limit, math.ceil(part + _DEVIATIONS * math.sqrt(part)) + 1)
    together = min(likely * shares, 3 * limit + 2 * shares - math.floor(limit * _RESERVE))
    least, larger = divmod(together, shares)
    return [least + (number < larger) for number in range(sources)]


# ---- order -----------------------------------------------------------------------------------------------------------


def is_after(position: Position, start: Position, order: SortOrder) -> bool:
    """Whether a position comes after the start; as `database.keyset.after` asks it of rows."""
    for value, begin, sorting in zip(position, start, order, strict=True):
        if value != begin:
            is_smaller = value is None or (begin is not None and value < begin)
            return bool(is_smaller == sorting.descending)
    return False


def in_order(servers: Sequence[ListedServer], order: SortOrder) -> list[ListedServer]:
    """The servers as the databases would sort them: text by code point, NULLs first ascending.

    One stable sort per run of keys of the same direction, the last run first: sorted parts are merged, not sorted
    again.
    """
    ordered = list(servers)
    for key, descending in reversed(_passes(order)):
        ordered.sort(key=key, reverse=descending)
    return ordered


def first_of(positions: Iterable[Position], order: SortOrder) -> Position:
    """The one that comes first."""
    return in_order([ListedServer(position, None) for position in positions], order)[0].position


def visible(servers: Iterable[ListedServer], hidden: Collection[str]) -> list[ListedServer]:
    """The servers without hidden ones, and of each the first."""
    shown, seen = list[ListedServer](), set(hidden)
    for each in servers:
        uuid = each.position[-1]
        if uuid not in seen:
            seen.add(uuid)
            shown.append(each)
    return shown


def _passes(order: SortOrder) -> list[tuple[Callable[[ListedServer], Any], bool]]:
    runs: list[tuple[list[int], bool]] = []
    for number, sorting in enumerate(order):
        if runs and runs[-1][1] == sorting.descending:
            runs[-1][0].append(number)
        else:
            runs.append(([number], sorting.descending))
    return [(_sort_key(numbers, order), descending) for numbers, descending in runs]


def _sort_key(numbers: list[int], order: SortOrder) -> Callable[[ListedServer], Any]:
    nullable = [number for number in numbers if order[number].name not in NOT_NULL]
    if not nullable and len(numbers) == len(order):
        return operator.attrgetter("position")
    if not nullable:
        return lambda server: [server.position[number] for number in numbers]
    return lambda server: [(server.position[number] is not None, server.position[number]) for number in numbers]
