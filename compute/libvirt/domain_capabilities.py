"""What this host's QEMU, firmware and kernel can give to guests, from libvirt's documents; and whether that is enough
for one."""

import dataclasses
import pathlib
import xml.etree.ElementTree as ET
from collections.abc import Mapping

import core.errors
from compute.libvirt.cpus import LARGE_PAGES_KIB
from compute.libvirt.hardware import Hardware


@dataclasses.dataclass(frozen=True, kw_only=True)
class Abilities:
    """For guests of one machine. `machines`: all names of machines, and what each is exactly. Sizes in KiB."""

    machines: Mapping[str, str] = dataclasses.field(default_factory=dict)
    videos: frozenset[str] = frozenset()
    tpm_models: frozenset[str] = frozenset()
    tpm_versions: frozenset[str] = frozenset()
    has_uefi: bool = False
    page_sizes: frozenset[int] = frozenset()


def abilities_of(capabilities: str, domain_capabilities: str, page_sizes: frozenset[int]) -> Abilities:
    """From what `virConnectGetCapabilities` and `virConnectGetDomainCapabilities` give; libvirt counts swtpm in only
    where it is installed."""
    root = ET.fromstring(domain_capabilities)
    has_swtpm = "emulator" in _values(root, "devices/tpm", "backendModel")
    return Abilities(
        machines=machines_of(capabilities),
        videos=_values(root, "devices/video", "modelType"),
        tpm_models=_values(root, "devices/tpm", "model") if has_swtpm else frozenset(),
        # Before libvirt 8.6 it does not tell; both were there with any swtpm.
        tpm_versions=(_values(root, "devices/tpm", "backendVersion") or frozenset({"1.2", "2.0"}))
        if has_swtpm
        else frozenset(),
        has_uefi="efi" in _values(root, "os", "firmware"),
        page_sizes=page_sizes,
    )


def machines_of(capabilities: str) -> dict[str, str]:
    """The machines that QEMU knows by all their names, and what each is exactly: pc is pc-i440fx-7.2."""
    exact_names = {}
    for machine in ET.fromstring(capabilities).iterfind("guest/arch[@name='x86_64']//machine"):
        exact = machine.get("canonical") or machine.text or ""
        exact_names.update({exact: exact, machine.text or exact: exact})
    return exact_names


def page_sizes_of(directory: pathlib.Path) -> frozenset[int]:
    """The sizes of large pages of which the host keeps some, in KiB; `directory` is the kernel's
    /sys/kernel/mm/hugepages."""
    sizes_kib = set()
    for path in directory.glob("hugepages-*kB"):
        if int((path / "nr_hugepages").read_text()):
            sizes_kib.add(int(path.name.removeprefix("hugepages-").removesuffix("kB")))
    return frozenset(sizes_kib)


def require(hardware: Hardware, abilities: Abilities, *, virt_type: str) -> None:
    """Returns when the host can give all of it.

    Raises:
        Invalid: it cannot; the message names what is asked for.
    """
    if hardware.machine not in abilities.machines:
        raise core.errors.Invalid(f"This host has no machine {hardware.machine}", field="hw_machine_type")
    if hardware.video != "none" and hardware.video not in abilities.videos:
        raise core.errors.Invalid(f"This host has no video model {hardware.video}", field="hw_video_model")
    if hardware.has_uefi and not abilities.has_uefi:
        raise core.errors.Invalid("This host has no UEFI firmware (hw_firmware_type)", field="hw_firmware_type")
    tpm = hardware.tpm
    if tpm is not None and (tpm.model not in abilities.tpm_models or tpm.version not in abilities.tpm_versions):
        raise core.errors.Invalid(
            f"This host has no {tpm.model} of version {tpm.version} (hw:tpm_version)", field="hw:tpm_version"
        )
    if hardware.page_kib is not None and not (
        abilities.page_sizes if hardware.page_kib == LARGE_PAGES_KIB else hardware.page_kib in abilities.page_sizes
    ):
        raise core.errors.Invalid(
            f"This host keeps no large pages of that size (hw:mem_page_size, {hardware.page_kib} KiB)",
            field="hw:mem_page_size",
        )
    if hardware.hides_hypervisor and virt_type != "kvm":
        raise core.errors.Invalid(
            "Only KVM can be hidden from a guest (hide_hypervisor_id)", field="hw:hide_hypervisor_id"
        )


def _values(root: ET.Element, path: str, name: str) -> frozenset[str]:
    element = root.find(path)
    if element is None or element.get("supported") == "no":
        return frozenset()
    return frozenset(value.text for value in element.iterfind(f"enum[@name='{name}']/value") if value.text)
