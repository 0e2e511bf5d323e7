"""The domain that libvirt is given for a server: from a description to XML, and back to what the agent must know of it."""

import copy
import dataclasses
import pathlib
import string
import xml.etree.ElementTree as ET

from compute.libvirt.hardware import Hardware

NAMESPACE = "https://cellplane.invalid/domain/1"
_PREFIX = "cellplane"
_NAME = "cellplane-"
_SCSI = "scsi"

# With `register_namespace` the prefix would be state of the whole process; the names are written out instead.
_TAG = f"{_PREFIX}:server"


def domain_name(uuid: str) -> str:
    """What the server's domain is called."""
    return f"{_NAME}{uuid}"


def is_ours(name: str) -> bool:
    """Whether a domain of this name is a server's of ours."""
    return name.startswith(_NAME)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disk:
    """One disk of a guest; `format` is qcow2 or raw."""

    path: pathlib.Path
    format: str
    is_cdrom: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """What the domain says of itself: kept by libvirt, read again after the agent's end. Disk in GiB as it is claimed."""

    attempt: int
    vcpus: int
    memory_mib: int
    disk_gib: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Domain:
    """A guest as it is to be defined. The first of `disks` is booted from."""

    uuid: str
    identity: Identity
    virt_type: str
    hardware: Hardware
    disks: tuple[Disk, ...]
    console_log: pathlib.Path
    vnc_listen: str
    tb_cache_mib: int = 32


def domain_xml(domain: Domain) -> str:
    """The document for `virDomainDefineXML`."""
    root = ET.Element("domain", type=domain.virt_type)
    _text(root, "name", domain_name(domain.uuid))
    _text(root, "uuid", domain.uuid)
    _metadata(root, domain.identity)
    _text(root, "memory", domain.identity.memory_mib, unit="MiB")
    _text(root, "vcpu", domain.identity.vcpus)
    _sysinfo(root, domain.uuid)
    _boot(root, domain.hardware)
    _features(root, domain)
    _cpu(root, domain)
    ET.SubElement(root, "clock", offset="utc")
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(root, event, action)
    _devices(ET.SubElement(root, "devices"), domain)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def identity_of(metadata: str) -> Identity:
    """From the element that `virDomainGetMetadata` gives.

    Raises:
        ValueError: it is none of ours.
    """
    try:
        values = ET.fromstring(metadata).attrib
        return Identity(**{field.name: int(values[field.name]) for field in dataclasses.fields(Identity)})
    except (ET.ParseError, KeyError) as error:
        raise ValueError(f"not the metadata of a server: {error}") from error


def rescued_xml(document: str, rescue: pathlib.Path) -> str:
    """The domain's document with another disk to boot from; the root disk becomes the last one.

    What libvirt has written down of the machine (its type, where its devices sit) stays.
    """
    root = ET.fromstring(document)
    devices = _child(root, "devices")
    disks = devices.findall("disk")
    own = copy.deepcopy(disks[0])
    _child(disks[0], "source").set("file", str(rescue))
    target = _child(own, "target")
    target.set("dev", _free_name(str(target.get("dev"))[:-1], disks))
    for tag in ("address", "alias"):
        for element in own.findall(tag):
            own.remove(element)
    devices.insert(list(devices).index(disks[-1]) + 1, own)
    return ET.tostring(root, encoding="unicode") + "\n"


def vnc_of(document: str) -> tuple[str, int] | None:
    """Address and port of the console of a domain that runs, from its live document."""
    for graphics in ET.fromstring(document).iterfind("devices/graphics[@type='vnc']"):
        port = int(graphics.get("port", "-1"))
        if port > 0:
            return graphics.get("listen") or "127.0.0.1", port
    return None


def has_config_drive(document: str) -> bool:
    """Whether there is a config drive."""
    return any(str(source.get("file")).endswith("/config.iso") for source in ET.fromstring(document).iterfind("devices/disk/source"))


def _child(parent: ET.Element, tag: str) -> ET.Element:
    found = parent.find(tag)
    if found is None:
        raise ValueError(f"a {parent.tag} without {tag}")
    return found


def _free_name(family: str, disks: list[ET.Element]) -> str:
    taken = {target.get("dev") for disk in disks for target in disk.findall("target")}
    return next(name for letter in string.ascii_lowercase if (name := f"{family}{letter}") not in taken)


def _metadata(root: ET.Element, identity: Identity) -> None:
    element = ET.SubElement(ET.SubElement(root, "metadata"), _TAG)
    element.set(f"xmlns:{_PREFIX}", NAMESPACE)
    for name, value in dataclasses.asdict(identity).items():
        element.set(name, str(value))


def _sysinfo(root: ET.Element, uuid: str) -> None:
    # cloud-init recognises the cloud by this product name.
    system = ET.SubElement(ET.SubElement(root, "sysinfo", type="smbios"), "system")
    for name, value in (("manufacturer", "Cellplane"), ("product", "OpenStack Compute"), ("serial", uuid), ("uuid", uuid), ("family", "Virtual Machine")):
        _text(system, "entry", value, name=name)


def _boot(root: ET.Element, hardware: Hardware) -> None:
    os = ET.SubElement(root, "os")
    _text(os, "type", "hvm", arch="x86_64", machine=hardware.machine)
    ET.SubElement(os, "boot", dev="hd")
    ET.SubElement(os, "smbios", mode="sysinfo")


def _features(root: ET.Element, domain: Domain) -> None:
    features = ET.SubElement(root, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if domain.virt_type == "qemu":
        # QEMU's own choice is 1 GiB at most, which makes a small guest cost twice its memory.
        _text(ET.SubElement(features, "tcg"), "tb-cache", domain.tb_cache_mib, unit="MiB")


def _cpu(root: ET.Element, domain: Domain) -> None:
    # Without a mode, TCG's own CPU is taken: it can be migrated.
    topology = domain.hardware.topology
    if domain.virt_type == "qemu" and topology is None:
        return
    cpu = ET.SubElement(root, "cpu")
    if domain.virt_type == "kvm":
        cpu.set("mode", "host-model")
    if topology is not None:
        ET.SubElement(cpu, "topology", sockets=str(topology.sockets), cores=str(topology.cores), threads=str(topology.threads))


def _devices(devices: ET.Element, domain: Domain) -> None:
    hardware = domain.hardware
    _disks(devices, domain)
    if _SCSI in (hardware.disk_bus, hardware.cdrom_bus):
        ET.SubElement(devices, "controller", type="scsi", model="virtio-scsi")
    serial = ET.SubElement(devices, "serial", type="pty")
    # With append="off" a restart of the guest, or its arrival from another host, would empty the log.
    ET.SubElement(serial, "log", file=str(domain.console_log), append="on")
    ET.SubElement(serial, "target", port="0")
    ET.SubElement(ET.SubElement(devices, "console", type="pty"), "target", type="serial", port="0")
    if hardware.has_guest_agent:
        ET.SubElement(ET.SubElement(devices, "channel", type="unix"), "target", type="virtio", name="org.qemu.guest_agent.0")
    if hardware.video != "none":
        ET.SubElement(devices, "graphics", type="vnc", autoport="yes", listen=domain.vnc_listen)
    ET.SubElement(ET.SubElement(devices, "video"), "model", type=hardware.video)
    if hardware.watchdog is not None:
        ET.SubElement(devices, "watchdog", model="i6300esb", action=hardware.watchdog)
    ET.SubElement(ET.SubElement(devices, "memballoon", model="virtio"), "stats", period="10")
    if hardware.has_rng:
        _text(ET.SubElement(devices, "rng", model="virtio"), "backend", "/dev/urandom", model="random")


def _disks(devices: ET.Element, domain: Domain) -> None:
    letters: dict[str, int] = {}
    for disk in domain.disks:
        bus = domain.hardware.cdrom_bus if disk.is_cdrom else domain.hardware.disk_bus
        # A CD on virtio is a disk that nobody can write.
        device = "cdrom" if disk.is_cdrom and bus != "virtio" else "disk"
        family = {"virtio": "vd", "scsi": "sd", "ide": "hd"}[bus]
        number = letters.get(family, 0)
        letters[family] = number + 1
        element = ET.SubElement(devices, "disk", type="file", device=device)
        driver = ET.SubElement(element, "driver", name="qemu", type=disk.format)
        if not disk.is_cdrom:
            driver.set("cache", "none")
            driver.set("discard", "unmap")
        ET.SubElement(element, "source", file=str(disk.path))
        ET.SubElement(element, "target", dev=f"{family}{chr(ord('a') + number)}", bus=bus)
        if disk.is_cdrom:
            ET.SubElement(element, "readonly")


def _text(parent: ET.Element, tag: str, text: object, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = str(text)
    return element
