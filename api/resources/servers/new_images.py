"""An image of a server is begun: the row of the operation first, then the image's record; its bytes come from the
server's host.

Whatever happens in between, the cell's conductor goes on.
"""

import dataclasses
import uuid as uuids
from collections.abc import Mapping
from typing import Any

import cell_db.image_tasks
import cell_db.instances
import core.errors
from api.http.call import Call
from api.prepare import snapshots
from api.resources.servers.access import refuse_early, server_of
from api.resources.servers.operations import hint
from cell_db.image_tasks import ImageTask
from cell_db.operations import FIRST_LEASE_S
from cells.gate.answers import Unknown, value_of
from cells.gate.gate import Gate
from clients.glance import Images
from workflows.definitions.create_image import CATALOG, CREATE_RECORD
from workflows.functions import Function, Functions
from workflows.workflow import Program, Workflow


@dataclasses.dataclass(frozen=True, slots=True)
class Backup:
    """What makes an image a backup: its type, and how many of this type the server keeps."""

    type: str
    rotation: int


async def make_image(call: Call, workflow: Workflow, *, backup: Backup | None = None) -> str:
    """Begins the workflow with the name and the metadata of the body; gives the image's id."""
    action = cell_db.image_tasks.ACTIONS[workflow.name]
    located = await server_of(call, action.rule.name)
    gate = refuse_early(call, located, action)
    uuid = located.server.uuid
    spec = value_of(await gate.read(cell_db.instances.build_spec, uuid))
    described = snapshots.record(
        call.context, located.server, spec, name=call.body["name"], metadata=call.body.get("metadata") or {},
        backup_type=None if backup is None else backup.type,
    )  # fmt: skip
    record = {**described, "id": str(uuids.uuid4())}
    task = await _begin(call, gate, workflow, uuid, record, backup)
    try:
        await _create_record(call, gate, task)
    finally:
        hint(call, gate, uuid)
    return task.image_id


def tell_location(call: Call, image_id: str) -> None:
    """Until 2.44 a header told where the image is."""
    call.set_header("Location", f"{call.cloud.conf.image.endpoint.rstrip('/')}/images/{image_id}")


async def _begin(
    call: Call, gate: Gate, workflow: Workflow, uuid: str, record: dict[str, Any], backup: Backup | None
) -> ImageTask:
    """Records it as under way, at its first step, which is this process's for some seconds."""
    token = str(uuids.uuid4())
    answer = await gate.write(
        cell_db.image_tasks.begin, uuid, call.context, image_id=record["id"], record=record,
        position=CATALOG.begin(workflow.name), token=token, lease_s=FIRST_LEASE_S,
        rotation=None if backup is None else backup.rotation,
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
