"""What libvirt is asked for, as text: `documents/` holds what each description must become.

`python -m tests.hypervisor.test_libvirt_documents` writes them anew; then read the difference.
"""

import pathlib
import uuid
import xml.etree.ElementTree as ET

import pytest

import core.errors
from compute.hypervisor.consoles import ConsoleAddress
from compute.hypervisor.devices import BlockSource, DiskToAttach, FileSource, NetworkSource, NicToAttach
from compute.libvirt.cpus import LARGE_PAGES_KIB, CpuPolicy, NumaNode, Topology
from compute.libvirt.devices import ConsoleListener, Disk, disk_xml, nic_xml
from compute.libvirt.domain import Domain, Identity, domain_name, domain_xml, identity_of, is_ours
from compute.libvirt.domain_xml_edits import (
    attached_disk,
    attached_nic,
    consoles_of,
    disk_names,
    free_disk_name,
    has_config_drive,
    machine_of,
    rescued_xml,
    serial_port_of,
    with_attached,
    with_serial_port,
)
from compute.libvirt.hardware import Hardware, Rng, Tpm
from compute.libvirt.limits import Limits, nic_limits_in, nic_limits_text
from compute.libvirt.pinning import Pins, pins_in
from compute.libvirt.snapshots import backup_xml

DOCUMENTS = pathlib.Path(__file__).parent / "documents"
SERVER = "8d7a1c6e-55f1-4a0b-9d3b-0f6a3a2f8e11"
HOME = pathlib.Path("/instances") / f"{SERVER}.1"

ROOT = Disk(path=HOME / "disk.qcow2", format="qcow2")
EPHEMERAL = Disk(path=HOME / "ephemeral0.raw", format="raw")
SWAP = Disk(path=HOME / "swap.raw", format="raw")
CONFIG = Disk(path=HOME / "config.iso", format="raw", is_cdrom=True)
SOCKETS = pathlib.Path("/consoles")


def domain(
    *,
    hardware: Hardware | None = None,
    disks: tuple[Disk, ...] = (ROOT, CONFIG),
    virt_type: str = "qemu",
    vcpus: int = 1,
    pins: Pins | None = None,
    sockets: pathlib.Path | None = None,
) -> Domain:
    hardware = hardware or Hardware()
    return Domain(
        uuid=SERVER,
        identity=Identity(
            attempt=1,
            vcpus=vcpus,
            memory_mib=96,
            disk_gib=1,
            machine=hardware.machine,
            vif_model=hardware.vif_model,
            vif_limits=nic_limits_text(hardware.limits),
        ),
        virt_type=virt_type,
        hardware=hardware,
        disks=disks,
        console_log=HOME / "console.log",
        serial=ConsoleListener(port=10000) if sockets is None else ConsoleListener(socket=sockets / f"{SERVER}.serial"),
        vnc=ConsoleListener() if sockets is None else ConsoleListener(socket=sockets / f"{SERVER}.vnc"),
        pins=pins or Pins(),
    )


NODES = (NumaNode(cpus=(0, 1, 3), memory_mib=64), NumaNode(cpus=(2,), memory_mib=32))
WISHES = Hardware(
    machine="pc-i440fx-7.2",
    disk_bus="scsi",
    disk_discard="ignore",
    scsi_model="lsilogic",
    video="vga",
    video_ram_mib=16,
    has_pmu=False,
    has_hpet=False,
    has_boot_menu=True,
    rng=Rng(bytes_per_period=1024, period_ms=500),
    tablet_bus="usb",
    usb_model="nec-xhci",
    sound="ich6",
    vif_model="e1000",
)
LIMITS = Limits(
    cpu=(("shares", 512), ("period", 20000), ("quota", 10000)),
    disk=(("read_bytes_sec", 10485760), ("write_bytes_sec", 5242880), ("total_iops_sec", 300)),
    inbound=(("average", 1024), ("peak", 2048), ("burst", 4096)),
    outbound=(("average", 512),),
)


DESCRIPTIONS = {
    "plain": domain(),
    "all-disks": domain(disks=(ROOT, EPHEMERAL, SWAP, CONFIG)),
    "kvm": domain(virt_type="kvm"),
    "kvm-topology": domain(
        virt_type="kvm", hardware=Hardware(topology=Topology(sockets=1, cores=2, threads=2)), vcpus=4
    ),
    "q35-scsi": domain(hardware=Hardware(machine="q35", disk_bus="scsi", cdrom_bus="scsi"), disks=(ROOT, SWAP, CONFIG)),
    "ide": domain(hardware=Hardware(disk_bus="ide")),
    "virtio-config-drive": domain(hardware=Hardware(cdrom_bus="virtio")),
    "no-config-drive": domain(disks=(ROOT,)),
    "devices": domain(hardware=Hardware(video="none", watchdog="poweroff", rng=None, has_guest_agent=True)),
    "wishes": domain(hardware=WISHES),
    "virtio-input": domain(hardware=Hardware(tablet_bus="virtio")),
    "sockets": domain(sockets=SOCKETS),
    "numa": domain(hardware=Hardware(numa=NODES), vcpus=4),
    "kvm-hidden": domain(virt_type="kvm", hardware=Hardware(hides_hypervisor=True, has_pmu=True)),
    "pinned": domain(
        hardware=Hardware(cpu_policy=CpuPolicy(is_dedicated=True, emulator="isolate")),
        vcpus=2,
        pins=Pins(cpus=(4, 2), emulator=(3,)),
    ),
    "shared-cpus": domain(pins=Pins(shared=(0, 1))),
    "limits": domain(hardware=Hardware(limits=LIMITS), disks=(ROOT, EPHEMERAL, CONFIG)),
    "limits-pinned": domain(hardware=Hardware(limits=Limits(cpu=LIMITS.cpu)), pins=Pins(cpus=(4,))),
    "large-pages": domain(hardware=Hardware(page_kib=2048)),
    "any-large-pages": domain(hardware=Hardware(page_kib=LARGE_PAGES_KIB)),
    "uefi-tpm": domain(
        hardware=Hardware(machine="q35", cdrom_bus="scsi", has_uefi=True, tpm=Tpm(model="tpm-crb", version="2.0"))
    ),
}


VOLUME = "0d9a3c52-7bb2-4a3e-8f0c-1f2f6d1f7a10"
MAC = "fa:16:3e:00:00:0a"
DEVICES = {
    "file": disk_xml(
        DiskToAttach(volume_id=VOLUME, source=FileSource(path=pathlib.Path("/v/1.qcow2"), format="qcow2")), "vdb"
    ),
    "block": disk_xml(
        DiskToAttach(volume_id=VOLUME, source=BlockSource(path=pathlib.Path("/dev/v1")), bus="scsi", is_read_only=True),
        "sdb",
    ),
    "nbd": disk_xml(
        DiskToAttach(volume_id=VOLUME, source=NetworkSource(protocol="nbd", name="v1", host="10.0.0.1", port=10809)),
        "vdb",
    ),
    "nbd-socket": disk_xml(
        DiskToAttach(volume_id=VOLUME, source=NetworkSource(protocol="nbd", name="v1", socket=pathlib.Path("/run/v1"))),
        "vdb",
    ),
    "bridge": nic_xml(NicToAttach(mac=MAC, kind="bridge", bridge="br0", tap="tap0", mtu=1450), model="virtio"),
    "ethernet": nic_xml(NicToAttach(mac=MAC, kind="ethernet", tap="tap0", model="rtl8139"), model="virtio"),
    "tap": nic_xml(NicToAttach(mac=MAC, kind="tap", tap="tap0"), model="e1000"),
    "tap-limited": nic_xml(NicToAttach(mac=MAC, kind="tap", tap="tap0"), model="virtio", may_take=LIMITS),
    "backup": backup_xml(["vda", "vdb", "hda"], HOME / "snapshot.qcow2"),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_the_document_is_what_it_was(name: str) -> None:
    assert domain_xml(DESCRIPTIONS[name]) == (DOCUMENTS / f"{name}.xml").read_text()


@pytest.mark.parametrize("name", DEVICES)
def test_the_device_is_what_it_was(name: str) -> None:
    assert DEVICES[name] == (DOCUMENTS / "devices" / f"{name}.xml").read_text()


def test_no_document_is_left_over() -> None:
    assert {path.stem for path in DOCUMENTS.glob("*.xml")} == set(DESCRIPTIONS)
    assert {path.stem for path in (DOCUMENTS / "devices").glob("*.xml")} == set(DEVICES)


@pytest.mark.parametrize(
    ("disk", "field"),
    [
        (DiskToAttach(volume_id=VOLUME, source=BlockSource(path=HOME), bus="ide"), "bus"),
        (DiskToAttach(volume_id=VOLUME, source=FileSource(path=HOME, format="vmdk")), "format"),
        (DiskToAttach(volume_id=VOLUME, source=NetworkSource(protocol="gopher", name="v1")), "protocol"),
    ],
)
def test_disks_that_cannot_be_had_are_refused_by_name(disk: DiskToAttach, field: str) -> None:
    with pytest.raises(core.errors.Invalid) as caught:
        disk_xml(disk, "vdb")

    assert caught.value.fields["field"] == field


@pytest.mark.parametrize(
    ("nic", "field"),
    [
        (NicToAttach(mac=MAC, kind="bridge", tap="tap0"), "kind"),
        (NicToAttach(mac=MAC, kind="tap", tap="tap0", bridge="br0"), "kind"),
        (NicToAttach(mac=MAC, kind="pigeon", tap="tap0"), "kind"),
        (NicToAttach(mac=MAC, kind="tap", tap="tap0", model="ne1000"), "model"),
    ],
)
def test_cards_that_cannot_be_had_are_refused_by_name(nic: NicToAttach, field: str) -> None:
    with pytest.raises(core.errors.Invalid) as caught:
        nic_xml(nic, model="virtio")

    assert caught.value.fields["field"] == field


def with_devices(document: str, *names: str) -> str:
    return document.replace("</devices>", "".join(DEVICES[name] for name in names) + "</devices>")


def test_what_was_attached_is_found_and_stays_when_the_guest_is_made_anew() -> None:
    before = with_devices(domain_xml(domain()), "file", "bridge")
    assert attached_disk(before, VOLUME) is not None and attached_disk(before, "another") is None
    assert attached_nic(before, MAC.upper()) is not None and attached_nic(before, "fa:16:3e:00:00:0b") is None
    assert free_disk_name([domain_xml(domain()), before], "virtio") == "vdc"

    for fresh, name in ((domain(), "vdb"), (domain(disks=(ROOT, SWAP, CONFIG)), "vdc")):
        after = with_attached(domain_xml(fresh), before)
        assert attached_disk(after, VOLUME).find("target").get("dev") == name
        assert attached_nic(after, MAC) is not None
        assert len(ET.fromstring(after).findall("devices/disk")) == len(fresh.disks) + 1


def test_the_root_disk_is_named_first() -> None:
    document = domain_xml(domain(disks=(ROOT, SWAP, CONFIG)))

    assert disk_names(document) == ["vda", "vdb", "hda"]
    assert disk_names(rescued_xml(document, HOME / "rescue.qcow2")) == ["vdc", "vda", "vdb", "hda"]


def test_a_serial_port_can_be_changed() -> None:
    document = domain_xml(domain())

    assert serial_port_of(document) == 10000
    assert serial_port_of(with_serial_port(document, 10007)) == 10007
    assert serial_port_of(domain_xml(domain(sockets=SOCKETS))) is None


def test_pins_are_read_back() -> None:
    assert pins_in(domain_xml(DESCRIPTIONS["pinned"])) == Pins(cpus=(4, 2), emulator=(3,))
    assert pins_in(domain_xml(DESCRIPTIONS["shared-cpus"])) == Pins(shared=(0, 1))
    assert pins_in(domain_xml(DESCRIPTIONS["plain"])) == Pins()


def test_the_machine_is_read_back() -> None:
    assert machine_of(domain_xml(DESCRIPTIONS["wishes"])) == "pc-i440fx-7.2"


def test_a_rescued_guest_boots_from_another_disk_and_sees_its_own_last() -> None:
    target = '<target dev="vda" bus="virtio" />'
    document = domain_xml(domain(disks=(ROOT, SWAP, CONFIG))).replace(
        target, f'{target}<alias name="a"/><address slot="5"/>'
    )

    disks = ET.fromstring(rescued_xml(document, HOME / "rescue.qcow2")).findall("devices/disk")

    rows = [
        (
            pathlib.Path(str(disk.find("source").get("file"))).name,
            disk.find("target").get("dev"),
            disk.find("address") is not None,
        )
        for disk in disks
    ]
    assert rows == [
        ("rescue.qcow2", "vda", True),
        ("swap.raw", "vdb", False),
        ("config.iso", "hda", False),
        ("disk.qcow2", "vdc", False),
    ]


def test_the_consoles_are_where_the_live_document_says() -> None:
    serial = ConsoleAddress(kind="serial", host="127.0.0.1", port=10000)
    assert consoles_of(domain_xml(domain())) == [serial]
    assert consoles_of(domain_xml(domain()).replace('type="vnc"', 'type="vnc" port="5903"')) == [
        ConsoleAddress(kind="vnc", host="127.0.0.1", port=5903),
        serial,
    ]
    assert consoles_of(domain_xml(domain(sockets=SOCKETS))) == [
        ConsoleAddress(kind="vnc", path=SOCKETS / f"{SERVER}.vnc"),
        ConsoleAddress(kind="serial", path=SOCKETS / f"{SERVER}.serial"),
    ]


def test_a_config_drive_is_told_from_the_document() -> None:
    assert has_config_drive(domain_xml(DESCRIPTIONS["plain"]))
    assert not has_config_drive(domain_xml(DESCRIPTIONS["no-config-drive"]))


def test_the_identity_is_read_back_as_libvirt_gives_it() -> None:
    # libvirt takes the prefix off the element that it gives.
    sizes = 'attempt="3" vcpus="2" memory_mib="512" disk_gib="7"'
    assert identity_of(f"<server {sizes}/>") == Identity(attempt=3, vcpus=2, memory_mib=512, disk_gib=7)
    full = Identity(attempt=3, vcpus=2, memory_mib=512, disk_gib=7, machine="pc-q35-7.2", vif_model="e1000")
    assert identity_of(f'<server {sizes} machine="pc-q35-7.2" vif_model="e1000"/>') == full
    limited = identity_of(f'<server {sizes} vif_limits="{nic_limits_text(LIMITS)}"/>')
    assert nic_limits_in(limited.vif_limits) == Limits(inbound=LIMITS.inbound, outbound=LIMITS.outbound)


@pytest.mark.parametrize(
    "foreign", ["", "<server/>", "<a", '<server attempt="x" vcpus="1" memory_mib="1" disk_gib="1"/>']
)
def test_foreign_metadata_is_no_identity(foreign: str) -> None:
    with pytest.raises(ValueError):
        identity_of(foreign)


def test_only_our_names_are_ours() -> None:
    assert is_ours(domain_name(str(uuid.uuid4())))
    assert not is_ours("instance-00000001")


if __name__ == "__main__":
    for name, description in DESCRIPTIONS.items():
        (DOCUMENTS / f"{name}.xml").write_text(domain_xml(description))
    for name, device in DEVICES.items():
        (DOCUMENTS / "devices" / f"{name}.xml").write_text(device)
