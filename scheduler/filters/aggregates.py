"""Do the host's aggregates allow it?"""

from scheduler.filters.filter import Check, Filter
from scheduler.filters.operators import matches
from scheduler.hosts import HostState
from scheduler.request import Request

_SCOPE = "aggregate_instance_extra_specs:"
_TENANT = "filter_tenant_id"


def _has_extra_specs(request: Request) -> Check | None:
    wanted = {key.removeprefix(_SCOPE): value for key, value in request.extra_specs.items() if key.startswith(_SCOPE)}
    if not wanted:
        return None

    def check(host: HostState) -> str:
        for key, value in wanted.items():
            if not any(matches(one, value) for one in _values(host, key)):
                return f"no aggregate with {key} {value}"
        return ""

    return check


def _is_for_project(request: Request) -> Check:
    project_id = request.project_id

    def check(host: HostState) -> str:
        if not host.aggregates:
            return ""
        projects = _projects(host)
        return "" if not projects or project_id in projects else "for other projects"

    return check


def _is_for_flavor(request: Request) -> Check:
    flavor_name = request.flavor_name

    def check(host: HostState) -> str:
        if not host.aggregates:
            return ""
        flavors = _values(host, "instance_type")
        return "" if not flavors or flavor_name in flavors else "for other flavors"

    return check


def _values(host: HostState, key: str) -> set[str]:
    """What the host's aggregates say, each a list parted by commas."""
    return {
        one.strip()
        for aggregate in host.aggregates
        if key in aggregate.metadata
        for one in aggregate.metadata[key].split(",")
    }


def _projects(host: HostState) -> set[str]:
    """`filter_tenant_id`, and with any suffix: metadata values are short, so long lists are parted over several
    keys."""
    return {
        one.strip()
        for aggregate in host.aggregates
        for key, value in aggregate.metadata.items()
        if key.startswith(_TENANT)
        for one in value.split(",")
    }


EXTRA_SPECS = Filter("AggregateInstanceExtraSpecsFilter", _has_extra_specs)
MULTI_TENANCY = Filter("AggregateMultiTenancyIsolation", _is_for_project)
TYPE_AFFINITY = Filter("AggregateTypeAffinityFilter", _is_for_flavor)
