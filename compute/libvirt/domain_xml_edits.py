"""What libvirt's document of a guest that is there tells, and documents made from it."""

import copy
import pathlib
import string
import xml.etree.ElementTree as ET

from compute.hypervisor.consoles import ConsoleAddress
from compute.libvirt.devices import family_of_bus
from objects.console import SERIAL, VNC

_ROOT_DISK = "/disk.qcow2"
_CONFIG_DRIVE = "/config.iso"


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


def with_attached(document: str, before: str) -> str:
    """The document of the same guest made anew, with the disks and cards that were attached to it `before`."""
    root = ET.fromstring(document)
    devices = _child(root, "devices")
    for kept in _attached(ET.fromstring(before)):
        for tag in ("address", "alias"):
            for element in kept.findall(tag):
                kept.remove(element)
        target = kept.find("target")
        if kept.tag == "disk" and target is not None:
            target.set("dev", _free_name(str(target.get("dev"))[:2], devices.findall("disk"), str(target.get("dev"))))
        devices.append(kept)
    return ET.tostring(root, encoding="unicode") + "\n"


def with_serial_port(document: str, port: int) -> str:
    """The document with another port for the serial console."""
    root = ET.fromstring(document)
    for source in root.iterfind("devices/serial[@type='tcp']/source"):
        source.set("service", str(port))
    # libvirt repeats the port here, and believes this one.
    for console in root.findall("devices/console"):
        _child(root, "devices").remove(console)
    return ET.tostring(root, encoding="unicode") + "\n"


def consoles_of(document: str) -> list[ConsoleAddress]:
    """Where the consoles of a domain that runs are served, from its live document."""
    root = ET.fromstring(document)
    addresses = []
    for graphics in root.iterfind("devices/graphics[@type='vnc']"):
        path = graphics.get("socket") or next(
            (listen.get("socket") for listen in graphics.iterfind("listen[@type='socket']")), None
        )
        if path is not None:
            addresses.append(ConsoleAddress(kind=VNC, path=pathlib.Path(path)))
        elif int(graphics.get("port", "-1")) > 0:
            addresses.append(
                ConsoleAddress(
                    kind=VNC, host=graphics.get("listen") or "127.0.0.1", port=int(graphics.get("port", "-1"))
                )
            )
    for source in root.iterfind("devices/serial[@type='unix']/source"):
        addresses.append(ConsoleAddress(kind=SERIAL, path=pathlib.Path(str(source.get("path")))))
    addresses += [
        ConsoleAddress(kind=SERIAL, host=str(source.get("host")), port=port) for source, port in _serial_sources(root)
    ]
    return addresses


def serial_port_of(document: str) -> int | None:
    """The port of the serial console; None: it has none."""
    return next((port for _, port in _serial_sources(ET.fromstring(document))), None)


def machine_of(document: str) -> str | None:
    """The machine, as exactly as libvirt has written it down."""
    element = ET.fromstring(document).find("os/type")
    return None if element is None else element.get("machine")


def has_config_drive(document: str) -> bool:
    """Whether there is a config drive."""
    return any(
        str(source.get("file")).endswith(_CONFIG_DRIVE)
        for source in ET.fromstring(document).iterfind("devices/disk/source")
    )


def disk_names(document: str) -> list[str]:
    """The names of all disks, as vda; that of the guest's own root disk is the first.

    Raises:
        ValueError: it has none.
    """
    disks = ET.fromstring(document).findall("devices/disk")
    names = [str(_child(disk, "target").get("dev")) for disk in disks]
    for disk, name in zip(disks, names, strict=True):
        source = disk.find("source")
        if source is not None and str(source.get("file")).endswith(_ROOT_DISK):
            return [name, *(other for other in names if other != name)]
    raise ValueError("a domain without a root disk")


def attached_disk(document: str, volume_id: str) -> ET.Element | None:
    """The disk of this volume, or None."""
    disks = ET.fromstring(document).iterfind("devices/disk")
    return next((disk for disk in disks if disk.findtext("serial") == volume_id), None)


def attached_nic(document: str, mac: str) -> ET.Element | None:
    """The card of this address, or None."""
    for nic in ET.fromstring(document).iterfind("devices/interface"):
        element = nic.find("mac")
        if element is not None and str(element.get("address")).lower() == mac.lower():
            return nic
    return None


def disk_name(disk: ET.Element) -> str:
    """Under which name the disk is offered."""
    return str(_child(disk, "target").get("dev"))


def has_scsi(document: str) -> bool:
    """Whether disks can be put on a SCSI bus."""
    return ET.fromstring(document).find("devices/controller[@type='scsi']") is not None


def free_disk_name(documents: list[str], bus: str) -> str:
    """A name for one more disk on the bus, free in all of these documents of one guest."""
    disks = [disk for document in documents for disk in ET.fromstring(document).iterfind("devices/disk")]
    return _free_name(family_of_bus(bus), disks)


def _attached(root: ET.Element) -> list[ET.Element]:
    # The disks that a guest is made with have no serial numbers.
    disks = [disk for disk in root.iterfind("devices/disk") if disk.find("serial") is not None]
    return [*disks, *root.iterfind("devices/interface")]


def _serial_sources(root: ET.Element) -> list[tuple[ET.Element, int]]:
    sources = root.iterfind("devices/serial[@type='tcp']/source")
    return [(source, int(str(source.get("service")))) for source in sources if str(source.get("service")).isdecimal()]


def _child(parent: ET.Element, tag: str) -> ET.Element:
    child = parent.find(tag)
    if child is None:
        raise ValueError(f"a {parent.tag} without {tag}")
    return child


def _free_name(family: str, disks: list[ET.Element], wished: str = "") -> str:
    taken = {target.get("dev") for disk in disks for target in disk.findall("target")}
    if wished and wished not in taken:
        return wished
    letters = [
        *string.ascii_lowercase,
        *(first + second for first in string.ascii_lowercase for second in string.ascii_lowercase),
    ]
    return next(name for letter in letters if (name := f"{family}{letter}") not in taken)
