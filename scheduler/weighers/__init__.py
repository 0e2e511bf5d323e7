"""Weighers: which of the hosts that will do is best. A new one is a line here."""

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence

from scheduler.hosts import HostState


@dataclasses.dataclass(frozen=True, slots=True)
class Weigher:
    """A number of a host, and how much it matters.

    The number is taken relative to the highest among the hosts or `at_least`, then multiplied; more is better, with a
    negative multiplier less is. Metadata `key` of an aggregate sets the multiplier for its hosts.
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
    "SpreadWeigher", operator.attrgetter("servers"), -1.0, "num_instances_weight_multiplier", at_least=10.0
)

DEFAULT = (RAM, CPU, DISK, IO_OPS, BUILD_FAILURES, SPREAD)


_SOFT = 100.0  # more than all the room there is, less than a failed build


def near_members(members: Mapping[str, int]) -> Weigher:
    """Where a server group's members are (host -> members) weighs more than anything but a host that fails."""
    return Weigher(
        "ServerGroupSoftAffinityWeigher",
        lambda host: members.get(host.host, 0),
        _SOFT,
        "soft_affinity_weight_multiplier",
    )


def far_from_members(members: Mapping[str, int]) -> Weigher:
    """The fewer of a server group's members (host -> members) a host has the better."""
    return Weigher(
        "ServerGroupSoftAntiAffinityWeigher",
        lambda host: members.get(host.host, 0),
        -_SOFT,
        "soft_anti_affinity_weight_multiplier",
    )


class Scale:
    """Weights of hosts, comparable within one choice: what the highest is, is settled at its beginning."""

    def __init__(self, weighers: Sequence[Weigher], hosts: Sequence[HostState]) -> None:
        self._weighers = [(one, 1.0 / max(one.at_least, *map(one.value, hosts))) for one in weighers] if hosts else []

    def weights(self, hosts: Sequence[HostState]) -> list[float]:
        """The weight of each; a column at a time, which takes a third of the time that a host at a time takes."""
        weights = [0.0] * len(hosts)
        for one, per in self._weighers:
            factor = one.multiplier * per
            weights = [weight + factor * value for weight, value in zip(weights, map(one.value, hosts), strict=True)]
        for number, host in enumerate(hosts):
            if host.multipliers:
                weights[number] = self.weight(host)
        return weights

    def weight(self, host: HostState) -> float:
        """How good the host is; more is better."""
        return sum(host.multipliers.get(one.key, one.multiplier) * one.value(host) * per for one, per in self._weighers)
