"""Is the host in the availability zone?"""

from scheduler.filters.filter import Check, Filter
from scheduler.hosts import HostState
from scheduler.request import Request


def _in_zone(request: Request) -> Check | None:
    zone = request.availability_zone
    if zone is None:
        return None
    reason = f"zone '{zone}'"

    def check(host: HostState) -> str:
        return "" if host.availability_zone == zone else reason

    return check


# A fact: a server that is pinned to one zone is never in another, whoever chose its host.
AVAILABILITY_ZONE = Filter("AvailabilityZoneFilter", _in_zone, is_a_fact=True, plain="are in another availability zone")
