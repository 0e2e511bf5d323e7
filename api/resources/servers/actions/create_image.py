"""Images of servers: the row of the operation first, then the image's record; its bytes come from the server's host."""

import dataclasses
import uuid as uuids
from collections.abc import Mapping
from typing import Any

import cell_db.image_tasks
import cell_db.instances
import core.errors
from api.http.call import Call
from api.http.routes import ActionRoute, Handler, Route
from api.http.schema import METADATA, NAME, Body, Property
from api.prepare import metadata, snapshots
from api.resources.servers.access import refuse_early, server_of
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.operations import hint
from cell_db.image_tasks import ImageTask
from cell_db.operations import FIRST_LEASE_S
from cells.gate.answers import Unknown, value_of
from cells.gate.gate import Gate
from clients.glance import Images
from lifecycle.actions import CREATE_IMAGE
from workflows.definitions.create_image import CATALOG, CREATE_RECORD
from workflows.definitions.create_image import CREATE_IMAGE as WORKFLOW
from workflows.functions import Function, Functions
from workflows.workflow import Program

POLICIES = rules_of(CREATE_IMAGE)


async def create_image(call: Call) -> dict[str, str]:
    """Begins it; gives the image's id.

    The server's row and the image's id come first, then the record. Whatever happens in between, the cell's conductor
    goes on.
    """
    found = await server_of(call, CREATE_IMAGE.rule.name)
    gate = refuse_early(call, found, CREATE_IMAGE)
    uuid = found.server.uuid
    spec = value_of(await gate.read(cell_db.instances.build_spec, uuid))
    name, wanted = call.body["name"], call.body.get("metadata") or {}
    described = snapshots.record(call.context, found.server, spec, name=name, metadata=wanted)
    record = {**described, "id": str(uuids.uuid4())}
    task = await _begin(call, gate, uuid, record)
    try:
        await _create_record(call, gate, task)
    finally:
        hint(call, gate, uuid)
    return {"image_id": task.image_id}


async def create_image_with_location(call: Call) -> None:
    """Until 2.44 a header told where the image is."""
    created = await create_image(call)
    call.set_header("Location", f"{call.cloud.conf.image.endpoint.rstrip('/')}/images/{created['image_id']}")


async def create_image_within_quota(call: Call) -> None:
    """Until 2.38 an image's metadata counted as a server's."""
    await metadata.check(call, call.body.get("metadata") or {})
    await create_image_with_location(call)


async def _begin(call: Call, gate: Gate, uuid: str, record: dict[str, Any]) -> ImageTask:
    """Records it as under way, at its first step, which is this process's for some seconds."""
    token = str(uuids.uuid4())
    position = CATALOG.begin(WORKFLOW.name)
    answer = await gate.write(
        cell_db.image_tasks.begin, uuid, call.context, image_id=record["id"], record=record, position=position,
        token=token, lease_s=FIRST_LEASE_S,
    )  # fmt: skip
    if isinstance(answer, Unknown):
        task = value_of(await gate.read(cell_db.image_tasks.find, record["id"]))
        return task if task is not None else value_of(answer)
    return value_of(answer)


async def _create_record(call: Call, gate: Gate, task: ImageTask) -> None:
    """The first step, at once. What the write of the next position answers decides nothing: the row does.

    Raises:
        Invalid, Forbidden, Unavailable: the image service has not made the record; it never will be.
    """
    try:
        await call.cloud.ask_images(_function_of(task), _Work(call.cloud.images, task.record))
    except core.errors.CellplaneError as error:
        undone = CATALOG.give_up(task.position)
        await gate.write(cell_db.image_tasks.move, task, undone, token=None, fault=error.message)
        raise
    after = CATALOG.take_report(task.position, CREATE_RECORD, "created")
    await gate.write(cell_db.image_tasks.move, task, after, token=None)


@dataclasses.dataclass(frozen=True, slots=True)
class _Work:
    images: Images
    record: Mapping[str, Any]


def _make_record(work: _Work) -> str:
    work.images.create_once(work.record)
    return "created"


FUNCTIONS: Functions[_Work] = Functions(Program.API, CATALOG, {CREATE_RECORD: _make_record})


def _function_of(task: ImageTask) -> Function[_Work]:
    turn = CATALOG.turn(task.position)
    function = None if turn is None else FUNCTIONS.find(turn)
    assert function is not None, task.position  # It has begun just now.
    return function


def _row(handler: Handler, **span: str) -> Route | ActionRoute:
    body = Body(CREATE_IMAGE.request.key, Property("name", NAME, required=True), Property("metadata", METADATA))
    return route_of(CREATE_IMAGE, handler, body=body, **span)


ROUTES = [
    _row(create_image_within_quota, until="2.38"),
    _row(create_image_with_location, since="2.39", until="2.44"),
    _row(create_image, since="2.45"),
]
