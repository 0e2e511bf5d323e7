"""What is asked of the scheduler."""

import dataclasses
import re
from collections.abc import Mapping

import core.errors
from objects.build import BuildSpec
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

    `resources` as `resources_of` gives them. `target_host` and `target_node` name the only host that will do; `forced` (the
    administrator's `zone:host:node`) skips the filters that express wishes, not facts. `excluded_hosts` have been tried.
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


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """`availability_zone` as a user may write it; None: any."""

    zone: str | None = None
    host: str | None = None
    node: str | None = None


def place_of(availability_zone: str | None) -> Place:
    """The parts of `zone`, `zone:host`, `zone:host:node` or `zone::node`; empty parts are None.

    Raises:
        Invalid: there are more than two colons.
    """
    parts = (availability_zone or "").split(":")
    if len(parts) > 3:
        raise core.errors.Invalid(f"availability_zone {availability_zone!r} is not of the form zone:host:node", field="availability_zone")
    return Place(*(part or None for part in parts))


def request_for(
    spec: BuildSpec,
    *,
    num: int = 1,
    target_host: str | None = None,
    target_node: str | None = None,
    excluded_hosts: frozenset[str] = frozenset(),
    group: Group | None = None,
    hints: Hints = NO_HINTS,
) -> Request:
    """What a build asks for. `target_host` and `target_node` are wishes (2.74); those in the zone's name are forced.

    Raises:
        Invalid: zone or extra specs cannot be read.
    """
    place = place_of(spec.availability_zone)
    flavor = spec.flavor
    return Request(
        resources=resources_of(
            vcpus=flavor.vcpus,
            memory_mib=flavor.memory_mib,
            root_gib=flavor.root_gib,
            ephemeral_gib=flavor.ephemeral_gib,
            swap_mib=flavor.swap_mib,
            extra_specs=flavor.extra_specs,
            boots_from_volume=spec.image is None,
        ),
        num=num,
        project_id=spec.project_id,
        flavor_name=flavor.name,
        extra_specs=flavor.extra_specs,
        image_properties=spec.image.properties if spec.image else {},
        availability_zone=place.zone,
        target_host=place.host or target_host,
        target_node=place.node or target_node,
        forced=place.host is not None or place.node is not None,
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
    return frozenset(key.removeprefix("trait:") for key, value in properties.items() if key.startswith("trait:") and value == "required")
