"""What the image service is told of an image that is made of a server."""

from collections.abc import Mapping
from typing import Any

from clients.glance import FIELDS
from core.context import Context
from objects.build import BuildSpec, ImageRef
from objects.server import Server

# What the server's own image has and an image of the server has not: it describes other bytes.
_NOT_INHERITED = frozenset(
    {"cache_in_nova", "bittorrent", "cinder_encryption_key_id", "cinder_encryption_key_deletion_policy"}
)
_NOT_INHERITED_PREFIXES = ("img_signature", "os_glance_", "os_hash_", "owner_specified.openstack.")


def record(
    context: Context,
    server: Server,
    spec: BuildSpec,
    *,
    name: str,
    metadata: Mapping[str, str],
    backup_type: str | None = None,
) -> dict[str, Any]:
    """The image's record: whoever boots from it gets what the server had, and room enough.

    `backup_type`: of a backup. Nobody's metadata says what the image is, or whose: rotation looks at it.
    """
    image = spec.image or ImageRef(image_id=server.image_ref or "")
    fixed = {
        "name": name,
        "visibility": "private",
        "disk_format": "qcow2",
        "container_format": "bare",
        "min_disk": max(spec.flavor.root_gib, image.min_disk_gib),
        "min_ram": image.min_ram_mib,
        "owner": server.project_id,
        **({"image_type": "snapshot"} if backup_type is None else {"image_type": "backup", "backup_type": backup_type}),
        "image_location": "snapshot",
        "image_state": "available",
        "base_image_ref": server.image_ref or "",
        "instance_uuid": server.uuid,
        "user_id": str(context.user_id),
        "owner_id": server.project_id,
    }
    free = {**image.properties, **metadata}
    return {**{each: value for each, value in free.items() if not _is_taken(each.strip().lower(), fixed)}, **fixed}


def _is_taken(name: str, fixed: Mapping[str, object]) -> bool:
    """Whether the name is one of ours, a field of the service's own, or says something of other bytes. In no spelling:
    not every database tells them apart."""
    return name in fixed or name in FIELDS or name in _NOT_INHERITED or name.startswith(_NOT_INHERITED_PREFIXES)
