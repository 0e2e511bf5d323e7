"""Whether a file is the image that it is said to be: read from its first bytes, before any program that believes them.

The formats are those of QEMU: docs/interop/qcow2.txt there; the signatures of the others are their own.
"""

import dataclasses
import os
import pathlib
import struct

import core.errors

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_FEATURES = struct.Struct(">Q")
_FEATURES_AT = 72
_QCOW2 = b"QFI\xfb"
_EXTERNAL_DATA = 1 << 2
_HEAD_BYTES = 4096
_SECTOR_BYTES = 512
_LEAST_CLUSTER_BITS, _MAX_CLUSTER_BITS = 9, 21

# What no raw disk begins with.
_SIGNATURES = {
    "qcow2": [(0, _QCOW2)],
    "qed": [(0, b"QED\0")],
    "vmdk": [(0, b"KDMV"), (0, b"COWD"), (0, b"# Disk DescriptorFile")],
    "vhdx": [(0, b"vhdxfile")],
    "vhd": [(0, b"conectix")],
    "vdi": [(0x40, b"\x7f\x10\xda\xbe")],
    "luks": [(0, b"LUKS\xba\xbe")],
}
FORMATS = ("qcow2", "raw")


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What a guest's disk made from the image is like."""

    format: str
    virtual_bytes: int


def inspect(path: pathlib.Path, *, said: str) -> ImageFacts:
    """The image in the file, which is said to be of this format.

    Raises:
        Invalid: it is of another format, of one that cannot be used, or names files of the host.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return facts_of(head, said=said, file_bytes=path.stat().st_size)


def backing_of(path: pathlib.Path) -> pathlib.Path | None:
    """The file under an overlay of our own making; None: there is none, or no overlay."""
    head = _own_head(path)
    if head is None:
        return None
    _, _, backing_at, backing_bytes, *_ = _HEADER.unpack_from(head)
    return pathlib.Path(os.fsdecode(head[backing_at : backing_at + backing_bytes])) if backing_at else None


def overlay_bytes(path: pathlib.Path) -> int:
    """The size of the disk that an overlay of our own making is; 0: there is none."""
    head = _own_head(path)
    return 0 if head is None else int(_HEADER.unpack_from(head)[5])


def _own_head(path: pathlib.Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        return None
    return head if head.startswith(_QCOW2) and len(head) >= _HEADER.size else None


def facts_of(head: bytes, *, said: str, file_bytes: int) -> ImageFacts:
    """As `inspect`, from the file's first bytes and its size."""
    if said not in FORMATS:
        raise core.errors.Invalid(
            f"Images of disk_format {said!r} cannot be booted here; it must be one of: {', '.join(FORMATS)}",
            field="disk_format",
        )
    content = _signature(head)
    if said == "raw":
        if content is not None:
            raise core.errors.Invalid(f"The image is said to be raw, its content is {content}", field="disk_format")
        if file_bytes == 0:
            raise core.errors.Invalid("The image is empty", field="size")
        return ImageFacts("raw", -(-file_bytes // _SECTOR_BYTES) * _SECTOR_BYTES)
    if content != "qcow2":
        raise core.errors.Invalid(
            f"The image is said to be qcow2, its content is {content or 'not'}", field="disk_format"
        )
    return ImageFacts("qcow2", _qcow2_size(head))


def _signature(head: bytes) -> str | None:
    for name, signatures in _SIGNATURES.items():
        if any(head[at : at + len(magic)] == magic for at, magic in signatures):
            return name
    return None


def _qcow2_size(head: bytes) -> int:
    if len(head) < _HEADER.size:
        raise core.errors.Invalid("The image's qcow2 header is cut off", field="disk_format")
    _, version, backing_at, backing_bytes, cluster_bits, size, encryption, *_ = _HEADER.unpack_from(head)
    if version not in (2, 3):
        raise core.errors.Invalid(f"The image is qcow2 of the unknown version {version}", field="disk_format")
    if backing_at or backing_bytes:
        raise core.errors.Invalid("The image names a backing file: such images are not used", field="disk_format")
    if encryption:
        raise core.errors.Invalid("The image is encrypted", field="disk_format")
    if not _LEAST_CLUSTER_BITS <= cluster_bits <= _MAX_CLUSTER_BITS:
        raise core.errors.Invalid("The image's qcow2 header is invalid", field="disk_format")
    if (
        version == 3
        and len(head) >= _FEATURES_AT + _FEATURES.size
        and _FEATURES.unpack_from(head, _FEATURES_AT)[0] & _EXTERNAL_DATA
    ):
        raise core.errors.Invalid("The image names a file for its data: such images are not used", field="disk_format")
    if not size:
        raise core.errors.Invalid("The image is a disk of no size", field="size")
    return int(size)
