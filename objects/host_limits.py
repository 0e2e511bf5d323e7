"""What a host's report may say: names that follow from the host's own, and values within bounds. Pure rules, for
whoever reads one.

A report is a claim. Its sender is known by then; what it says of itself ends in databases, in Placement and in the
scheduler's view, and each of them has columns and sums that an absurd value would break.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping

import msgspec

from objects.host import Attempt, Heartbeat, Inventory, Usage, node_uuid

MAX_INT = 2**31 - 1
"""Of our integer columns and of Placement's."""
MAX_NAME = 255
MAX_WORD = 64
MAX_VERSION = 32
MAX_UUID = 36
MAX_VCPUS = 2**16
MAX_RATIO = 1000.0
MAX_TRAITS = 500
MAX_PAGE_SIZES = 16
MAX_CPU_INFO_BYTES = 64 * 1024
MAX_ATTEMPTS = 20_000
"""Guests, and builds under way, that a host may name in one report."""
MAX_TIME = 2.0**32
"""Seconds since 1970: the year 2106."""
SEALING_KEY_BYTES = 32

_ITS_OWN_TRAIT = re.compile(r"(COMPUTE|HW)_[A-Z0-9_]{1,240}")
_ASCII = re.compile(r"[\x20-\x7e]*")

_NUMBERS: Mapping[str, tuple[float, float]] = {
    "hypervisor_version": (0, MAX_INT),
    "vcpus": (0, MAX_VCPUS),
    "dedicated_cpus": (0, MAX_VCPUS),
    "memory_mib": (0, MAX_INT),
    "disk_gib": (0, MAX_INT),
    "reserved_vcpus": (0, MAX_VCPUS),
    "reserved_memory_mib": (0, MAX_INT),
    "reserved_disk_gib": (0, MAX_INT),
    "cpu_allocation_ratio": (0.001, MAX_RATIO),
    "ram_allocation_ratio": (0.001, MAX_RATIO),
    "disk_allocation_ratio": (0.001, MAX_RATIO),
}
_USED = ("vcpus", "memory_mib", "disk_gib", "guests")


def heartbeat_defect(beat: Heartbeat) -> str | None:
    """What in the report cannot be believed, by its field's name; None: nothing."""
    return (
        _first(
            ("host", beat.host, _is_name),
            ("boot_id", beat.boot_id, lambda text: _is_ascii(text, MAX_UUID)),
            ("version", beat.version, lambda text: _is_ascii(text, MAX_VERSION)),
            ("started_at", beat.started_at, lambda moment: 0.0 <= moment <= MAX_TIME),
            ("sealing_key", beat.sealing_key, lambda key: key is None or _is_key(key)),
            ("refuses", beat.refuses, lambda text: text is None or len(text) <= MAX_NAME),
            ("intents", beat.intents, _are_few),
            ("guests", beat.guests or [], _are_few),
        )
        or usage_defect(beat.usage)
        or inventory_defect(beat.host, beat.inventory)
    )


def inventory_defect(host: str, inventory: Inventory) -> str | None:
    """What in the inventory of this host cannot be believed, by its field's name; None: nothing.

    Its node and its provider in Placement are named after the host: it cannot speak for those of another. COMPUTE_ and
    HW_ traits describe a host; all others are given to it by operators (Placement, os-traits), and a host that gave
    itself one would draw what is kept for it.
    """
    return (
        _first(
            ("node_uuid", inventory.node_uuid, lambda uuid: uuid == node_uuid(host)),
            ("hypervisor_hostname", inventory.hypervisor_hostname, lambda name: name == host and _is_name(name)),
            ("hypervisor_type", inventory.hypervisor_type, lambda text: _is_ascii(text, MAX_WORD)),
            ("host_ip", inventory.host_ip, _is_address),
            ("cpu_info", inventory.cpu_info, lambda facts: len(msgspec.json.encode(facts)) <= MAX_CPU_INFO_BYTES),
            (
                "traits",
                inventory.traits,
                lambda names: len(names) <= MAX_TRAITS and all(map(_ITS_OWN_TRAIT.fullmatch, names)),
            ),
            (
                "page_sizes_kib",
                inventory.page_sizes_kib,
                lambda sizes: len(sizes) <= MAX_PAGE_SIZES and all(0 < size <= MAX_INT for size in sizes),
            ),
        )
        or _out_of_bounds(inventory)
        or _more_kept_than_there_is(inventory)
    )


def usage_defect(usage: Usage) -> str | None:
    """What of the use cannot be, by its field's name; None: nothing."""
    used = [(name, getattr(usage, name)) for name in _USED]
    if usage.cpu_percent is not None and not 0 <= usage.cpu_percent <= 100:
        return f"usage.cpu_percent {_short(usage.cpu_percent)}"
    return next(
        (
            f"usage.{name} {_short(value)}"
            for name, value in used
            if not (isinstance(value, int) and 0 <= value <= MAX_INT)
        ),
        None,
    )


def _first(*checks: tuple[str, object, Callable[..., object]]) -> str | None:
    return next((f"{name} {_short(value)}" for name, value, is_fine in checks if not is_fine(value)), None)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_WORD else f"{text[:MAX_WORD]}…"


def _out_of_bounds(inventory: Inventory) -> str | None:
    # Written so that a NaN is out of bounds.
    return next(
        (
            f"{name} {value}"
            for name, (low, high) in _NUMBERS.items()
            if not low <= (value := getattr(inventory, name)) <= high
        ),
        None,
    )


def _more_kept_than_there_is(inventory: Inventory) -> str | None:
    kept = (
        ("reserved_vcpus", inventory.reserved_vcpus, inventory.vcpus),
        ("dedicated_cpus", inventory.dedicated_cpus, inventory.vcpus),
        ("reserved_memory_mib", inventory.reserved_memory_mib, inventory.memory_mib),
        ("reserved_disk_gib", inventory.reserved_disk_gib, inventory.disk_gib),
    )
    return next((f"{name} {reserved} of {total}" for name, reserved, total in kept if reserved > total), None)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and text.isprintable()


def _is_ascii(text: str, most: int) -> bool:
    return len(text) <= most and _ASCII.fullmatch(text) is not None


def _is_address(text: str) -> bool:
    """In its one form, so that two hosts that say the same say it alike."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return str(address) == text and "%" not in text and getattr(address, "ipv4_mapped", None) is None


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == SEALING_KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def _are_few(attempts: Iterable[Attempt]) -> bool:
    return len(list(attempts)) <= MAX_ATTEMPTS
