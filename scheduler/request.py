"""What is asked of the scheduler."""

import dataclasses
import re
from collections.abc import Mapping

import core.errors
from objects.build import Flavor, ImageRef
from objects.build_request import RequestSpec
from scheduler.resources import resources_of

# `trait:X`, and `trait1:X` in a group of its own: a host of ours is one provider and answers for all groups.
_TRAIT = re.compile(r"^trait[A-Za-z0-9_-]{0,64}:(?P<name>[A-Z0-9_]+)$")


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

    `resources` as `resources_of` gives them. `target_host` and `target_node` name the only host that will do; `forced`
    (the administrator's `zone:host:node`) skips the filters that express wishes, not facts. `excluded_hosts` have been
    tried.
    """

    resources: Mapping[str, int]
    num: int = 1
    project_id: str = ""
    flavor_name: str = ""
    extra_specs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    image_properties: Mapping[str, str] = dataclasses.field(default_factory=dict)
    availability_zone: str | None = None
    target_host: str | None = None
    target_node: str | None = None
    forced: bool = False
    excluded_hosts: frozenset[str] = frozenset()
    group: Group | None = None
    hints: Hints = NO_HINTS

    required_traits: frozenset[str] = dataclasses.field(init=False)
    forbidden_traits: frozenset[str] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        required, forbidden = _traits(self.extra_specs)
        object.__setattr__(self, "required_traits", required | _image_traits(self.image_properties))
        object.__setattr__(self, "forbidden_traits", forbidden)


def request_for(
    asked: RequestSpec,
    flavor: Flavor,
    image: ImageRef | None,
    *,
    num: int = 1,
    excluded_hosts: frozenset[str] = frozenset(),
    group: Group | None = None,
    hints: Hints = NO_HINTS,
) -> Request:
    """What servers of this flavor and image ask for: the one way from a request spec to a request.

    `group` and `hints` are what the spec's `server_group`, `same_host` and `different_host` stand for at this moment.

    Raises:
        Invalid: the extra specs cannot be read.
    """
    return Request(
        resources=resources_of(flavor, boots_from_volume=image is None),
        num=num,
        project_id=asked.project_id,
        flavor_name=flavor.name,
        extra_specs=flavor.extra_specs,
        image_properties=image.properties if image else {},
        availability_zone=asked.availability_zone,
        target_host=asked.host,
        target_node=asked.node,
        forced=asked.forced,
        excluded_hosts=excluded_hosts,
        group=group,
        hints=hints,
    )


def _traits(extra_specs: Mapping[str, str]) -> tuple[frozenset[str], frozenset[str]]:
    required, forbidden = set(), set()
    for key, value in extra_specs.items():
        match = _TRAIT.match(key)
        if match is None:
            continue
        if value == "required":
            required.add(match["name"])
        elif value == "forbidden":
            forbidden.add(match["name"])
        else:
            raise core.errors.Invalid(f"extra spec {key} is {value!r}, neither required nor forbidden", field=key)
    return frozenset(required), frozenset(forbidden)


def _image_traits(properties: Mapping[str, str]) -> frozenset[str]:
    return frozenset(
        key.removeprefix("trait:")
        for key, value in properties.items()
        if key.startswith("trait:") and value == "required"
    )
