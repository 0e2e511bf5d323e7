"""The domain that libvirt is given for a server: from a description to XML."""

import dataclasses
import pathlib
import xml.etree.ElementTree as ET

from compute.libvirt import limits
from compute.libvirt.cpus import LARGE_PAGES_KIB
from compute.libvirt.devices import ConsoleListener, Disk, add_devices
from compute.libvirt.hardware import Hardware
from compute.libvirt.pinning import Pins

NAMESPACE = "https://cellplane.invalid/domain/1"
_PREFIX = "cellplane"
_NAME = "cellplane-"

# With `register_namespace` the prefix would be state of the whole process; the names are written out instead.
_TAG = f"{_PREFIX}:server"


def domain_name(uuid: str) -> str:
    """What the server's domain is called."""
    return f"{_NAME}{uuid}"


def is_ours(name: str) -> bool:
    """Whether a domain of this name is a server's of ours."""
    return name.startswith(_NAME)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """What the domain says of itself: kept by libvirt, read again after the agent's end. Disk in GiB as it is claimed.

    `machine` is the one that it was made with (of an older guest ""): it stays when the host's default becomes another.
    `vif_model` and `vif_limits` (`limits.nic_limits_text`): of network cards that come later.
    """

    attempt: int
    vcpus: int
    memory_mib: int
    disk_gib: int
    machine: str = ""
    vif_model: str = "virtio"
    vif_limits: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Domain:
    """A guest as it is to be defined. The first of `disks` is booted from."""

    uuid: str
    identity: Identity
    virt_type: str
    hardware: Hardware
    disks: tuple[Disk, ...]
    console_log: pathlib.Path
    serial: ConsoleListener
    vnc: ConsoleListener
    pins: Pins = dataclasses.field(default_factory=Pins)
    tb_cache_mib: int = 32


def domain_xml(domain: Domain) -> str:
    """The document for `virDomainDefineXML`."""
    root = ET.Element("domain", type=domain.virt_type)
    _text(root, "name", domain_name(domain.uuid))
    _text(root, "uuid", domain.uuid)
    _metadata(root, domain.identity)
    _text(root, "memory", domain.identity.memory_mib, unit="MiB")
    _memory_backing(root, domain.hardware)
    _cpu_topology(root, domain)
    _sysinfo(root, domain.uuid)
    _boot(root, domain.hardware)
    _features(root, domain)
    _cpu(root, domain)
    _clock(root, domain.hardware)
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(root, event, action)
    add_devices(
        ET.SubElement(root, "devices"),
        domain.hardware,
        disks=domain.disks,
        console_log=domain.console_log,
        serial=domain.serial,
        vnc=domain.vnc,
    )
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def identity_of(metadata: str) -> Identity:
    """From the element that `virDomainGetMetadata` gives.

    Raises:
        ValueError: it is none of ours.
    """
    try:
        values = ET.fromstring(metadata).attrib
        sizes = {name: int(values[name]) for name in ("attempt", "vcpus", "memory_mib", "disk_gib")}
    except (ET.ParseError, KeyError) as error:
        raise ValueError(f"not the metadata of a server: {error}") from error
    return Identity(
        **sizes,
        machine=values.get("machine", ""),
        vif_model=values.get("vif_model", "virtio"),
        vif_limits=values.get("vif_limits", ""),
    )


def _metadata(root: ET.Element, identity: Identity) -> None:
    element = ET.SubElement(ET.SubElement(root, "metadata"), _TAG)
    element.set(f"xmlns:{_PREFIX}", NAMESPACE)
    for name, value in dataclasses.asdict(identity).items():
        if value != "":
            element.set(name, str(value))


def _memory_backing(root: ET.Element, hardware: Hardware) -> None:
    if hardware.page_kib is None:
        return
    pages = ET.SubElement(ET.SubElement(root, "memoryBacking"), "hugepages")
    if hardware.page_kib != LARGE_PAGES_KIB:
        ET.SubElement(pages, "page", size=str(hardware.page_kib), unit="KiB")


def _cpu_topology(root: ET.Element, domain: Domain) -> None:
    pins = domain.pins
    vcpu = _text(root, "vcpu", domain.identity.vcpus)
    if pins.shared and not pins.cpus:
        vcpu.set("cpuset", _cpuset(pins.shared))
    if not (pins.cpus or domain.hardware.limits.cpu):
        return
    tune = ET.SubElement(root, "cputune")
    limits.cpu_tune(tune, domain.hardware.limits)
    for number, cpu in enumerate(pins.cpus):
        ET.SubElement(tune, "vcpupin", vcpu=str(number), cpuset=str(cpu))
    if pins.cpus:
        ET.SubElement(tune, "emulatorpin", cpuset=_cpuset(pins.emulator or pins.cpus))


def _sysinfo(root: ET.Element, uuid: str) -> None:
    # cloud-init recognises the cloud by this product name.
    system = ET.SubElement(ET.SubElement(root, "sysinfo", type="smbios"), "system")
    for name, value in (
        ("manufacturer", "Cellplane"),
        ("product", "OpenStack Compute"),
        ("serial", uuid),
        ("uuid", uuid),
        ("family", "Virtual Machine"),
    ):
        _text(system, "entry", value, name=name)


def _boot(root: ET.Element, hardware: Hardware) -> None:
    os = ET.SubElement(root, "os")
    if hardware.has_uefi:
        # libvirt chooses the firmware and keeps the guest's variables.
        os.set("firmware", "efi")
    _text(os, "type", "hvm", arch="x86_64", machine=hardware.machine)
    ET.SubElement(os, "boot", dev="hd")
    if hardware.has_boot_menu:
        ET.SubElement(os, "bootmenu", enable="yes")
    ET.SubElement(os, "smbios", mode="sysinfo")


def _features(root: ET.Element, domain: Domain) -> None:
    hardware = domain.hardware
    features = ET.SubElement(root, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if hardware.has_pmu is not None:
        ET.SubElement(features, "pmu", state=_on(hardware.has_pmu))
    if hardware.hides_hypervisor:
        ET.SubElement(ET.SubElement(features, "kvm"), "hidden", state="on")
    if domain.virt_type == "qemu":
        # QEMU's own choice is 1 GiB at most, which makes a small guest cost twice its memory.
        _text(ET.SubElement(features, "tcg"), "tb-cache", domain.tb_cache_mib, unit="MiB")


def _cpu(root: ET.Element, domain: Domain) -> None:
    # Without a mode, TCG's own CPU is taken: it can be migrated.
    topology, nodes = domain.hardware.topology, domain.hardware.numa
    if domain.virt_type == "qemu" and topology is None and not nodes:
        return
    cpu = ET.SubElement(root, "cpu")
    if domain.virt_type == "kvm":
        cpu.set("mode", "host-model")
    if topology is not None:
        ET.SubElement(
            cpu, "topology", sockets=str(topology.sockets), cores=str(topology.cores), threads=str(topology.threads)
        )
    if nodes:
        numa = ET.SubElement(cpu, "numa")
        for number, node in enumerate(nodes):
            ET.SubElement(
                numa, "cell", id=str(number), cpus=_cpuset(node.cpus), memory=str(node.memory_mib), unit="MiB"
            )


def _clock(root: ET.Element, hardware: Hardware) -> None:
    clock = ET.SubElement(root, "clock", offset="utc")
    if hardware.has_hpet is not None:
        ET.SubElement(clock, "timer", name="hpet", present="yes" if hardware.has_hpet else "no")


def _cpuset(cpus: tuple[int, ...]) -> str:
    return ",".join(str(cpu) for cpu in cpus)


def _on(is_on: bool) -> str:
    return "on" if is_on else "off"


def _text(parent: ET.Element, tag: str, text: object, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = str(text)
    return element
