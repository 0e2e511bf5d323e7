"""What a server boots from. There is no volume service yet: a server boots from an image onto a disk of its host."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.prepare.refusals import invalid

_READ = frozenset({"source_type", "destination_type", "boot_index", "uuid", "image_id"})
_AS_IT_IS: Mapping[str, tuple[Any, ...]] = {
    "delete_on_termination": (True,),
    "device_name": ("vda", "/dev/vda"),
    "device_type": ("disk",),
}


def image_to_boot(body: Mapping[str, Any]) -> str:
    """The id of the image, from `imageRef` or from the block device mapping that says the same.

    Clients (openstackclient 10.5) send both: `imageRef`, and one mapping of that image to the local disk with boot
    index 0.

    Raises:
        Invalid: no image, two different ones, or a device that needs a volume service.
    """
    if body.get("block_device_mapping"):
        raise invalid("block_device_mapping", "Volumes are not available: no volume service is configured.")
    image = body.get("imageRef") or ""
    devices = body.get("block_device_mapping_v2") or ()
    if not devices:
        if not image:
            raise invalid("imageRef", "An image to boot from is needed.")
        return str(image)
    mapped = _image_of(devices)
    if image and image != mapped:
        raise invalid("block_device_mapping_v2", f"Its image {mapped} is not the imageRef {image}.")
    return mapped


def _image_of(devices: Sequence[Mapping[str, Any]]) -> str:
    """The image of the one device that is supported: the boot disk, local, made from an image."""
    for device in devices:
        _refuse_unless_image_on_local_disk(device)
    if len(devices) > 1:
        raise invalid("block_device_mapping_v2", "Only one device is supported: the disk to boot from.")
    device = devices[0]
    _refuse_wishes(device)
    if device.get("boot_index") not in (0, "0"):
        raise invalid("block_device_mapping_v2", "An image on a local disk must have boot_index 0.")
    image = device.get("uuid") or device.get("image_id")
    if not image:
        raise invalid("block_device_mapping_v2", "The device with source_type image needs a uuid.")
    return str(image)


def _refuse_wishes(device: Mapping[str, Any]) -> None:
    """The disk is as the flavor and the image say, and goes with the server: whatever asks for another is refused."""
    for name, value in device.items():
        if value not in (None, "") and name not in _READ and value not in _AS_IT_IS.get(name, ()):
            raise invalid("block_device_mapping_v2", f"{name} cannot be {value} for the disk to boot from.")


def _refuse_unless_image_on_local_disk(device: Mapping[str, Any]) -> None:
    source = device.get("source_type", "blank")
    destination = device.get("destination_type", "local" if source == "image" else "volume")
    if destination == "volume" or source in ("volume", "snapshot"):
        raise invalid("block_device_mapping_v2", "Volumes are not available: no volume service is configured.")
    if source != "image":
        raise invalid("block_device_mapping_v2", f"Local disks with source_type {source} are not supported yet.")
