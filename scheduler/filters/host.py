"""Is it a host that may be used at all, and the one that is meant?"""

from scheduler.filters.filter import Check, Filter
from scheduler.hosts import HostState
from scheduler.request import Request

_DISABLED_TRAIT = "COMPUTE_STATUS_DISABLED"


def _usable(request: Request) -> Check:
    return _why_not_usable


def _why_not_usable(host: HostState) -> str:
    if not host.up or host.forced_down:
        return "down"
    if host.disabled or _DISABLED_TRAIT in host.traits:
        return "disabled"
    if host.cleanups_open:
        return "still being cleaned up"
    return ""


def _meant(request: Request) -> Check | None:
    wanted, node, tried = request.target_host, request.target_node, request.excluded_hosts
    if wanted is None and node is None and not tried:
        return None
    named = " ".join(filter(None, (wanted, node)))

    def check(host: HostState) -> str:
        if (wanted is not None and host.host != wanted) or (node is not None and host.hypervisor_hostname != node):
            return f"not {named}"
        return "already tried" if host.host in tried else ""

    return check


COMPUTE = Filter("ComputeFilter", _usable, is_a_fact=True)
TARGET_HOST = Filter("TargetHostFilter", _meant, is_a_fact=True)
