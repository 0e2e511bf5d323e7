"""What only real guests can show: what they do when they are asked, and what the driver does when libvirt dies or
freezes."""

import base64
import contextlib
import logging
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator

import msgspec
import pytest

import core.errors
from compute.deadline import Deadline
from compute.hypervisor.devices import DiskToAttach, NetworkSource
from compute.libvirt import backup_jobs, domains, guest_agent
from compute.libvirt.domain_xml_edits import disk_names, machine_of
from compute.libvirt.driver.hypervisor import LibvirtHypervisor
from compute.libvirt.image_format import inspect
from compute.libvirt.instance_dirs import InstanceDirectories
from compute.libvirt.snapshots import backup_xml
from devstack import identity
from devstack.waiting import wait_until
from lifecycle import states
from objects.build import BuildSpec
from tests.hypervisor.contract.steps import new_disk, new_nic
from tests.hypervisor.machine import BOOT_DEADLINE_S, LibvirtBed, Machine, driver_at, open_driver, qemu_processes
from tests.hypervisor.test_libvirt_documents import DESCRIPTIONS, SERVER

pytestmark = pytest.mark.libvirt

ACT_DEADLINE_S = 240.0
SOON_S = 30.0
LISTEN_S = 3.0
READY = re.compile(r"GUEST-READY (.*)")


@pytest.fixture
def libvirt_bed(libvirt_machine: Machine, tmp_path: pathlib.Path) -> Iterator[LibvirtBed]:
    made = LibvirtBed(libvirt_machine, tmp_path / "instances")
    try:
        yield made
    finally:
        made.clear()


def deadline(deadline_s: float = ACT_DEADLINE_S) -> Deadline:
    return Deadline(attempt=1, deadline_s=deadline_s)


def spawn(bed: LibvirtBed, spec: BuildSpec, driver: LibvirtHypervisor | None = None) -> None:
    (driver or bed.hypervisor).guests.spawn(spec, 1, image=bed.image(spec), deadline=deadline())


def ready_lines(driver: LibvirtHypervisor, uuid: str) -> list[dict[str, str]]:
    """What the guest said each time it was ready, oldest first."""
    lines = READY.findall(driver.consoles.log(uuid))
    return [dict(field.split("=", 1) for field in line.split()) for line in lines]


def wait_for_boot(driver: LibvirtHypervisor, uuid: str, boots: int) -> dict[str, str]:
    wait_until(
        lambda: len(ready_lines(driver, uuid)) >= boots,
        what=f"ready line {boots}",
        deadline_s=BOOT_DEADLINE_S,
        every_s=0.3,
    )
    return ready_lines(driver, uuid)[-1]


def test_one_guest_through_its_life(
    libvirt_machine: Machine, libvirt_bed: LibvirtBed, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One boot takes long without KVM: all that a patient guest does is asked of this one, in a row."""
    caplog.set_level(logging.INFO)
    changed = threading.Event()
    driver = open_driver(libvirt_machine, tmp_path / "instances", changed=changed.set, shutdown_timeout_s=90.0)
    spec = libvirt_bed.spec()
    spec = msgspec.structs.replace(
        spec,
        flavor=msgspec.structs.replace(spec.flavor, ephemeral_gib=1),
        image=msgspec.structs.replace(spec.image, properties={"hw_qemu_guest_agent": "yes", "hw_machine_type": "q35"}),
        metadata={"role": "web"},
        key_name="mine",
        public_key="ssh-ed25519 AAAAC3Nz me",
        user_data=base64.b64encode(
            b"#!/bin/sh\necho USER-DATA $(cat /root/.ssh/authorized_keys) > /dev/ttyS0\n"
        ).decode(),
    )

    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(driver))
        spawn(libvirt_bed, spec, driver)
        ready = wait_for_boot(driver, spec.uuid, 1)
        assert (ready["uuid"], ready["hostname"], ready["source"], ready["boot"]) == (
            spec.uuid,
            spec.hostname,
            "configdrive",
            "1",
        )
        sizes = dict(disk.split(":") for disk in ready["disks"].split(","))
        assert {name: int(size) for name, size in sizes.items() if name != "sr0"} == {
            "vda": 2**30,
            "vdb": 2**30,
            "vdc": 2**20,
        }
        assert "USER-DATA ssh-ed25519 AAAAC3Nz" in driver.consoles.log(spec.uuid)

        driver.operating_system.set_password(spec.uuid, user="root", password="secret", deadline=deadline())
        wait_until(
            lambda: "GUEST-EVENT password-set user=root" in driver.consoles.log(spec.uuid),
            what="new password",
            deadline_s=SOON_S,
        )
        driver.snapshots.take(spec.uuid, target=tmp_path / "snapshot", deadline=deadline())
        assert "guest's agent failed" not in caplog.text, "the snapshot was not quiet"
        begin_and_forget_a_snapshot(driver, tmp_path / "instances", spec)

        driver = open_driver(libvirt_machine, tmp_path / "instances", changed=changed.set, shutdown_timeout_s=90.0)
        stack.enter_context(contextlib.closing(driver))
        assert [guest.power_state for guest in driver.guests.all()] == [states.RUNNING]
        assert list((tmp_path / "instances" / f"{spec.uuid}.1").glob("snapshot*")) == []
        driver.snapshots.take(spec.uuid, target=tmp_path / "snapshot", deadline=deadline())
        assert "guest's agent failed" not in caplog.text, "the next agent left the guest's file systems frozen"

        disk, nic = new_disk(tmp_path / "volume"), new_nic()
        driver.devices.attach_disk(spec.uuid, disk, deadline=deadline())
        driver.devices.attach_nic(spec.uuid, nic, deadline=deadline())
        for event in (f"disk-add vdd bytes={4 * 1024**2} serial={disk.volume_id[:20]}", "nic-add"):
            wait_until(
                lambda event=event: f"GUEST-EVENT {event}" in driver.consoles.log(spec.uuid),
                what=event,
                deadline_s=SOON_S,
            )
        driver.devices.detach_disk(spec.uuid, disk.volume_id, deadline=deadline())
        driver.devices.detach_nic(spec.uuid, nic.mac, deadline=deadline())
        for event in ("disk-remove vdd", "nic-remove"):
            wait_until(
                lambda event=event: f"GUEST-EVENT {event}" in driver.consoles.log(spec.uuid),
                what=event,
                deadline_s=SOON_S,
            )
        with nbd_server(tmp_path) as source:
            remote = DiskToAttach(volume_id=f"remote-{spec.uuid}", source=source)
            driver.devices.attach_disk(spec.uuid, remote, deadline=deadline())
            event = f"disk-add vdd bytes={4 * 1024**2} serial={remote.volume_id[:20]}"
            wait_until(lambda: f"GUEST-EVENT {event}" in driver.consoles.log(spec.uuid), what=event, deadline_s=SOON_S)
            driver.devices.detach_disk(spec.uuid, remote.volume_id, deadline=deadline())

        (before,) = qemu_processes(spec.uuid)
        driver.power.reboot(spec.uuid, hard=False, deadline=deadline())
        assert wait_for_boot(driver, spec.uuid, 2)["boot"] == "2"
        assert qemu_processes(spec.uuid) == [before], "the guest did not shut itself down and was cut off"

        assert driver.power.suspend(spec.uuid, deadline=deadline()).power_state == states.SHUTDOWN
        assert qemu_processes(spec.uuid) == []
        assert driver.power.resume(spec.uuid, deadline=deadline()).power_state == states.RUNNING

        assert driver.power.stop(spec.uuid, deadline=deadline()).power_state == states.SHUTDOWN
        assert driver.consoles.log(spec.uuid).count("GUEST-DOWN") == 2, "it was not the guest that shut down"
        assert len(ready_lines(driver, spec.uuid)) == 2, "it did not go on from where it was suspended"

        driver.power.start(spec.uuid, deadline=deadline())
        assert wait_for_boot(driver, spec.uuid, 3)["boot"] == "3"
        changed.clear()
        libvirt_bed.crash(spec.uuid)
        assert changed.wait(SOON_S), "the end of the guest was not told"
        assert driver.guests.get(spec.uuid).power_state == states.CRASHED

        driver.guests.destroy(spec.uuid, 1, deadline=deadline())
        assert libvirt_bed.remains(spec.uuid) == []


@contextlib.contextmanager
def nbd_server(directory: pathlib.Path) -> Iterator[NetworkSource]:
    """A disk of 4 MiB that QEMU reads from another process."""
    volume, path = directory / "remote", directory / "nbd"
    volume.write_bytes(bytes(4 * 1024**2))
    with subprocess.Popen(["qemu-nbd", "-f", "raw", "-x", "one", "-k", path, "-t", volume]) as server:
        try:
            wait_until(path.exists, what="NBD server", deadline_s=SOON_S)
            yield NetworkSource(protocol="nbd", name="one", socket=path)
        finally:
            server.terminate()


def begin_and_forget_a_snapshot(driver: LibvirtHypervisor, instances: pathlib.Path, spec: BuildSpec) -> None:
    """What an agent leaves that is killed in the middle of one."""
    directory = InstanceDirectories(instances).of(spec.uuid, 1)
    directory.snapshot_mark.touch()
    directory.frozen_mark.touch()
    assert guest_agent.freeze_file_systems(driver.context.libvirt, spec.uuid, deadline())
    names = disk_names(domains.document(driver.context.libvirt, spec.uuid, live=True))
    backup_jobs.begin_backup(driver.context.libvirt, spec.uuid, backup_xml(names, directory.snapshot_disk), deadline())


def test_a_snapshot_whose_agent_is_killed_leaves_a_guest_that_runs(
    libvirt_bed: LibvirtBed, tmp_path: pathlib.Path
) -> None:
    spec = libvirt_bed.spec()
    spawn(libvirt_bed, spec)

    for delay_s in (0.02, 0.1, 0.3):
        with libvirt_bed.another_agent("snapshot", spec) as agent:
            with contextlib.suppress(subprocess.TimeoutExpired):
                agent.wait(delay_s)
            agent.kill()
        assert libvirt_bed.hypervisor.guests.get(spec.uuid).power_state == states.RUNNING
    libvirt_bed.restart()
    assert [guest.power_state for guest in libvirt_bed.hypervisor.guests.all()] == [states.RUNNING]
    libvirt_bed.hypervisor.snapshots.take(spec.uuid, target=tmp_path / "snapshot", deadline=deadline())

    assert inspect(tmp_path / "snapshot", said="qcow2").virtual_bytes == 2**30
    assert list((tmp_path / "instances" / f"{spec.uuid}.1").glob("snapshot*")) == []
    assert libvirt_bed.hypervisor.guests.get(spec.uuid).power_state == states.RUNNING


@pytest.fixture
def small_disk(libvirt_machine: Machine) -> Iterator[pathlib.Path]:
    """A directory on a file system of a few MiB."""
    if not libvirt_machine.small_disk.is_mount():
        pytest.skip("no file system can be mounted from a file here")
    yield libvirt_machine.small_disk
    for path in libvirt_machine.small_disk.glob("fill*"):
        path.unlink()


def fill(directory: pathlib.Path, *, but_bytes: int) -> pathlib.Path:
    """Takes all of the file system but this."""
    status = os.statvfs(directory)
    path = directory / "filling"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - but_bytes)
    return path


def test_a_host_whose_disk_is_full_refuses_builds_and_goes_on_when_there_is_room(
    libvirt_machine: Machine, small_disk: pathlib.Path
) -> None:
    bed = LibvirtBed(libvirt_machine, small_disk / "instances")
    try:
        spec = bed.spec()
        filling = fill(small_disk, but_bytes=256 * 1024)

        with pytest.raises(core.errors.Unavailable, match="disk"):
            spawn(bed, spec)
        bed.hypervisor.guests.destroy(spec.uuid, 1, deadline=deadline())
        assert bed.remains(spec.uuid) == []
        assert bed.hypervisor.guests.all() == []

        filling.unlink()
        spawn(bed, spec)
        assert [guest.power_state for guest in bed.hypervisor.guests.all()] == [states.RUNNING]
    finally:
        bed.clear()


def test_a_terminal_on_a_guest_whose_disk_cannot_grow(
    libvirt_machine: Machine, small_disk: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its consoles are sockets that can be talked to; a guest that fills the host's disk is paused, noticed, and goes
    on."""
    changed = threading.Event()
    bed = LibvirtBed(libvirt_machine, small_disk / "instances")
    driver = open_driver(
        libvirt_machine, small_disk / "instances", changed=changed.set, console_path=str(small_disk / "c")
    )
    try:
        spec = bed.spec()
        spawn(bed, spec, driver)
        wait_for_boot(driver, spec.uuid, 1)
        by_kind = {address.kind: address for address in driver.consoles.addresses(spec.uuid)}
        with connected(by_kind["vnc"].path) as screen:
            assert screen.recv(12).startswith(b"RFB 003")
        with connected(by_kind["serial"].path) as terminal:
            ask(terminal, "echo TERMINAL-$((6 * 7))", b"TERMINAL-42")
            wait_until(
                lambda: "TERMINAL-42" in driver.consoles.log(spec.uuid), what="log of what was said", deadline_s=SOON_S
            )

            filling = fill(small_disk, but_bytes=1024**2)
            changed.clear()
            tell(terminal, "dd if=/dev/urandom of=/persist/much bs=64k count=160; sync")
            wait_until(
                lambda: driver.guests.get(spec.uuid).power_state == states.POWER_PAUSED,
                what="pause of the guest",
                deadline_s=ACT_DEADLINE_S,
            )
            assert changed.is_set()
            assert "cannot write its disk" in caplog.text
            filling.unlink()
            assert driver.power.unpause(spec.uuid, deadline=deadline()).power_state == states.RUNNING
            ask(terminal, "echo STILL-$((6 * 7))", b"STILL-42")
        driver.guests.destroy(spec.uuid, 1, deadline=deadline())
        assert list((small_disk / "c").iterdir()) == []
    finally:
        driver.close()
        bed.clear()


def connected(path: pathlib.Path | None) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(SOON_S)
    made.connect(str(path))
    return made


def tell(terminal: socket.socket, line: str) -> None:
    terminal.sendall(f"\n{line}\n".encode())


def ask(terminal: socket.socket, line: str, answer: bytes) -> None:
    """Types the line until its answer is heard: a shell that just starts throws away what was typed before."""
    heard = b""

    def is_answered() -> bool:
        nonlocal heard
        tell(terminal, line)
        with contextlib.suppress(TimeoutError):
            while answer not in heard:
                piece = terminal.recv(4096)
                assert piece, "the terminal was closed"
                heard += piece
        return answer in heard

    terminal.settimeout(LISTEN_S)
    wait_until(is_answered, what="answer of the guest's shell", deadline_s=ACT_DEADLINE_S)


def test_a_guest_keeps_its_machine_when_the_hosts_default_becomes_another(
    libvirt_machine: Machine, libvirt_bed: LibvirtBed, tmp_path: pathlib.Path
) -> None:
    spec = libvirt_bed.spec()
    spawn(libvirt_bed, spec)
    before = machine_of(domains.document(libvirt_bed.hypervisor.context.libvirt, spec.uuid))
    assert str(before).startswith("pc-i440fx-")

    host = libvirt_machine.host
    with contextlib.closing(driver_at(host.uri, host.log_path, tmp_path / "instances", machine="q35")) as driver:
        driver.disks.rebuild(spec, image=libvirt_bed.image(spec), deadline=deadline())

        assert machine_of(domains.document(driver.context.libvirt, spec.uuid)) == before
        assert domains.find(driver.context.libvirt, spec.uuid).identity.machine == before


def with_extra_specs(spec: BuildSpec, **extra_specs: str) -> BuildSpec:
    return msgspec.structs.replace(
        spec,
        flavor=msgspec.structs.replace(
            spec.flavor, extra_specs={f"hw:{name}": value for name, value in extra_specs.items()}
        ),
    )


def test_dedicated_cpus_are_one_guests_alone(
    libvirt_machine: Machine, libvirt_bed: LibvirtBed, tmp_path: pathlib.Path
) -> None:
    first, second = (with_extra_specs(libvirt_bed.spec(), cpu_policy="dedicated", numa_nodes="1") for _ in range(2))
    last_cpu = max(os.sched_getaffinity(0))
    with contextlib.closing(
        open_driver(libvirt_machine, tmp_path / "instances", cpu_dedicated_set=str(last_cpu))
    ) as driver:
        spawn(libvirt_bed, first, driver)
        with pytest.raises(core.errors.Conflict, match="dedicated cpus"):
            spawn(libvirt_bed, second, driver)
        assert cpus_of_threads(first.uuid) == {str(last_cpu)}
        driver.disks.rebuild(first, image=libvirt_bed.image(first), deadline=deadline())
        assert cpus_of_threads(first.uuid) == {str(last_cpu)}

        driver.guests.destroy(first.uuid, 1, deadline=deadline())
        driver.guests.destroy(second.uuid, 1, deadline=deadline())
        spawn(libvirt_bed, second, driver)
    with pytest.raises(core.errors.Invalid, match="cpu_dedicated_set"):
        spawn(libvirt_bed, with_extra_specs(libvirt_bed.spec(), cpu_policy="dedicated"))


def cpus_of_threads(uuid: str) -> set[str]:
    """Where the CPUs of the guest may run."""
    (process,) = qemu_processes(uuid)
    cpus = set()
    for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
        if (task / "comm").read_text().startswith("CPU "):
            cpus.add(re.search(r"Cpus_allowed_list:\t(.*)", (task / "status").read_text())[1])
    return cpus


@pytest.mark.parametrize(
    ("extra_specs", "properties", "field"),
    [
        ({"tpm_version": "2.0"}, {}, "hw:tpm_version"),
        ({}, {"hw_firmware_type": "uefi"}, "hw_firmware_type"),
        ({"mem_page_size": "1GB"}, {}, "hw:mem_page_size"),
    ],
)
def test_what_a_host_may_lack_is_there_or_is_refused_by_name(
    libvirt_bed: LibvirtBed, extra_specs: dict[str, str], properties: dict[str, str], field: str
) -> None:
    spec = with_extra_specs(libvirt_bed.spec(), **extra_specs)
    spec = msgspec.structs.replace(spec, image=msgspec.structs.replace(spec.image, properties=properties))
    can = libvirt_bed.hypervisor.context.facts.abilities(libvirt_bed.hypervisor.context.libvirt, "pc")
    is_there = {
        "hw:tpm_version": bool(can.tpm_versions),
        "hw_firmware_type": can.has_uefi,
        "hw:mem_page_size": 1024**2 in can.page_sizes,
    }[field]

    if is_there:
        spawn(libvirt_bed, spec)
        assert [guest.power_state for guest in libvirt_bed.hypervisor.guests.all()] == [states.RUNNING]
    else:
        with pytest.raises(core.errors.Invalid) as caught:
            spawn(libvirt_bed, spec)
        assert caught.value.fields["field"] == field
    libvirt_bed.hypervisor.guests.destroy(spec.uuid, 1, deadline=deadline())
    assert libvirt_bed.remains(spec.uuid) == []


def test_one_guest_is_saved_rescued_and_rebuilt(libvirt_bed: LibvirtBed, tmp_path: pathlib.Path) -> None:
    """The guest counts its boots on its own disk: what it counts tells which disk it runs from."""
    driver, spec, snapshot = libvirt_bed.hypervisor, libvirt_bed.spec(), tmp_path / "snapshot"
    image = libvirt_bed.image(spec)
    spawn(libvirt_bed, spec)
    wait_for_boot(driver, spec.uuid, 1)
    with pytest.raises(core.errors.Conflict):
        driver.operating_system.set_password(spec.uuid, user="root", password="secret", deadline=deadline())
    driver.snapshots.take(spec.uuid, target=snapshot, deadline=deadline())

    driver.disks.rescue(spec.uuid, image=image, disk_format="qcow2", deadline=deadline())
    disks = wait_for_boot(driver, spec.uuid, 2)["disks"].split(",")
    image_bytes = inspect(image, said="qcow2").virtual_bytes
    assert disks[:3] == [f"vda:{image_bytes}", f"vdb:{2**20}", f"vdc:{2**30}"]

    driver.disks.unrescue(spec.uuid, deadline=deadline())
    ready = wait_for_boot(driver, spec.uuid, 3)
    assert ready["disks"].split(",")[:2] == [f"vda:{2**30}", f"vdb:{2**20}"]
    assert int(ready["boot"]) >= 2, "it does not run from its own disk again"

    driver.disks.rescue(spec.uuid, image=image, disk_format="qcow2", deadline=deadline())
    driver.power.reboot(spec.uuid, hard=True, deadline=deadline())
    ready = wait_for_boot(driver, spec.uuid, 4)
    assert int(ready["boot"]) >= 3, "a hard reboot does not end the rescue"

    driver.disks.rebuild(spec, image=snapshot, deadline=deadline())
    assert wait_for_boot(driver, spec.uuid, 5)["boot"] == "2", "it does not run from the snapshot"
    driver.disks.rebuild(spec, image=image, deadline=deadline())
    assert wait_for_boot(driver, spec.uuid, 6)["boot"] == "1", "it does not run from the image"


def test_a_killed_libvirtd_is_away_and_back_with_its_guests(libvirt_machine: Machine, libvirt_bed: LibvirtBed) -> None:
    spec = libvirt_bed.spec()
    spawn(libvirt_bed, spec)
    (guest,) = libvirt_bed.hypervisor.guests.all()

    libvirt_machine.kill_daemon()
    with pytest.raises(core.errors.Unavailable):
        libvirt_bed.hypervisor.guests.all()
    with pytest.raises(core.errors.Unavailable):
        libvirt_bed.hypervisor.guests.destroy(spec.uuid, 1, deadline=deadline(5.0))
    assert len(qemu_processes(spec.uuid)) == 1
    libvirt_machine.start_daemon()

    assert libvirt_bed.hypervisor.guests.all() == [guest]
    assert libvirt_bed.hypervisor.power.pause(spec.uuid, deadline=deadline()).power_state == states.POWER_PAUSED


def test_a_frozen_libvirtd_keeps_no_call(
    libvirt_machine: Machine, libvirt_bed: LibvirtBed, tmp_path: pathlib.Path
) -> None:
    driver = open_driver(libvirt_machine, tmp_path / "instances", call_deadline_s=1.0)
    with contextlib.closing(driver):
        assert driver.guests.all() == []
        assert libvirt_machine.daemon is not None
        libvirt_machine.daemon.send_signal(signal.SIGSTOP)
        try:
            for _ in range(3):
                with pytest.raises(core.errors.Unavailable):
                    driver.guests.all()
        finally:
            libvirt_machine.daemon.send_signal(signal.SIGCONT)

        def answers() -> bool:
            try:
                return driver.guests.all() == []
            except core.errors.Unavailable:
                return False

        wait_until(answers, what="answer of the thawed libvirtd", deadline_s=SOON_S)


def test_a_frozen_guest_keeps_no_call_and_can_be_destroyed(libvirt_bed: LibvirtBed) -> None:
    frozen, other = libvirt_bed.spec(), libvirt_bed.spec()
    spawn(libvirt_bed, frozen)
    (process,) = qemu_processes(frozen.uuid)
    identity.send(process, signal.SIGSTOP)

    with pytest.raises(core.errors.Unavailable):
        libvirt_bed.hypervisor.power.suspend(frozen.uuid, deadline=deadline(1.0))
    assert [guest.uuid for guest in libvirt_bed.hypervisor.guests.all()] == [frozen.uuid]
    spawn(libvirt_bed, other)
    libvirt_bed.hypervisor.guests.destroy(frozen.uuid, 1, deadline=deadline())

    assert [guest.uuid for guest in libvirt_bed.hypervisor.guests.all()] == [other.uuid]
    assert libvirt_bed.remains(frozen.uuid) == []


def test_an_agent_that_died_while_it_built_leaves_nothing(libvirt_bed: LibvirtBed, tmp_path: pathlib.Path) -> None:
    spec, other = libvirt_bed.spec(), libvirt_bed.spec()
    spawn(libvirt_bed, other)
    begun = tmp_path / "instances" / f"{spec.uuid}.1"
    begun.mkdir()
    (begun / "building").touch()
    (begun / "disk.qcow2").write_bytes(b"half")

    libvirt_bed.restart()

    assert [guest.uuid for guest in libvirt_bed.hypervisor.guests.all()] == [other.uuid]
    assert libvirt_bed.remains(spec.uuid) == []


def test_a_guest_that_was_defined_and_never_started_is_built_afresh(
    libvirt_machine: Machine, libvirt_bed: LibvirtBed
) -> None:
    spec = libvirt_bed.spec()
    libvirt_machine.turn("fail")
    with pytest.raises(core.errors.Broken):
        spawn(libvirt_bed, spec)
    assert libvirt_bed.hypervisor.guests.get(spec.uuid) is None, "a guest that is not whole was shown"
    libvirt_machine.turn("normal")

    libvirt_bed.restart()
    spawn(libvirt_bed, spec)

    assert [guest.power_state for guest in libvirt_bed.hypervisor.guests.all()] == [states.RUNNING]


def test_an_agent_killed_while_its_guest_starts(libvirt_machine: Machine, libvirt_bed: LibvirtBed) -> None:
    """libvirt goes on with what it was asked for; the next agent must end up with one guest, or with none."""
    spec = libvirt_bed.spec()
    libvirt_machine.turn("slow")
    with libvirt_bed.another_agent("spawn", spec) as agent:
        log = libvirt_machine.host.log_path / f"cellplane-{spec.uuid}.log"
        wait_until(
            lambda: log.exists() or f"hooks/qemu cellplane-{spec.uuid} start" in commands(),
            what="start of the guest",
            deadline_s=SOON_S,
        )
        agent.kill()
    libvirt_bed.restart()
    libvirt_machine.turn("normal")

    wait_until(lambda: is_spawned(libvirt_bed, spec), what="guest of the next agent", deadline_s=SOON_S)

    assert [guest.uuid for guest in libvirt_bed.hypervisor.guests.all()] == [spec.uuid]
    assert len(qemu_processes(spec.uuid)) == 1
    libvirt_bed.hypervisor.guests.destroy(spec.uuid, 1, deadline=deadline())
    assert libvirt_bed.remains(spec.uuid) == []


def test_an_agent_killed_at_any_moment_of_a_spawn_or_a_destroy(libvirt_bed: LibvirtBed) -> None:
    spec = libvirt_bed.spec()
    for work in ("spawn", "destroy"):
        for delay_s in (0.02, 0.1, 0.3):
            with libvirt_bed.another_agent(work, spec) as agent:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    agent.wait(delay_s)
                agent.kill()
        libvirt_bed.restart()
        if work == "spawn":
            wait_until(lambda: is_spawned(libvirt_bed, spec), what="guest of the next agent", deadline_s=SOON_S)
            assert len(qemu_processes(spec.uuid)) == 1
        else:
            libvirt_bed.hypervisor.guests.destroy(spec.uuid, 1, deadline=deadline())
            assert libvirt_bed.hypervisor.guests.all() == []
            assert libvirt_bed.remains(spec.uuid) == []


def test_a_libvirtd_killed_while_a_guest_starts(libvirt_machine: Machine, libvirt_bed: LibvirtBed) -> None:
    spec = libvirt_bed.spec()
    libvirt_machine.turn("slow")
    raised: list[type[BaseException]] = []

    def build() -> None:
        try:
            spawn(libvirt_bed, spec)
        except core.errors.CellplaneError as error:
            raised.append(type(error))

    builder = threading.Thread(target=build)
    builder.start()
    wait_until(
        lambda: f"hooks/qemu cellplane-{spec.uuid} start" in commands(), what="start of the guest", deadline_s=SOON_S
    )
    libvirt_machine.kill_daemon()
    builder.join(SOON_S)
    assert raised == [core.errors.Unavailable]
    libvirt_machine.turn("normal")
    libvirt_machine.start_daemon()

    assert libvirt_bed.hypervisor.guests.all() == [], "a guest that is not whole was shown"
    wait_until(lambda: is_spawned(libvirt_bed, spec), what="guest of the next try", deadline_s=SOON_S)
    assert len(qemu_processes(spec.uuid)) == 1


def is_spawned(bed: LibvirtBed, spec: BuildSpec) -> bool:
    try:
        spawn(bed, spec)
    except core.errors.Unavailable:
        return False
    return True


def commands() -> str:
    """The command lines of all processes, one to a line."""
    lines = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                lines.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(lines)


@pytest.mark.parametrize("lie", ["backing file", "not qcow2", "too large"])
def test_an_image_that_lies_makes_no_guest(libvirt_bed: LibvirtBed, tmp_path: pathlib.Path, lie: str) -> None:
    spec, image = libvirt_bed.spec(), tmp_path / "image"
    head = {
        "backing file": struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 104, 11, 16, 2**25),
        "not qcow2": b"MZ",
        "too large": struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 0, 0, 16, 2**31),
    }[lie]
    image.write_bytes(head + bytes(1024))

    with pytest.raises(core.errors.Invalid):
        libvirt_bed.hypervisor.guests.spawn(spec, 1, image=image, deadline=deadline())

    assert libvirt_bed.remains(spec.uuid) == []


def test_libvirt_takes_every_kind_of_document(libvirt_bed: LibvirtBed) -> None:
    """Those too that ask for what this host lacks are as libvirt wants them: that is all it finds wrong."""
    libvirt = libvirt_bed.hypervisor.context.libvirt
    can = libvirt_bed.hypervisor.context.facts.abilities(libvirt, "q35")
    for name, description in DESCRIPTIONS.items():
        if description.virt_type != "qemu":
            continue
        document = (pathlib.Path(__file__).parent / "documents" / f"{name}.xml").read_text()
        lacks = (description.hardware.tpm and not can.tpm_versions) or (
            description.hardware.has_uefi and not can.has_uefi
        )
        if lacks:
            with pytest.raises(core.errors.Invalid):
                domains.define(libvirt, SERVER, document, deadline())
            continue
        domains.define(libvirt, SERVER, document, deadline())
        seen = domains.find(libvirt, SERVER)
        assert seen is not None and seen.identity == description.identity, name
        domains.undefine(libvirt, SERVER, deadline())


def test_without_its_programs_the_driver_does_not_open(
    libvirt_machine: Machine, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)

    with pytest.raises(core.errors.Invalid, match="qemu-img"):
        open_driver(libvirt_machine, tmp_path)
