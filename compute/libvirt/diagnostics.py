"""How a guest fares, from libvirt's figures (virConnectGetAllDomainStats names them)."""

import xml.etree.ElementTree as ET
from typing import Any

from compute.libvirt.domain_xml_edits import has_config_drive
from compute.libvirt.domains import Seen
from objects.diagnostics import Diagnostics, Disk, Nic

_NIC_FIGURES = {"octets": "bytes", "packets": "pkts", "errors": "errs", "drop": "drop"}


def diagnostics_of(seen: Seen, virt_type: str, stats: dict[str, Any], document: str) -> Diagnostics:
    """From libvirt's figures, by their names there, and the domain's document."""
    cpus = [stats[f"vcpu.{number}.time"] for number in range(seen.identity.vcpus) if f"vcpu.{number}.time" in stats]
    return Diagnostics(
        driver="libvirt",
        hypervisor=virt_type,
        power_state=seen.power_state,
        vcpus=seen.identity.vcpus,
        cpu_times_ns=cpus or [int(stats.get("cpu.time", 0))],
        memory_maximum_mib=int(stats.get("balloon.maximum", 0)) // 1024,
        memory_used_mib=int(
            stats.get("balloon.current", 0) - stats.get("balloon.usable", stats.get("balloon.unused", 0))
        )
        // 1024,
        disks=[_disk(stats, f"block.{number}") for number in range(stats.get("block.count", 0))],
        nics=[_nic(stats, f"net.{number}", document) for number in range(stats.get("net.count", 0))],
        has_config_drive=has_config_drive(document),
    )


def _disk(stats: dict[str, Any], disk: str) -> Disk:
    return Disk(
        name=str(stats[f"{disk}.name"]),
        read_bytes=int(stats.get(f"{disk}.rd.bytes", 0)),
        read_requests=int(stats.get(f"{disk}.rd.reqs", 0)),
        write_bytes=int(stats.get(f"{disk}.wr.bytes", 0)),
        write_requests=int(stats.get(f"{disk}.wr.reqs", 0)),
    )


def _nic(stats: dict[str, Any], nic: str, document: str) -> Nic:
    name = str(stats.get(f"{nic}.name", ""))
    figures = {
        f"{way}_{ours}": int(stats.get(f"{nic}.{way}.{theirs}", 0))
        for way in ("rx", "tx")
        for ours, theirs in _NIC_FIGURES.items()
    }
    return Nic(name=name, mac_address=_mac_of(document, name), **figures)


def _mac_of(document: str, name: str) -> str | None:
    """The address of the interface that ends at this device of the host."""
    for interface in ET.fromstring(document).iterfind("devices/interface"):
        target, mac = interface.find("target"), interface.find("mac")
        if target is not None and mac is not None and target.get("dev") == name:
            return mac.get("address")
    return None
