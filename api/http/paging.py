"""Lists come in pages."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from api.http.call import Call
from api.http.schema import MAX_BIGINT, Param, text, whole_number

LIMIT = Param("limit", whole_number(0, MAX_BIGINT))
MARKER = Param("marker", text(0, 255))


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; ``marker`` names its last item and is needed where more may follow.

    A page that knows the ``marker_of`` any of its items can be cut.
    """

    items: Sequence[Any]
    more: bool = False
    marker: str | None = None
    marker_of: Callable[[Any], str] | None = None

    def pieces(self, number: int) -> Iterator["Page"]:
        """The same items in pages of so many; the last one alone knows whether more may follow."""
        for start in range(0, len(self.items), number):
            items = self.items[start : start + number]
            yield Page(items) if start + number < len(self.items) else replace(self, items=items)

    def first(self, number: int) -> "Page":
        """The page that ends after so many items, of which it has more."""
        assert self.marker_of is not None
        return replace(self, items=self.items[:number], more=True, marker=self.marker_of(self.items[number - 1]))


def limit_of(call: Call, *, zero_is_default: bool = False) -> int:
    """How many items the caller wants at most: never above the configured maximum, which is also the default.

    ``limit=0`` means an empty list, but for lists that are paged by offset, where it means the default.
    """
    asked: int | None = call.query.get("limit")
    if asked is None or (zero_is_default and asked == 0):
        return call.max_limit
    return min(asked, call.max_limit)


def page_of(items: Sequence[Any], *, limit: int, marker: Callable[[Any], str]) -> Page:
    """The page that these items are, read with this limit: a full one may have another behind it."""
    if not items or len(items) < limit:
        return Page(items, marker_of=marker)
    return Page(items, more=True, marker=marker(items[-1]), marker_of=marker)
