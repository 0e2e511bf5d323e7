"""From a validated request for a rebuild to what changes: checked as the request for a new server is."""

import asyncio
from collections.abc import Mapping
from typing import Any

from api.http.call import Call
from api.prepare import images, lookups
from api.prepare.build_requests import ZERO_DISK_FLAVOR
from api.prepare.metadata import limit, refuse_too_many
from api.prepare.refusals import invalid
from cell_db.rebuilds import Changes
from database.engine import Connection
from objects.server import Server

_COLUMN = {
    "name": "display_name",
    "description": "display_description",
    "hostname": "hostname",
    "accessIPv4": "access_ip_v4",
    "accessIPv6": "access_ip_v6",
    "OS-DCF:diskConfig": "auto_disk_config",
    "key_name": "key_name",
    "user_data": "user_data",
}


async def prepare(call: Call, server: Server) -> Changes:
    """
    Raises:
        Invalid: the request asks for something that does not exist, does not fit, or is not supported; names the field.
        OverQuota: more metadata than the project may have.
        Unavailable: the API database or the image service does not answer.
    """
    body = call.body
    _refuse_unsupported(body)
    image, (public_key, most) = await asyncio.gather(
        images.find(call, body["imageRef"], "imageRef"),
        call.cloud.api_read(
            _look_up, server.project_id, server.user_id, body.get("key_name"), call.cloud.quota_defaults
        ),
    )
    images.check_fits(image, server.flavor)
    if server.flavor.root_gib == 0 and image.id != server.image_ref:
        # The image alone says how large the disk is: such a server is for who may have one created.
        call.enforce(ZERO_DISK_FLAVOR)
    refuse_too_many(body.get("metadata") or {}, most)
    columns = {_COLUMN[name]: _kept(name, value) for name, value in body.items() if name in _COLUMN}
    return Changes(image=images.reference(image), columns=columns, metadata=body.get("metadata"), public_key=public_key)


def _refuse_unsupported(body: Mapping[str, Any]) -> None:
    lookups.refuse_unsupported(body)
    if body.get("preserve_ephemeral"):
        raise invalid("preserve_ephemeral", "No hypervisor here can replace the root disk and keep the ephemeral disk.")


def _look_up(
    connection: Connection, project_id: str, user_id: str, key_name: str | None, quota_defaults: Mapping[str, int]
) -> tuple[str | None, int]:
    """The key pair is one of the server's own user, whoever asks."""
    return lookups.public_key(connection, user_id, key_name), limit(connection, project_id, user_id, quota_defaults)


def _kept(name: str, value: Any) -> Any:
    return value == "AUTO" if name == "OS-DCF:diskConfig" else value
