"""The parts of the libvirt driver that need no libvirt."""

import base64
import dataclasses
import json
import pathlib
import socket
import struct
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator

import pytest

import core.config
import core.errors
from compute.deadline import Deadline
from compute.libvirt import OPTIONS, capabilities, commands, domain_capabilities
from compute.libvirt.calls import Calls
from compute.libvirt.capabilities import cpu_of, memory_mib_of, traits_of, virt_type_of
from compute.libvirt.config_drive import files_of
from compute.libvirt.cpus import LARGE_PAGES_KIB, CpuPolicy, NumaNode, Topology, cpu_set
from compute.libvirt.domain_capabilities import Abilities, abilities_of, machines_of, page_sizes_of
from compute.libvirt.domain_xml_edits import serial_port_of
from compute.libvirt.hardware import IGNORED, TPM_VERSIONS, VIDEO_MODELS, Hardware, Rng, Tpm, hardware_of
from compute.libvirt.image_format import ImageFacts, backing_of, facts_of
from compute.libvirt.instance_dirs import InstanceDirectories
from compute.libvirt.limits import Limits
from compute.libvirt.pinning import HostCpus, Pins, host_cpus, pins_of
from compute.libvirt.reservations import Reservations
from objects.build import BuildSpec, Flavor, ImageRef

MIB = 1024**2


def spec(
    *,
    vcpus: int = 1,
    extra_specs: dict[str, str] | None = None,
    properties: dict[str, str] | None = None,
    **fields: object,
) -> BuildSpec:
    flavor = Flavor(flavor_id="1", name="tiny", vcpus=vcpus, memory_mib=96, root_gib=1, extra_specs=extra_specs or {})
    image = ImageRef(image_id=str(uuid.uuid4()), disk_format="qcow2", properties=properties or {})
    return BuildSpec(
        uuid=str(uuid.uuid4()),
        project_id="p",
        user_id="u",
        name="Größe 1",
        hostname="groesse-1",
        flavor=flavor,
        image=image,
        **fields,
    )


# ---- images ----------------------------------------------------------------------------------------------------------


def qcow2(
    *,
    version: int = 3,
    backing: int = 0,
    backing_bytes: int = 0,
    cluster_bits: int = 16,
    size: int = 32 * MIB,
    encryption: int = 0,
    features: int = 0,
) -> bytes:
    head = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", version, backing, backing_bytes, cluster_bits, size, encryption, 1, 0, 0, 0, 0, 0
    )
    return head + struct.pack(">Q", features) + bytes(512)


def test_a_qcow2_tells_its_virtual_size() -> None:
    assert facts_of(qcow2(), said="qcow2", file_bytes=1) == ImageFacts("qcow2", 32 * MIB)
    assert facts_of(qcow2(version=2), said="qcow2", file_bytes=1) == ImageFacts("qcow2", 32 * MIB)


def test_a_raw_image_is_as_large_as_its_file_in_whole_sectors() -> None:
    assert facts_of(b"\xeb\x63\x90" + bytes(509), said="raw", file_bytes=513) == ImageFacts("raw", 1024)


@pytest.mark.parametrize(
    ("head", "said", "why"),
    [
        (qcow2(backing=104, backing_bytes=11), "qcow2", "backing file"),
        (qcow2(version=2, backing=72), "qcow2", "backing file"),
        (qcow2(features=1 << 2), "qcow2", "file for its data"),
        (qcow2(encryption=2), "qcow2", "encrypted"),
        (qcow2(version=1), "qcow2", "version 1"),
        (qcow2(cluster_bits=63), "qcow2", "header is invalid"),
        (qcow2(size=0), "qcow2", "no size"),
        (qcow2()[:40], "qcow2", "cut off"),
        (b"", "qcow2", "not"),
        (bytes(512), "qcow2", "not"),
        (b"KDMV" + bytes(512), "qcow2", "vmdk"),
        (qcow2(), "raw", "qcow2"),
        (b"KDMV" + bytes(512), "raw", "vmdk"),
        (b"# Disk DescriptorFile\n", "raw", "vmdk"),
        (b"vhdxfile", "raw", "vhdx"),
        (b"conectix", "raw", "vhd"),
        (bytes(0x40) + b"\x7f\x10\xda\xbe", "raw", "vdi"),
        (b"LUKS\xba\xbe", "raw", "luks"),
        (b"KDMV", "vmdk", "disk_format"),
        (b"", "", "disk_format"),
    ],
)
def test_images_that_are_not_what_they_are_said_to_be_are_refused(head: bytes, said: str, why: str) -> None:
    with pytest.raises(core.errors.Invalid, match=why):
        facts_of(head, said=said, file_bytes=len(head))


def test_the_image_under_an_overlay_is_told(tmp_path: pathlib.Path) -> None:
    overlay, name = tmp_path / "disk.qcow2", b"/images/one"
    overlay.write_bytes(qcow2(backing=512, backing_bytes=len(name))[:512].ljust(512, b"\0") + name)

    assert backing_of(overlay) == pathlib.Path("/images/one")
    overlay.write_bytes(qcow2())
    assert backing_of(overlay) is None
    overlay.write_bytes(b"raw")
    assert backing_of(overlay) is None
    assert backing_of(tmp_path / "none") is None


def test_an_empty_raw_image_is_refused() -> None:
    with pytest.raises(core.errors.Invalid, match="empty"):
        facts_of(b"", said="raw", file_bytes=0)


# ---- hardware --------------------------------------------------------------------------------------------------------


def test_hardware_by_default() -> None:
    assert hardware_of(spec(), machine="pc") == Hardware()
    assert hardware_of(spec(), machine="q35") == Hardware(machine="q35", cdrom_bus="scsi")


def test_hardware_that_the_image_asks_for() -> None:
    properties = {
        "hw_machine_type": "pc-q35-7.2", "hw_disk_bus": "scsi", "hw_video_model": "vga", "hw_watchdog_action": "reset",
        "hw_qemu_guest_agent": "yes", "hw_rng_model": "virtio", "hw_scsi_model": "lsilogic",
        "hw_disk_discard": "ignore", "hw_vif_model": "e1000", "hw_pointer_model": "usbtablet", "hw_boot_menu": "true",
        "hw_time_hpet": "no", "hw_firmware_type": "uefi", "hw_sound_model": "ich6", "hw_usb_model": "qemu-xhci",
        "hw_architecture": "x86_64", "hw_vm_mode": "hvm", "hw_pmu": "true", "hw_hide_hypervisor_id": "true",
        "os_distro": "debian", **dict.fromkeys(IGNORED, "whatever"),
    }  # fmt: skip

    hardware = hardware_of(spec(properties=properties), machine="pc")

    assert hardware == Hardware(
        machine="pc-q35-7.2",
        has_uefi=True,
        disk_bus="scsi",
        disk_discard="ignore",
        cdrom_bus="scsi",
        scsi_model="lsilogic",
        video="vga",
        watchdog="reset",
        has_pmu=True,
        hides_hypervisor=True,
        has_hpet=False,
        has_boot_menu=True,
        tablet_bus="usb",
        usb_model="qemu-xhci",
        sound="ich6",
        vif_model="e1000",
        has_guest_agent=True,
    )


def test_hardware_that_the_flavor_asks_for() -> None:
    extra_specs = {
        "hw:tpm_version": "2.0", "hw:tpm_model": "tpm-crb", "hw:mem_page_size": "2MB", "hw:cpu_policy": "dedicated",
        "hw:cpu_thread_policy": "prefer", "hw:emulator_threads_policy": "isolate", "hw_rng:rate_bytes": "2048",
        "hw_rng:rate_period": "1000", "hw_video:ram_max_mb": "64", "hw:hide_hypervisor_id": "yes",
        "hw:boot_menu": "true", "hw:pmu": "false", "hw:locked_memory": "false", "hw:mem_encryption": "no",
    }  # fmt: skip

    hardware = hardware_of(spec(vcpus=2, extra_specs=extra_specs, properties={"hw_video_ram": "32"}), machine="pc")

    assert hardware == Hardware(
        tpm=Tpm(model="tpm-crb", version="2.0"),
        page_kib=2048,
        cpu_policy=CpuPolicy(is_dedicated=True, emulator="isolate"),
        rng=Rng(bytes_per_period=2048, period_ms=1000),
        video_ram_mib=32,
        hides_hypervisor=True,
        has_boot_menu=True,
        has_pmu=False,
    )


def test_the_hypervisor_is_hidden_by_its_older_name_too() -> None:
    assert hardware_of(spec(extra_specs={"hide_hypervisor_id": "true"}), machine="pc") == Hardware(
        hides_hypervisor=True
    )


def test_what_the_flavor_limits_is_limited() -> None:
    extra_specs = {
        "quota:cpu_shares": "512", "quota:cpu_period": "20000", "quota:cpu_quota": "10000",
        "quota:disk_read_bytes_sec": "1", "quota:disk_write_bytes_sec": "2", "quota:disk_total_iops_sec": "3",
        "quota:vif_inbound_average": "4", "quota:vif_inbound_peak": "5", "quota:vif_inbound_burst": "6",
        "quota:vif_outbound_average": "7",
    }  # fmt: skip

    assert hardware_of(spec(extra_specs=extra_specs), machine="pc").limits == Limits(
        cpu=(("shares", 512), ("period", 20000), ("quota", 10000)),
        disk=(("read_bytes_sec", 1), ("write_bytes_sec", 2), ("total_iops_sec", 3)),
        inbound=(("average", 4), ("peak", 5), ("burst", 6)),
        outbound=(("average", 7),),
    )
    assert hardware_of(spec(extra_specs=dict.fromkeys(extra_specs, "0")), machine="pc") == Hardware()
    assert hardware_of(spec(extra_specs={"quota:cpu_quota": "-1"}), machine="pc") == Hardware()


@pytest.mark.parametrize(
    ("asked", "size_kib"),
    [
        ("small", None),
        ("any", None),
        ("4", None),
        ("4KB", None),
        ("large", LARGE_PAGES_KIB),
        ("2048", 2048),
        ("2MiB", 2048),
        ("1 GB", 1024**2),
    ],
)
def test_page_sizes(asked: str, size_kib: int | None) -> None:
    assert hardware_of(spec(extra_specs={"hw:mem_page_size": asked}), machine="pc").page_kib == size_kib
    assert hardware_of(spec(properties={"hw_mem_page_size": asked}), machine="pc").page_kib == size_kib


def test_numa_nodes_share_out_the_flavor() -> None:
    even = hardware_of(spec(vcpus=4, extra_specs={"hw:numa_nodes": "2"}), machine="pc")
    assert even.numa == (NumaNode(cpus=(0, 1), memory_mib=48), NumaNode(cpus=(2, 3), memory_mib=48))

    said = {
        "hw:numa_nodes": "2",
        "hw:numa_cpus.0": "0-1,3",
        "hw:numa_cpus.1": "2",
        "hw:numa_mem.0": "64",
        "hw:numa_mem.1": "32",
    }
    uneven = hardware_of(spec(vcpus=4, extra_specs=said), machine="pc")
    assert uneven.numa == (NumaNode(cpus=(0, 1, 3), memory_mib=64), NumaNode(cpus=(2,), memory_mib=32))


def test_the_image_may_say_what_the_flavor_leaves_open() -> None:
    properties = {"hw_numa_nodes": "2", "hw_cpu_policy": "dedicated", "hw_cpu_cores": "2", "hw_tpm_version": "2.0"}

    asked = hardware_of(spec(vcpus=2, properties=properties), machine="pc")

    assert len(asked.numa) == 2 and asked.cpu_policy.is_dedicated
    assert (asked.topology, asked.tpm) == (Topology(sockets=1, cores=2, threads=1), Tpm(model="tpm-tis", version="2.0"))


def test_limits_of_a_topology_are_kept() -> None:
    extra_specs, properties = {"hw:cpu_max_sockets": "4"}, {"hw_cpu_max_sockets": "2", "hw_cpu_max_threads": "1"}

    assert hardware_of(
        spec(vcpus=8, extra_specs=extra_specs, properties=properties), machine="pc"
    ).topology == Topology(sockets=2, cores=4, threads=1)


def test_the_flavor_goes_before_the_image() -> None:
    asked = spec(
        extra_specs={"hw:watchdog_action": "pause", "hw_rng:allowed": "False"},
        properties={"hw_watchdog_action": "reset"},
    )

    assert hardware_of(asked, machine="pc") == Hardware(watchdog="pause", rng=None)


@pytest.mark.parametrize(
    ("asked", "topology"),
    [
        ({"hw:cpu_cores": "4"}, Topology(sockets=2, cores=4, threads=1)),
        ({"hw:cpu_threads": "2"}, Topology(sockets=4, cores=1, threads=2)),
        ({"hw:cpu_sockets": "2", "hw:cpu_threads": "2"}, Topology(sockets=2, cores=2, threads=2)),
        ({"hw:cpu_sockets": "1"}, Topology(sockets=1, cores=8, threads=1)),
        ({"hw:cpu_sockets": "2", "hw:cpu_cores": "2", "hw:cpu_threads": "2"}, Topology(sockets=2, cores=2, threads=2)),
    ],
)
def test_topologies_use_all_cpus(asked: dict[str, str], topology: Topology) -> None:
    assert hardware_of(spec(vcpus=8, extra_specs=asked), machine="pc").topology == topology


@pytest.mark.parametrize(
    ("extra_specs", "properties", "field"),
    [
        ({"hw:cpu_dedicated_mask": "^0"}, {}, "hw:cpu_dedicated_mask"),
        ({"hw:numa_nodes": "3"}, {}, "hw:numa_nodes"),
        ({"hw:numa_nodes": "2", "hw:numa_cpus.0": "0"}, {}, "hw:numa_nodes"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-2", "hw:numa_mem.0": "96"}, {}, "hw:numa_cpus.0"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-3", "hw:numa_mem.0": "95"}, {}, "hw:numa_mem.0"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-4", "hw:numa_mem.0": "96"}, {}, "hw:numa_cpus.0"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "all", "hw:numa_mem.0": "96"}, {}, "hw:numa_cpus.0"),
        ({"hw:numa_cpus.0": "0-3", "hw:numa_mem.0": "96"}, {}, "hw:numa_nodes"),
        ({"hw:numa_cpus.65": "0-3"}, {}, "hw:numa_cpus.65"),
        ({"hw:cpu_policy": "mixed"}, {}, "hw:cpu_policy"),
        ({"hw:cpu_policy": "shared"}, {"hw_cpu_policy": "dedicated"}, "hw_cpu_policy"),
        ({"hw:cpu_thread_policy": "prefer"}, {}, "hw:cpu_thread_policy"),
        ({"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "require"}, {}, "hw:cpu_thread_policy"),
        ({"hw:emulator_threads_policy": "share"}, {}, "hw:emulator_threads_policy"),
        ({"hw:mem_page_size": "huge"}, {}, "hw:mem_page_size"),
        ({"hw:mem_page_size": "0"}, {}, "hw:mem_page_size"),
        ({}, {"hw_mem_page_size": ""}, "hw_mem_page_size"),
        ({"hw:cpu_max_sockets": "1", "hw:cpu_max_cores": "1", "hw:cpu_max_threads": "2"}, {}, "hw:cpu_sockets"),
        ({"hw:tpm_model": "tpm-tis"}, {}, "hw:tpm_model"),
        ({"hw:tpm_version": "1.2", "hw:tpm_model": "tpm-crb"}, {}, "hw:tpm_model"),
        ({"hw:tpm_version": "3.0"}, {}, "hw:tpm_version"),
        ({"hw:locked_memory": "true"}, {}, "hw:locked_memory"),
        ({"hw:viommu_model": "intel"}, {}, "hw:viommu_model"),
        ({"hw:serial_port_count": "2"}, {}, "hw:serial_port_count"),
        ({"hw_rng:rate_period": "100"}, {}, "hw_rng:rate_period"),
        ({"hw_rng:speed": "100"}, {}, "hw_rng:speed"),
        ({"hw_video:ram_max_mb": "16"}, {"hw_video_ram": "32"}, "hw_video_ram"),
        ({}, {"hw_video_ram": "32"}, "hw_video_ram"),
        ({}, {"hw_of_another_cloud": "1"}, "hw_of_another_cloud"),
        ({}, {"hw_mem_encryption": "true"}, "hw:mem_encryption"),
        ({}, {"hw_firmware_stateless": "true"}, "hw_firmware_stateless"),
        ({}, {"hw_firmware_type": "openfirmware"}, "hw_firmware_type"),
        ({}, {"hw_architecture": "aarch64"}, "hw_architecture"),
        ({}, {"hw_vif_model": "carrier-pigeon"}, "hw_vif_model"),
        ({}, {"hw_scsi_model": "adaptec"}, "hw_scsi_model"),
        ({}, {"hw_pointer_model": "foot"}, "hw_pointer_model"),
        ({}, {"hw_input_bus": "ps3"}, "hw_input_bus"),
        ({}, {"hw_boot_menu": "perhaps"}, "hw_boot_menu"),
        ({}, {"hw_time_hpet": "2"}, "hw_time_hpet"),
        ({}, {"hw_qemu_guest_agent": "2"}, "hw_qemu_guest_agent"),
        ({}, {"hw_machine_type": "pc-q36-1"}, "hw_machine_type"),
        ({"hw:cpu_cores": "3"}, {}, "hw:cpu_sockets"),
        ({"hw:cpu_cores": "0"}, {}, "hw:cpu_cores"),
        ({"hw:cpu_cores": "-1"}, {}, "hw:cpu_cores"),
        ({"hw:cpu_cores": "²"}, {}, "hw:cpu_cores"),
        ({"hw:watchdog_action": "explode"}, {}, "hw:watchdog_action"),
        ({"hw_rng:allowed": "perhaps"}, {}, "hw_rng:allowed"),
        ({}, {"hw_disk_bus": "floppy"}, "hw_disk_bus"),
        ({}, {"hw_machine_type": "virt"}, "hw_machine_type"),
        ({}, {"hw_machine_type": "q35", "hw_disk_bus": "ide"}, "hw_disk_bus"),
        ({}, {"hw_machine_type": "q35", "hw_cdrom_bus": "ide"}, "hw_cdrom_bus"),
        ({}, {"hw_video_model": "3dfx"}, "hw_video_model"),
        ({"quota:cpu_shares": "-1"}, {}, "quota:cpu_shares"),
        ({"quota:cpu_shares": "262145"}, {}, "quota:cpu_shares"),
        ({"quota:cpu_period": "999"}, {}, "quota:cpu_period"),
        ({"quota:cpu_quota": "-2"}, {}, "quota:cpu_quota"),
        ({"quota:cpu_limit": "1"}, {}, "quota:cpu_limit"),
        ({"quota:disk_total_bytes_sec": "1", "quota:disk_read_bytes_sec": "1"}, {}, "quota:disk_total_bytes_sec"),
        ({"quota:disk_read_iops_sec": "many"}, {}, "quota:disk_read_iops_sec"),
        ({"quota:vif_inbound_peak": "1"}, {}, "quota:vif_inbound_average"),
        ({"os:secure_boot": "required"}, {}, "os:secure_boot"),
        ({}, {"os_secure_boot": "required"}, "os_secure_boot"),
        ({"os:vram": "1"}, {}, "os:vram"),
        ({"accel:device_profile": "gpu"}, {}, "accel:device_profile"),
        ({"pci_passthrough:alias": "gpu:1"}, {}, "pci_passthrough:alias"),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    extra_specs: dict[str, str], properties: dict[str, str], field: str
) -> None:
    with pytest.raises(core.errors.Invalid) as caught:
        hardware_of(spec(vcpus=4, extra_specs=extra_specs, properties=properties), machine="pc")

    assert caught.value.fields["field"] == field


def test_what_is_for_the_scheduler_is_no_hardware() -> None:
    extra_specs = {
        "resources:CUSTOM_GOLD": "1",
        "trait:HW_CPU_X86_AVX": "required",
        "aggregate_instance_extra_specs:ssd": "true",
    }

    assert hardware_of(spec(extra_specs=extra_specs), machine="pc") == Hardware()


# ---- what the host can give ------------------------------------------------------------------------------------------

MACHINES = """
<capabilities><guest><os_type>hvm</os_type><arch name='i686'><machine>isapc</machine></arch></guest>
<guest><os_type>hvm</os_type><arch name='x86_64'><machine canonical='pc-i440fx-7.2' maxCpus='255'>pc</machine>
<machine maxCpus='255'>pc-i440fx-7.2</machine><domain type='kvm'><machine canonical='pc-q35-7.2'>q35</machine></domain></arch></guest></capabilities>
"""
DOMAIN_CAPABILITIES = """
<domainCapabilities><os supported='yes'><enum name='firmware'><value>efi</value></enum></os><devices>
<video supported='yes'><enum name='modelType'><value>vga</value><value>virtio</value></enum></video>
<tpm supported='yes'><enum name='model'><value>tpm-tis</value></enum><enum name='backendModel'><value>passthrough</value><value>emulator</value></enum>
<enum name='backendVersion'><value>2.0</value></enum></tpm></devices></domainCapabilities>
"""
ABLE = Abilities(
    machines={"pc": "pc-i440fx-7.2"},
    videos=frozenset({"virtio", "vga"}),
    tpm_models=frozenset({"tpm-tis"}),
    tpm_versions=frozenset({"2.0"}),
    has_uefi=True,
    page_sizes=frozenset({2048}),
)


def test_abilities_are_read_from_libvirts_documents() -> None:
    machines = {
        "pc": "pc-i440fx-7.2",
        "pc-i440fx-7.2": "pc-i440fx-7.2",
        "q35": "pc-q35-7.2",
        "pc-q35-7.2": "pc-q35-7.2",
    }
    assert machines_of(MACHINES) == machines

    abilities = abilities_of(MACHINES, DOMAIN_CAPABILITIES, frozenset({2048}))

    assert abilities == Abilities(
        machines=machines,
        videos=frozenset({"virtio", "vga"}),
        tpm_models=frozenset({"tpm-tis"}),
        tpm_versions=frozenset({"2.0"}),
        has_uefi=True,
        page_sizes=frozenset({2048}),
    )


def test_without_swtpm_there_is_no_tpm_and_without_firmware_no_uefi() -> None:
    poor = DOMAIN_CAPABILITIES.replace("<value>emulator</value>", "").replace("<value>efi</value>", "")

    abilities = abilities_of(MACHINES, poor, frozenset())

    assert (abilities.tpm_models, abilities.tpm_versions, abilities.has_uefi) == (frozenset(), frozenset(), False)


@pytest.mark.parametrize(
    ("hardware", "field"),
    [
        (Hardware(machine="q35"), "hw_machine_type"),
        (Hardware(video="qxl"), "hw_video_model"),
        (Hardware(has_uefi=True), "hw_firmware_type"),
        (Hardware(tpm=Tpm(model="tpm-crb", version="2.0")), "hw:tpm_version"),
        (Hardware(tpm=Tpm(model="tpm-tis", version="1.2")), "hw:tpm_version"),
        (Hardware(page_kib=1024**2), "hw:mem_page_size"),
        (Hardware(hides_hypervisor=True), "hw:hide_hypervisor_id"),
    ],
)
def test_what_the_host_does_not_have_is_refused_by_name(hardware: Hardware, field: str) -> None:
    able = dataclasses.replace(ABLE, has_uefi=False)
    with pytest.raises(core.errors.Invalid) as caught:
        domain_capabilities.require(hardware, able, virt_type="qemu")

    assert caught.value.fields["field"] == field


def test_what_the_host_has_is_given() -> None:
    for page_kib in (None, LARGE_PAGES_KIB, 2048):
        hardware = Hardware(
            has_uefi=True,
            tpm=Tpm(model="tpm-tis", version="2.0"),
            page_kib=page_kib,
            hides_hypervisor=True,
            video="vga",
        )
        domain_capabilities.require(hardware, ABLE, virt_type="kvm")
    with pytest.raises(core.errors.Invalid, match="pages"):
        domain_capabilities.require(
            Hardware(page_kib=LARGE_PAGES_KIB), dataclasses.replace(ABLE, page_sizes=frozenset()), virt_type="kvm"
        )
    domain_capabilities.require(Hardware(video="none"), ABLE, virt_type="qemu")


def test_only_large_pages_that_are_kept_count(tmp_path: pathlib.Path) -> None:
    for size, count in (("2048kB", "8"), ("1048576kB", "0")):
        (tmp_path / f"hugepages-{size}").mkdir()
        (tmp_path / f"hugepages-{size}" / "nr_hugepages").write_text(f"{count}\n")

    assert page_sizes_of(tmp_path) == {2048}


# ---- dedicated CPUs and consoles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "cpus"), [("0-3,^2,7", (0, 1, 3, 7)), ("5", (5,)), (" 1 , 2 ", (1, 2)), ("3-1", ())])
def test_sets_of_cpus(text: str, cpus: tuple[int, ...]) -> None:
    assert cpu_set(text) == cpus


def test_dedicated_cpus_are_given_once() -> None:
    host = HostCpus(dedicated=(2, 3, 4, 5), shared=(0, 1))
    dedicated = CpuPolicy(is_dedicated=True)

    assert pins_of(CpuPolicy(), 2, host, ()) == Pins(shared=(0, 1))
    assert pins_of(dedicated, 2, host, (2,)) == Pins(cpus=(3, 4))
    assert pins_of(CpuPolicy(is_dedicated=True, emulator="isolate"), 2, host, (2,)) == Pins(cpus=(3, 4), emulator=(5,))
    assert pins_of(CpuPolicy(is_dedicated=True, emulator="share"), 1, host, ()) == Pins(cpus=(2,), emulator=(0, 1))
    assert pins_of(dedicated, 2, host, (), before=Pins(cpus=(5, 3), emulator=(5, 3))) == Pins(cpus=(3, 5))
    with pytest.raises(core.errors.Conflict, match="wanted 2, free 1"):
        pins_of(dedicated, 2, host, (2, 3, 4))
    with pytest.raises(core.errors.Invalid, match="cpu_dedicated_set"):
        pins_of(dedicated, 1, HostCpus(), ())


@pytest.mark.parametrize(
    ("dedicated", "shared", "field"),
    [("x", None, "cpu_dedicated_set"), (None, "1-", "cpu_shared_set"), ("1-3", "3", "cpu_dedicated_set")],
)
def test_sets_of_cpus_that_make_no_sense(dedicated: str | None, shared: str | None, field: str) -> None:
    with pytest.raises(core.errors.Invalid) as caught:
        host_cpus(dedicated, shared)

    assert caught.value.fields["field"] == field


def reservations(**settings: object) -> Reservations:
    conf = core.config.load("tests", [], [OPTIONS])
    for name, value in settings.items():
        conf.set_override(name, value, group="libvirt")
    return Reservations(conf.libvirt)


def test_two_builds_at_once_get_two_ports_and_other_cpus() -> None:
    host, hardware = reservations(cpu_dedicated_set="1-2"), Hardware(cpu_policy=CpuPolicy(is_dedicated=True))
    one, other = str(uuid.uuid4()), str(uuid.uuid4())

    with host.taken(one, hardware, 1, list) as first:
        with host.taken(other, hardware, 1, list) as second:
            assert first.serial.port != second.serial.port
            assert (first.pins.cpus, second.pins.cpus) == ((1,), (2,))
            with pytest.raises(core.errors.Conflict), host.taken(str(uuid.uuid4()), hardware, 1, list):
                pytest.fail("a third guest was let in")
    with host.taken(other, hardware, 2, list) as alone:
        assert alone.pins.cpus == (1, 2)


def test_a_port_on_which_somebody_listens_is_not_given() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        busy = reservations(serial_ports=f"{port}:{port}")
        with (
            pytest.raises(core.errors.Conflict, match="serial_ports"),
            busy.taken(str(uuid.uuid4()), Hardware(), 1, list),
        ):
            pytest.fail("the port was given")


def test_a_guest_that_is_off_gets_another_port_when_somebody_took_its_own() -> None:
    server = str(uuid.uuid4())
    document = (
        "<domain><devices><serial type='tcp'><source mode='bind' "
        "host='127.0.0.1' service='{}'/></serial></devices></domain>"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        taken, free = listener.getsockname()[1], other.getsockname()[1]
        other.close()
        host = reservations(serial_ports=f"{min(taken, free)}:{max(taken, free)}")

        mended = host.mended(server, document.format(taken), list)
        assert mended is not None and serial_port_of(mended) not in (None, taken)
        assert host.mended(server, document.format(free), list) is None
        assert host.mended(server, "<domain/>", list) is None


@pytest.fixture
def short_path() -> Iterator[pathlib.Path]:
    """A directory whose name leaves room for that of a socket."""
    with tempfile.TemporaryDirectory(prefix="cp-") as path:
        yield pathlib.Path(path)


def test_sockets_instead_of_ports(short_path: pathlib.Path) -> None:
    server = str(uuid.uuid4())
    host = reservations(console_path=str(short_path / "c"))
    host.prepare()

    with host.taken(server, Hardware(), 1, list) as reservation:
        assert (reservation.serial.socket, reservation.vnc.socket) == (
            short_path / "c" / f"{server}.serial",
            short_path / "c" / f"{server}.vnc",
        )
    (short_path / "c" / f"{server}.vnc").touch()
    host.clear(server)
    assert list((short_path / "c").iterdir()) == []
    with pytest.raises(core.errors.Invalid, match="too long"):
        reservations(console_path=str(short_path / ("x" * 80)))


@pytest.mark.parametrize("ports", ["10", "0:10", "20:10", "1:65536", "a:b"])
def test_ports_that_make_no_sense(ports: str) -> None:
    with pytest.raises(core.errors.Invalid, match="serial_ports"):
        reservations(serial_ports=ports)


# ---- config drive ----------------------------------------------------------------------------------------------------


def test_the_config_drive_holds_what_the_guest_needs() -> None:
    server = spec(
        metadata={"role": "web"},
        key_name="mine",
        public_key="ssh-ed25519 AAAA me",
        user_data=base64.b64encode(b"#!/bin/sh\n").decode(),
        launch_index=2,
    )

    files = files_of(server, random_seed=b"seed")

    document = json.loads(files["openstack/latest/meta_data.json"])
    assert (document["uuid"], document["name"], document["hostname"]) == (server.uuid, "Größe 1", "groesse-1")
    assert document["public_keys"] == {"mine": "ssh-ed25519 AAAA me"}
    assert document["keys"] == [{"name": "mine", "type": "ssh", "data": "ssh-ed25519 AAAA me"}]
    assert document["meta"] == {"role": "web"}
    assert document["launch_index"] == 2
    assert base64.b64decode(document["random_seed"]) == b"seed"
    assert files["openstack/latest/user_data"] == b"#!/bin/sh\n"
    assert json.loads(files["openstack/latest/network_data.json"]) == {"links": [], "networks": [], "services": []}
    assert json.loads(files["openstack/latest/vendor_data.json"]) == {}
    assert {name.split("/")[1] for name in files} == {"2018-08-27", "latest"}


def test_without_user_data_there_is_no_such_file() -> None:
    assert not [name for name in files_of(spec(), random_seed=b"") if name.endswith("user_data")]


# ---- the machine -----------------------------------------------------------------------------------------------------

CAPABILITIES = """
<capabilities><host><uuid>a</uuid><cpu><arch>x86_64</arch><model>EPYC</model><vendor>AMD</vendor>
<topology sockets='1' dies='1' cores='2' threads='1'/><feature name='avx2'/><feature name='aes'/></cpu></host></capabilities>
"""


def test_the_cpu_is_told_in_the_shape_of_the_api() -> None:
    cpu = cpu_of(CAPABILITIES)

    assert cpu == {
        "arch": "x86_64", "model": "EPYC", "vendor": "AMD", "topology": {"sockets": 1, "cores": 2, "threads": 1},
        "features": ["aes", "avx2"],
    }  # fmt: skip
    assert {"HW_CPU_X86_AESNI", "HW_CPU_X86_AVX2"} <= set(traits_of(cpu, ABLE, virt_type="kvm"))
    assert not [trait for trait in traits_of(cpu, ABLE, virt_type="qemu") if trait.startswith("HW_")]


def test_traits_tell_what_the_host_can_give() -> None:
    extras = {
        "COMPUTE_FIRMWARE_UEFI",
        "COMPUTE_SECURITY_TPM_2_0",
        "COMPUTE_GRAPHICS_MODEL_VGA",
        "COMPUTE_GRAPHICS_MODEL_NONE",
    }

    assert extras <= set(traits_of({}, ABLE, virt_type="qemu"))
    assert set(traits_of({}, Abilities(), virt_type="qemu")) & extras == {"COMPUTE_GRAPHICS_MODEL_NONE"}


def test_every_trait_is_one_of_placements() -> None:
    os_traits = pytest.importorskip("os_traits")
    everything = Abilities(videos=frozenset(VIDEO_MODELS), tpm_versions=frozenset(TPM_VERSIONS), has_uefi=True)
    cpu = {"features": list(capabilities._TRAITS)}

    assert set(traits_of(cpu, everything, virt_type="kvm")) <= set(os_traits.get_traits())


def test_memory_is_that_of_the_kernel() -> None:
    assert memory_mib_of("MemTotal:       24576000 kB\nMemFree: 1 kB\n") == 24000


@pytest.mark.parametrize(("flags", "virt_type"), [("fpu vmx sse", "kvm"), ("svm", "kvm"), ("fpu hypervisor", "qemu")])
def test_kvm_only_where_the_cpu_can(flags: str, virt_type: str) -> None:
    assert virt_type_of(f"processor\t: 0\nflags\t\t: {flags}\n") == virt_type


# ---- calls -----------------------------------------------------------------------------------------------------------


def test_a_call_gives_its_result_and_its_error() -> None:
    calls = Calls(2)

    assert calls.run("add", lambda: 1 + 1, deadline_s=5.0) == 2
    with pytest.raises(ZeroDivisionError):
        calls.run("divide", lambda: 1 // 0, deadline_s=5.0)


@pytest.mark.alone
def test_a_call_that_hangs_is_left_behind_and_counted() -> None:
    calls, release = Calls(1), threading.Event()
    began = time.monotonic()

    with pytest.raises(core.errors.Unavailable, match="hang"):
        calls.run("hang", lambda: release.wait(30.0), deadline_s=0.1, about="server")
    with pytest.raises(core.errors.Unavailable, match="none of 1 calls"):
        calls.run("another", lambda: None, deadline_s=0.1)

    assert time.monotonic() - began < 5.0
    assert not calls.wait_for("server", 0.05)
    assert calls.wait_for("another server", 0.0)
    release.set()
    assert calls.wait_for("server", 5.0)
    assert calls.run("again", lambda: "works", deadline_s=5.0) == "works"


def test_a_call_is_left_behind_when_its_permit_is_taken_back() -> None:
    calls, release, deadline = Calls(1), threading.Event(), Deadline(attempt=1, deadline_s=30.0)
    threading.Timer(0.1, deadline.revoke, args=("not wanted",)).start()

    with pytest.raises(core.errors.Conflict, match="not wanted"):
        calls.run("hang", lambda: release.wait(30.0), deadline_s=30.0, deadline=deadline)
    release.set()


# ---- programs and files ----------------------------------------------------------------------------------------------


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(core.errors.Broken, match="ended with"):
        commands.run(["mkswap", "/nowhere/at/all"], Deadline(attempt=1, deadline_s=10.0))
    with pytest.raises(core.errors.Invalid, match="not installed"):
        commands.run(["no-such-program"], Deadline(attempt=1, deadline_s=10.0))
    with pytest.raises(core.errors.Invalid, match="no-such-program"):
        commands.require(["sh", "no-such-program"])


@pytest.mark.alone
def test_a_program_ends_with_its_permit() -> None:
    began = time.monotonic()

    with pytest.raises(core.errors.Unavailable):
        commands.run(["sleep", "30"], Deadline(attempt=1, deadline_s=0.2))

    assert time.monotonic() - began < 10.0


def test_a_home_is_told_from_what_else_lies_there(tmp_path: pathlib.Path) -> None:
    directories, server = InstanceDirectories(tmp_path / "instances"), str(uuid.uuid4())
    directories.prepare()
    for name in ("lost+found", "images", f"{server}", f"{server}.x", f"{server}.1.bak"):
        (directories.path / name).mkdir()
    directory = directories.of(server, 3)
    directory.begin()

    assert directories.all() == directories.all(server) == [directory]
    assert directories.all(str(uuid.uuid4())) == []
    assert directory.is_building
    directory.end()
    assert not directory.is_building
    directory.clear()
    directory.clear()
    assert directories.all() == []


def test_a_long_console_log_is_set_aside_and_still_read(tmp_path: pathlib.Path) -> None:
    directory = InstanceDirectories(tmp_path).of(str(uuid.uuid4()), 1)
    directory.begin()
    directory.bound_console()
    with directory.console_log.open("ab") as guest:
        guest.write(b"x" * 5 * MIB + b"before\n")
        guest.flush()

        directory.bound_console()
        guest.write(b"after\n")

    assert directory.read_console().endswith("x" * 100 + "before\nafter\n")
    assert sum(path.stat().st_size for path in directory.path.iterdir()) < 2 * MIB


def test_a_console_log_is_read_from_its_end(tmp_path: pathlib.Path) -> None:
    directories, server = InstanceDirectories(tmp_path), str(uuid.uuid4())
    directory = directories.of(server, 1)
    directory.begin()
    assert directory.read_console() == ""

    directory.console_log.write_bytes(b"x" * 2 * MIB + b"the \xff end")

    assert directory.read_console().endswith("the � end")
    assert len(directory.read_console()) <= MIB
