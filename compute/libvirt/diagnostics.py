"""How a guest fares, from libvirt's figures (virConnectGetAllDomainStats names them)."""

from typing import Any

from compute.hypervisor import Diagnostics, DiskDiagnostics
from compute.libvirt.connection import Seen
from compute.libvirt.domain import has_config_drive

_DISK_FIGURES = ("rd.bytes", "rd.reqs", "wr.bytes", "wr.reqs")


def diagnostics_of(seen: Seen, virt_type: str, stats: dict[str, Any], document: str) -> Diagnostics:
    """From libvirt's figures, by their names there, and the domain's document."""
    cpus = [stats[f"vcpu.{number}.time"] for number in range(seen.identity.vcpus) if f"vcpu.{number}.time" in stats]
    disks = [{name: int(stats.get(f"block.{number}.{name}", 0)) for name in _DISK_FIGURES} for number in range(stats.get("block.count", 0))]
    return Diagnostics(
        driver="libvirt",
        hypervisor=virt_type,
        power_state=seen.power_state,
        vcpus=seen.identity.vcpus,
        cpu_times_ns=tuple(cpus) or (int(stats.get("cpu.time", 0)),),
        memory_maximum_mib=int(stats.get("balloon.maximum", 0)) // 1024,
        memory_used_mib=int(stats.get("balloon.current", 0) - stats.get("balloon.usable", stats.get("balloon.unused", 0))) // 1024,
        disks=tuple(
            DiskDiagnostics(
                name=str(stats[f"block.{number}.name"]),
                read_bytes=disk["rd.bytes"],
                read_requests=disk["rd.reqs"],
                write_bytes=disk["wr.bytes"],
                write_requests=disk["wr.reqs"],
            )
            for number, disk in enumerate(disks)
        ),
        has_config_drive=has_config_drive(document),
    )
