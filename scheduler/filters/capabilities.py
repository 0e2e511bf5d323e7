"""Is the host as `capabilities:…` extra specs want it?"""

from scheduler.filters.filter import Check, Filter
from scheduler.filters.operators import matches
from scheduler.hosts import HostState
from scheduler.request import Request

_SCOPE = "capabilities:"


def _is_capable(request: Request) -> Check | None:
    wanted = {key.removeprefix(_SCOPE): value for key, value in request.extra_specs.items() if key.startswith(_SCOPE)}
    if not wanted:
        return None

    def check(host: HostState) -> str:
        for key, value in wanted.items():
            known = _capability(host, key)
            if known is None or not matches(known, value):
                return f"capability {key} is not {value}"
        return ""

    return check


def _capability(host: HostState, name: str) -> str | None:
    """None: hosts have no such capability."""
    match name:
        case "hypervisor_type":
            return host.hypervisor_type
        case "hypervisor_version":
            return str(host.hypervisor_version)
        case "hypervisor_hostname":
            return host.hypervisor_hostname
        case "host":
            return host.host
        case "vcpus_total":
            return str(host.vcpus)
        case "vcpus_used":
            return str(host.used_vcpus)
        case "total_usable_ram_mb":
            return str(host.memory_mib)
        case "free_ram_mb":
            return str(host.free_memory_mib)
        case "free_disk_mb":
            return str(host.free_disk_gib * 1024)
        case "num_instances":
            return str(host.servers)
        case "num_io_ops":
            return str(host.io_ops)
    return None


CAPABILITIES = Filter("ComputeCapabilitiesFilter", _is_capable)
