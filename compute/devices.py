"""Disks and network cards that a guest is given while it lives, as every driver takes them."""

import dataclasses
import pathlib


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

    `protocol` is nbd, iscsi or rbd; `name` what the server calls it (of iscsi: target/lun). `socket`: a UNIX socket instead of host and port.
    """

    protocol: str
    name: str
    host: str = ""
    port: int = 0
    socket: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiskToAttach:
    """One more disk, known by its `volume_id`, of which the guest sees the first 20 characters as the disk's serial number."""

    volume_id: str
    source: FileSource | BlockSource | NetworkSource
    bus: str = "virtio"
    is_read_only: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class NicToAttach:
    """One more network card, known by its `mac` (lower case, with colons).

    `kind`: bridge (a tap is made and put into `bridge`), ethernet (a tap is made, others see to the rest), tap (it is there already).
    `tap` is its name on the host. `model` None: what the guest's image asks for.
    """

    mac: str
    kind: str
    tap: str
    bridge: str | None = None
    model: str | None = None
    mtu: int | None = None
