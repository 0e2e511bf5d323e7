"""Hosts and requests for the scheduler's tests."""

from typing import Any

from objects.build import Flavor
from scheduler.hosts import HostState
from scheduler.request import Request
from scheduler.resources import needed_of

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
    """What a small server asks for, with the traits that its extra specs and its image say."""
    flavor = Flavor("1", "small", 1, 1024, 10, extra_specs=changes.get("extra_specs", {}))
    needed = needed_of(flavor, changes.get("image_properties"))
    asked: dict[str, Any] = {
        "resources": needed.resources,
        "required_traits": needed.whole.required,
        "forbidden_traits": needed.whole.forbidden,
        "groups": needed.groups,
        "project_id": "blue",
    }
    return Request(**{**asked, **changes})
