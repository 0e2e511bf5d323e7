"""Images of servers."""

from api.http.call import Call
from api.http.routes import ActionRoute, Handler, Route
from api.http.schema import METADATA, NAME, Body, Property
from api.prepare import metadata
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.new_images import make_image, tell_location
from lifecycle.actions import CREATE_IMAGE
from workflows.definitions.create_image import CREATE_IMAGE as WORKFLOW

POLICIES = rules_of(CREATE_IMAGE)


async def create_image(call: Call) -> dict[str, str]:
    """Begins it; gives the image's id."""
    return {"image_id": await make_image(call, WORKFLOW)}


async def create_image_with_location(call: Call) -> None:
    """Until 2.44."""
    tell_location(call, await make_image(call, WORKFLOW))


async def create_image_within_quota(call: Call) -> None:
    """Until 2.38 an image's metadata counted as a server's."""
    await metadata.check(call, call.body.get("metadata") or {})
    await create_image_with_location(call)


def _row(handler: Handler, **span: str) -> Route | ActionRoute:
    body = Body(CREATE_IMAGE.request.key, Property("name", NAME, required=True), Property("metadata", METADATA))
    return route_of(CREATE_IMAGE, handler, body=body, **span)


ROUTES = [
    _row(create_image_within_quota, until="2.38"),
    _row(create_image_with_location, since="2.39", until="2.44"),
    _row(create_image, since="2.45"),
]
