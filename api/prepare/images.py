"""Images that requests name: found, described, and whether a flavor fits them."""

import re

import core.errors
from api.http.call import Call
from api.prepare.refusals import invalid
from clients.glance import Image
from objects.build import Flavor, ImageRef

_TRAIT = re.compile(r"trait:[A-Z0-9_]{1,255}")
_GIB = 1024**3


# An image that names others, or volumes, as what it boots with: nobody has asked yet whether the caller may see those.
_NAMES_OTHERS = ("kernel_id", "ramdisk_id", "block_device_mapping")


async def find(call: Call, image_id: str, field: str) -> Image:
    """The image; `field` is where the request names it.

    Raises:
        Invalid: there is none, or none that the caller may see; or it needs others.
        Unavailable: the image service does not answer.
    """
    images = call.cloud.images
    try:
        image: Image = images.known(image_id, call.context) or await call.cloud.ask_images(
            images.show, image_id, call.context
        )
    except core.errors.NotFound as error:
        raise invalid(field, f"Image {image_id} could not be found.") from error
    if named := [name for name in _NAMES_OTHERS if image.properties.get(name)]:
        raise invalid(
            field,
            f"Image {image_id} needs other images or volumes ({', '.join(named)}): such images are not supported.",
        )
    return image


def reference(image: Image) -> ImageRef:
    """As much of it as a host must know."""
    return ImageRef(
        image_id=image.id,
        name=image.name,
        size_bytes=image.size_bytes or 0,
        checksum=image.checksum,
        hash_algorithm=image.os_hash_algo,
        hash_value=image.os_hash_value,
        disk_format=image.disk_format or "raw",
        min_disk_gib=image.min_disk_gib,
        min_ram_mib=image.min_ram_mib,
        properties=dict(image.properties),
    )


def check_active(image: Image, field: str) -> None:
    """
    Raises:
        Invalid: it has no bytes yet, or not any more.
    """
    if image.status != "active":
        raise invalid(field, f"Image {image.id} is not active.")


def check_fits(image: Image, flavor: Flavor) -> None:
    """Returns if a server of this flavor can boot from the image.

    A flavor whose root disk is 0 takes a disk as large as the image, so there is nothing to compare.

    Raises:
        Invalid: the image is not ready, or needs more memory or disk than the flavor has.
    """
    check_active(image, "imageRef")
    for name in image.properties:
        if name.startswith("trait:") and not _TRAIT.fullmatch(name):
            raise invalid("imageRef", f"Property {name[:64]} of image {image.id} names no trait.")
    if flavor.memory_mib < image.min_ram_mib:
        raise invalid(
            "flavorRef",
            f"Flavor's memory is too small for requested image: it has {flavor.memory_mib} MiB, "
            f"image {image.id} needs {image.min_ram_mib} MiB.",
        )
    if flavor.root_gib and flavor.root_gib < image.min_disk_gib:
        raise invalid(
            "flavorRef",
            f"Flavor's disk is smaller than the minimum size specified in image metadata: it has {flavor.root_gib} "
            f"GiB, image {image.id} needs {image.min_disk_gib} GiB.",
        )
    needed_bytes = max(image.size_bytes or 0, image.virtual_bytes or 0)
    if flavor.root_gib and flavor.root_gib * _GIB < needed_bytes:
        raise invalid(
            "flavorRef",
            f"Flavor's disk is too small for requested image: it has {flavor.root_gib * _GIB} bytes, "
            f"image {image.id} is {needed_bytes} bytes.",
        )
