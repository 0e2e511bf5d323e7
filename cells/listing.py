"""One list of servers over all cells.

Two ways (docs/decisions/0004-which-list-takes-which-way.md). In the default order, with filters that the mappings know, the API database
alone gives the keys of a page and only the winners' cells are asked. Otherwise all cells that may hold servers of the list are asked at
once and what they give is merged.
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
from api_db.listing import Key, Marked, Waiting
from cell_db.filters import Filters
from cell_db.heartbeats import COMPUTE
from cell_db.hosts import Service
from cell_db.listing import Brief, Found, Query, Shape, Wanted
from cells.answers import CELL0_UUID, Answer, Cell, Silence, value_of
from cells.gate import Gate
from cells.merge import Ask, Merge, Place, first_batch, is_after
from cells.route import Reach
from core.keyset import Order, Position
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
# Pages begun again because rows were skipped; more would mean that mappings and cells do not fit together.
_MOST_ROUNDS = 8


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

    async def _asked(self, visits: Mapping[str, Awaitable[Answer[_Visit] | Silence]], within_s: float) -> dict[str, _Visit]:
        """What the cells brought that answered in time; the others are silent from now on.

        Raises:
            Unavailable: a cell is silent and servers may not be left out.
        """
        answers = await asyncio.gather(*(_within(visit, within_s) for visit in visits.values()))
        brought: dict[str, _Visit] = {}
        for uuid, answer in zip(visits, answers, strict=True):
            if isinstance(answer, Answer):
                brought[uuid] = answer.value
                if answer.value.hosts is not None:
                    self._hosts[uuid] = answer.value.hosts
            else:
                self._fell_silent(uuid, answer)
        return brought

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

    async def _rows(self, uuids: Mapping[str, list[str]], *, within_s: float) -> dict[str, _Visit]:
        """Cell -> its visit, for the rows of these servers by cell."""
        await self._know(uuids)
        for uuid in uuids:
            if uuid not in self._gates:
                self._fell_silent(uuid, None)
        return await self._asked(
            {
                uuid: self._gates[uuid].read(_visit_for_rows, self._wanted, wanted, self._listing.hosts_down_after_s)
                for uuid, wanted in uuids.items()
                if uuid in self._gates
            },
            within_s,
        )

    async def _api(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return value_of(await self._reach.api_db.read(fn, *args, **kwargs))

    async def _told_by_mappings(self, uuids: list[str]) -> dict[str, Unreachable]:
        """uuid -> what is shown of a server of a silent cell; nothing where such are not shown."""
        if not uuids or self._listing.when_silent is not WhenSilent.SHOW:
            return {}
        told: dict[str, Unreachable] = await self._api(api_db.listing.mapped, uuids)
        return told

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


# ---- the keys from the mappings ------------------------------------------------------------------------------------------------


class _ByMappings(_Way):
    """The API database gives the keys; only the cells that hold the page's servers are asked."""

    async def page(self) -> Page:
        listing, items = self._listing, list[tuple[Item, str | None]]()
        marker = listing.marker
        for _ in range(_MOST_ROUNDS):
            missing = listing.limit - len(items)
            marked, keys = await self._keys(marker, missing)
            _check_marker(listing, marked)
            items += await self._items(keys)
            if len(keys) < missing or len(items) >= listing.limit:
                break
            marker = keys[-1].uuid
        full = len(items) >= listing.limit
        return self._page(items, full=full, marker=items[-1][0].uuid if items else None)

    async def _keys(self, marker: str | None, limit: int) -> tuple[Marked | None, list[Key]]:
        """The next keys; those of silent cells are left out if their servers are not shown."""
        listing = self._listing
        skipped = () if listing.when_silent is WhenSilent.SHOW else tuple(self._silent)
        found: tuple[Marked | None, list[Key]] = await self._api(
            api_db.listing.keys, listing.filters, listing.order, marker=marker, limit=limit, without_cells=skipped
        )
        return found

    async def _items(self, keys: Sequence[Key]) -> list[tuple[Item, str | None]]:
        """What there is to show for the keys, in their order."""
        by_cell: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            cell = _cell_of(key)
            if cell is not None:
                by_cell[cell].append(key.uuid)
        visits = await self._rows(by_cell, within_s=self._round_s(last=True))
        lost = [key.uuid for key in keys if key.waiting is None and key.cell_uuid in self._silent]
        told = await self._told_by_mappings(lost)
        found = (_item(key, visits, told) for key in keys)
        return [each for each in found if each is not None]


def _cell_of(key: Key) -> str | None:
    """The cell that may have the row: a server in the journal is in its cell already once it is inserted there."""
    return key.waiting.target if key.waiting else key.cell_uuid


def _item(key: Key, visits: Mapping[str, _Visit], told: Mapping[str, Unreachable]) -> tuple[Item, str | None] | None:
    cell = _cell_of(key)
    row = visits[cell].rows.get(key.uuid) if cell in visits else None
    if row is not None:
        return row, cell
    if key.waiting and key.waiting.server:
        return key.waiting.server, None
    return (told[key.uuid], None) if key.uuid in told else None


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
            await self._give_unreachable(merge, after, self._silent.keys() - shown)
            shown |= self._silent.keys()
        merge.give_all([place for _, place in candidates.values()])

    async def _round(
        self, asks: Mapping[str, Ask], wanted: Wanted, first: Query, in_journal: Mapping[str, Sequence[str]]
    ) -> dict[str, _Visit]:
        """Asks each of these cells for its next servers, all at once."""
        within_s = self._round_s()
        hosts_down_after_s = self._listing.hosts_down_after_s if wanted.shape is self._wanted.shape else None
        visits = {
            cell: self._gates[cell].read(
                _visit_for_page,
                first if ask.after is None else Query(wanted, ask.after),
                ask.number,
                in_journal.get(cell, ()),
                within_s * _PART_FOR_REGEXPS,
                hosts_down_after_s,
            )
            for cell, ask in asks.items()
        }
        return await self._asked(visits, within_s)

    def _give(self, merge: Merge, asks: Mapping[str, Ask], visits: Mapping[str, _Visit]) -> None:
        for cell, ask in asks.items():
            if cell in visits:
                merge.give(cell, visits[cell].found, asked=ask.number)
            else:
                merge.give_up(cell)

    async def _give_unreachable(self, merge: Merge, after: Position | None, cells: Collection[str]) -> None:
        """Puts the servers of silent cells into their places, where the mappings can tell them."""
        listing = self._listing
        if not cells or listing.when_silent is not WhenSilent.SHOW:
            return
        if not _mappings_can_sort(listing.order) or not _mappings_can_filter(listing.filters):
            return
        found = await self._api(
            api_db.listing.mapped_in, sorted(cells), listing.filters, listing.order, after=after, limit=listing.limit
        )
        merge.give_all([Place(position, mapped, None) for position, mapped in found])

    async def _items(self, places: Sequence[Place], shape: Shape) -> list[tuple[Item, str | None]]:
        """What there is to show at these places; a second visit to the winners' cells where only keys were read."""
        if shape is self._wanted.shape:
            return [(place.item, place.source) for place in places]
        by_cell: dict[str, list[str]] = defaultdict(list)
        for place in places:
            if place.source is not None:
                by_cell[place.source].append(place.uuid)
        visits = await self._rows(by_cell, within_s=self._round_s(last=True))
        lost = [place.uuid for place in places if place.source in self._silent and place.source not in visits]
        told = await self._told_by_mappings(lost)
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
