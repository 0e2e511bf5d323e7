"""Do the host's aggregates allow it?"""

from collections.abc import Callable

from scheduler.aggregates import AggregateFacts
from scheduler.filters.filter import Check, Filter
from scheduler.filters.operators import matcher
from scheduler.hosts import HostState
from scheduler.options import FilterOptions
from scheduler.request import Request

_SCOPE = "aggregate_instance_extra_specs:"
_NOBODY: frozenset[str] = frozenset()


def _has_extra_specs(request: Request) -> Check | None:
    wanted = {key.removeprefix(_SCOPE): value for key, value in request.extra_specs.items() if key.startswith(_SCOPE)}
    if not wanted:
        return None
    questions = [(key, matcher(value), f"no aggregate with {key} {value}") for key, value in wanted.items()]

    def answer(facts: AggregateFacts) -> str:
        for key, is_wanted, reason in questions:
            if not any(map(is_wanted, facts.words.get(key, _NOBODY))):
                return reason
        return ""

    return _once_for_hosts_alike(answer)


def _once_for_hosts_alike(answer: Callable[[AggregateFacts], str]) -> Check:
    """The answer of a host's aggregates: hosts that lie in the same ones share it."""
    known: dict[int, str] = {}

    def check(host: HostState) -> str:
        facts = host.facts
        # By identity: what hosts share is one object, which the hosts keep alive for as long as they are looked at.
        verdict = known.get(id(facts))
        if verdict is None:
            verdict = known[id(facts)] = answer(facts)
        return verdict

    return check


def _is_for_project(request: Request) -> Check:
    project_id = request.project_id

    def check(host: HostState) -> str:
        projects = host.facts.projects
        return "" if not projects or project_id in projects else "for other projects"

    return check


def _is_for_flavor(request: Request) -> Check:
    flavor_name = request.flavor_name

    def check(host: HostState) -> str:
        flavors = host.facts.words.get("instance_type")
        return "" if not flavors or flavor_name in flavors else "for other flavors"

    return check


def image_properties(options: FilterOptions) -> Filter:
    """An aggregate's metadata and the image's properties of the same name are the same, where both have one."""
    space = options.aggregate_image_properties_isolation_namespace
    prefix = space + options.aggregate_image_properties_isolation_separator if space else ""

    def prepare(request: Request) -> Check | None:
        wanted = {key: value for key, value in request.image_properties.items() if key.startswith(prefix)}
        if not wanted:
            return None

        def answer(facts: AggregateFacts) -> str:
            other = sorted(key for key in wanted.keys() & facts.words.keys() if wanted[key] not in facts.words[key])
            return f"for images with another {other[0]}" if other else ""

        return _once_for_hosts_alike(answer)

    return Filter("AggregateImagePropertiesIsolation", prepare, plain="are kept for other images")


def isolated(options: FilterOptions) -> Filter:
    """Hosts of aggregates with `trait:X` = required are for those who ask for the trait."""

    def prepare(request: Request) -> Check | None:
        if not options.enable_isolated_aggregate_filtering:
            return None
        return _needs_no_more_than(request.required_traits | request.group_traits)

    return Filter("IsolatedAggregatesFilter", prepare, plain="are kept for servers that ask for more")


def _needs_no_more_than(asked: frozenset[str]) -> Check:
    def check(host: HostState) -> str:
        needed = host.facts.needed_traits
        return "" if not needed or needed <= asked else "isolated by a trait that is not asked for"

    return check


def tenants(options: FilterOptions) -> Filter:
    """A project that has aggregates (`filter_tenant_id`) goes there and nowhere else."""
    prepare: Callable[[Request], Check | None] = _in_aggregates_of_project
    if options.placement_aggregate_required_for_tenants:
        prepare = _only_where_project_is_named
    if not options.limit_tenants_to_placement_aggregate:
        prepare = _nothing
    return Filter("TenantAggregateFilter", prepare, plain="are kept for others")


def _nothing(request: Request) -> Check | None:
    return None


def _in_aggregates_of_project(request: Request) -> Check | None:
    return _only_where_project_is_named(request) if request.project_has_aggregates else None


def _only_where_project_is_named(request: Request) -> Check:
    project_id = request.project_id

    def check(host: HostState) -> str:
        return "" if project_id in host.facts.projects else "in no aggregate of the project"

    return check


EXTRA_SPECS = Filter(
    "AggregateInstanceExtraSpecsFilter", _has_extra_specs, plain="are not of the kind that the flavor is for"
)
MULTI_TENANCY = Filter("AggregateMultiTenancyIsolation", _is_for_project, plain="are kept for others")
TYPE_AFFINITY = Filter("AggregateTypeAffinityFilter", _is_for_flavor, plain="are kept for other flavors")
