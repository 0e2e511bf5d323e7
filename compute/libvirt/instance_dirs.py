"""Where a guest's files are: one directory for each attempt of a server, named by both, and nothing in it is named by a
user.

A directory holds `building` until its guest is whole. What holds it at the agent's start, and no domain, is a crash's
leftover.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import tempfile

import core.errors
from compute import private
from compute.deadline import Deadline
from compute.hypervisor.consoles import MAX_CONSOLE_BYTES
from compute.libvirt import commands, config_drive
from compute.libvirt.devices import Disk
from compute.libvirt.image_format import ImageFacts, backing_of, inspect, overlay_bytes

GIB = 1024**3
MIB = 1024**2

_NAME = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.([0-9]+)")
_BUILDING = "building"
_ROOT = "disk.qcow2"
_LONG_LOG_BYTES = 4 * MAX_CONSOLE_BYTES


@dataclasses.dataclass(frozen=True)
class InstanceDirectory:
    """The directory of one attempt of a server."""

    path: pathlib.Path
    uuid: str
    attempt: int

    @property
    def console_log(self) -> pathlib.Path:
        """The file to which the guest's serial console goes."""
        return self.path / "console.log"

    @property
    def is_building(self) -> bool:
        """Whether its guest is not whole yet."""
        return (self.path / _BUILDING).exists()

    def begin(self) -> None:
        """An empty directory, marked."""
        self.clear()
        private.make_directory(self.path, mode=private.PASSABLE)
        private.mark(self.path / _BUILDING)

    def end(self) -> None:
        """The guest is whole."""
        (self.path / _BUILDING).unlink(missing_ok=True)

    def clear(self) -> None:
        """Nothing is left of it."""
        if not self.path.exists():
            return
        # Its mark goes last: a crash in between leaves what can be told from a guest.
        private.mark(self.path / _BUILDING)
        for entry in self.path.iterdir():
            if entry.name != _BUILDING:
                entry.unlink()
        shutil.rmtree(self.path)

    def root_disk(self, image: pathlib.Path, facts: ImageFacts, size_bytes: int, deadline: Deadline) -> Disk:
        """A disk over the image, which stays as it is."""
        path = self.path / _ROOT
        _overlay(path, image, facts, size_bytes, deadline)
        return Disk(path=path, format="qcow2")

    def ephemeral_disk(self, size_gib: int, deadline: Deadline) -> Disk:
        """An empty ext4 file system."""
        path = self._sparse("ephemeral0.raw", size_gib * GIB)
        commands.run(["mkfs.ext4", "-q", "-F", "-L", "ephemeral0", path], deadline)
        return Disk(path=path, format="raw")

    def swap_disk(self, size_mib: int, deadline: Deadline) -> Disk:
        """Swap space."""
        path = self._sparse("swap.raw", size_mib * MIB)
        commands.run(["mkswap", "-q", "-L", "swap0", path], deadline)
        return Disk(path=path, format="raw")

    def config_drive(self, files: dict[str, bytes], deadline: Deadline) -> Disk:
        """A CD with these files."""
        path = self.path / "config.iso"
        with tempfile.TemporaryDirectory() as tree:
            for name, content in files.items():
                file = pathlib.Path(tree) / name
                private.make_directory(file.parent)
                private.write(file, content)
            options = [
                "-quiet",
                "-ldots",
                "-allow-lowercase",
                "-allow-multidot",
                "-l",
                "-J",
                "-r",
                "-V",
                config_drive.LABEL,
            ]
            commands.run(["genisoimage", "-o", path, *options, tree], deadline)
        return Disk(path=path, format="raw", is_cdrom=True)

    @property
    def rescue_path(self) -> pathlib.Path:
        """The disk that a rescued guest boots from."""
        return self.path / "rescue.qcow2"

    @property
    def own_document(self) -> pathlib.Path:
        """libvirt's document of the guest as it is when it is not rescued; there while it is."""
        return self.path / "unrescued.xml"

    def rescue_facts(self, image: pathlib.Path, said: str) -> ImageFacts:
        """The image that the server is to be rescued with.

        Raises:
            Invalid: as `image_format.inspect`; or it is a larger disk than the server's own, which is all that the
                server may fill.
        """
        facts, own_bytes = inspect(image, said=said), overlay_bytes(self.path / _ROOT)
        if facts.virtual_bytes > own_bytes:
            raise core.errors.Invalid(
                f"The image is a disk of {facts.virtual_bytes} bytes; the server's own has {own_bytes}",
                field="rescue_image_ref",
                server=self.uuid,
            )
        return facts

    def rescue_disk(self, image: pathlib.Path, facts: ImageFacts, deadline: Deadline) -> None:
        """A fresh disk over the image."""
        _overlay(self.rescue_path, image, facts, facts.virtual_bytes, deadline)

    def unrescued(self) -> None:
        """What a rescue made is gone."""
        self.rescue_path.unlink(missing_ok=True)
        self.own_document.unlink(missing_ok=True)

    def keep_document(self, document: str) -> None:
        """Writes `own_document` in one step."""
        fresh = self.own_document.with_suffix(".fresh")
        private.write(fresh, document.encode())
        fresh.replace(self.own_document)

    def drop_disks(self) -> None:
        """All disks go; the console log stays."""
        for path in self.path.iterdir():
            if path not in (self.console_log, self._console_before):
                path.unlink()

    def images(self) -> set[pathlib.Path]:
        """The images under its disks."""
        backing = (backing_of(path) for path in (self.path / _ROOT, self.rescue_path))
        return {path for path in backing if path is not None}

    @property
    def snapshot_disk(self) -> pathlib.Path:
        """The root disk as it was at one moment; the hypervisor writes it while the guest runs."""
        return self.path / "snapshot.qcow2"

    @property
    def snapshot_mark(self) -> pathlib.Path:
        """There while a snapshot of the running guest is made, or was when the agent ended."""
        return self.path / "snapshot.begun"

    @property
    def frozen_mark(self) -> pathlib.Path:
        """There while the guest's file systems may be frozen."""
        return self.path / "snapshot.frozen"

    def drop_snapshot(self) -> None:
        """Nothing is left of a snapshot; its mark goes last."""
        for path in (self.snapshot_disk, self.frozen_mark, self.snapshot_mark):
            path.unlink(missing_ok=True)

    def copy_snapshot(self, target: pathlib.Path, deadline: Deadline) -> None:
        """`snapshot_disk` as an image."""
        commands.run(
            ["qemu-img", "convert", "-q", "-c", "-f", "qcow2", "-O", "qcow2", self.snapshot_disk, target.absolute()],
            deadline,
        )

    def copy_root_disk(self, target: pathlib.Path, deadline: Deadline) -> None:
        """The root disk with all that lies under it, as one image; the guest is off."""
        commands.run(
            ["qemu-img", "convert", "-q", "-c", "-f", "qcow2", "-O", "qcow2", self.path / _ROOT, target.absolute()],
            deadline,
        )

    def read_console(self) -> str:
        """The end of what the guest wrote."""
        return (_end_of(self._console_before) + _end_of(self.console_log))[-MAX_CONSOLE_BYTES:].decode(errors="replace")

    def bound_console(self) -> None:
        """Sets the log aside when it has become long: a guest must not fill the host's disk with it."""
        try:
            size_bytes = self.console_log.stat().st_size
        except FileNotFoundError:
            return
        if size_bytes > _LONG_LOG_BYTES:
            private.write(self._console_before, _end_of(self.console_log))
            # QEMU appends: it goes on at the start of the emptied file. What comes in between is lost.
            os.truncate(self.console_log, 0)

    @property
    def _console_before(self) -> pathlib.Path:
        return self.path / "console.before"

    def _sparse(self, name: str, size_bytes: int) -> pathlib.Path:
        path = self.path / name
        with private.opened(path) as file:
            file.truncate(size_bytes)
        return path


class InstanceDirectories:
    """The directories below one path."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Makes the path.

        Raises:
            Invalid: it cannot be made.
        """
        try:
            private.make_directory(self.path, mode=private.PASSABLE)
        except OSError as error:
            raise core.errors.Invalid(
                f"[libvirt] instances_path: {self.path} cannot be made: {error.strerror or error}",
                field="instances_path",
            ) from error

    def of(self, uuid: str, attempt: int) -> InstanceDirectory:
        """The directory of this attempt, there or not."""
        return InstanceDirectory(self.path / f"{uuid}.{attempt}", uuid, attempt)

    def all(self, uuid: str | None = None) -> list[InstanceDirectory]:
        """Those that are there, of one server or of all."""
        directories = []
        for path in self.path.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and uuid in (None, match[1]):
                directories.append(InstanceDirectory(path, match[1], int(match[2])))
        return sorted(directories, key=lambda directory: (directory.uuid, directory.attempt))

    def disk_gib(self) -> int:
        """The size of their file system."""
        status = os.statvfs(self.path)
        return status.f_blocks * status.f_frsize // GIB


def _end_of(log: pathlib.Path) -> bytes:
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - MAX_CONSOLE_BYTES))
            # A log that grows meanwhile must not make the answer longer than it may be.
            return file.read(MAX_CONSOLE_BYTES)
    except FileNotFoundError:
        return b""


def _overlay(path: pathlib.Path, image: pathlib.Path, facts: ImageFacts, size_bytes: int, deadline: Deadline) -> None:
    path.unlink(missing_ok=True)
    commands.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", facts.format, "-b", image.absolute(), path, str(size_bytes)],
        deadline,
    )
