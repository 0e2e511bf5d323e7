"""Hosts with real guests: for each a libvirtd in namespaces of its own, so that several fit on one machine. Needs
root."""

import contextlib
import importlib.util
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from core import errors
from devstack import identity, pins
from devstack.accounts import write_private
from devstack.layout import FULL, Shape, State

SCRIPT = Path(__file__).with_name("libvirt_host.sh")
DRIVER = "libvirt"
LIBRARY = "libvirt-python"
MIB, GIB = 1024**2, 1024**3
GUESTS_END_S = 10.0
LONGEST_SOCKET_PATH = 107
"""sun_path of unix(7), less its closing zero."""
PIP_DEADLINE_S = 300.0
_SOCKET = "libvirt-sock"
_LONGEST_CONSOLE = f"{uuid.UUID(int=0)}.serial"
_QEMU = "qemu-system-"

_LIBVIRTD = """\
host_uuid = "{uuid}"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_rw_perms = "0700"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""

# Without virtlogd QEMU writes the console's log itself; the mount namespaces that libvirt would make for each guest
# can't hold ours.
_QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
namespaces = []
vnc_listen = "127.0.0.1"
"""


def _has(*programs: str) -> Callable[[], bool]:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return lambda: all(shutil.which(program, path=path) for program in programs)


NEEDED: Mapping[str, Callable[[], bool]] = {
    "libvirt-daemon-system": _has("libvirtd"),
    "qemu-system-x86": _has("qemu-system-x86_64"),
    "qemu-utils": _has("qemu-img"),
    "genisoimage": _has("genisoimage"),
    "iproute2": _has("ip"),
}
"""Debian's packages, and whether what is needed of them is there."""

NEEDED_TO_BUILD: Mapping[str, Callable[[], bool]] = {
    "libvirt-dev": lambda: Path("/usr/include/libvirt/libvirt.h").exists(),
    "pkg-config": _has("pkg-config"),
    "gcc": _has("gcc"),
    "python3-dev": lambda: any(Path("/usr/include").glob("python3*/Python.h")),
}
"""What libvirt-python is made with where it is not installed yet."""


def has_library() -> bool:
    """Whether libvirt-python is installed."""
    return importlib.util.find_spec("libvirt") is not None


def require(shape: Shape) -> None:
    """Returns when real guests can be had once the packages are there.

    Raises:
        Unavailable: they cannot; the message says why.
    """
    if shape.profile != FULL:
        raise errors.Unavailable("real guests need --profile full: each host's libvirtd is a process of its own")
    if os.geteuid() != 0:
        raise errors.Unavailable("real guests need root: each host's libvirtd gets namespaces of its own")


def needed() -> dict[str, Callable[[], bool]]:
    """Debian's packages that a stack with libvirt needs now."""
    return {**NEEDED, **({} if has_library() else NEEDED_TO_BUILD)}


def install_library() -> None:
    """Installs libvirt-python beside Cellplane.

    Raises:
        Unavailable: pip could not.
    """
    if has_library():
        return
    result = pins.install(Path(sys.executable), ("build",), deadline_s=PIP_DEADLINE_S)
    if result.returncode == 0:
        result = pins.install(Path(sys.executable), ("libvirt",), deadline_s=PIP_DEADLINE_S, options=pins.BUILT_HERE)
    importlib.invalidate_caches()
    if result.returncode != 0 or not has_library():
        raise errors.Unavailable(f"pip could not install {LIBRARY}: {result.stderr[-1000:]}")


class LibvirtHost:
    """One host's directories, and the commands that keep it up. `consoles`: where its guests' consoles listen, for
    nobody reaches its network."""

    def __init__(self, name: str, directory: Path, *, consoles: Path | None = None) -> None:
        self.name = name
        self.directory = directory
        self.consoles = consoles

    @property
    def uri(self) -> str:
        """How its libvirtd is reached from outside its namespaces."""
        return f"qemu+unix:///system?socket={self.directory / 'run' / _SOCKET}"

    @property
    def log_path(self) -> Path:
        """Where its libvirtd keeps the guests' logs."""
        return self.directory / "log" / "qemu"

    @property
    def files(self) -> list[Path]:
        """What its libvirtd reads at its start."""
        return [self.directory / "etc" / name for name in ("libvirtd.conf", "qemu.conf")]

    def prepare(self) -> None:
        """Makes its directories and settings; those that are there stay.

        Raises:
            Invalid: the directory's path is too long for a socket.
        """
        for socket in (
            self.directory / "run" / _SOCKET,
            *([self.consoles / _LONGEST_CONSOLE] if self.consoles else []),
        ):
            if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
                raise errors.Invalid(
                    f"{socket} is too long for a socket; choose a state directory with a shorter name",
                    field="CELLPLANE_STATE",
                )
        for folder in ("etc", "run", "lib", "log", "cache"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        settings = self.directory / "etc" / "libvirtd.conf"
        if not settings.exists():
            write_private(settings, _LIBVIRTD.format(uuid=uuid.uuid4()))
        (self.directory / "etc" / "qemu.conf").write_text(_QEMU_CONF)
        # libvirt asks for its host's name at every connection, and waits long when nobody knows it.
        (self.directory / "hosts").write_text(f"127.0.0.1 localhost {self.name}\n")

    def namespaces_command(self) -> list[str]:
        """Makes the namespaces and keeps them as long as it runs."""
        return [str(SCRIPT), "namespaces", self.name, str(self.directory)]

    def daemon_command(self) -> list[str]:
        """The libvirtd in the namespaces; the guests outlive it."""
        return [str(SCRIPT), "libvirtd", str(self.directory)]


def hosts(state: State, shape: Shape) -> dict[str, LibvirtHost]:
    """The stack's hosts that have real guests, by name."""
    if shape.driver != DRIVER:
        return {}
    # The shortest name that there is below the state: a socket's path has little room.
    return {
        host: LibvirtHost(host, state.hosts / host / "libvirt", consoles=state.run / host) for host in shape.all_hosts
    }


def settings(host: LibvirtHost, shape: Shape) -> dict[str, object]:
    """The section `libvirt` of the host's agent: hosts share the machine's memory and disk, of which half is left to
    everything else."""
    share = 2 * len(shape.all_hosts)
    memory_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB // share
    # Not what is free of it: that changes, and an agent whose settings change is started anew.
    disk_gib = shutil.disk_usage(host.directory.parent.parent).total // GIB // share
    consoles = {} if host.consoles is None else {"console_path": host.consoles}
    return {"uri": host.uri, "log_path": host.log_path, "memory_mib": memory_mib, "disk_gib": disk_gib, **consoles}


def end_guests(path: Path) -> int:
    """Ends every guest whose files lie below the path, as pulling the plug does; how many there were."""
    guests = [
        process
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and (process := _guest(entry, path)) is not None
    ]
    for guest in guests:
        identity.send(guest, signal.SIGTERM)
    deadline = time.monotonic() + GUESTS_END_S
    while any(identity.is_running(guest) for guest in guests) and time.monotonic() < deadline:
        time.sleep(0.05)
    for guest in guests:
        identity.send(guest, signal.SIGKILL)
    return len(guests)


def _guest(entry: Path, path: Path) -> identity.Process | None:
    # A process may end while it is looked at.
    with contextlib.suppress(OSError):
        arguments = (entry / "cmdline").read_bytes().split(b"\0")
        if Path(os.fsdecode(arguments[0])).name.startswith(_QEMU) and any(
            os.fsencode(path) + b"/" in argument for argument in arguments[1:]
        ):
            return identity.process_of(int(entry.name))
    return None
