"""A page by merging: all cells that may hold servers of the list are asked at once, in small batches where many are
asked."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import api_db.listing
import cell_db.filters
import cell_db.listing
from api_db.listing import Marked, Waiting
from cell_db.listing import ListedServer, Query, Shape, Wanted
from cells.gate.answers import CELL0_UUID, Answer, Silence, value_of
from cells.listing.by_mappings import bad_marker, check_marker, unreachable
from cells.listing.cell_queries import CellQueries, CellResult, PageQuery, RowQuery, question_s, within
from cells.listing.merge import Merge, first_batches, is_after
from cells.listing.page import Item, Listing, Page, WhenSilent
from database.keyset import Position

# What reading a server costs, in keys: 13 us of the processor, in API and database together, for 3.5 (measured).
_KEYS_PER_ROW = {Shape.DETAIL: 4.0, Shape.BRIEF: 1.0}


async def page(visits: CellQueries, listing: Listing) -> Page:
    """The page; see `cells.listing.listing.list_servers`."""
    overview = await visits.ask_api(
        api_db.listing.overview, project_id=listing.filters.get("project_id"), marker=listing.marker
    )
    check_marker(listing, overview.marked)
    after = await _start(visits, listing, overview.marked)
    candidates = await _in_journal(visits, listing, overview.waiting, after)
    cells = await _cells(visits, overview.cells)
    # Few servers are buried: cell0 counts for nothing when the page is shared out.
    shares = sum(cell != CELL0_UUID for cell in cells)
    merge = Merge(listing.order, listing.limit, cells, shares=shares, hidden=listing.hidden(overview.waiting))
    shape = _first_shape(listing, shares)
    wanted = listing.wanted(overview.waiting)
    await _fill(visits, listing, merge, dataclasses.replace(wanted, shape=shape), after, candidates)
    servers = merge.page()
    items = (
        [each.item for each in servers]
        if shape is listing.shape
        else await _rows(visits, listing, wanted, servers, merge.sources())
    )
    return visits.page(items, more=len(servers) >= listing.limit, marker=servers[-1].uuid if servers else None)


# ---- before the cells are asked --------------------------------------------------------------------------------------


async def _start(visits: CellQueries, listing: Listing, marked: Marked | None) -> Position | None:
    """The marker's place in the order; None: there is no marker.

    Raises:
        Invalid: no cell has the server any more.
        Unavailable: only its cell could tell, and does not answer.
    """
    if marked is None:
        return None
    if listing.mappings_can_sort:
        return marked.position(listing.order)
    waiting = marked.waiting
    in_journal = cell_db.listing.position_of(waiting.server, listing.order) if waiting and waiting.server else None
    cell = waiting.target if waiting else marked.mapped.cell_uuid
    if cell is not None:
        return await _start_in(visits, listing, cell, marked.mapped.uuid, in_journal)
    if in_journal is None:
        raise bad_marker(marked.mapped.uuid)
    return in_journal


async def _start_in(
    visits: CellQueries, listing: Listing, cell: str, uuid: str, in_journal: Position | None
) -> Position:
    """The place of a server whose row may be in the cell; the row decides, if there is one."""
    await visits.know([cell])
    answer: Answer[Position | None] | Silence | None = None
    if cell in visits.gates:
        answer = await within(visits.gates[cell].read(cell_db.listing.position, uuid, listing.order), visits.round_s())
    position = (answer.value if isinstance(answer, Answer) else None) or in_journal
    if position is not None:
        return position
    if isinstance(answer, Answer):
        raise bad_marker(uuid)
    return value_of(answer or Silence(visits.cell(cell), "only this cell has the marker"))


@dataclasses.dataclass(frozen=True, slots=True)
class _Candidate:
    """A server of the journal that is on the list; the cell that may have its row already."""

    server: ListedServer
    target: str | None


async def _in_journal(
    visits: CellQueries, listing: Listing, waiting: Sequence[Waiting], after: Position | None
) -> dict[str, _Candidate]:
    """uuid -> the servers in the journal that are on the list after the position."""
    if not cell_db.filters.has_regexp(listing.filters):
        return _matching(listing, waiting, after, 0.0)
    # Not in the loop's own thread: it may take as long as it is let.
    within_s = visits.round_s()
    return await visits.compute(_matching, within_s, listing, waiting, after, question_s(listing.filters, within_s))


def _matching(
    listing: Listing, waiting: Sequence[Waiting], after: Position | None, regexp_within_s: float
) -> dict[str, _Candidate]:
    order, candidates = listing.order, dict[str, _Candidate]()
    matches = cell_db.filters.Matches(listing.filters, regexp_within_s=regexp_within_s)
    for each in waiting:
        if each.server is not None and matches(each.server):
            position = cell_db.listing.position_of(each.server, order)
            if after is None or is_after(position, after, order):
                candidates[each.uuid] = _Candidate(ListedServer(position, each.server), each.target)
    return candidates


async def _cells(visits: CellQueries, of_project: set[str] | None) -> list[str]:
    """The cells to ask: those that the project ever had a server in, or all."""
    if of_project is None:
        return list(visits.gates)
    await visits.know(of_project)
    return sorted(of_project & visits.gates.keys())


def _first_shape(listing: Listing, cells: int) -> Shape:
    """What is read of the servers that may win: their rows at once, or, if most of them would be in vain, only their
    keys."""
    limit, shape = listing.limit, listing.shape
    candidates = sum(first_batches(limit, cells, shares=cells))
    once = candidates * _KEYS_PER_ROW[shape]
    twice = candidates + limit * _KEYS_PER_ROW[shape] + min(cells, limit) * listing.keys_per_query
    return shape if once <= twice else Shape.KEY


# ---- the cells are asked ---------------------------------------------------------------------------------------------


async def _fill(
    visits: CellQueries,
    listing: Listing,
    merge: Merge,
    wanted: Wanted,
    after: Position | None,
    candidates: Mapping[str, _Candidate],
) -> None:
    """Asks until the page is known."""
    in_journal: Mapping[str, list[str]] = _by_target(candidates)
    looks_ahead = cell_db.listing.can_look_ahead(wanted)
    first, shown = Query(wanted, after, looks_ahead=looks_ahead), set[str]()
    while asks := merge.wanted():
        within_s = visits.round_s()
        brought = await visits.make(
            {
                cell: PageQuery(
                    first if ask.after is None else Query(wanted, ask.after, looks_ahead=looks_ahead),
                    ask.number,
                    in_journal.get(cell, ()),
                    question_s(wanted.filters, within_s),
                )
                for cell, ask in asks.items()
            },
            within_s,
        )
        _give(merge, asks, brought)
        present = {uuid for each in brought.values() for uuid in each.present}
        merge.give_all([each.server for uuid, each in candidates.items() if uuid not in present])
        candidates, in_journal = {}, {}
        merge.give_all(await unreachable(visits, listing, visits.silent.keys() - shown, after, None, listing.limit))
        shown |= visits.silent.keys()
    merge.give_all([each.server for each in candidates.values()])


def _by_target(candidates: Mapping[str, _Candidate]) -> dict[str, list[str]]:
    by_target: dict[str, list[str]] = defaultdict(list)
    for uuid, each in candidates.items():
        if each.target is not None:
            by_target[each.target].append(uuid)
    return by_target


def _give(merge: Merge, asked: Iterable[str], brought: Mapping[str, CellResult]) -> None:
    for cell in asked:
        if cell in brought:
            merge.give(cell, brought[cell].part)
        else:
            merge.give_up(cell)


# ---- the winners -----------------------------------------------------------------------------------------------------


async def _rows(
    visits: CellQueries,
    listing: Listing,
    wanted: Wanted,
    servers: Sequence[ListedServer],
    sources: Mapping[str, str],
) -> list[Item]:
    """The servers of which only keys were read, by a second visit to their cells; the others as they are."""
    by_cell: dict[str, list[str]] = defaultdict(list)
    for each in servers:
        if each.item is None:
            by_cell[sources[each.uuid]].append(each.uuid)
    brought = await visits.make(
        {cell: RowQuery(wanted, uuids) for cell, uuids in by_cell.items()}, visits.round_s(last=True)
    )
    rows: dict[str, Item] = {uuid: row for each in brought.values() for uuid, row in each.rows.items()}
    lost = [uuid for cell, uuids in by_cell.items() if cell not in brought for uuid in uuids]
    if lost and listing.when_silent is WhenSilent.SHOW:
        rows |= await visits.ask_api(api_db.listing.mapped, lost)
    items = (rows.get(each.uuid) if each.item is None else each.item for each in servers)
    return [item for item in items if item is not None]
