"""Filters: which hosts may take a server. A new one is a few lines in a file here and a name in `FILTERS`."""

from collections.abc import Sequence

import core.errors
from scheduler.filters import affinity, aggregates, capabilities, capacity, host, image, traits, zone
from scheduler.filters.filter import Check, Filter

__all__ = ["DEFAULT", "FILTERS", "Check", "Filter", "enabled"]

# In the order in which they are asked: what is cheap and rejects most comes first, so that reasons are told by the
# filter one expects.
DEFAULT = (
    host.TARGET_HOST,
    host.COMPUTE,
    zone.AVAILABILITY_ZONE,
    affinity.SAME_HOST,
    affinity.DIFFERENT_HOST,
    traits.TRAITS,
    capabilities.CAPABILITIES,
    image.IMAGE_PROPERTIES,
    aggregates.EXTRA_SPECS,
    aggregates.MULTI_TENANCY,
    affinity.ANTI_AFFINITY,
    affinity.AFFINITY,
    capacity.CAPACITY,
)

FILTERS = {one.name: one for one in (*DEFAULT, aggregates.TYPE_AFFINITY, capacity.NUM_INSTANCES, capacity.IO_OPS)}

# Without these a host that is down, full or not meant would be chosen.
_ALWAYS = (host.TARGET_HOST, host.COMPUTE, capacity.CAPACITY)


def enabled(names: Sequence[str]) -> tuple[Filter, ...]:
    """The filters of these names, in their order, with those that no choice can do without; no names: the default ones.

    Raises:
        Invalid: there is no filter of a name.
    """
    unknown = [name for name in names if name not in FILTERS]
    if unknown:
        raise core.errors.Invalid(
            f"no such scheduler filter: {', '.join(unknown)}; there are {', '.join(sorted(FILTERS))}",
            field="enabled_filters",
        )
    if not names:
        return DEFAULT
    return (*(one for one in _ALWAYS if one.name not in names), *(FILTERS[name] for name in names))
