"""Disks and network cards that come to a guest later, and go."""

import dataclasses
import pathlib
from typing import Protocol

from compute.deadline import Deadline


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSource:
    """A disk in a file of the host; `format` is qcow2 or raw."""

    path: pathlib.Path
    format: str = "raw"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockSource:
    """A block device of the host."""

    path: pathlib.Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSource:
    """A disk that the hypervisor itself reads from a server.

    `protocol` is nbd, iscsi or rbd; `name` what the server calls it (of iscsi: target/lun). `socket`: a UNIX socket
    instead of host and port.
    """

    protocol: str
    name: str
    host: str = ""
    port: int = 0
    socket: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiskToAttach:
    """One more disk, known by its `volume_id`.

    The guest sees the first 20 characters of it as the disk's serial number.
    """

    volume_id: str
    source: FileSource | BlockSource | NetworkSource
    bus: str = "virtio"
    is_read_only: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class NicToAttach:
    """One more network card, known by its `mac` (lower case, with colons).

    `kind`: bridge (a tap is made and put into `bridge`), ethernet (a tap is made, others see to the rest), tap (it is
    there already). `tap` is its name on the host. `model` None: what the guest's image asks for.
    """

    mac: str
    kind: str
    tap: str
    bridge: str | None = None
    model: str | None = None
    mtu: int | None = None


class Devices(Protocol):
    """What is attached to one host's guests."""

    def attach_disk(self, uuid: str, disk: DiskToAttach, *, deadline: Deadline) -> str:
        """The guest has the disk, now if it runs and after each start.

        Gives the name it is offered under (vdb), which the guest may not use.

        Raises:
            Invalid: the hypervisor does not know such disks.
            WrongState: it is rescued, or its state is saved.
        """

    def detach_disk(self, uuid: str, volume_id: str, *, deadline: Deadline) -> None:
        """The guest has no such disk any more, nor will it after a start. It never had: a success.

        Raises:
            Conflict: the guest did not let go of it in time; it still has it.
            WrongState: it is rescued, or its state is saved.
        """

    def attach_nic(self, uuid: str, nic: NicToAttach, *, deadline: Deadline) -> None:
        """As `attach_disk`, for a network card."""

    def detach_nic(self, uuid: str, mac: str, *, deadline: Deadline) -> None:
        """As `detach_disk`, for a network card."""
