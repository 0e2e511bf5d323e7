"""What libvirt is asked for, as text: `documents/` holds what each description must become.

`python -m tests.hypervisor.test_libvirt_documents` writes them anew; then read the difference.
"""

import pathlib
import uuid
import xml.etree.ElementTree as ET

import pytest

from compute.libvirt.domain import Disk, Domain, Identity, domain_name, domain_xml, has_config_drive, identity_of, is_ours, rescued_xml, vnc_of
from compute.libvirt.hardware import Hardware, Topology

DOCUMENTS = pathlib.Path(__file__).parent / "documents"
SERVER = "8d7a1c6e-55f1-4a0b-9d3b-0f6a3a2f8e11"
HOME = pathlib.Path("/instances") / f"{SERVER}.1"

ROOT = Disk(path=HOME / "disk.qcow2", format="qcow2")
EPHEMERAL = Disk(path=HOME / "ephemeral0.raw", format="raw")
SWAP = Disk(path=HOME / "swap.raw", format="raw")
CONFIG = Disk(path=HOME / "config.iso", format="raw", is_cdrom=True)


def domain(*, hardware: Hardware | None = None, disks: tuple[Disk, ...] = (ROOT, CONFIG), virt_type: str = "qemu", vcpus: int = 1) -> Domain:
    return Domain(
        uuid=SERVER,
        identity=Identity(attempt=1, vcpus=vcpus, memory_mib=96, disk_gib=1),
        virt_type=virt_type,
        hardware=hardware or Hardware(),
        disks=disks,
        console_log=HOME / "console.log",
        vnc_listen="127.0.0.1",
    )


DESCRIPTIONS = {
    "plain": domain(),
    "all-disks": domain(disks=(ROOT, EPHEMERAL, SWAP, CONFIG)),
    "kvm": domain(virt_type="kvm"),
    "kvm-topology": domain(virt_type="kvm", hardware=Hardware(topology=Topology(sockets=1, cores=2, threads=2)), vcpus=4),
    "q35-scsi": domain(hardware=Hardware(machine="q35", disk_bus="scsi", cdrom_bus="scsi"), disks=(ROOT, SWAP, CONFIG)),
    "ide": domain(hardware=Hardware(disk_bus="ide")),
    "virtio-config-drive": domain(hardware=Hardware(cdrom_bus="virtio")),
    "no-config-drive": domain(disks=(ROOT,)),
    "devices": domain(hardware=Hardware(video="none", watchdog="poweroff", has_rng=False, has_guest_agent=True)),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_the_document_is_what_it_was(name: str) -> None:
    assert domain_xml(DESCRIPTIONS[name]) == (DOCUMENTS / f"{name}.xml").read_text()


def test_no_document_is_left_over() -> None:
    assert {path.stem for path in DOCUMENTS.glob("*.xml")} == set(DESCRIPTIONS)


def test_a_rescued_guest_boots_from_another_disk_and_sees_its_own_last() -> None:
    target = '<target dev="vda" bus="virtio" />'
    document = domain_xml(domain(disks=(ROOT, SWAP, CONFIG))).replace(target, f'{target}<alias name="a"/><address slot="5"/>')

    disks = ET.fromstring(rescued_xml(document, HOME / "rescue.qcow2")).findall("devices/disk")

    found = [(pathlib.Path(str(disk.find("source").get("file"))).name, disk.find("target").get("dev"), disk.find("address") is not None) for disk in disks]
    assert found == [("rescue.qcow2", "vda", True), ("swap.raw", "vdb", False), ("config.iso", "hda", False), ("disk.qcow2", "vdc", False)]


def test_the_console_is_where_the_live_document_says() -> None:
    assert vnc_of(domain_xml(domain())) is None
    assert vnc_of(domain_xml(domain()).replace('type="vnc"', 'type="vnc" port="5903"')) == ("127.0.0.1", 5903)


def test_a_config_drive_is_told_from_the_document() -> None:
    assert has_config_drive(domain_xml(DESCRIPTIONS["plain"]))
    assert not has_config_drive(domain_xml(DESCRIPTIONS["no-config-drive"]))


def test_the_identity_is_read_back_as_libvirt_gives_it() -> None:
    # libvirt takes the prefix off the element that it gives.
    assert identity_of('<server attempt="3" vcpus="2" memory_mib="512" disk_gib="7"/>') == Identity(attempt=3, vcpus=2, memory_mib=512, disk_gib=7)


@pytest.mark.parametrize("foreign", ["", "<server/>", "<a", '<server attempt="x" vcpus="1" memory_mib="1" disk_gib="1"/>'])
def test_foreign_metadata_is_no_identity(foreign: str) -> None:
    with pytest.raises(ValueError):
        identity_of(foreign)


def test_only_our_names_are_ours() -> None:
    assert is_ours(domain_name(str(uuid.uuid4())))
    assert not is_ours("instance-00000001")


if __name__ == "__main__":
    for name, description in DESCRIPTIONS.items():
        (DOCUMENTS / f"{name}.xml").write_text(domain_xml(description))
