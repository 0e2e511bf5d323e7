"""What the scheduler knows of the hosts."""

import dataclasses
import datetime
from collections.abc import Mapping
from types import MappingProxyType

from scheduler.resources import DISK_GB, MEMORY_MB, VCPU

_NOTHING: Mapping[str, int] = MappingProxyType({})
_NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})
DEFAULT_ZONE = "nova"


@dataclasses.dataclass(frozen=True, slots=True)
class AggregateState:
    """A group of hosts that an operator made."""

    uuid: str
    name: str
    metadata: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """One host as it last reported, with what was placed on it since.

    `node_uuid` is also its provider in Placement. `cleanups_open`: superseded attempts may still be on it, so it takes
    nothing new. `others_free`: what is left of resource classes other than VCPU, MEMORY_MB and DISK_GB. `reported_at`:
    when the host last said so, by its cell's clock. `cut_off`: it is not `up`, but nobody can say that it is down: its
    cell is silent, or hears nobody. The fields from `free_vcpus` on are worked out from those before.
    """

    host: str
    node_uuid: str
    hypervisor_hostname: str
    cell_uuid: str

    vcpus: int
    memory_mib: int
    disk_gib: int
    reserved_vcpus: int = 0
    reserved_memory_mib: int = 0
    reserved_disk_gib: int = 0
    cpu_allocation_ratio: float = 4.0
    ram_allocation_ratio: float = 1.0
    disk_allocation_ratio: float = 1.0
    used_vcpus: int = 0
    used_memory_mib: int = 0
    used_disk_gib: int = 0
    others_free: Mapping[str, int] = dataclasses.field(default_factory=lambda: _NOTHING)

    up: bool = True
    cut_off: bool = False
    disabled: bool = False
    forced_down: bool = False
    cleanups_open: bool = False

    servers: int = 0
    io_ops: int = 0
    failed_builds: int = 0
    availability_zone: str = DEFAULT_ZONE
    aggregates: tuple[AggregateState, ...] = ()
    traits: frozenset[str] = frozenset()
    architectures: frozenset[str] = frozenset()
    hypervisor_type: str = ""
    hypervisor_version: int = 0
    reported_at: datetime.datetime | None = None

    free_vcpus: float = dataclasses.field(init=False, compare=False)
    free_memory_mib: float = dataclasses.field(init=False, compare=False)
    free_disk_gib: float = dataclasses.field(init=False, compare=False)
    multipliers: Mapping[str, float] = dataclasses.field(init=False, compare=False)

    def __post_init__(self) -> None:
        # Worked out once: a choice looks at every host several times, a host changes once in seconds.
        _set(self, "free_vcpus", (self.vcpus - self.reserved_vcpus) * self.cpu_allocation_ratio - self.used_vcpus)
        _set(
            self,
            "free_memory_mib",
            (self.memory_mib - self.reserved_memory_mib) * self.ram_allocation_ratio - self.used_memory_mib,
        )
        _set(
            self,
            "free_disk_gib",
            (self.disk_gib - self.reserved_disk_gib) * self.disk_allocation_ratio - self.used_disk_gib,
        )
        _set(self, "multipliers", _multipliers(self.aggregates))

    def with_server(self, resources: Mapping[str, int]) -> "HostState":
        """The host with one server more, about to be built."""
        others = (
            {name: free - resources.get(name, 0) for name, free in self.others_free.items()}
            if self.others_free
            else _NOTHING
        )
        return dataclasses.replace(
            self,
            used_vcpus=self.used_vcpus + resources.get(VCPU, 0),
            used_memory_mib=self.used_memory_mib + resources.get(MEMORY_MB, 0),
            used_disk_gib=self.used_disk_gib + resources.get(DISK_GB, 0),
            others_free=others,
            servers=self.servers + 1,
            io_ops=self.io_ops + 1,
        )

    def free(self, resource_class: str) -> float:
        """What is left of a resource class; 0 of one that the host has not got."""
        if resource_class == VCPU:
            return self.free_vcpus
        if resource_class == MEMORY_MB:
            return self.free_memory_mib
        if resource_class == DISK_GB:
            return self.free_disk_gib
        return self.others_free.get(resource_class, 0)


_set = object.__setattr__


def _multipliers(aggregates: tuple[AggregateState, ...]) -> Mapping[str, float]:
    """`…_weight_multiplier` metadata of the host's aggregates; the lowest wins, what is no number is ignored."""
    lowest: dict[str, float] = {}
    for aggregate in aggregates:
        for key, text in aggregate.metadata.items():
            value = _number(text) if key.endswith("_weight_multiplier") else None
            if value is not None:
                lowest[key] = min(value, lowest.get(key, value))
    return lowest or _NO_WEIGHTS


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
