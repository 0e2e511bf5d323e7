"""Is there room for one more?"""

import math

from scheduler.filters.filter import Check, Filter
from scheduler.hosts import HostState
from scheduler.metrics import METRICS, ratios_of
from scheduler.options import FilterOptions
from scheduler.request import Request
from scheduler.resources import BASIC, DISK_GB, MEMORY_MB, VCPU

INSTANCES, IO_OPS = "max_instances_per_host", "max_io_ops_per_host"


def _room(request: Request) -> Check:
    asked = request.resources
    # What is not asked for is not looked at, however overfull the host is of it.
    vcpus, memory_mib, disk_gib = (asked.get(name) or -math.inf for name in (VCPU, MEMORY_MB, DISK_GB))
    # Of other classes Placement knows, where it was asked.
    others = [] if request.candidates is not None else [one for one in asked.items() if one[0] not in BASIC]

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


def _has_all(request: Request) -> Check | None:
    candidates = request.candidates
    if candidates is None:
        return None

    def check(host: HostState) -> str:
        return "" if host.node_uuid in candidates else "not among Placement's candidates"

    return check


def number_of_servers(options: FilterOptions) -> Filter:
    """Fewer servers than the setting says."""
    most = options.max_instances_per_host

    def check(host: HostState) -> str:
        return "" if host.servers < most else "too many servers"

    return Filter("NumInstancesFilter", lambda request: check, changes=True, plain=FULL)


def number_of_io_ops(options: FilterOptions) -> Filter:
    """Fewer builds and other heavy work under way than the setting says."""
    most = options.max_io_ops_per_host

    def check(host: HostState) -> str:
        return "" if host.io_ops < most else "too busy"

    return Filter("IoOpsFilter", lambda request: check, changes=True, plain=BUSY)


def number_of_servers_by_aggregate(options: FilterOptions) -> Filter:
    """Fewer servers than the host's aggregates say, or else the setting."""
    most = options.max_instances_per_host

    def check(host: HostState) -> str:
        return "" if host.servers < host.facts.limits.get(INSTANCES, most) else "too many servers"

    return Filter("AggregateNumInstancesFilter", lambda request: check, changes=True, plain=FULL)


def number_of_io_ops_by_aggregate(options: FilterOptions) -> Filter:
    """Fewer builds and other heavy work under way than the host's aggregates say, or else the setting."""
    most = options.max_io_ops_per_host

    def check(host: HostState) -> str:
        return "" if host.io_ops < host.facts.limits.get(IO_OPS, most) else "too busy"

    return Filter("AggregateIoOpsFilter", lambda request: check, changes=True, plain=BUSY)


def metrics(options: FilterOptions) -> Filter:
    """The host measures all that is weighed."""
    wanted = tuple(METRICS[name] for name in ratios_of(options.metrics_weight_setting))

    def check(host: HostState) -> str:
        return "does not measure all" if any(value(host) is None for value in wanted) else ""

    return Filter("MetricsFilter", lambda request: check if wanted else None, plain="do not say how busy they are")


FULL, BUSY = "have too many servers", "are too busy"
CAPACITY = Filter("CapacityFilter", _room, is_a_fact=True, changes=True, plain="have not enough room")
CANDIDATES = Filter("CandidatesFilter", _has_all, is_a_fact=True, plain="do not have the resources that are asked for")
