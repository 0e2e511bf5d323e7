"""Rescue: the server boots from another disk, with its own beside it, until it is unrescued."""

import msgspec

import cell_db.instances
from api.http.call import Call
from api.http.schema import TEXT, Body, Property, nullable, structure
from api.prepare import images, passwords
from api.resources.servers.access import refuse_early, server_of
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.bodies import IMAGE
from api.resources.servers.operations import begin, operate
from cells.gate.answers import value_of
from cells.gate.gate import Gate
from lifecycle.actions import RESCUE, UNRESCUE
from objects.build import ImageRef

POLICIES = rules_of(RESCUE, UNRESCUE)


async def rescue(call: Call) -> dict[str, str]:
    """Begins it; the password in the answer is told once and kept nowhere."""
    located = await server_of(call, RESCUE.rule.name)
    gate = refuse_early(call, located, RESCUE)
    asked = call.body or {}
    image = await _image(call, gate, located.server.uuid, asked.get("rescue_image_ref"))
    await begin(call, located, RESCUE, {"image": msgspec.to_builtins(image)})
    return {"adminPass": asked.get("adminPass") or passwords.generate()}


async def unrescue(call: Call) -> None:
    """Begins its end."""
    await operate(call, UNRESCUE)


async def _image(call: Call, gate: Gate, uuid: str, asked: str | None) -> ImageRef | None:
    """The image that was asked for, else the operators', else the server's own, which may be gone from the image
    service by now."""
    wanted = asked or call.cloud.conf.api.rescue_image_id
    if not wanted:
        return value_of(await gate.read(cell_db.instances.build_spec, uuid)).image
    image = await images.find(call, wanted, "rescue_image_ref")
    images.check_active(image, "rescue_image_ref")
    return images.reference(image)


_WISH = nullable(structure(Property("adminPass", TEXT), Property("rescue_image_ref", IMAGE)))

ROUTES = [
    route_of(RESCUE, rescue, body=Body.with_value(RESCUE.request.key, _WISH), status=200),
    route_of(UNRESCUE, unrescue),
]
