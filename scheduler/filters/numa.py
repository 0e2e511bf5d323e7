"""Can the host give the guest CPUs of its own, and large pages? What the libvirt driver refuses is refused here, before
a host is tried.

The driver pins CPUs out of `[libvirt] cpu_dedicated_set` and lays a guest's NUMA nodes nowhere in particular, so any
host will do for those. How many dedicated CPUs are free Placement knows (class PCPU).
"""

from collections.abc import Mapping

from scheduler.filters.filter import Check, Filter
from scheduler.hosts import HostState
from scheduler.request import Request
from scheduler.resources import PCPU

_SMALL_KIB = 4
_UNITS_KIB = {"": 1, "KB": 1, "KIB": 1, "MB": 1024, "MIB": 1024, "GB": 1024**2, "GIB": 1024**2}


def _fits(request: Request) -> Check | None:
    refusal = _refusal(request.extra_specs, request.image_properties)
    if refusal:
        return lambda host: refusal
    dedicated = request.resources.get(PCPU, 0)
    pages = _page_kib(request.extra_specs.get("hw:mem_page_size") or request.image_properties.get("hw_mem_page_size"))
    if not dedicated and pages == _SMALL_KIB:
        return None
    too_few, no_pages = f"fewer than {dedicated} dedicated CPUs", "no such pages of memory"

    def check(host: HostState) -> str:
        if dedicated > host.dedicated_cpus:
            return too_few
        # A host that says nothing of its pages is taken at its word when it builds.
        sizes = host.page_sizes_kib
        if (
            pages == _SMALL_KIB
            or not sizes
            or (any(size > _SMALL_KIB for size in sizes) if not pages else pages in sizes)
        ):
            return ""
        return no_pages

    return check


def _refusal(specs: Mapping[str, str], properties: Mapping[str, str]) -> str:
    """What no host of ours can do; "": nothing is asked for that."""
    if "mixed" in (specs.get("hw:cpu_policy"), properties.get("hw_cpu_policy")):
        return "no host mixes dedicated and shared CPUs"
    threads = specs.get("hw:cpu_thread_policy") or properties.get("hw_cpu_thread_policy")
    return "" if threads in (None, "prefer") else f"no host has the CPU thread policy {threads[:16]}"


def _page_kib(text: str | None) -> int:
    """The size of pages; 0: any large ones; what cannot be read the driver refuses."""
    if text in (None, "", "small", "any"):
        return _SMALL_KIB
    if text == "large":
        return 0
    digits = text.rstrip("kKmMgGiIbB ")[:9]
    return int(digits) * _UNITS_KIB.get(text[len(digits) :].strip().upper(), 1) if digits.isdecimal() else _SMALL_KIB


NUMA = Filter("NUMATopologyFilter", _fits, plain="cannot give the CPUs or the memory that are asked for")
