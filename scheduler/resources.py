"""What a flavor and an image take from a host, in Placement's resource classes and traits."""

import dataclasses
import re
from collections.abc import Mapping

import core.errors
from objects.build import Flavor

VCPU = "VCPU"
PCPU = "PCPU"
MEMORY_MB = "MEMORY_MB"
DISK_GB = "DISK_GB"
BASIC = frozenset({VCPU, MEMORY_MB, DISK_GB})
"""What every host reports itself; of other classes Placement knows."""

MAX_AMOUNT = 2**31 - 1
MAX_GROUPS = 16
NONE, ISOLATE = "none", "isolate"

# `resources:CUSTOM_GPU` asks of the host as a whole, `resources1:CUSTOM_GPU` or `resources_net:…` in a group of its
# own; the same of traits.
_SPEC = re.compile(r"(?P<kind>resources|trait)(?P<group>[A-Za-z0-9_-]{0,64}):(?P<name>[A-Z0-9_]{1,255})")
_TRAIT = "trait:"
_NAME = re.compile(r"[A-Z0-9_]{1,255}")


@dataclasses.dataclass(frozen=True, slots=True)
class ResourceGroup:
    """What has to come from one provider: the host itself, or one below it."""

    resources: Mapping[str, int]
    required: frozenset[str] = frozenset()
    forbidden: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Needed:
    """What a server takes. `whole`: of the host as a whole. `groups`: suffix -> what comes from one provider each.

    `policy`: isolate: every group from another provider; none: they may share.
    """

    whole: ResourceGroup
    groups: Mapping[str, ResourceGroup] = dataclasses.field(default_factory=dict)
    policy: str = NONE

    @property
    def resources(self) -> dict[str, int]:
        """All of it together: resource class -> amount."""
        total = dict(self.whole.resources)
        for group in self.groups.values():
            for name, amount in group.resources.items():
                total[name] = total.get(name, 0) + amount
        return total


def needed_of(
    flavor: Flavor, properties: Mapping[str, str] | None = None, *, boots_from_volume: bool = False
) -> Needed:
    """What servers of the flavor take; `properties` of their image.

    `resources:CLASS=N` in the extra specs replaces what the flavor says, 0 removes it. Dedicated CPUs (`hw:cpu_policy`)
    are of the class PCPU, and one more for QEMU's own threads where those are isolated.

    Raises:
        Invalid: an amount or a trait cannot be read, or there are too many groups.
    """
    properties = properties or {}
    amounts: dict[str, dict[str, int]] = {"": _of_flavor(flavor, properties, boots_from_volume=boots_from_volume)}
    traits: dict[str, dict[str, set[str]]] = {}
    for key, value in flavor.extra_specs.items():
        match = _SPEC.fullmatch(key)
        if match is None:
            continue
        if match["kind"] == "resources":
            amounts.setdefault(match["group"], {})[match["name"]] = _whole(key, value)
        else:
            traits.setdefault(match["group"], {}).setdefault(_wish(key, value), set()).add(match["name"])
    for key, value in properties.items():
        if key.startswith(_TRAIT) and value == "required":
            traits.setdefault("", {}).setdefault("required", set()).add(_trait_of_image(key))
    groups = {name: _group(amounts.get(name, {}), traits.get(name, {})) for name in {*amounts, *traits}}
    return _checked(Needed(groups.pop(""), groups, _policy(flavor.extra_specs)))


def resources_of(flavor: Flavor, *, boots_from_volume: bool = False) -> dict[str, int]:
    """Resource class -> amount; nothing is asked of a class at 0.

    Raises:
        Invalid: as `needed_of`.
    """
    return needed_of(flavor, boots_from_volume=boots_from_volume).resources


def _of_flavor(flavor: Flavor, properties: Mapping[str, str], *, boots_from_volume: bool) -> dict[str, int]:
    specs = flavor.extra_specs
    disk_gib = (0 if boots_from_volume else flavor.root_gib) + flavor.ephemeral_gib + -(-flavor.swap_mib // 1024)
    dedicated = "dedicated" in (specs.get("hw:cpu_policy"), properties.get("hw_cpu_policy"))
    more = 1 if dedicated and specs.get("hw:emulator_threads_policy") == "isolate" else 0
    return {PCPU if dedicated else VCPU: flavor.vcpus + more, MEMORY_MB: flavor.memory_mib, DISK_GB: disk_gib}


def _group(amounts: Mapping[str, int], traits: Mapping[str, set[str]]) -> ResourceGroup:
    return ResourceGroup(
        {name: amount for name, amount in amounts.items() if amount},
        frozenset(traits.get("required", ())),
        frozenset(traits.get("forbidden", ())),
    )


def _checked(needed: Needed) -> Needed:
    if len(needed.groups) > MAX_GROUPS:
        raise core.errors.Invalid(
            f"the flavor's extra specs make {len(needed.groups)} groups of resources; there may be {MAX_GROUPS}",
            field="resources",
        )
    for name, group in needed.groups.items():
        if not group.resources:
            raise core.errors.Invalid(
                f"extra specs trait{name}:… are about a group without resources{name}:…", field=f"trait{name}"
            )
    return needed


def _policy(specs: Mapping[str, str]) -> str:
    policy = specs.get("group_policy", NONE)
    if policy not in (NONE, ISOLATE):
        raise core.errors.Invalid(
            f"extra spec group_policy is {policy!r}, neither {NONE} nor {ISOLATE}", field="group_policy"
        )
    return policy


def _whole(key: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) <= 10 and int(value) <= MAX_AMOUNT):
        raise core.errors.Invalid(f"extra spec {key} is {value!r}, not a whole number up to {MAX_AMOUNT}", field=key)
    return int(value)


def _trait_of_image(key: str) -> str:
    """The trait that an image's property names. Its owner wrote it, and Placement is asked for it."""
    name = key.removeprefix(_TRAIT)
    if not _NAME.fullmatch(name):
        raise core.errors.Invalid(f"the image's property {key[:64]!r} names no trait", field=key[:64])
    return name


def _wish(key: str, value: str) -> str:
    if value not in ("required", "forbidden"):
        raise core.errors.Invalid(f"extra spec {key} is {value!r}, neither required nor forbidden", field=key)
    return value
