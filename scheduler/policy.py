"""A policy: which filters and weighers choose, and how they are set."""

import dataclasses
from collections.abc import Mapping, Sequence

from scheduler import filters as all_filters
from scheduler import weighers as all_weighers
from scheduler.filters import Filter
from scheduler.metrics import ratios_of, weight_with
from scheduler.options import DEFAULT as DEFAULT_OPTIONS
from scheduler.options import FilterOptions
from scheduler.weighers import METRICS_KEY, MULTIPLIERS, SOFT_AFFINITY, SOFT_ANTI_AFFINITY, Weigher

NAME = "default"
"""Of the policy of whoever names none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """One named set of filters, weighers and their settings."""

    name: str
    filters: tuple[Filter, ...]
    weighers: tuple[Weigher, ...]
    soft_affinity: float
    soft_anti_affinity: float
    options: FilterOptions = DEFAULT_OPTIONS
    subset: int = 1


def policy_with(
    name: str = NAME,
    *,
    enabled: Sequence[str] = (),
    options: FilterOptions = DEFAULT_OPTIONS,
    multipliers: Mapping[str, float] | None = None,
    subset: int = 1,
) -> Policy:
    """The policy of these settings; `enabled`: names of filters, none: the default ones. `subset`: a server goes to one
    of so many best hosts.

    Raises:
        Invalid: there is no filter of a name.
    """
    given = {**MULTIPLIERS, **(multipliers or {})}
    weighers = all_weighers.with_multipliers(given)
    ratios = ratios_of(options.metrics_weight_setting)
    if ratios:
        value = weight_with(ratios, options.metrics_weight_of_unavailable)
        weighers = (*weighers, all_weighers.metrics(value, given[METRICS_KEY]))
    return Policy(
        name,
        all_filters.enabled(enabled, options),
        weighers,
        given[SOFT_AFFINITY],
        given[SOFT_ANTI_AFFINITY],
        options,
        subset,
    )


DEFAULT = policy_with()
