"""Weighers: which of the hosts that will do is best. A new one is a line here."""

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence

from scheduler.hosts import HostState


@dataclasses.dataclass(frozen=True, slots=True)
class Weigher:
    """A number of a host, and how much it matters.

    The number is taken relative to the highest among the hosts or `at_least`, then multiplied; more is better, with a
    negative multiplier less is. `key` is the setting of the multiplier, and the metadata of an aggregate that sets it
    for its hosts.
    """

    name: str
    value: Callable[[HostState], float]
    multiplier: float
    key: str
    at_least: float = 1.0


# Relative to the highest and not between lowest and highest: hosts that differ by a hair stay equals and share a burst.
# The counts have a floor, so that one server on an empty cloud does not outweigh ten times the room.
RAM = Weigher("RAMWeigher", operator.attrgetter("free_memory_mib"), 1.0, "ram_weight_multiplier")
CPU = Weigher("CPUWeigher", operator.attrgetter("free_vcpus"), 1.0, "cpu_weight_multiplier")
DISK = Weigher("DiskWeigher", operator.attrgetter("free_disk_gib"), 1.0, "disk_weight_multiplier")
IO_OPS = Weigher("IoOpsWeigher", operator.attrgetter("io_ops"), -1.0, "io_ops_weight_multiplier", at_least=10.0)
BUILD_FAILURES = Weigher(
    "BuildFailureWeigher", operator.attrgetter("failed_builds"), -1_000_000.0, "build_failure_weight_multiplier"
)
SPREAD = Weigher(
    "NumInstancesWeigher", operator.attrgetter("servers"), -1.0, "num_instances_weight_multiplier", at_least=10.0
)
HYPERVISOR_VERSION = Weigher(
    "HypervisorVersionWeigher", operator.attrgetter("hypervisor_version"), 1.0, "hypervisor_version_weight_multiplier"
)
PROVIDER_WEIGHT = Weigher("ProviderWeigher", operator.attrgetter("weight"), 1.0, "provider_weight_multiplier")

DEFAULT = (RAM, CPU, DISK, IO_OPS, BUILD_FAILURES, SPREAD, HYPERVISOR_VERSION, PROVIDER_WEIGHT)

METRICS_KEY = "metrics_weight_multiplier"
SOFT_AFFINITY, SOFT_ANTI_AFFINITY = "soft_affinity_weight_multiplier", "soft_anti_affinity_weight_multiplier"
_SOFT = 100.0  # more than all the room there is, less than a failed build

MULTIPLIERS: Mapping[str, float] = {
    **{one.key: one.multiplier for one in DEFAULT},
    METRICS_KEY: 1.0,
    SOFT_AFFINITY: _SOFT,
    SOFT_ANTI_AFFINITY: _SOFT,
}
"""Setting -> its default."""


def with_multipliers(multipliers: Mapping[str, float]) -> tuple[Weigher, ...]:
    """The weighers that every choice asks, with the multipliers of these settings."""
    return tuple(dataclasses.replace(one, multiplier=multipliers.get(one.key, one.multiplier)) for one in DEFAULT)


def metrics(value: Callable[[HostState], float], multiplier: float) -> Weigher:
    """What hosts measure of themselves, as the setting weighs it."""
    return Weigher("MetricsWeigher", value, multiplier, METRICS_KEY)


def near_members(members: Mapping[str, int], multiplier: float = _SOFT) -> Weigher:
    """Where a server group's members are (host -> members) weighs more than anything but a host that fails."""
    return Weigher(
        "ServerGroupSoftAffinityWeigher",
        lambda host: members.get(host.host, 0),
        multiplier,
        SOFT_AFFINITY,
    )


def far_from_members(members: Mapping[str, int], multiplier: float = _SOFT) -> Weigher:
    """The fewer of a server group's members (host -> members) a host has the better."""
    # As Nova's: the multiplier is positive, the members count against a host.
    return Weigher(
        "ServerGroupSoftAntiAffinityWeigher",
        lambda host: -members.get(host.host, 0),
        multiplier,
        SOFT_ANTI_AFFINITY,
    )


class Scale:
    """Weights of hosts, comparable within one choice: what the highest is, is settled at its beginning."""

    def __init__(self, weighers: Sequence[Weigher], hosts: Sequence[HostState]) -> None:
        self._hosts = hosts
        self._weighers: list[tuple[Weigher, float]] = []
        self._columns: list[tuple[float, list[float]]] = []
        for one in weighers if hosts else ():
            column = list(map(one.value, hosts))
            lowest, highest = min(column), max(column)
            per = 1.0 / max(one.at_least, highest, -lowest)
            self._weighers.append((one, per))
            if lowest or highest:
                self._columns.append((one.multiplier * per, column))

    def weights(self) -> list[float]:
        """The weight of each; a column at a time, which takes a third of the time that a host at a time takes."""
        weights = [0.0] * len(self._hosts)
        for factor, column in self._columns:
            weights = [weight + factor * value for weight, value in zip(weights, column, strict=True)]
        for number, host in enumerate(self._hosts):
            if host.facts.multipliers:
                weights[number] = self.weight(host)
        return weights

    def weight(self, host: HostState) -> float:
        """How good the host is; more is better."""
        return sum(self.parts(host).values())

    def parts(self, host: HostState) -> dict[str, float]:
        """What the weight is made of, by weigher."""
        multipliers = host.facts.multipliers
        return {
            one.name: multipliers.get(one.key, one.multiplier) * per * one.value(host) for one, per in self._weighers
        }
