"""Is the host as the user's hints want it?"""

import ipaddress
from typing import TypeAlias

from scheduler.filters.filter import Check, Filter
from scheduler.filters.query import question
from scheduler.hosts import HostState
from scheduler.request import Request

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def _meets_query(request: Request) -> Check | None:
    if request.query is None:
        return None
    asks = question(request.query)

    def check(host: HostState) -> str:
        return "" if asks(host) else "hint query"

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
