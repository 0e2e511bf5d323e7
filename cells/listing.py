"""One list of servers over all cells.

Two ways (docs/decisions/0004-which-list-takes-which-way.md). In the default order, with filters that the mappings know, the API database
tells where a page ends and which cells its servers are in, and only these are asked. Otherwise all cells that may hold servers of the list
are asked at once and what they give is merged.
"""

import asyncio
import dataclasses
import enum
import time
from collections import defaultdict
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa

import api_db.listing
import cell_db.filters
import cell_db.hosts
import cell_db.listing
import core.errors
import core.keyset
from api_db.listing import Marked, Waiting, Window
from cell_db.filters import Filters
from cell_db.hosts import Service
from cell_db.listing import Brief, Found, Query, Shape, Wanted
from cells.answers import CELL0_UUID, Answer, Cell, Silence, value_of
from cells.gate import Gate
from cells.merge import Ask, Merge, Place, first_batch, first_of, in_order, is_after, visible
from cells.route import Reach
from core.keyset import Order, Position
from objects.host import COMPUTE
from objects.server import Server

T = TypeVar("T")

Unreachable: TypeAlias = api_db.listing.Mapped
"""A server whose cell does not answer: what its mapping tells."""

# Of the time that is left, a round that others may follow takes this part at most.
_PART_OF_A_ROUND = 0.8
# Of a round, this part is given to regular expressions: one without an end is to be refused, not taken for a silent cell.
_PART_FOR_REGEXPS = 0.5
# What a later round gets even if an earlier one waited for a silent cell until the end.
_LEAST_S = 0.15
# What reading a server costs, in keys; measured, see docs/performance.md.
_KEYS_PER_ROW = {Shape.DETAIL: 3.0, Shape.BRIEF: 1.0}
# Windows that one page may take; more would mean that mappings and cells do not fit together.
_MOST_WINDOWS = 8


class WhenSilent(enum.Enum):
    """What becomes of servers whose cell does not answer."""

    SHOW = enum.auto()
    SKIP = enum.auto()
    FAIL = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list that somebody wants a page of.

    `filters` hold `deleted`: False, True or None for both. `order` ends with `uuid`. `marker_project`: the project that a marker must
    belong to; None: any. `hosts_down_after_s`: read the hosts of the servers' cells too; a host silent for longer is down.
    `keys_per_query`: a query costs as much as so many keys.
    """

    filters: Filters
    order: Order
    limit: int
    marker: str | None = None
    marker_project: str | None = None
    shape: Shape = Shape.DETAIL
    user_data: bool = False
    when_silent: WhenSilent = WhenSilent.SHOW
    hosts_down_after_s: float | None = None
    deadline_s: float = 1.0
    keys_per_query: float = 35.0

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.filters, self.order, self.shape, self.user_data)


Item: TypeAlias = Server | Brief | Unreachable


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """`cells` says for each item which cell gave it, None where no cell did; `silent` names cells of which servers may be missing or
    shown by their mappings alone; `hosts`: cell uuid -> its hosts, if they were asked for.
    """

    items: Sequence[Item] = ()
    cells: Sequence[str | None] = ()
    more: bool = False
    marker: str | None = None
    silent: Sequence[str] = ()
    hosts: Mapping[str, Sequence[Service]] = dataclasses.field(default_factory=dict)


async def list_servers(reach: Reach, listing: Listing) -> Page:
    """One page of the list.

    Raises:
        Invalid: the marker names no server that the caller may see; a regular expression is wrong or takes too long.
        Unavailable: the API database does not answer; or a cell does not and servers may not be left out; or it alone knows the marker.
    """
    if listing.limit == 0:
        return Page()
    if goes_by_mappings(listing):
        return await _ByMappings(reach, listing).page()
    return await _ByMerge(reach, listing).page()


def goes_by_mappings(listing: Listing) -> bool:
    """Whether the mappings alone give the order of the list and hold an index for it."""
    return core.keyset.names(listing.order) == ("created_at", "uuid") and _mappings_can_filter(listing.filters)


def _mappings_can_sort(order: Order) -> bool:
    return all(sorting.name in api_db.listing.SORT_KEYS for sorting in order)


def _mappings_can_filter(filters: Filters) -> bool:
    return filters.get("deleted", False) is False and api_db.listing.FILTERS.issuperset(filters)


# ---- what both ways share ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Visit:
    """What one visit to a cell brings: servers, which of those in the journal it has, its hosts."""

    found: list[Found] = dataclasses.field(default_factory=list)
    rows: dict[str, Server | Brief] = dataclasses.field(default_factory=dict)
    present: set[str] = dataclasses.field(default_factory=set)
    hosts: list[Service] | None = None


def _visit_for_page(
    connection: sa.Connection, query: Query, number: int, in_journal: Sequence[str], within_s: float, hosts_down_after_s: float | None
) -> _Visit:
    # Before the page: a row that appears in between is then found twice, and not missed.
    present = cell_db.listing.present(connection, in_journal)
    found = query.page(connection, number, within_s=within_s)
    return _Visit(found=found, present=present, hosts=_hosts(connection, hosts_down_after_s, found))


def _visit_for_rows(connection: sa.Connection, wanted: Wanted, uuids: Sequence[str], hosts_down_after_s: float | None) -> _Visit:
    rows = cell_db.listing.rows_of(connection, wanted, uuids)
    return _Visit(rows=rows, hosts=_hosts(connection, hosts_down_after_s, rows))


def _hosts(connection: sa.Connection, down_after_s: float | None, of: Collection[object]) -> list[Service] | None:
    if down_after_s is None or not of:
        return None
    return cell_db.hosts.list_services(connection, down_after_s=down_after_s, binary=COMPUTE)


class _Way:
    """One request's way to its page: the gates, the time, what is silent so far."""

    def __init__(self, reach: Reach, listing: Listing) -> None:
        self._reach = reach
        self._listing = listing
        self._wanted = listing.wanted
        self._gates: dict[str, Gate] = {gate.cell.uuid: gate for gate in reach.cells.gates()}
        self._ends = time.monotonic() + listing.deadline_s
        self._silent: dict[str, Cell] = {}
        self._hosts: dict[str, Sequence[Service]] = {}

    def _round_s(self, *, last: bool = False) -> float:
        left = self._ends - time.monotonic()
        return max(left if last else left * _PART_OF_A_ROUND, _LEAST_S)

    def _fell_silent(self, uuid: str, silence: Silence | None) -> None:
        cell = self._gates[uuid].cell if uuid in self._gates else Cell(uuid, uuid, "", "none://")
        self._silent[uuid] = cell
        if self._listing.when_silent is WhenSilent.FAIL:
            value_of(silence or Silence(cell, f"no answer within {self._listing.deadline_s:g} s"))

    async def _know(self, cells: Iterable[str]) -> None:
        """Looks once more for cells that this process does not know: they may be new."""
        if any(uuid not in self._gates for uuid in cells):
            await asyncio.get_running_loop().run_in_executor(None, self._reach.cells.refresh)
            self._gates = {gate.cell.uuid: gate for gate in self._reach.cells.gates()}

    async def _visit(self, visits: Mapping[str, tuple[Any, ...]], within_s: float) -> dict[str, _Visit]:
        """Makes these visits, function and arguments by cell, all at once; what the cells brought that answered in time.

        Raises:
            Unavailable: a cell is silent and servers may not be left out.
        """
        await self._know(visits)
        for unknown in visits.keys() - self._gates.keys():
            self._fell_silent(unknown, None)
        asked = {cell: visit for cell, visit in visits.items() if cell in self._gates}
        answers = await asyncio.gather(*(_within(self._gates[cell].read(*visit), within_s) for cell, visit in asked.items()))
        brought: dict[str, _Visit] = {}
        for cell, answer in zip(asked, answers, strict=True):
            if not isinstance(answer, Answer):
                self._fell_silent(cell, answer)
                continue
            brought[cell] = answer.value
            if answer.value.hosts is not None:
                self._hosts[cell] = answer.value.hosts
        return brought

    async def _unreachable(
        self, cells: Collection[str], after: Position | None, until: Position | None, limit: int
    ) -> list[Place]:
        """The servers of silent cells in their places, where the mappings can tell these and such are shown."""
        listing = self._listing
        if not cells or listing.when_silent is not WhenSilent.SHOW:
            return []
        if not _mappings_can_sort(listing.order) or not _mappings_can_filter(listing.filters):
            return []
        found = await self._api(
            api_db.listing.mapped_in, sorted(cells), listing.filters, listing.order, after=after, until=until, limit=limit
        )
        return [Place(position, mapped, None) for position, mapped in found]

    async def _api(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return value_of(await self._reach.api_db.read(fn, *args, **kwargs))

    def _page(self, items: Sequence[tuple[Item, str | None]], *, full: bool, marker: str | None) -> Page:
        return Page(
            items=[item for item, _ in items],
            cells=[cell for _, cell in items],
            more=full,
            marker=marker,
            silent=sorted(cell.name for cell in self._silent.values()),
            hosts=self._hosts,
        )


async def _within(visit: Awaitable[Answer[T] | Silence], seconds: float) -> Answer[T] | Silence | None:
    try:
        return await asyncio.wait_for(visit, seconds)
    except TimeoutError:
        return None


def _check_marker(listing: Listing, marked: Marked | None) -> None:
    """
    Raises:
        Invalid: there is no such server, or it is another project's: its place in an order would tell of it.
    """
    of_others = marked is not None and listing.marker_project is not None and marked.mapped.project_id != listing.marker_project
    if listing.marker is not None and (marked is None or of_others):
        raise _bad_marker(listing.marker)


def _bad_marker(marker: str) -> core.errors.Invalid:
    return core.errors.Invalid(f"marker [{marker[:255]}] not found", field="marker")


# ---- by the mappings -----------------------------------------------------------------------------------------------------------


class _ByMappings(_Way):
    """The mappings tell where the page ends and how many of its servers each cell has: only those cells are asked, for exactly these."""

    async def page(self) -> Page:
        listing, places = self._listing, list[Place]()
        window = await self._window(listing.limit, marker=listing.marker)
        _check_marker(listing, window.marked)
        for _ in range(_MOST_WINDOWS):
            found, until = await self._places(window, listing.limit - len(places))
            places += found
            # Less than mapped: a silent cell's servers are skipped, or some went meanwhile.
            if until is None or len(places) >= listing.limit:
                break
            window = await self._window(listing.limit - len(places), after=until)
        full = len(places) >= listing.limit
        return self._page([(place.item, place.source) for place in places], full=full, marker=places[-1].uuid if places else None)

    async def _window(self, limit: int, *, marker: str | None = None, after: Position | None = None) -> Window:
        listing = self._listing
        skipped = () if listing.when_silent is WhenSilent.SHOW else tuple(self._silent)
        window: Window = await self._api(
            api_db.listing.window, listing.filters, listing.order, marker=marker, after=after, limit=limit, without_cells=skipped
        )
        return window

    async def _places(self, window: Window, limit: int) -> tuple[list[Place], Position | None]:
        """The servers of the window in their places, no more than `limit`, and where they end; None: with the list.

        A cell's row comes before what others know of the server.
        """
        hidden = {each.uuid for each in window.waiting if each.deleting}
        number = limit + len(hidden)
        query, order = Query(self._wanted, window.after, window.until), self._listing.order
        visits = await self._visit(
            dict.fromkeys(window.cells, (_visit_for_page, query, number, (), 0.0, self._listing.hosts_down_after_s)),
            self._round_s(last=True),
        )
        found = [Place(each.position, each.item, cell) for cell, visit in visits.items() for each in visit.found]
        found += [Place(cell_db.listing.position_of(each.server, order), each.server, None) for each in window.waiting if each.server]
        found += await self._unreachable(window.cells.keys() & self._silent.keys(), window.after, window.until, limit)
        places = visible(in_order(found, order), hidden)
        # A cell with more rows than mappings: what comes after the last one that was read is not whole.
        cut = [visit.found[-1].position for visit in visits.values() if len(visit.found) == number]
        if not cut:
            return places[:limit], window.until
        until = first_of(cut, order)
        return [place for place in places if not is_after(place.position, until, order)][:limit], until


# ---- the merge ---------------------------------------------------------------------------------------------------------------------


class _ByMerge(_Way):
    """All cells that may hold servers of the list are asked, and what they give is merged."""

    async def page(self) -> Page:
        listing = self._listing
        overview = await self._api(api_db.listing.overview, project_id=listing.filters.get("project_id"), marker=listing.marker)
        _check_marker(listing, overview.marked)
        after = await self._start(overview.marked)
        candidates = self._in_journal(overview.waiting, after)
        cells = await self._cells(overview.cells, candidates)
        # Few servers are buried: cell0 counts for nothing when the page is shared out.
        shares = sum(uuid != CELL0_UUID for uuid in cells)
        merge = Merge(listing.order, listing.limit, cells, shares=shares, hidden=self._hidden(overview.waiting))
        shape = self._first_phase(shares)
        await self._merge(merge, shape, after, candidates)
        places = merge.page()
        full = len(places) >= listing.limit
        items = await self._items(places, shape)
        return self._page(items, full=full, marker=places[-1].uuid if places else None)

    def _hidden(self, waiting: Sequence[Waiting]) -> set[str]:
        """Servers that are deleted though their cell may not know it yet."""
        if self._listing.filters.get("deleted", False) is not False:
            return set()
        return {each.uuid for each in waiting if each.deleting}

    def _in_journal(self, waiting: Sequence[Waiting], after: Position | None) -> dict[str, tuple[Waiting, Place]]:
        """uuid -> the servers in the journal that are on the list after the position, each at its place."""
        order, candidates = self._listing.order, dict[str, tuple[Waiting, Place]]()
        for each in waiting:
            if each.server is None or not cell_db.filters.holds(each.server, self._listing.filters):
                continue
            position = cell_db.listing.position_of(each.server, order)
            if after is None or is_after(position, after, order):
                candidates[each.uuid] = each, Place(position, each.server, None)
        return candidates

    async def _cells(self, of_project: set[str] | None, candidates: Mapping[str, tuple[Waiting, Place]]) -> list[str]:
        """The cells to ask: those that the project ever had a server in, or all."""
        targets = {waiting.target for waiting, _ in candidates.values() if waiting.target is not None}
        wanted = set(self._gates) if of_project is None else of_project
        await self._know(wanted | targets)
        return sorted((wanted | targets) & set(self._gates))

    def _first_phase(self, cells: int) -> Shape:
        """What is read of the servers that may win: their rows at once, or, if most of them would be in vain, only their keys."""
        limit, shape = self._listing.limit, self._wanted.shape
        candidates = cells * first_batch(limit, cells)
        once = candidates * _KEYS_PER_ROW[shape]
        twice = candidates + limit * _KEYS_PER_ROW[shape] + min(cells, limit) * self._listing.keys_per_query
        return shape if once <= twice else Shape.KEY

    async def _merge(
        self, merge: Merge, shape: Shape, after: Position | None, candidates: dict[str, tuple[Waiting, Place]]
    ) -> None:
        """Asks until the page is known."""
        wanted = dataclasses.replace(self._wanted, shape=shape)
        in_journal: dict[str, list[str]] = defaultdict(list)
        for waiting, _ in candidates.values():
            if waiting.target is not None:
                in_journal[waiting.target].append(waiting.uuid)
        first, shown = Query(wanted, after), set[str]()
        while asks := merge.wanted():
            visits = await self._round(asks, wanted, first, in_journal)
            self._give(merge, asks, visits)
            present = {uuid for visit in visits.values() for uuid in visit.present}
            merge.give_all([place for uuid, (_, place) in candidates.items() if uuid not in present])
            candidates, in_journal = {}, {}
            merge.give_all(await self._unreachable(self._silent.keys() - shown, after, None, self._listing.limit))
            shown |= self._silent.keys()
        merge.give_all([place for _, place in candidates.values()])

    async def _round(
        self, asks: Mapping[str, Ask], wanted: Wanted, first: Query, in_journal: Mapping[str, Sequence[str]]
    ) -> dict[str, _Visit]:
        """Asks each of these cells for its next servers, all at once."""
        within_s = self._round_s()
        hosts_down_after_s = self._listing.hosts_down_after_s if wanted.shape is self._wanted.shape else None
        visits = {
            cell: (
                _visit_for_page,
                first if ask.after is None else Query(wanted, ask.after),
                ask.number,
                in_journal.get(cell, ()),
                within_s * _PART_FOR_REGEXPS,
                hosts_down_after_s,
            )
            for cell, ask in asks.items()
        }
        return await self._visit(visits, within_s)

    def _give(self, merge: Merge, asks: Mapping[str, Ask], visits: Mapping[str, _Visit]) -> None:
        for cell, ask in asks.items():
            if cell in visits:
                merge.give(cell, visits[cell].found, asked=ask.number)
            else:
                merge.give_up(cell)

    async def _items(self, places: Sequence[Place], shape: Shape) -> list[tuple[Item, str | None]]:
        """What there is to show at these places; a second visit to the winners' cells where only keys were read."""
        if shape is self._wanted.shape:
            return [(place.item, place.source) for place in places]
        by_cell: dict[str, list[str]] = defaultdict(list)
        for place in places:
            if place.source is not None:
                by_cell[place.source].append(place.uuid)
        visits = await self._visit(
            {cell: (_visit_for_rows, self._wanted, uuids, self._listing.hosts_down_after_s) for cell, uuids in by_cell.items()},
            self._round_s(last=True),
        )
        lost = [uuid for cell, uuids in by_cell.items() if cell not in visits for uuid in uuids]
        told = await self._api(api_db.listing.mapped, lost) if self._listing.when_silent is WhenSilent.SHOW else {}
        found = ((place, _row(place, visits, told)) for place in places)
        return [(item, place.source) for place, item in found if item is not None]

    async def _start(self, marked: Marked | None) -> Position | None:
        """The marker's place in the order; None: there is no marker.

        Raises:
            Invalid: no cell has the server any more.
            Unavailable: only its cell could tell, and does not answer.
        """
        if marked is None:
            return None
        order, waiting = self._listing.order, marked.waiting
        position = marked.position(order)
        if position is not None:
            return position
        from_journal = cell_db.listing.position_of(waiting.server, order) if waiting and waiting.server else None
        cell = waiting.target if waiting else marked.mapped.cell_uuid
        if cell is None:
            if from_journal is None:
                raise _bad_marker(marked.mapped.uuid)
            return from_journal
        return await self._start_in(cell, marked.mapped.uuid, from_journal)

    async def _start_in(self, cell: str, uuid: str, from_journal: Position | None) -> Position:
        """The place of a server whose row may be in the cell; the row decides, if there is one."""
        await self._know([cell])
        if cell not in self._gates:
            answer: Answer[Position | None] | Silence | None = None
        else:
            answer = await _within(self._gates[cell].read(cell_db.listing.position, uuid, self._listing.order), self._round_s())
        position = (answer.value if isinstance(answer, Answer) else None) or from_journal
        if position is not None:
            return position
        if isinstance(answer, Answer):
            raise _bad_marker(uuid)
        known = self._gates[cell].cell if cell in self._gates else Cell(cell, cell, "", "none://")
        return value_of(answer or Silence(known, "it alone knows the marker's place"))


def _row(place: Place, visits: Mapping[str, _Visit], told: Mapping[str, Unreachable]) -> Item | None:
    if place.source is None:
        item: Item = place.item
        return item
    visit = visits.get(place.source)
    row = visit.rows.get(place.uuid) if visit else None
    return row if row is not None else told.get(place.uuid)
