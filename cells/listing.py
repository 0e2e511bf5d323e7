"""One list of servers over all cells.

Two ways (docs/decisions/0004-which-list-takes-which-way.md). In the default order, with filters that the mappings know, the API database
tells where a page ends and which cells its servers are in, and only these are asked. Otherwise all cells that may hold servers of the list
are asked at once and what they give is merged.

*The list over N cells equals the list over one cell that holds the union*, for any order, filter, marker and limit.
"""

import core.keyset
from cells import by_mappings, by_merge
from cells.page import Listing, Page
from cells.route import Reach
from cells.visits import Visits


async def list_servers(reach: Reach, listing: Listing) -> Page:
    """One page of the list.

    Raises:
        Invalid: the marker names no server that the caller may see; a regular expression is wrong or takes too long.
        Unavailable: the API database does not answer; or a cell does not and servers may not be left out; or it alone knows the marker.
    """
    if listing.limit == 0:
        return Page()
    page = by_mappings.page if goes_by_mappings(listing) else by_merge.page
    return await page(Visits(reach, listing), listing)


def goes_by_mappings(listing: Listing) -> bool:
    """Whether the mappings alone give the order of the list, know its filters, and hold an index for it."""
    return core.keyset.names(listing.order) == ("created_at", "uuid") and listing.mappings_can_filter
