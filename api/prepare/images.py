"""Whether a flavor fits an image."""

from api.prepare.refusals import invalid
from objects.build import Flavor, ImageRef

_GIB = 1024**3


def check_fits(image: ImageRef, flavor: Flavor, status: str) -> None:
    """Returns if a server of this flavor can boot from the image.

    A flavor whose root disk is 0 takes a disk as large as the image, so there is nothing to compare.

    Raises:
        Invalid: the image is not ready, or needs more memory or disk than the flavor has.
    """
    if status != "active":
        raise invalid("imageRef", f"Image {image.image_id} is not active.")
    if flavor.memory_mib < image.min_ram_mib:
        raise invalid(
            "flavorRef",
            f"Flavor's memory is too small for requested image: it has {flavor.memory_mib} MiB, "
            f"image {image.image_id} needs {image.min_ram_mib} MiB.",
        )
    if flavor.root_gib and flavor.root_gib < image.min_disk_gib:
        raise invalid(
            "flavorRef",
            f"Flavor's disk is smaller than the minimum size specified in image metadata: it has {flavor.root_gib} GiB, "
            f"image {image.image_id} needs {image.min_disk_gib} GiB.",
        )
    if flavor.root_gib and flavor.root_gib * _GIB < image.size_bytes:
        raise invalid(
            "flavorRef",
            f"Flavor's disk is too small for requested image: it has {flavor.root_gib * _GIB} bytes, "
            f"image {image.image_id} is {image.size_bytes} bytes.",
        )
