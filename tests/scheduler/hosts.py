"""Hosts and requests for the scheduler's tests."""

from typing import Any

from scheduler.hosts import HostState
from scheduler.request import Request

EAST, WEST = "cell-east", "cell-west"


def host(name: str = "host-1", **changes: Any) -> HostState:
    """A roomy, healthy host of the eastern cell."""
    state: dict[str, Any] = {
        "host": name,
        "node_uuid": f"node-of-{name}",
        "hypervisor_hostname": f"{name}.example.org",
        "cell_uuid": EAST,
        "vcpus": 16,
        "memory_mib": 16384,
        "disk_gib": 200,
    }
    return HostState(**{**state, **changes})


def request(**changes: Any) -> Request:
    return Request(**{"resources": {"VCPU": 1, "MEMORY_MB": 1024, "DISK_GB": 10}, "project_id": "blue", **changes})
