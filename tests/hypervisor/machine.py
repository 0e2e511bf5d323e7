"""A real libvirt for tests, and the bed that stands in it."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator

import msgspec

import core.config
import core.errors
from compute import libvirt
from compute.deadline import Deadline
from compute.libvirt import domains
from compute.libvirt.driver.hypervisor import LibvirtHypervisor
from devstack import guest_image, identity
from devstack.services.libvirt import NEEDED, LibvirtHost, end_guests, has_library
from devstack.waiting import wait_until
from objects.build import BuildSpec, Flavor, ImageRef

START_DEADLINE_S = 90.0
STOP_DEADLINE_S = 20.0
BOOT_DEADLINE_S = 150.0
DETACH_DEADLINE_S = 15.0
MEMORY_MIB = 96
SMALL_DISK_BYTES = 64 * 1024**2
MAX_ATTEMPT = 1000

# libvirt asks this before it runs a guest: the place where a test makes it slow, or fail.
_HOOK = """\
#!/bin/sh
[ "$2" = start ] || exit 0
turns=0
while [ "$(cat "${0%/*}/mode")" = slow ] && [ $turns -lt 600 ]; do turns=$((turns + 1)); sleep 0.1; done
[ "$(cat "${0%/*}/mode")" != fail ]
"""


def objection() -> str | None:
    """Why real guests cannot be had here, or None."""
    if os.geteuid() != 0:
        return "real guests need root: each host gets namespaces of its own"
    missing = [package for package, is_installed in NEEDED.items() if not is_installed()]
    if missing:
        return f"real guests need Debian's packages {', '.join(missing)}"
    if not has_library():
        return "real guests need libvirt-python"
    try:
        guest_image.ensure()
    except core.errors.CellplaneError as error:
        return error.message
    return None


class Machine:
    """One host whose libvirtd a test may kill and freeze."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.host = LibvirtHost("tested", directory / "libvirt")
        self._output = (directory / "output").open("ab")
        self._processes: list[subprocess.Popen[bytes]] = []
        self.daemon: subprocess.Popen[bytes] | None = None
        self.small_disk = directory / "small"
        """A file system of a few MiB, for tests that fill it."""

    def start(self) -> None:
        """Namespaces and libvirtd."""
        self.host.prepare()
        hooks = self.host.directory / "etc" / "hooks"
        hooks.mkdir(exist_ok=True)
        (hooks / "qemu").write_text(_HOOK)
        (hooks / "qemu").chmod(0o755)
        self.turn("normal")
        # Before the namespaces: they see it too.
        _make_small_disk(self.directory / "small.ext4", self.small_disk)
        self._spawn(self.host.namespaces_command())
        self.start_daemon()

    def start_daemon(self) -> None:
        """libvirtd, again after a test ended it."""
        self.daemon = self._spawn(self.host.daemon_command())
        driver = open_driver(self, self.directory / "none")
        with contextlib.closing(driver):
            wait_until(lambda: _answers(driver), what="libvirtd", deadline_s=START_DEADLINE_S, every_s=0.2)

    def kill_daemon(self) -> None:
        """As the kernel does when memory is short."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait(STOP_DEADLINE_S)

    def turn(self, mode: str) -> None:
        """normal, slow or fail: what becomes of guests that start."""
        (self.host.directory / "etc" / "hooks" / "mode").write_text(mode)

    def stop(self) -> None:
        """Everything that was started, guests too."""
        self.turn("normal")
        end_guests(self.directory.parent)
        for process in reversed(self._processes):
            process.kill()
            process.wait(STOP_DEADLINE_S)
        if self.small_disk.is_mount():
            subprocess.run(["umount", self.small_disk], check=True, timeout=STOP_DEADLINE_S)
        self._output.close()

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output, start_new_session=True
        )
        self._processes.append(process)
        return process


def _make_small_disk(file: pathlib.Path, mountpoint: pathlib.Path) -> None:
    with file.open("wb") as empty:
        empty.truncate(SMALL_DISK_BYTES)
    mountpoint.mkdir()
    for command in (["mkfs.ext4", "-q", "-F", "-m", "0", file], ["mount", "-o", "loop", file, mountpoint]):
        subprocess.run(command, check=True, timeout=STOP_DEADLINE_S)


@contextlib.contextmanager
def machine(directory: pathlib.Path) -> Iterator[Machine]:
    """One that runs inside the `with`."""
    made = Machine(directory)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def open_driver(
    machine: Machine, instances: pathlib.Path, *, changed: Callable[[], None] = lambda: None, **settings: object
) -> LibvirtHypervisor:
    """The driver of an agent on this machine."""
    return driver_at(machine.host.uri, machine.host.log_path, instances, changed=changed, **settings)


def driver_at(
    uri: str,
    log_path: pathlib.Path,
    instances: pathlib.Path,
    *,
    changed: Callable[[], None] = lambda: None,
    **settings: object,
) -> LibvirtHypervisor:
    """The driver of an agent on the machine with this libvirt."""
    conf = core.config.load("tests", [], [libvirt.OPTIONS])
    values = {
        "uri": uri,
        "log_path": str(log_path),
        "virt_type": "qemu",
        "shutdown_timeout_s": 0.3,
        "detach_timeout_s": DETACH_DEADLINE_S,
        **settings,
    }
    for name, value in values.items():
        conf.set_override(name, value, group="libvirt")
    driver = LibvirtHypervisor(conf.libvirt, instances)
    driver.open(changed)
    return driver


class LibvirtBed:
    """The bed of tests.hypervisor.conftest with real guests."""

    console_kinds = ("vnc", "serial")

    def __init__(self, machine: Machine, instances: pathlib.Path) -> None:
        self._machine = machine
        self._instances = instances
        self.hypervisor = open_driver(machine, instances)

    def restart(self) -> None:
        self.hypervisor = open_driver(self._machine, self._instances)

    def spec(self) -> BuildSpec:
        name = f"guest-{uuid.uuid4().hex[:6]}"
        flavor = Flavor(flavor_id="1", name="tiny", vcpus=1, memory_mib=MEMORY_MIB, root_gib=1, swap_mib=1)
        image = ImageRef(image_id=str(uuid.uuid4()), disk_format="qcow2")
        return BuildSpec(
            uuid=str(uuid.uuid4()), project_id="p", user_id="u", name=name, hostname=name, flavor=flavor, image=image
        )

    def image(self, spec: BuildSpec) -> pathlib.Path:
        return guest_image.ensure()

    def remains(self, uuid: str) -> list[str]:
        files = [
            path
            for directory in (self._instances, self._machine.host.directory)
            for path in directory.rglob(f"*{uuid}*")
        ]
        return [str(path) for path in files] + [f"process {process.pid}" for process in qemu_processes(uuid)]

    def wait_until_up(self, uuid: str) -> None:
        wait_until(
            lambda: "GUEST-READY" in self.hypervisor.consoles.log(uuid),
            what="ready line",
            deadline_s=BOOT_DEADLINE_S,
            every_s=0.3,
        )

    def attached(self, uuid: str) -> set[str]:
        libvirt = self.hypervisor.context.libvirt
        kept, now = (_attached_in(domains.document(libvirt, uuid, live=live)) for live in (False, True))
        assert kept == now, "the guest that runs has other devices than it will have after a start"
        return kept

    def slow_down(self) -> None:
        self._machine.turn("slow")

    def fail_spawns(self) -> None:
        self._machine.turn("fail")

    def recover(self) -> None:
        self._machine.turn("normal")

    def crash(self, uuid: str) -> None:
        (process,) = qemu_processes(uuid)
        identity.send(process, signal.SIGKILL)
        wait_until(lambda: not qemu_processes(uuid), what="end of the guest's process", deadline_s=STOP_DEADLINE_S)

    @contextlib.contextmanager
    def another_agent(self, work: str, spec: BuildSpec) -> Iterator[subprocess.Popen[bytes]]:
        """A process that spawns or destroys the server as an agent does, to be killed."""
        directory = self._machine.directory / f"agent-{uuid.uuid4()}.json"
        directory.write_bytes(msgspec.json.encode(spec))
        arguments = [
            work,
            str(directory),
            self._machine.host.uri,
            str(self._machine.host.log_path),
            str(self._instances),
            str(self.image(spec)),
        ]
        command = [sys.executable, "-m", "tests.hypervisor.agent_process", *arguments]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            try:
                # From here on it takes no longer than its work.
                assert process.stdout.readline() == b"ready\n"
                process.stdin.write(b"go\n")
                process.stdin.flush()
                yield process
            finally:
                process.kill()

    def clear(self) -> None:
        """Leaves nothing for the next test."""
        self.recover()
        self.hypervisor.close()
        driver = open_driver(self._machine, self._instances)
        with contextlib.closing(driver):
            for uuid_ in {path.name.partition(".")[0] for path in self._instances.iterdir()}:
                wait_until(
                    lambda uuid_=uuid_: _is_destroyed(driver, uuid_),
                    what=f"end of {uuid_}",
                    deadline_s=START_DEADLINE_S,
                )


def _attached_in(document: str) -> set[str]:
    devices = ET.fromstring(document)
    macs = (mac.get("address") for mac in devices.iterfind("devices/interface/mac"))
    return {name for name in (*(serial.text for serial in devices.iterfind("devices/disk/serial")), *macs) if name}


def qemu_processes(uuid: str) -> list[identity.Process]:
    """The server's QEMU, if it runs."""
    processes = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"guest=cellplane-{uuid}".encode() in (entry / "cmdline").read_bytes():
                processes.append(identity.process_of(int(entry.name)))
    return [process for process in processes if process is not None]


def _answers(driver: LibvirtHypervisor) -> bool:
    try:
        driver.guests.all()
    except core.errors.Unavailable:
        return False
    return True


def _is_destroyed(driver: LibvirtHypervisor, uuid_: str) -> bool:
    try:
        driver.guests.destroy(uuid_, MAX_ATTEMPT, deadline=Deadline(attempt=1, deadline_s=START_DEADLINE_S))
    except core.errors.Unavailable:
        return False
    return driver.guests.get(uuid_) is None
