"""Is the host as `capabilities:…` extra specs want it? Those without a scope count where hosts have such a
capability."""

import operator
from collections.abc import Callable

from scheduler.filters.filter import Check, Filter
from scheduler.filters.operators import matcher
from scheduler.hosts import HostState
from scheduler.request import Request

_SCOPE = "capabilities:"

# Nova's names, as the capabilities of a host state and of its reports.
_CAPABILITIES: dict[str, Callable[[HostState], object]] = {
    "hypervisor_type": operator.attrgetter("hypervisor_type"),
    "hypervisor_version": operator.attrgetter("hypervisor_version"),
    "hypervisor_hostname": operator.attrgetter("hypervisor_hostname"),
    "host": operator.attrgetter("host"),
    "vcpus_total": operator.attrgetter("vcpus"),
    "vcpus_used": operator.attrgetter("used_vcpus"),
    "total_usable_ram_mb": operator.attrgetter("memory_mib"),
    "free_ram_mb": operator.attrgetter("free_memory_mib"),
    "free_disk_mb": lambda host: host.free_disk_gib * 1024,
    "num_instances": operator.attrgetter("servers"),
    "num_io_ops": operator.attrgetter("io_ops"),
    "cpu_allocation_ratio": operator.attrgetter("cpu_allocation_ratio"),
    "ram_allocation_ratio": operator.attrgetter("ram_allocation_ratio"),
    "disk_allocation_ratio": operator.attrgetter("disk_allocation_ratio"),
}


def _is_capable(request: Request) -> Check | None:
    wanted = {key.removeprefix(_SCOPE): value for key, value in request.extra_specs.items() if _is_asked(key)}
    if not wanted:
        return None
    questions = [
        (_CAPABILITIES.get(key), matcher(value), f"capability {key} is not {value}") for key, value in wanted.items()
    ]

    def check(host: HostState) -> str:
        for value_of, is_wanted, reason in questions:
            if value_of is None or not is_wanted(str(value_of(host))):
                return reason
        return ""

    return check


def _is_asked(key: str) -> bool:
    return key.startswith(_SCOPE) or key in _CAPABILITIES


CAPABILITIES = Filter("ComputeCapabilitiesFilter", _is_capable, plain="cannot do what the flavor asks for")
