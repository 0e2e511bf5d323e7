"""One list of servers over all cells.

Two ways (docs/decisions/0004-which-list-takes-which-way.md). In the default order, with filters that the mappings know,
the API database tells where a page ends and which cells its servers are in, and only these are asked. Otherwise all
cells that may hold servers of the list are asked at once and what they give is merged.

*The list over N cells equals the list over one cell that holds the union*, for any order, filter, marker and limit.
"""

import dataclasses

import api_db.listing
import cell_db.filters
import core.errors
import database.keyset
from cell_db.packed import Unreadable
from cells.listing import by_mappings, by_merge
from cells.listing.cell_queries import CellQueries
from cells.listing.page import Listing, Page, WhenSilent
from cells.route import CellAccess


async def list_servers(reach: CellAccess, listing: Listing) -> Page:
    """One page of the list.

    Raises:
        Invalid: the marker names no server that the caller may see; a regular expression is wrong; a filter has too
            many values.
        TooExpensive: it takes too long in a cell that is well.
        Unavailable: the API database does not answer; or a cell does not and servers may not be left out; or it alone
            knows the marker.
    """
    cell_db.filters.check(listing.filters)
    if listing.limit == 0:
        return Page()
    visits, page = CellQueries(reach, listing), by_mappings.page if goes_by_mappings(listing) else by_merge.page
    return await _with_what_is_known(visits, listing, await page(visits, listing))


async def _with_what_is_known(visits: CellQueries, listing: Listing, page: Page) -> Page:
    """The page; of servers whose rows cannot be read as much as of those whose cells are away."""
    unreadable = [item.uuid for item in page.items if isinstance(item, Unreadable)]
    if not unreadable:
        return page
    if listing.when_silent is WhenSilent.FAIL:
        raise core.errors.Unreadable(f"The record of instance {unreadable[0]} cannot be read.", server=unreadable[0])
    shown = await visits.ask_api(api_db.listing.mapped, unreadable) if listing.when_silent is WhenSilent.SHOW else {}
    items = (shown.get(item.uuid) if isinstance(item, Unreadable) else item for item in page.items)
    silent = {*page.silent, *(visits.cell(visits.unreadable[uuid]).name for uuid in unreadable)}
    return dataclasses.replace(page, items=[item for item in items if item is not None], silent=sorted(silent))


def goes_by_mappings(listing: Listing) -> bool:
    """Whether the mappings alone give the order of the list, know its filters, and hold an index for it."""
    return database.keyset.names(listing.order) == ("created_at", "uuid") and listing.mappings_can_filter
