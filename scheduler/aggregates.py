"""What a host's aggregates say about it: read once when they change, not at each choice."""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType

from core.scheduling import WEIGHT_KEY

_TENANT = "filter_tenant_id"
_MULTIPLIER = "_weight_multiplier"
_LIMITS = ("max_instances_per_host", "max_io_ops_per_host")
_TRAIT = "trait:"
GREATEST = 1e9
"""Of weights and multipliers, either side of 0."""

_NO_WORDS: Mapping[str, frozenset[str]] = MappingProxyType({})
_NO_NUMBERS: Mapping[str, float] = MappingProxyType({})


@dataclasses.dataclass(frozen=True, slots=True)
class AggregateState:
    """A group of hosts that an operator made."""

    uuid: str
    name: str
    metadata: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class AggregateFacts:
    """What the aggregates of a host say together; hosts that lie in the same ones share it.

    `words`: metadata key -> its values, each a list parted by commas, of all aggregates that have the key. `projects`:
    the only ones whose servers may be here, under `filter_tenant_id` with any suffix (metadata values are short, so
    long lists are parted over several keys); none: all. `multipliers`, `limits`: the lowest value of each key; what is
    no number is ignored. `weight`: the lowest that is set. `needed_traits`: what a request has to ask for to come here
    (`trait:X` = required, of isolated aggregates).
    """

    of: tuple[AggregateState, ...] = ()
    words: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=lambda: _NO_WORDS)
    projects: frozenset[str] = frozenset()
    multipliers: Mapping[str, float] = dataclasses.field(default_factory=lambda: _NO_NUMBERS)
    limits: Mapping[str, float] = dataclasses.field(default_factory=lambda: _NO_NUMBERS)
    weight: float | None = None
    needed_traits: frozenset[str] = frozenset()


NO_AGGREGATES = AggregateFacts()


def facts_of(aggregates: tuple[AggregateState, ...]) -> AggregateFacts:
    """What these aggregates say together."""
    if not aggregates:
        return NO_AGGREGATES
    words: dict[str, frozenset[str]] = {}
    lowest: dict[str, float] = {}
    for aggregate in aggregates:
        for key, text in aggregate.metadata.items():
            words[key] = words.get(key, frozenset()) | {word.strip() for word in text.split(",")}
            value = number(text) if key.endswith(_MULTIPLIER) or key in (*_LIMITS, WEIGHT_KEY) else None
            if value is not None:
                lowest[key] = min(value, lowest.get(key, value))
    return AggregateFacts(
        of=aggregates,
        words=words,
        projects=frozenset().union(*(each for key, each in words.items() if key.startswith(_TENANT))),
        multipliers={key: value for key, value in lowest.items() if key.endswith(_MULTIPLIER)} or _NO_NUMBERS,
        limits={key: value for key, value in lowest.items() if key in _LIMITS} or _NO_NUMBERS,
        weight=lowest.get(WEIGHT_KEY),
        needed_traits=frozenset(
            key.removeprefix(_TRAIT) for key, each in words.items() if key.startswith(_TRAIT) and "required" in each
        ),
    )


def number(text: str) -> float | None:
    """The number that the text is; None: it is none, or none that can be reckoned with (nan, inf)."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= GREATEST else None
