"""What is asked of the scheduler."""

import dataclasses
import ipaddress
from collections.abc import Mapping
from typing import TypeAlias

import core.errors
from objects.build import Flavor, ImageRef
from objects.build_request import RequestSpec
from objects.host_query import Term, parse
from scheduler.resources import BASIC, NONE, Needed, ResourceGroup, needed_of

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """The server group that the servers join. `members`: host -> members there; policies as in the Compute API."""

    policy: str
    members: Mapping[str, int] = dataclasses.field(default_factory=dict)
    most_per_host: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Hints:
    """Hosts of other servers of the user, to share or to keep away from; None: the user did not ask."""

    same_hosts: frozenset[str] | None = None
    different_hosts: frozenset[str] = frozenset()


NO_HINTS = Hints()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One kind of server, `num` times.

    `resources`: all that one takes, by resource class. `required_traits` and `forbidden_traits` are the host's own;
    `groups` (suffix -> what comes from one provider each, `group_policy` says whether they may share) may come from
    providers below it. `candidates`: the nodes that Placement has all of it on; None: it was not asked, for hosts say
    themselves what there is.

    `target_host` and `target_node` name the only host that will do; `forced` (the administrator's `zone:host:node`)
    skips the filters that express wishes, not facts. `excluded_hosts` have been tried. `query`, `near`,
    `different_cells` and `target_cell` are hints. `project_has_aggregates`: some aggregate names the project.
    """

    resources: Mapping[str, int]
    num: int = 1
    project_id: str = ""
    flavor_name: str = ""
    extra_specs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    image_id: str = ""
    image_format: str = ""
    image_properties: Mapping[str, str] = dataclasses.field(default_factory=dict)
    required_traits: frozenset[str] = frozenset()
    forbidden_traits: frozenset[str] = frozenset()
    groups: Mapping[str, ResourceGroup] = dataclasses.field(default_factory=dict)
    group_policy: str = NONE
    candidates: frozenset[str] | None = None
    availability_zone: str | None = None
    target_host: str | None = None
    target_node: str | None = None
    forced: bool = False
    excluded_hosts: frozenset[str] = frozenset()
    group: Group | None = None
    hints: Hints = NO_HINTS
    query: Term | None = None
    near: Network | None = None
    different_cells: frozenset[str] = frozenset()
    target_cell: str | None = None
    project_has_aggregates: bool = False

    @property
    def group_traits(self) -> frozenset[str]:
        """What is required of providers below the host."""
        return frozenset().union(*(group.required for group in self.groups.values()))

    @property
    def needs_candidates(self) -> bool:
        """Whether Placement has to say which hosts will do."""
        return bool(self.groups) or not self.resources.keys() <= BASIC

    @property
    def needed(self) -> Needed:
        """What Placement is asked for."""
        grouped = Needed(ResourceGroup({}), self.groups).resources
        whole = {name: amount - grouped.get(name, 0) for name, amount in self.resources.items()}
        own = {name: amount for name, amount in whole.items() if amount}
        return Needed(ResourceGroup(own, self.required_traits, self.forbidden_traits), self.groups, self.group_policy)


def request_for(
    asked: RequestSpec,
    flavor: Flavor,
    image: ImageRef | None,
    *,
    num: int = 1,
    excluded_hosts: frozenset[str] = frozenset(),
    group: Group | None = None,
    hints: Hints = NO_HINTS,
    candidates: frozenset[str] | None = None,
    project_has_aggregates: bool = False,
) -> Request:
    """What servers of this flavor and image ask for: the one way from a request spec to a request.

    `group` and `hints` are what the spec's `server_group`, `same_host` and `different_host` stand for at this moment.

    Raises:
        Invalid: the extra specs, or the hints, cannot be read.
    """
    needed = needed_of(flavor, image.properties if image else None, boots_from_volume=image is None)
    return Request(
        resources=needed.resources,
        num=num,
        project_id=asked.project_id,
        flavor_name=flavor.name,
        extra_specs=flavor.extra_specs,
        image_id=image.image_id if image else "",
        image_format=image.disk_format if image else "",
        image_properties=image.properties if image else {},
        required_traits=needed.whole.required,
        forbidden_traits=needed.whole.forbidden,
        groups=needed.groups,
        group_policy=needed.policy,
        candidates=candidates,
        availability_zone=asked.availability_zone,
        target_host=asked.host,
        target_node=asked.node,
        forced=asked.forced,
        excluded_hosts=excluded_hosts,
        group=group,
        hints=hints,
        query=_query(asked.query),
        near=_network(asked.near),
        different_cells=frozenset(asked.different_cell),
        target_cell=asked.target_cell,
        project_has_aggregates=project_has_aggregates,
    )


def _query(text: str) -> Term | None:
    try:
        return parse(text)
    except ValueError as error:
        raise core.errors.Invalid(f"the scheduler hint query cannot be read: {error}", field="query") from None


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if text else None
    except ValueError:
        raise core.errors.Invalid(
            "the scheduler hint build_near_host_ip cannot be read", field="build_near_host_ip"
        ) from None
