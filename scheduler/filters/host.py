"""Is it a host that may be used at all, and the one that is meant?"""

from scheduler.filters.filter import Check, Filter
from scheduler.hosts import HostState
from scheduler.options import FilterOptions
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


def _is_not_anothers(request: Request) -> Check:
    project_id = request.project_id

    def check(host: HostState) -> str:
        return "" if host.dedicated_to is None or host.dedicated_to == project_id else "dedicated to another project"

    return check


def _every(request: Request) -> Check | None:
    return None


def isolated(options: FilterOptions) -> Filter:
    """Isolated images go to isolated hosts, and no others do, unless the setting lets them."""
    images, hosts = frozenset(options.isolated_images), frozenset(options.isolated_hosts)
    restrict = options.restrict_isolated_hosts_to_isolated_images

    def prepare(request: Request) -> Check | None:
        if not images and not hosts:
            return None
        is_isolated = request.image_id in images

        def check(host: HostState) -> str:
            on_isolated = host.host in hosts
            if is_isolated and not on_isolated:
                return "not for isolated images"
            return "for isolated images" if restrict and on_isolated and not is_isolated else ""

        return check

    return Filter("IsolatedHostsFilter", prepare, plain="are kept for other images")


COMPUTE = Filter("ComputeFilter", _usable, is_a_fact=True, plain="are not in use at the moment")
TARGET_HOST = Filter("TargetHostFilter", _meant, is_a_fact=True, plain="are not the one that was asked for")
DEDICATED = Filter("DedicatedHostFilter", _is_not_anothers, is_a_fact=True, plain="are kept for others")
ALL_HOSTS = Filter("AllHostsFilter", _every)
