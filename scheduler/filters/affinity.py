"""Should the servers be where other servers are, or where they are not?

Members that the same request places count as well; `choose` sees to that.
"""

from scheduler.filters.filter import Check, Filter
from scheduler.hosts import HostState
from scheduler.request import Request


def _apart(request: Request) -> Check | None:
    group = request.group
    if group is None or group.policy != "anti-affinity":
        return None
    full = {host for host, members in group.members.items() if members >= group.most_per_host}

    def check(host: HostState) -> str:
        return "holds members of the group" if host.host in full else ""

    return check


def _together(request: Request) -> Check | None:
    group = request.group
    if group is None or group.policy != "affinity" or not any(group.members.values()):
        return None
    hosts_of_members = {host for host, members in group.members.items() if members}

    def check(host: HostState) -> str:
        return "" if host.host in hosts_of_members else "holds no member of the group"

    return check


def _with_servers(request: Request) -> Check | None:
    wanted = request.hints.same_hosts
    if wanted is None:
        return None

    def check(host: HostState) -> str:
        return "" if host.host in wanted else "hint same_host"

    return check


def _without_servers(request: Request) -> Check | None:
    unwanted = request.hints.different_hosts
    if not unwanted:
        return None

    def check(host: HostState) -> str:
        return "hint different_host" if host.host in unwanted else ""

    return check


# Facts: whoever forces a host and names other servers has said both, and neither is forgotten in silence.
ANTI_AFFINITY = Filter(
    "ServerGroupAntiAffinityFilter", _apart, is_a_fact=True, plain="hold other members of the server group"
)
AFFINITY = Filter("ServerGroupAffinityFilter", _together, is_a_fact=True, plain="hold no member of the server group")
SAME_HOST = Filter(
    "SameHostFilter", _with_servers, is_a_fact=True, plain="do not hold the servers of the hint same_host"
)
DIFFERENT_HOST = Filter(
    "DifferentHostFilter", _without_servers, is_a_fact=True, plain="hold servers of the hint different_host"
)
