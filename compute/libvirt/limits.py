"""What a guest may take of its host: the `quota:…` extra specs of its flavor, by the names that libvirt has for them.

Source: OpenStack's table of extra specs; libvirt's domain format (cputune, iotune, bandwidth). CPU limits are the
kernel's (cgroups), those of disks QEMU's own, those of network cards the kernel's (tc). A host without the kernel's
part does not start the guest: libvirt refuses it.
"""

import dataclasses
import xml.etree.ElementTree as ET
from collections.abc import Iterable

import core.errors
from compute.libvirt.guest_options import Options

Values = tuple[tuple[str, int], ...]

PREFIX = "quota:"
# What libvirt takes: shares as a weight, period and quota in microseconds.
_CPU = {"shares": (1, 262_144), "period": (1_000, 1_000_000), "quota": (1_000, 17_592_186_044_415)}
_DISK = tuple(f"{kind}_{unit}_sec" for unit in ("bytes", "iops") for kind in ("total", "read", "write"))
_MAX_DISK = (1 << 63) - 1
# KiB/s, burst in KiB.
_NIC = ("average", "peak", "burst")
_MAX_NIC = (1 << 32) - 1
UNLIMITED = "-1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Each by the name of libvirt's element or attribute: `cpu` in cputune, `disk` in each disk's iotune, the others in
    a card's bandwidth."""

    cpu: Values = ()
    disk: Values = ()
    inbound: Values = ()
    outbound: Values = ()


def limits_of(flavor: Options) -> Limits:
    """What the flavor asks for; 0 is no limit, and so is a CPU quota of -1.

    Raises:
        Invalid: a value is none that libvirt takes, or they do not go together; names the extra spec.
    """
    limits = Limits(
        cpu=_values((name, _cpu(flavor, name)) for name in _CPU),
        disk=_values((name, _limit(flavor, f"disk_{name}", most=_MAX_DISK)) for name in _DISK),
        inbound=_nic(flavor, "inbound"),
        outbound=_nic(flavor, "outbound"),
    )
    _refuse_totals_beside_parts(dict(limits.disk))
    return limits


def cpu_tune(tune: ET.Element, limits: Limits) -> None:
    """Adds to the `cputune` of a domain."""
    for name, value in limits.cpu:
        ET.SubElement(tune, name).text = str(value)


def io_tune(disk: ET.Element, limits: Limits) -> None:
    """Adds the `iotune` of one disk."""
    if limits.disk:
        tune = ET.SubElement(disk, "iotune")
        for name, value in limits.disk:
            ET.SubElement(tune, name).text = str(value)


def bandwidth(interface: ET.Element, limits: Limits) -> None:
    """Adds the `bandwidth` of one network card."""
    if limits.inbound or limits.outbound:
        element = ET.SubElement(interface, "bandwidth")
        for way, values in (("inbound", limits.inbound), ("outbound", limits.outbound)):
            if values:
                ET.SubElement(element, way, {name: str(value) for name, value in values})


def nic_limits_text(limits: Limits) -> str:
    """The limits of network cards, as a domain keeps them for cards that come later."""
    return " ".join(f"{way}.{name}={value}" for way in ("inbound", "outbound") for name, value in getattr(limits, way))


def nic_limits_in(text: str) -> Limits:
    """Reads `nic_limits_text`.

    Raises:
        ValueError: it is none.
    """
    limits: dict[str, list[tuple[str, int]]] = {"inbound": [], "outbound": []}
    for word in text.split():
        name, _, value = word.partition("=")
        way, _, kind = name.partition(".")
        if way not in limits or kind not in _NIC:
            raise ValueError(f"{word!r} is no limit of a network card")
        limits[way].append((kind, int(value)))
    return Limits(inbound=tuple(limits["inbound"]), outbound=tuple(limits["outbound"]))


def _cpu(flavor: Options, name: str) -> int | None:
    least, most = _CPU[name]
    if name == "quota" and flavor.take(f"{PREFIX}cpu_quota") == UNLIMITED:
        return None
    return _limit(flavor, f"cpu_{name}", least=least, most=most)


def _nic(flavor: Options, way: str) -> Values:
    values = _values((name, _limit(flavor, f"vif_{way}_{name}", most=_MAX_NIC)) for name in _NIC)
    if values and "average" not in dict(values):
        field = f"{PREFIX}vif_{way}_average"
        raise core.errors.Invalid(
            f"Of a network card {values[0][0]} cannot be limited without the extra spec {field}", field=field
        )
    return values


def _refuse_totals_beside_parts(disk: dict[str, int]) -> None:
    for unit in ("bytes", "iops"):
        total = f"total_{unit}_sec"
        if total in disk and (f"read_{unit}_sec" in disk or f"write_{unit}_sec" in disk):
            field = f"{PREFIX}disk_{total}"
            raise core.errors.Invalid(
                f"The extra spec {field} cannot be combined with limits of reads or writes", field=field
            )


def _limit(flavor: Options, name: str, *, least: int = 1, most: int) -> int | None:
    """None: it is not asked for, or is 0."""
    value = flavor.count(f"{PREFIX}{name}", least=0, most=most)
    if value and value < least:
        raise flavor.refusal(f"{PREFIX}{name}", f"it is a number from {least} to {most}, or 0 for no limit")
    return value or None


def _values(pairs: Iterable[tuple[str, int | None]]) -> Values:
    return tuple((name, value) for name, value in pairs if value is not None)
