"""A page by the mappings: they tell where it ends and how many of its servers each cell has, and only those cells are
asked."""

from collections.abc import Collection

import api_db.listing
import cell_db.listing
import core.errors
from api_db.listing import Marked, Window
from cell_db.listing import ListedServer, Query
from cells.listing.cell_queries import CellQueries, PageQuery, question_s
from cells.listing.merge import first_of, in_order, is_after, visible
from cells.listing.page import Listing, Page, WhenSilent
from database.keyset import Position

# Windows that one page may take; more would mean that mappings and cells do not fit together.
_MAX_WINDOWS = 8


async def page(visits: CellQueries, listing: Listing) -> Page:
    """The page; see `cells.listing.listing.list_servers`."""
    listed: list[ListedServer] = []
    window = await _window(visits, listing, listing.limit, marker=listing.marker)
    check_marker(listing, window.marked)
    for _ in range(_MAX_WINDOWS):
        servers, until = await _listed(visits, listing, window, listing.limit - len(listed))
        listed += servers
        # Less than mapped: a silent cell's servers are skipped, or some went meanwhile.
        if until is None or len(listed) >= listing.limit:
            break
        window = await _window(visits, listing, listing.limit - len(listed), after=until)
    return visits.page(
        [each_server.item for each_server in listed],
        more=len(listed) >= listing.limit,
        marker=listed[-1].uuid if listed else None,
    )


def check_marker(listing: Listing, marked: Marked | None) -> None:
    """
    Raises:
        Invalid: there is no such server, or it is another project's: its place in an order would tell of it.
    """
    of_others = (
        marked is not None and listing.marker_project is not None and marked.mapped.project_id != listing.marker_project
    )
    if listing.marker is not None and (marked is None or of_others):
        raise bad_marker(listing.marker)


def bad_marker(marker: str) -> core.errors.Invalid:
    """The refusal of a marker."""
    return core.errors.Invalid(f"marker [{marker[:255]}] not found", field="marker")


async def unreachable(
    visits: CellQueries,
    listing: Listing,
    cells: Collection[str],
    after: Position | None,
    until: Position | None,
    limit: int,
) -> list[ListedServer]:
    """The servers of silent cells in their places, if such are shown and the mappings can tell which and where."""
    tellable = listing.mappings_can_sort and listing.mappings_can_filter
    if not cells or not tellable or listing.when_silent is not WhenSilent.SHOW:
        return []
    rows = await visits.ask_api(
        api_db.listing.mapped_in, sorted(cells), listing.filters, listing.order, after=after, until=until, limit=limit
    )
    return [ListedServer(position, mapped) for position, mapped in rows]


async def _window(
    visits: CellQueries, listing: Listing, limit: int, *, marker: str | None = None, after: Position | None = None
) -> Window:
    skipped = () if listing.when_silent is WhenSilent.SHOW else tuple(visits.silent)
    return await visits.ask_api(
        api_db.listing.window, listing.filters, listing.order, marker=marker, marker_project=listing.marker_project,
        after=after, limit=limit, without_cells=skipped,
    )  # fmt: skip


async def _listed(
    visits: CellQueries, listing: Listing, window: Window, limit: int
) -> tuple[list[ListedServer], Position | None]:
    """The servers of the window in their places, no more than `limit`, and where they end; None: with the list.

    A cell's row comes before what others know of the server.
    """
    hidden = listing.hidden(window.waiting)
    number = limit + len(hidden)
    round_s = visits.round_s(last=True)
    visit = PageQuery(
        Query(listing.wanted(window.waiting), window.after, window.until),
        number,
        within_s=question_s(listing.filters, round_s),
    )
    brought = await visits.make(dict.fromkeys(window.cells, visit), round_s)
    order = listing.order
    listed = [server for each in brought.values() for server in each.part.servers]
    listed += [
        ListedServer(cell_db.listing.position_of(each.server, order), each.server)
        for each in window.waiting
        if each.server
    ]
    listed += await unreachable(
        visits, listing, window.cells.keys() & visits.silent.keys(), window.after, window.until, limit
    )
    listed = visible(in_order(listed, order), hidden)
    # A cell with more rows than mappings: what comes after the last one that was read is not whole.
    cut = [each.part.rest for each in brought.values() if each.part.rest is not None]
    if not cut:
        return listed[:limit], window.until
    until = first_of(cut, order)
    return [each_server for each_server in listed if not is_after(each_server.position, until, order)][:limit], until
