"""The devices in a domain's document: those that every guest has, and those that come and go."""

import dataclasses
import pathlib
import xml.etree.ElementTree as ET

import core.errors
from compute.hypervisor.devices import BlockSource, DiskToAttach, FileSource, NetworkSource, NicToAttach
from compute.libvirt import limits
from compute.libvirt.hardware import VIF_MODELS, Hardware
from compute.libvirt.limits import Limits

_FAMILIES = {"virtio": "vd", "scsi": "sd", "ide": "hd", "sata": "sd", "usb": "sd"}
# What can be plugged into a machine that runs.
_HOT_BUSES = ("virtio", "scsi", "usb")
_PROTOCOLS = ("nbd", "iscsi", "rbd")
# A q35 guest takes a new card only where a port was left free for it.
_Q35_PORTS = 16
_KIB_PER_MIB = 1024
NO_LIMITS = Limits()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disk:
    """One disk of a guest; `format` is qcow2 or raw."""

    path: pathlib.Path
    format: str
    is_cdrom: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsoleListener:
    """Where a console is served: a UNIX socket, or an address and port. Port None: libvirt chooses one."""

    listen: str = "127.0.0.1"
    port: int | None = None
    socket: pathlib.Path | None = None


def add_devices(
    devices: ET.Element,
    hardware: Hardware,
    *,
    disks: tuple[Disk, ...],
    console_log: pathlib.Path,
    serial: ConsoleListener,
    vnc: ConsoleListener,
) -> None:
    """All devices that the guest has from its first start on."""
    _controllers(devices, hardware)
    _disks(devices, hardware, disks)
    _serial(devices, console_log, serial)
    if hardware.has_guest_agent:
        ET.SubElement(
            ET.SubElement(devices, "channel", type="unix"), "target", type="virtio", name="org.qemu.guest_agent.0"
        )
    if hardware.tablet_bus is not None:
        ET.SubElement(devices, "input", type="tablet", bus=hardware.tablet_bus)
    if hardware.tablet_bus == "virtio":
        ET.SubElement(devices, "input", type="keyboard", bus="virtio")
    _screen(devices, hardware, vnc)
    if hardware.sound is not None:
        ET.SubElement(devices, "sound", model=hardware.sound)
    if hardware.watchdog is not None:
        ET.SubElement(devices, "watchdog", model="i6300esb", action=hardware.watchdog)
    ET.SubElement(ET.SubElement(devices, "memballoon", model="virtio"), "stats", period="10")
    _rng(devices, hardware)
    if hardware.tpm is not None:
        tpm = ET.SubElement(devices, "tpm", model=hardware.tpm.model)
        ET.SubElement(tpm, "backend", type="emulator", version=hardware.tpm.version)


def disk_xml(disk: DiskToAttach, name: str) -> str:
    """The document for `virDomainAttachDevice`.

    Raises:
        Invalid: there are no such disks here.
    """
    if disk.bus not in _HOT_BUSES:
        raise core.errors.Invalid(
            f"A disk cannot be attached by the bus {disk.bus!r}; it is one of: {', '.join(_HOT_BUSES)}", field="bus"
        )
    source = disk.source
    kind = "network" if isinstance(source, NetworkSource) else "block" if isinstance(source, BlockSource) else "file"
    element = ET.Element("disk", type=kind, device="disk")
    ET.SubElement(
        element, "driver", name="qemu", type=source.format if isinstance(source, FileSource) else "raw", cache="none"
    )
    if isinstance(source, FileSource):
        if source.format not in ("qcow2", "raw"):
            raise core.errors.Invalid(f"A disk cannot be of the format {source.format!r}", field="format")
        ET.SubElement(element, "source", file=str(source.path))
    elif isinstance(source, BlockSource):
        ET.SubElement(element, "source", dev=str(source.path))
    else:
        _network_source(element, source)
    ET.SubElement(element, "target", dev=name, bus=disk.bus)
    _text(element, "serial", disk.volume_id)
    if disk.is_read_only:
        ET.SubElement(element, "readonly")
    return _document(element)


def nic_xml(nic: NicToAttach, *, model: str, may_take: Limits = NO_LIMITS) -> str:
    """As `disk_xml`; `model` is what the guest's image asks for, `may_take` what its flavor allows."""
    model = nic.model or model
    if model not in VIF_MODELS:
        raise core.errors.Invalid(
            f"A network card cannot be of the model {model!r}; it is one of: {', '.join(VIF_MODELS)}", field="model"
        )
    if nic.kind not in ("bridge", "ethernet", "tap") or (nic.kind == "bridge") != (nic.bridge is not None):
        raise core.errors.Invalid(
            f"A network card cannot be of the kind {nic.kind!r} with the bridge {nic.bridge!r}", field="kind"
        )
    element = ET.Element("interface", type="bridge" if nic.kind == "bridge" else "ethernet")
    ET.SubElement(element, "mac", address=nic.mac)
    if nic.bridge is not None:
        ET.SubElement(element, "source", bridge=nic.bridge)
    target = ET.SubElement(element, "target", dev=nic.tap)
    if nic.kind == "tap":
        target.set("managed", "no")
    ET.SubElement(element, "model", type=model)
    if nic.mtu is not None:
        ET.SubElement(element, "mtu", size=str(nic.mtu))
    limits.bandwidth(element, may_take)
    # Nothing boots from the network here; the card's own firmware would cost memory.
    ET.SubElement(element, "rom", enabled="no")
    return _document(element)


def family_of_bus(bus: str) -> str:
    """How names of disks on this bus begin."""
    return _FAMILIES[bus]


def _controllers(devices: ET.Element, hardware: Hardware) -> None:
    if hardware.family == "q35":
        ET.SubElement(devices, "controller", type="pci", model="pcie-root")
        for _ in range(_Q35_PORTS):
            ET.SubElement(devices, "controller", type="pci", model="pcie-root-port")
    if hardware.usb_model is not None:
        ET.SubElement(devices, "controller", type="usb", model=hardware.usb_model)
    if "scsi" in (hardware.disk_bus, hardware.cdrom_bus):
        ET.SubElement(devices, "controller", type="scsi", model=hardware.scsi_model)


def _disks(devices: ET.Element, hardware: Hardware, disks: tuple[Disk, ...]) -> None:
    letters: dict[str, int] = {}
    for disk in disks:
        bus = hardware.cdrom_bus if disk.is_cdrom else hardware.disk_bus
        # A CD on virtio is a disk that nobody can write.
        device = "cdrom" if disk.is_cdrom and bus != "virtio" else "disk"
        family = _FAMILIES[bus]
        number = letters.get(family, 0)
        letters[family] = number + 1
        element = ET.SubElement(devices, "disk", type="file", device=device)
        driver = ET.SubElement(element, "driver", name="qemu", type=disk.format)
        if not disk.is_cdrom:
            driver.set("cache", "none")
            driver.set("discard", hardware.disk_discard)
        ET.SubElement(element, "source", file=str(disk.path))
        ET.SubElement(element, "target", dev=f"{family}{chr(ord('a') + number)}", bus=bus)
        if disk.is_cdrom:
            ET.SubElement(element, "readonly")
        else:
            limits.io_tune(element, hardware.limits)


def _serial(devices: ET.Element, console_log: pathlib.Path, listener: ConsoleListener) -> None:
    """One port that is a log and a terminal: QEMU writes the log whether anybody is connected or not."""
    kind = "tcp" if listener.socket is None else "unix"
    serial = ET.SubElement(devices, "serial", type=kind)
    if listener.socket is None:
        ET.SubElement(serial, "source", mode="bind", host=listener.listen, service=str(listener.port))
        ET.SubElement(serial, "protocol", type="raw")
    else:
        ET.SubElement(serial, "source", mode="bind", path=str(listener.socket))
    # With append="off" a restart of the guest, or its arrival from another host, would empty the log.
    ET.SubElement(serial, "log", file=str(console_log), append="on")
    ET.SubElement(serial, "target", port="0")


def _screen(devices: ET.Element, hardware: Hardware, listener: ConsoleListener) -> None:
    if hardware.video != "none":
        graphics = ET.SubElement(devices, "graphics", type="vnc")
        if listener.socket is None:
            graphics.set("autoport", "yes")
            graphics.set("listen", listener.listen)
        else:
            ET.SubElement(graphics, "listen", type="socket", socket=str(listener.socket))
    model = ET.SubElement(ET.SubElement(devices, "video"), "model", type=hardware.video)
    if hardware.video_ram_mib is not None and hardware.video != "none":
        model.set("vram", str(hardware.video_ram_mib * _KIB_PER_MIB))


def _rng(devices: ET.Element, hardware: Hardware) -> None:
    if hardware.rng is None:
        return
    rng = ET.SubElement(devices, "rng", model="virtio")
    if hardware.rng.bytes_per_period is not None:
        rate = ET.SubElement(rng, "rate", bytes=str(hardware.rng.bytes_per_period))
        if hardware.rng.period_ms is not None:
            rate.set("period", str(hardware.rng.period_ms))
    _text(rng, "backend", "/dev/urandom", model="random")


def _network_source(disk: ET.Element, source: NetworkSource) -> None:
    if source.protocol not in _PROTOCOLS:
        raise core.errors.Invalid(
            f"A disk cannot be read by {source.protocol!r}; it is one of: {', '.join(_PROTOCOLS)}", field="protocol"
        )
    element = ET.SubElement(disk, "source", protocol=source.protocol, name=source.name)
    if source.socket is not None:
        ET.SubElement(element, "host", transport="unix", socket=str(source.socket))
    else:
        ET.SubElement(element, "host", name=source.host, port=str(source.port))


def _document(element: ET.Element) -> str:
    ET.indent(element)
    return ET.tostring(element, encoding="unicode") + "\n"


def _text(parent: ET.Element, tag: str, text: object, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = str(text)
    return element
