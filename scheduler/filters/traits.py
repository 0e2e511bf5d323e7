"""Does the host have the traits that are required, and none that are forbidden?"""

from scheduler.filters.filter import Check, Filter
from scheduler.hosts import HostState
from scheduler.request import Request


def _has_traits(request: Request) -> Check | None:
    required, forbidden = request.required_traits, request.forbidden_traits
    if not required and not forbidden:
        return None

    def check(host: HostState) -> str:
        if not required <= host.traits:
            return f"lacks {', '.join(sorted(required - host.traits))}"
        if not forbidden.isdisjoint(host.traits):
            return f"has {', '.join(sorted(forbidden & host.traits))}"
        return ""

    return check


TRAITS = Filter("TraitsFilter", _has_traits, is_a_fact=True, plain="cannot do what is asked for")
