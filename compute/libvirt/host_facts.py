"""What the host is and has to give: asked of libvirt once, for it stays so until libvirt or QEMU are upgraded, which
takes the agent along."""

import dataclasses
import os
import pathlib
from typing import Any

from oslo_config import cfg

from compute.hypervisor.hypervisor import Capacity
from compute.libvirt.capabilities import cpu_of, memory_mib_of, traits_of, virt_type_of
from compute.libvirt.connection import Libvirt
from compute.libvirt.domain_capabilities import Abilities, abilities_of, page_sizes_of
from compute.libvirt.instance_dirs import InstanceDirectories
from compute.libvirt.pinning import HostCpus

_ARCHITECTURE = "x86_64"
_SMALL_PAGES_KIB = 4
_LARGE_PAGES = pathlib.Path("/sys/kernel/mm/hugepages")


@dataclasses.dataclass(frozen=True)
class _Asked:
    capabilities: str
    cpu: dict[str, Any]
    version: int


class HostFacts:
    """The facts, remembered.

    Args:
        settings: the group `libvirt`.
    """

    def __init__(self, settings: cfg.ConfigOpts, directories: InstanceDirectories, cpus: HostCpus) -> None:
        self.virt_type: str = settings.virt_type or virt_type_of(pathlib.Path("/proc/cpuinfo").read_text())
        self._settings = settings
        self._directories = directories
        self._cpus = cpus
        self._asked: _Asked | None = None
        self._abilities: dict[str, Abilities] = {}

    def capacity(self, libvirt: Libvirt) -> Capacity:
        """What the machine has to give now; what the settings say goes before what it has."""
        settings, asked = self._settings, self._ask(libvirt)
        abilities = self.abilities(libvirt, settings.machine)
        return Capacity(
            hypervisor_type="KVM" if self.virt_type == "kvm" else "QEMU",
            hypervisor_version=asked.version,
            vcpus=settings.vcpus or self._cpus.count or os.cpu_count() or 1,
            memory_mib=settings.memory_mib or memory_mib_of(pathlib.Path("/proc/meminfo").read_text()),
            disk_gib=self._directories.disk_gib() if settings.disk_gib is None else settings.disk_gib,
            cpu_info=asked.cpu,
            traits=traits_of(asked.cpu, abilities, virt_type=self.virt_type),
            dedicated_cpus=len(self._cpus.dedicated),
            page_sizes_kib=(_SMALL_PAGES_KIB, *sorted(abilities.page_sizes)),
        )

    def abilities(self, libvirt: Libvirt, machine: str) -> Abilities:
        """What guests of the machine (pc or q35) can have."""
        if machine not in self._abilities:
            document = _domain_capabilities(libvirt, machine, self.virt_type)
            self._abilities[machine] = abilities_of(
                self._ask(libvirt).capabilities, document, page_sizes_of(_LARGE_PAGES)
            )
        return self._abilities[machine]

    def _ask(self, libvirt: Libvirt) -> _Asked:
        # It takes libvirt as long as twenty other calls.
        if self._asked is None:
            capabilities = _capabilities(libvirt)
            self._asked = _Asked(capabilities, cpu_of(capabilities), _version(libvirt))
        return self._asked


def _version(libvirt: Libvirt) -> int:
    """Of QEMU: 7002022 is 7.2.22."""
    return int(libvirt.ask("tell its version", lambda connection: connection.getVersion()))


def _capabilities(libvirt: Libvirt) -> str:
    """The document about the machine."""
    return str(libvirt.ask("tell its capabilities", lambda connection: connection.getCapabilities()))


def _domain_capabilities(libvirt: Libvirt, machine: str, virt_type: str) -> str:
    """The document about what guests of the machine can have."""
    asked = (None, _ARCHITECTURE, machine, virt_type)
    return str(libvirt.ask("tell what guests can have", lambda connection: connection.getDomainCapabilities(*asked)))
