"""The parts of the libvirt driver that need no libvirt."""

import base64
import json
import pathlib
import struct
import threading
import time
import uuid

import pytest

import core.errors
from compute.libvirt import capabilities, programs
from compute.libvirt.calls import Calls
from compute.libvirt.capabilities import cpu_of, memory_mib_of, traits_of, virt_type_of
from compute.libvirt.config_drive import files_of
from compute.libvirt.hardware import Hardware, Topology, hardware_of
from compute.libvirt.homes import Homes
from compute.libvirt.image_format import ImageFacts, facts_of
from compute.permit import Permit
from objects.build import BuildSpec, Flavor, ImageRef

MIB = 1024**2


def spec(*, vcpus: int = 1, extra_specs: dict[str, str] | None = None, properties: dict[str, str] | None = None, **fields: object) -> BuildSpec:
    flavor = Flavor(flavor_id="1", name="tiny", vcpus=vcpus, memory_mib=96, root_gib=1, extra_specs=extra_specs or {})
    image = ImageRef(image_id=str(uuid.uuid4()), disk_format="qcow2", properties=properties or {})
    return BuildSpec(uuid=str(uuid.uuid4()), project_id="p", user_id="u", name="Größe 1", hostname="groesse-1", flavor=flavor, image=image, **fields)


# ---- images ---------------------------------------------------------------------------------------------------------------------


def qcow2(
    *, version: int = 3, backing: int = 0, backing_bytes: int = 0, cluster_bits: int = 16, size: int = 32 * MIB, encryption: int = 0, features: int = 0
) -> bytes:
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, backing, backing_bytes, cluster_bits, size, encryption, 1, 0, 0, 0, 0, 0)
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
        (qcow2(cluster_bits=63), "qcow2", "makes no sense"),
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


def test_an_empty_raw_image_is_refused() -> None:
    with pytest.raises(core.errors.Invalid, match="empty"):
        facts_of(b"", said="raw", file_bytes=0)


# ---- hardware -------------------------------------------------------------------------------------------------------------------


def test_hardware_by_default() -> None:
    assert hardware_of(spec(), machine="pc") == Hardware()
    assert hardware_of(spec(), machine="q35") == Hardware(machine="q35", cdrom_bus="scsi")


def test_hardware_that_the_image_asks_for() -> None:
    properties = {
        "hw_machine_type": "pc-q35-7.2", "hw_disk_bus": "scsi", "hw_video_model": "vga", "hw_watchdog_action": "reset", "hw_qemu_guest_agent": "yes",
        "hw_rng_model": "virtio", "hw_of_another_cloud": "1", "os_distro": "debian",
    }  # fmt: skip

    found = hardware_of(spec(properties=properties), machine="pc")

    assert found == Hardware(machine="q35", disk_bus="scsi", cdrom_bus="scsi", video="vga", watchdog="reset", has_guest_agent=True)


def test_the_flavor_goes_before_the_image() -> None:
    asked = spec(extra_specs={"hw:watchdog_action": "pause", "hw_rng:allowed": "False"}, properties={"hw_watchdog_action": "reset"})

    assert hardware_of(asked, machine="pc") == Hardware(watchdog="pause", has_rng=False)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"hw:cpu_cores": "4"}, Topology(sockets=2, cores=4, threads=1)),
        ({"hw:cpu_threads": "2"}, Topology(sockets=4, cores=1, threads=2)),
        ({"hw:cpu_sockets": "2", "hw:cpu_threads": "2"}, Topology(sockets=2, cores=2, threads=2)),
        ({"hw:cpu_sockets": "1"}, Topology(sockets=1, cores=8, threads=1)),
        ({"hw:cpu_sockets": "2", "hw:cpu_cores": "2", "hw:cpu_threads": "2"}, Topology(sockets=2, cores=2, threads=2)),
    ],
)
def test_topologies_use_all_cpus(asked: dict[str, str], found: Topology) -> None:
    assert hardware_of(spec(vcpus=8, extra_specs=asked), machine="pc").topology == found


@pytest.mark.parametrize(
    ("extra_specs", "properties", "field"),
    [
        ({"hw:numa_nodes": "2"}, {}, "hw:numa_nodes"),
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
    ],
)
def test_what_is_not_known_is_refused_by_name(extra_specs: dict[str, str], properties: dict[str, str], field: str) -> None:
    with pytest.raises(core.errors.Invalid) as caught:
        hardware_of(spec(vcpus=4, extra_specs=extra_specs, properties=properties), machine="pc")

    assert caught.value.fields["field"] == field


def test_what_is_for_the_scheduler_is_no_hardware() -> None:
    extra_specs = {"resources:CUSTOM_GOLD": "1", "trait:HW_CPU_X86_AVX": "required", "aggregate_instance_extra_specs:ssd": "true"}

    assert hardware_of(spec(extra_specs=extra_specs), machine="pc") == Hardware()


# ---- config drive ---------------------------------------------------------------------------------------------------------------


def test_the_config_drive_holds_what_the_guest_needs() -> None:
    server = spec(
        metadata={"role": "web"}, key_name="mine", public_key="ssh-ed25519 AAAA me", user_data=base64.b64encode(b"#!/bin/sh\n").decode(), launch_index=2
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


# ---- the machine ----------------------------------------------------------------------------------------------------------------

CAPABILITIES = """
<capabilities><host><uuid>a</uuid><cpu><arch>x86_64</arch><model>EPYC</model><vendor>AMD</vendor>
<topology sockets='1' dies='1' cores='2' threads='1'/><feature name='avx2'/><feature name='aes'/></cpu></host></capabilities>
"""


def test_the_cpu_is_told_in_the_shape_of_the_api() -> None:
    cpu = cpu_of(CAPABILITIES)

    assert cpu == {
        "arch": "x86_64", "model": "EPYC", "vendor": "AMD", "topology": {"sockets": 1, "cores": 2, "threads": 1}, "features": ["aes", "avx2"],
    }  # fmt: skip
    assert {"HW_CPU_X86_AESNI", "HW_CPU_X86_AVX2"} <= set(traits_of(cpu, virt_type="kvm"))
    assert not [trait for trait in traits_of(cpu, virt_type="qemu") if trait.startswith("HW_")]


def test_every_trait_is_one_of_placements() -> None:
    os_traits = pytest.importorskip("os_traits")
    assert {*capabilities._ALWAYS, *capabilities._TRAITS.values()} <= set(os_traits.get_traits())


def test_memory_is_that_of_the_kernel() -> None:
    assert memory_mib_of("MemTotal:       24576000 kB\nMemFree: 1 kB\n") == 24000


@pytest.mark.parametrize(("flags", "virt_type"), [("fpu vmx sse", "kvm"), ("svm", "kvm"), ("fpu hypervisor", "qemu")])
def test_kvm_only_where_the_cpu_can(flags: str, virt_type: str) -> None:
    assert virt_type_of(f"processor\t: 0\nflags\t\t: {flags}\n") == virt_type


# ---- calls ----------------------------------------------------------------------------------------------------------------------


def test_a_call_gives_its_result_and_its_error() -> None:
    calls = Calls(2)

    assert calls.run("add", lambda: 1 + 1, deadline_s=5.0) == 2
    with pytest.raises(ZeroDivisionError):
        calls.run("divide", lambda: 1 // 0, deadline_s=5.0)


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
    calls, release, permit = Calls(1), threading.Event(), Permit(attempt=1, deadline_s=30.0)
    threading.Timer(0.1, permit.revoke, args=("not wanted",)).start()

    with pytest.raises(core.errors.Conflict, match="not wanted"):
        calls.run("hang", lambda: release.wait(30.0), deadline_s=30.0, permit=permit)
    release.set()


# ---- programs and files ---------------------------------------------------------------------------------------------------------


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(core.errors.Broken, match="ended with"):
        programs.run(["mkswap", "/nowhere/at/all"], Permit(attempt=1, deadline_s=10.0))
    with pytest.raises(core.errors.Invalid, match="not installed"):
        programs.run(["no-such-program"], Permit(attempt=1, deadline_s=10.0))
    with pytest.raises(core.errors.Invalid, match="no-such-program"):
        programs.require(["sh", "no-such-program"])


def test_a_program_ends_with_its_permit() -> None:
    began = time.monotonic()

    with pytest.raises(core.errors.Unavailable):
        programs.run(["sleep", "30"], Permit(attempt=1, deadline_s=0.2))

    assert time.monotonic() - began < 10.0


def test_a_home_is_told_from_what_else_lies_there(tmp_path: pathlib.Path) -> None:
    homes, server = Homes(tmp_path / "instances"), str(uuid.uuid4())
    homes.prepare()
    for name in ("lost+found", "images", f"{server}", f"{server}.x", f"{server}.1.bak"):
        (homes.path / name).mkdir()
    home = homes.of(server, 3)
    home.begin()

    assert homes.all() == homes.all(server) == [home]
    assert homes.all(str(uuid.uuid4())) == []
    assert home.is_building
    home.end()
    assert not home.is_building
    home.clear()
    home.clear()
    assert homes.all() == []


def test_a_long_console_log_is_set_aside_and_still_read(tmp_path: pathlib.Path) -> None:
    home = Homes(tmp_path).of(str(uuid.uuid4()), 1)
    home.begin()
    home.bound_console()
    with home.console_log.open("ab") as guest:
        guest.write(b"x" * 5 * MIB + b"before\n")
        guest.flush()

        home.bound_console()
        guest.write(b"after\n")

    assert home.read_console().endswith("x" * 100 + "before\nafter\n")
    assert sum(path.stat().st_size for path in home.path.iterdir()) < 2 * MIB


def test_a_console_log_is_read_from_its_end(tmp_path: pathlib.Path) -> None:
    homes, server = Homes(tmp_path), str(uuid.uuid4())
    home = homes.of(server, 1)
    home.begin()
    assert home.read_console() == ""

    home.console_log.write_bytes(b"x" * 2 * MIB + b"the \xff end")

    assert home.read_console().endswith("the � end")
    assert len(home.read_console()) <= MIB
