"""What a flavor takes from a host, in Placement's resource classes."""

import re

import core.errors
from objects.build import Flavor

VCPU = "VCPU"
PCPU = "PCPU"
MEMORY_MB = "MEMORY_MB"
DISK_GB = "DISK_GB"

# `resources:CUSTOM_GPU` asks of the host as a whole, `resources1:CUSTOM_GPU` or `resources_net:…` in a group of its
# own.
_AMOUNT = re.compile(r"^resources(?P<group>[A-Za-z0-9_-]{0,64}):(?P<name>[A-Z0-9_]+)$")


def resources_of(flavor: Flavor, *, boots_from_volume: bool = False) -> dict[str, int]:
    """Resource class -> amount; nothing is asked of a class at 0.

    `resources:CLASS=N` in the extra specs replaces what the flavor says, 0 removes it. Groups of their own add up: a
    host of ours is one provider and has to hold them all. Dedicated CPUs (`hw:cpu_policy`) are of the class PCPU.

    Raises:
        Invalid: an amount is no whole number of at least 0; or the groups have to come from different providers.
    """
    if flavor.extra_specs.get("group_policy", "none") != "none":
        raise core.errors.Invalid(
            "extra spec group_policy can only be none: a host is one resource provider", field="group_policy"
        )
    disk_gib = (0 if boots_from_volume else flavor.root_gib) + flavor.ephemeral_gib + -(-flavor.swap_mib // 1024)
    cpus = PCPU if flavor.extra_specs.get("hw:cpu_policy") == "dedicated" else VCPU
    amounts = {cpus: flavor.vcpus, MEMORY_MB: flavor.memory_mib, DISK_GB: disk_gib}
    in_groups: dict[str, int] = {}
    for key, value in flavor.extra_specs.items():
        match = _AMOUNT.match(key)
        if match is None:
            continue
        if match["group"]:
            in_groups[match["name"]] = in_groups.get(match["name"], 0) + _whole(key, value)
        else:
            amounts[match["name"]] = _whole(key, value)
    for name, amount in in_groups.items():
        amounts[name] = amounts.get(name, 0) + amount
    return {name: amount for name, amount in amounts.items() if amount}


def _whole(key: str, value: str) -> int:
    if not value.isdecimal():
        raise core.errors.Invalid(f"extra spec {key} is {value!r}, not a whole number", field=key)
    return int(value)
