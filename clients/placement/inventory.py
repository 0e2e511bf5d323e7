"""What Placement is told about a host: pure rules for inventories and traits."""

import re
from collections.abc import Collection, Iterable, Mapping

Inventories = Mapping[str, Mapping[str, float]]
"""Resource class -> total, and optionally reserved, allocation_ratio, min_unit, max_unit, step_size."""

DISABLED = "COMPUTE_STATUS_DISABLED"
"""The trait that keeps new servers from a host; an operator's word, set and cleared only by `set_disabled`."""

_OURS = re.compile(r"(COMPUTE|HW)_")
_OPERATORS = re.compile(r"CUSTOM_")


def whole(given: Inventories) -> dict[str, dict[str, float]]:
    """The inventories with every property that Placement keeps; classes of which there is nothing are left out."""
    return {name: _whole(inventory) for name, inventory in given.items() if inventory["total"] > 0}


def after(now: Inventories, wanted: Inventories) -> dict[str, dict[str, float]]:
    """What to write: all that is wanted, and the custom classes that an operator added."""
    kept = {name: dict(inventory) for name, inventory in now.items() if _OPERATORS.match(name)}
    return {**kept, **whole(wanted)}


def too_small(inventories: Inventories, usages: Mapping[str, int], now: Inventories) -> list[str]:
    """Classes that would become smaller than they are and than what is used of them, each with the reason."""
    return [
        f"{name}: {used} used, {capacity(inventories.get(name)):g} offered"
        for name, used in sorted(usages.items())
        if used > capacity(inventories.get(name)) < capacity(now.get(name))
    ]


def capacity(inventory: Mapping[str, float] | None) -> float:
    """What claims may add up to."""
    if inventory is None:
        return 0.0
    return (inventory["total"] - inventory.get("reserved", 0)) * inventory.get("allocation_ratio", 1.0)


def traits_after(now: Collection[str], wanted: Iterable[str]) -> set[str]:
    """The host's own traits as wanted; what operators set stays.

    A host answers for COMPUTE_… and HW_… traits, which describe it, except for `DISABLED`. All others are operators'.
    """
    return {name for name in now if _is_operators(name)} | {name for name in wanted if name != DISABLED}


def _is_operators(trait: str) -> bool:
    return trait == DISABLED or not _OURS.match(trait)


def _whole(inventory: Mapping[str, float]) -> dict[str, float]:
    total = int(inventory["total"])
    return {
        "total": total,
        "reserved": int(inventory.get("reserved", 0)),
        "min_unit": int(inventory.get("min_unit", 1)),
        "max_unit": int(inventory.get("max_unit", total)),
        "step_size": int(inventory.get("step_size", 1)),
        "allocation_ratio": float(inventory.get("allocation_ratio", 1.0)),
    }
