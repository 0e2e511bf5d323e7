"""Backups of servers: images of which the newest are kept."""

from api.http.call import Call
from api.http.routes import ActionRoute, Handler, Route
from api.http.schema import METADATA, NAME, NON_NEGATIVE_INT, Body, Property, text
from api.prepare import metadata
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.new_images import Backup, make_image, tell_location
from lifecycle.actions import CREATE_BACKUP
from workflows.definitions.create_image import CREATE_BACKUP as WORKFLOW

POLICIES = rules_of(CREATE_BACKUP)
# Any text is one; the official client sends an empty one if its user names none.
BACKUP_TYPE = text(0, 255)


async def create_backup(call: Call) -> dict[str, str]:
    """Begins it; gives the image's id."""
    backup = Backup(type=call.body["backup_type"], rotation=call.body["rotation"])
    return {"image_id": await make_image(call, WORKFLOW, backup=backup)}


async def create_backup_with_location(call: Call) -> None:
    """Until 2.44; a rotation of 0 leaves no image to look at, and no header."""
    created = await create_backup(call)
    if call.body["rotation"] > 0:
        tell_location(call, created["image_id"])


async def create_backup_within_quota(call: Call) -> None:
    """Until 2.38 an image's metadata counted as a server's."""
    await metadata.check(call, call.body.get("metadata") or {})
    await create_backup_with_location(call)


def _row(handler: Handler, **span: str) -> Route | ActionRoute:
    body = Body(
        CREATE_BACKUP.request.key,
        Property("name", NAME, required=True),
        Property("backup_type", BACKUP_TYPE, required=True),
        Property("rotation", NON_NEGATIVE_INT, required=True),
        Property("metadata", METADATA),
    )
    return route_of(CREATE_BACKUP, handler, body=body, **span)


ROUTES = [
    _row(create_backup_within_quota, until="2.38"),
    _row(create_backup_with_location, since="2.39", until="2.44"),
    _row(create_backup, since="2.45"),
]
