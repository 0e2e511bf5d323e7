"""Filters: which hosts may take a server. A new one is a few lines in a file here and a name in `filters_with`."""

from collections.abc import Mapping, Sequence

import core.errors
from scheduler.filters import affinity, aggregates, capabilities, capacity, hints, host, image, numa, traits, zone
from scheduler.filters.filter import Check, Filter
from scheduler.options import DEFAULT as DEFAULT_OPTIONS
from scheduler.options import FilterOptions

__all__ = ["DEFAULT", "FILTERS", "NOT_HERE", "Check", "Filter", "enabled", "filters_with"]

# Without these a host that is down, full, not meant or somebody else's would be chosen.
_ALWAYS = (host.TARGET_HOST, host.COMPUTE, host.DEDICATED, capacity.CANDIDATES, capacity.CAPACITY)

# Asked only where a setting or a hint of that name says so: they cost nothing else.
NOT_HERE: Mapping[str, str] = {
    "PciPassthroughFilter": "hosts pass no PCI devices on",
}
"""Filters of Nova that are refused by name, and why."""


def _default(options: FilterOptions) -> tuple[Filter, ...]:
    # In the order in which they are asked: what is cheap and rejects most comes first, so that reasons are told by the
    # filter one expects.
    return (
        host.TARGET_HOST,
        host.COMPUTE,
        host.DEDICATED,
        capacity.CANDIDATES,
        zone.AVAILABILITY_ZONE,
        hints.TARGET_CELL,
        hints.DIFFERENT_CELL,
        affinity.SAME_HOST,
        affinity.DIFFERENT_HOST,
        hints.QUERY,
        hints.NEAR,
        traits.TRAITS,
        capabilities.CAPABILITIES,
        image.image_properties(options),
        image.traits(options),
        numa.NUMA,
        host.isolated(options),
        aggregates.EXTRA_SPECS,
        aggregates.MULTI_TENANCY,
        aggregates.isolated(options),
        aggregates.tenants(options),
        affinity.ANTI_AFFINITY,
        affinity.AFFINITY,
        capacity.CAPACITY,
    )


def filters_with(options: FilterOptions) -> dict[str, Filter]:
    """All filters by their names, with these settings."""
    others = (
        aggregates.TYPE_AFFINITY,
        aggregates.image_properties(options),
        capacity.number_of_servers(options),
        capacity.number_of_servers_by_aggregate(options),
        capacity.number_of_io_ops(options),
        capacity.number_of_io_ops_by_aggregate(options),
        capacity.metrics(options),
        host.ALL_HOSTS,
    )
    return {one.name: one for one in (*_default(options), *others)}


FILTERS = filters_with(DEFAULT_OPTIONS)
DEFAULT = _default(DEFAULT_OPTIONS)


def enabled(names: Sequence[str], options: FilterOptions = DEFAULT_OPTIONS) -> tuple[Filter, ...]:
    """The filters of these names, in their order, with those that no choice can do without; no names: the default ones.

    Raises:
        Invalid: there is no filter of a name.
    """
    known = filters_with(options)
    for name in names:
        if name in NOT_HERE:
            raise core.errors.Invalid(
                f"the scheduler filter {name} cannot be enabled: {NOT_HERE[name]}", field="enabled_filters"
            )
    unknown = [name for name in names if name not in known]
    if unknown:
        raise core.errors.Invalid(
            f"no such scheduler filter: {', '.join(unknown)}; there are {', '.join(sorted(known))}",
            field="enabled_filters",
        )
    if not names:
        return _default(options)
    return (*(one for one in _ALWAYS if one.name not in names), *(known[name] for name in dict.fromkeys(names)))
