"""Is there room for one more?"""

import math

from scheduler.filters.filter import Check, Filter
from scheduler.hosts import HostState
from scheduler.request import Request
from scheduler.resources import DISK_GB, MEMORY_MB, VCPU

_NAMES = {VCPU: "vCPUs", MEMORY_MB: "memory", DISK_GB: "disk"}


def _room(request: Request) -> Check:
    asked = request.resources
    # What is not asked for is not looked at, however overfull the host is of it.
    vcpus, memory_mib, disk_gib = (asked.get(name) or -math.inf for name in (VCPU, MEMORY_MB, DISK_GB))
    others = [(name, amount) for name, amount in asked.items() if name not in _NAMES]

    def check(host: HostState) -> str:
        # No server may have more than the host has physically, whatever the ratio: Placement's max_unit.
        if memory_mib > host.free_memory_mib or memory_mib > host.memory_mib:
            return "not enough memory"
        if vcpus > host.free_vcpus or vcpus > host.vcpus:
            return "not enough vCPUs"
        if disk_gib > host.free_disk_gib or disk_gib > host.disk_gib:
            return "not enough disk"
        for name, amount in others:
            if amount > host.others_free.get(name, 0):
                return f"not enough {name}"
        return ""

    return check


def _fewer_servers(most: int) -> Filter:
    def check(host: HostState) -> str:
        return "" if host.servers < _limit(host, "max_instances_per_host", most) else "too many servers"

    return Filter("NumInstancesFilter", lambda request: check, changes=True)


def _fewer_io_ops(most: int) -> Filter:
    def check(host: HostState) -> str:
        return "" if host.io_ops < _limit(host, "max_io_ops_per_host", most) else "too busy"

    return Filter("IoOpsFilter", lambda request: check, changes=True)


def _limit(host: HostState, key: str, default: int) -> int:
    """The lowest value that an aggregate of the host sets."""
    values = [
        int(aggregate.metadata[key]) for aggregate in host.aggregates if aggregate.metadata.get(key, "").isdecimal()
    ]
    return min(values, default=default)


CAPACITY = Filter("CapacityFilter", _room, is_a_fact=True, changes=True)
NUM_INSTANCES = _fewer_servers(50)
IO_OPS = _fewer_io_ops(8)
