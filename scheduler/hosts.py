"""What the scheduler knows of the hosts."""

import dataclasses
import datetime
from collections.abc import Mapping
from types import MappingProxyType

from scheduler.aggregates import NO_AGGREGATES, AggregateFacts, AggregateState, facts_of
from scheduler.resources import DISK_GB, MEMORY_MB, VCPU

_NOTHING: Mapping[str, int] = MappingProxyType({})
DEFAULT_ZONE = "nova"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """One host as it last reported, with what was placed on it since.

    `node_uuid` is also its provider in Placement. `cleanups_open`: superseded attempts may still be on it, so it takes
    nothing new. `others_free`: what is left of resource classes other than VCPU, MEMORY_MB and DISK_GB. `reported_at`:
    when the host last said so, by its cell's clock. `cut_off`: it is not `up`, but nobody can say that it is down: its
    cell is silent, or hears nobody. `cpu_percent`: how busy its CPUs are; None: it does not say.

    `facts`: what its aggregates say; whoever makes many states gives it along. `dedicated_to`: the only project whose
    servers may be here. `own_weight`: how much an operator likes servers here; None: as the aggregates say.
    `dedicated_cpus`, `page_sizes_kib`: what its hypervisor can give guests for themselves. The fields from `free_vcpus`
    on are worked out from those before.
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
    cpu_percent: int | None = None
    failed_builds: int = 0
    availability_zone: str = DEFAULT_ZONE
    aggregates: tuple[AggregateState, ...] = ()
    traits: frozenset[str] = frozenset()
    architectures: frozenset[str] = frozenset()
    hypervisor_type: str = ""
    hypervisor_version: int = 0
    host_ip: str = ""
    dedicated_cpus: int = 0
    page_sizes_kib: frozenset[int] = frozenset()
    dedicated_to: str | None = None
    own_weight: float | None = None
    reported_at: datetime.datetime | None = None
    facts: AggregateFacts = dataclasses.field(default=NO_AGGREGATES, compare=False, repr=False)

    free_vcpus: float = dataclasses.field(init=False, compare=False)
    free_memory_mib: float = dataclasses.field(init=False, compare=False)
    free_disk_gib: float = dataclasses.field(init=False, compare=False)
    weight: float = dataclasses.field(init=False, compare=False)

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
        if self.facts.of is not self.aggregates:
            _set(self, "facts", facts_of(self.aggregates))
        weight = self.facts.weight if self.own_weight is None else self.own_weight
        _set(self, "weight", 0.0 if weight is None else weight)

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
