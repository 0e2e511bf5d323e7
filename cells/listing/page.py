"""What somebody wants of a server list, and a page of it."""

import dataclasses
import enum
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import api_db.listing
import cell_db.listing
from api_db.journal import Kind
from api_db.listing import Waiting
from cell_db.filters import Filters
from cell_db.listing import Brief, Shape, Wanted
from cell_db.packed import Unreadable
from database.keyset import SortOrder
from objects.server import Server

Unreachable: TypeAlias = api_db.listing.Mapped
"""A server whose cell does not answer: what its mapping tells."""

Item: TypeAlias = Server | Brief | Unreachable | Unreadable
"""A page that `cells.listing.listing` gives holds none that are unreadable: they are shown as if they were
unreachable."""


class WhenSilent(enum.Enum):
    """What becomes of servers whose cell does not answer."""

    SHOW = enum.auto()
    SKIP = enum.auto()
    FAIL = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list that somebody wants a page of.

    `filters` hold `deleted`: False (neither deleted nor soft-deleted), True or None for both. `order` ends with `uuid`.
    `marker_project`: the project that a marker must belong to; None: any. `hosts_down_after_s`: read the state of the
    servers' hosts, too; a host that is silent for longer is not up. `keys_per_query`: a query costs as much as so many
    keys.
    """

    filters: Filters
    order: SortOrder
    limit: int
    marker: str | None = None
    marker_project: str | None = None
    shape: Shape = Shape.DETAIL
    user_data: bool = False
    when_silent: WhenSilent = WhenSilent.SHOW
    hosts_down_after_s: float | None = None
    deadline_s: float = 1.0
    keys_per_query: float = 90.0

    @property
    def hides_deleted(self) -> bool:
        """Whether servers that are deleted or soft-deleted are left out."""
        return self.filters.get("deleted", False) is False

    def wanted(self, waiting: Iterable[Waiting]) -> Wanted:
        """What every cell is asked alike. Those in the journal that are restored are on the list already, whatever
        their rows say yet."""
        restored = frozenset(each.uuid for each in waiting if each.kind is Kind.RESTORE)
        filters = self.filters
        if restored and self.hides_deleted:
            filters = {name: value for name, value in filters.items() if name != "deleted"} | {"living": restored}
        return Wanted(filters, self.order, self.shape, self.user_data, self.hosts_down_after_s)

    def hidden(self, waiting: Iterable[Waiting]) -> set[str]:
        """The servers in the journal that are not on the list though rows of their cells may fit."""
        if self.hides_deleted:
            return {each.uuid for each in waiting if each.is_hidden}
        if self.filters["deleted"]:
            return {each.uuid for each in waiting if each.kind is Kind.RESTORE}
        return {each.uuid for each in waiting if each.kind is Kind.DELETE and "deleted_for_good" in self.filters}

    @property
    def is_of_own_making(self) -> bool:
        """Whether what it costs is its asker's choice: by a filter of his, or an order that no index has."""
        return bool(self.filters.keys() - {"deleted", "project_id"}) or cell_db.listing.may_take_long(
            self.filters, self.order
        )

    @property
    def mappings_can_sort(self) -> bool:
        """Whether mappings know all keys of the order."""
        return all(sorting.name in api_db.listing.SORT_KEYS for sorting in self.order)

    @property
    def mappings_can_filter(self) -> bool:
        """Whether mappings know whether their servers are on the list."""
        return self.hides_deleted and api_db.listing.FILTERS.issuperset(self.filters)


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """`silent` names cells of which servers may be missing or shown by their mappings alone."""

    items: Sequence[Item] = ()
    more: bool = False
    marker: str | None = None
    silent: Sequence[str] = ()
