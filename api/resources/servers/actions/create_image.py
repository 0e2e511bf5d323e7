"""Images of servers: the image's record is made here, its bytes come from the server's host."""

import contextlib

import cell_db.instances
import cell_db.operations
import core.errors
from api.http.call import Call
from api.http.routes import ActionRoute, Handler, Route
from api.http.schema import METADATA, NAME, Body, Property
from api.prepare import metadata, snapshots
from api.resources.servers.access import refuse_early, server_of
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.operations import hint
from cells.gate.answers import Answer, Unknown, value_of
from cells.gate.gate import Gate
from lifecycle.actions import CREATE_IMAGE

POLICIES = rules_of(CREATE_IMAGE)


async def create_image(call: Call) -> dict[str, str]:
    """Begins it; gives the image's id."""
    found = await server_of(call, CREATE_IMAGE.rule.name)
    gate = refuse_early(call, found, CREATE_IMAGE)
    spec = value_of(await gate.read(cell_db.instances.build_spec, found.server.uuid))
    record = snapshots.record(call.context, found.server, spec, name=call.body["name"], metadata=call.body.get("metadata") or {})
    image = await call.cloud.ask_images(call.cloud.images.create, record)
    await _begin(call, gate, found.server.uuid, image.id)
    hint(call, gate, found.server.uuid)
    return {"image_id": image.id}


async def create_image_with_location(call: Call) -> None:
    """Until 2.44 a header told where the image is."""
    created = await create_image(call)
    call.set_header("Location", f"{call.cloud.conf.image.endpoint.rstrip('/')}/images/{created['image_id']}")


async def create_image_within_quota(call: Call) -> None:
    """Until 2.38 an image's metadata counted as a server's."""
    await metadata.check(call, call.body.get("metadata") or {})
    await create_image_with_location(call)


async def _begin(call: Call, gate: Gate, uuid: str, image_id: str) -> None:
    """Records it as under way; when it cannot begin, the image's record goes again."""
    try:
        answer = await gate.write(cell_db.operations.begin_operation, uuid, CREATE_IMAGE, call.context, arguments={"image_id": image_id})
    except core.errors.CellplaneError:
        await _forget(call, image_id)
        raise
    if isinstance(answer, Unknown):
        under_way = await gate.read(cell_db.operations.operations, [uuid])
        if isinstance(under_way, Answer) and any(each.arguments.get("image_id") == image_id for each in under_way.value):
            return
        if not isinstance(under_way, Answer):
            value_of(answer)  # It may yet be needed.
    if not isinstance(answer, Answer):
        await _forget(call, image_id)
    value_of(answer)


async def _forget(call: Call, image_id: str) -> None:
    with contextlib.suppress(core.errors.Unavailable, core.errors.Forbidden):
        await call.cloud.ask_images(call.cloud.images.delete, image_id)


def _row(handler: Handler, **span: str) -> Route | ActionRoute:
    body = Body(CREATE_IMAGE.request.key, Property("name", NAME, required=True), Property("metadata", METADATA))
    return route_of(CREATE_IMAGE, handler, body=body, **span)


ROUTES = [
    _row(create_image_within_quota, until="2.38"),
    _row(create_image_with_location, since="2.39", until="2.44"),
    _row(create_image, since="2.45"),
]
