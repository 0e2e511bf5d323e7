"""Is the host as the user's hints want it?"""

import ipaddress
from collections.abc import Callable
from typing import TypeAlias

from objects.host_query import Value, holds
from scheduler.filters.filter import Check, Filter
from scheduler.hosts import HostState
from scheduler.request import Request

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_VARIABLES: dict[str, Callable[[HostState], Value]] = {
    "free_ram_mb": lambda host: host.free_memory_mib,
    "free_disk_mb": lambda host: host.free_disk_gib * 1024,
    "total_usable_ram_mb": lambda host: host.memory_mib,
    "vcpus_total": lambda host: host.vcpus,
    "vcpus_used": lambda host: host.used_vcpus,
    "num_instances": lambda host: host.servers,
    "num_io_ops": lambda host: host.io_ops,
    "hypervisor_type": lambda host: host.hypervisor_type,
    "hypervisor_version": lambda host: host.hypervisor_version,
    "cpu_allocation_ratio": lambda host: host.cpu_allocation_ratio,
    "ram_allocation_ratio": lambda host: host.ram_allocation_ratio,
    "disk_allocation_ratio": lambda host: host.disk_allocation_ratio,
}


def _meets_query(request: Request) -> Check | None:
    query = request.query
    if query is None:
        return None

    def check(host: HostState) -> str:
        return "" if holds(query, lambda name: _VARIABLES[name](host)) else "hint query"

    return check


def _is_near(request: Request) -> Check | None:
    near = request.near
    if near is None:
        return None
    first, last = near.network_address, near.broadcast_address
    known: dict[str, bool] = {}

    def check(host: HostState) -> str:
        if host.host_ip not in known:
            known[host.host_ip] = _lies_between(host.host_ip, first, last)
        return "" if known[host.host_ip] else "hint build_near_host_ip"

    return check


def _lies_between(text: str, first: Address, last: Address) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.version == first.version and int(first) <= int(address) <= int(last)


def _is_in_another_cell(request: Request) -> Check | None:
    unwanted = request.different_cells
    if not unwanted:
        return None

    def check(host: HostState) -> str:
        return "hint different_cell" if host.cell_uuid in unwanted else ""

    return check


def _is_in_cell(request: Request) -> Check | None:
    wanted = request.target_cell
    if wanted is None:
        return None

    def check(host: HostState) -> str:
        return "" if host.cell_uuid == wanted else "hint target_cell"

    return check


QUERY = Filter("JsonFilter", _meets_query, plain="are not as the hint query wants them")
NEAR = Filter("SimpleCIDRAffinityFilter", _is_near, plain="are not near the address of the hint build_near_host_ip")
DIFFERENT_CELL = Filter(
    "DifferentCellFilter", _is_in_another_cell, is_a_fact=True, plain="are in a cell of the hint different_cell"
)
TARGET_CELL = Filter(
    "TargetCellFilter", _is_in_cell, is_a_fact=True, plain="are not in the cell of the hint target_cell"
)
