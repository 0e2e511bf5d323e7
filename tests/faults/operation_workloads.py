"""What users do to servers that live, while a trap is set: each operation ends, well or with a fault, and leaves
nothing half done."""

import uuid as uuids

import cell_db.image_tasks
import cell_db.operations
import cell_db.rebuilds
import core.errors
import core.sealed
import messaging.verbs.cell as cell_verbs
from cell_db.image_tasks import ImageTask
from cells.gate.answers import value_of
from cells.gate.gate import Gate
from core.context import Context, new_request_id
from lifecycle import states
from lifecycle.actions import OPERATIONS
from objects.build import ImageRef
from tests.faults.process_keeper import ProcessKeeper
from tests.faults.workloads import Arm
from tests.faults.world import CLUMSY, World
from workflows.definitions.create_image import CATALOG

IMAGE = ImageRef(image_id="5a9b7c58-0b6f-4a52-9f0c-6f9c8b1f8a11", name="other")
PASSWORD = "correct-horse"


def rescued(keeper: ProcessKeeper, arm: Arm) -> None:
    """A server is rescued, and unrescued if that went well."""
    uuid = _running(keeper)
    arm()
    _begin(keeper.world, uuid, "rescue", {"image": None})
    keeper.settle()
    if _vm_state(keeper.world, uuid, states.RESCUED, states.ERROR, states.ACTIVE) == states.RESCUED:
        _begin(keeper.world, uuid, "unrescue", {})
        keeper.settle()
        _vm_state(keeper.world, uuid, states.ACTIVE, states.ERROR)
    _delete(keeper, uuid)


def rebuilt(keeper: ProcessKeeper, arm: Arm) -> None:
    """A server is built anew: its record says so at once, and it is in ERROR if its guest is not."""
    world = keeper.world
    uuid = _running(keeper)
    cell, row = world.instances()[uuid]
    arm()
    gate = world.cells.by_name(cell)
    changes = cell_db.rebuilds.Changes(image=IMAGE, columns={"display_name": "anew"})
    value_of(gate.write_now(cell_db.rebuilds.begin, uuid, changes, _user()))
    gate.hint(cell_verbs.QUEUE, cell_verbs.ACT, cell_verbs.Uuids([uuid]), _user())
    keeper.settle()
    _vm_state(world, uuid, states.ACTIVE, states.ERROR)
    after = world.instances()[uuid][1]
    assert (after.image_ref, after.display_name, after.attempt, after.host) == (
        IMAGE.image_id,
        "anew",
        row.attempt,
        row.host,
    )
    _delete(keeper, uuid)


def copied(keeper: ProcessKeeper, arm: Arm) -> None:
    """An image of a server: whole, or not there."""
    uuid = _running(keeper)
    _copy(keeper, arm, uuid)
    _delete(keeper, uuid)


def not_copied(keeper: ProcessKeeper, arm: Arm) -> None:
    """The host cannot copy the disk: the image's record goes again."""
    uuid = _running(keeper, CLUMSY)
    assert _copy(keeper, arm, uuid) is None
    why = keeper.world.instances()[uuid][1].fault["message"]
    # An agent that goes on after the record went finds no image any more.
    assert "clumsy" in why or "no image" in why or "not there" in why, why
    _delete(keeper, uuid)


def password_set(keeper: ProcessKeeper, arm: Arm) -> None:
    """A password, sealed to the server's host."""
    world = keeper.world
    uuid = _running(keeper)
    cell, row = world.instances()[uuid]
    key = value_of(world.cells.by_name(cell).read_now(cell_db.operations.sealing_key, row.host))
    arm()
    _begin(world, uuid, "change-password", {"user": "root", "sealed": core.sealed.seal(PASSWORD, key=key, about=uuid)})
    keeper.settle()
    _vm_state(world, uuid, states.ACTIVE)
    _delete(keeper, uuid)


def copied_by_an_api_that_died(keeper: ProcessKeeper, arm: Arm) -> None:
    """The row says that an image is being made, and its record is made by whoever lives: it is whole, or not there."""
    uuid = _running(keeper)
    task = _begin_image(keeper.world, uuid)
    arm()
    keeper.let_leases_end()
    _end_image(keeper, uuid, task)
    _delete(keeper, uuid)


def deleted_while_copied(keeper: ProcessKeeper, arm: Arm) -> None:
    """The server goes while its image is being made: the image is whole, or not there."""
    uuid = _running(keeper)
    task = _begin_image(keeper.world, uuid)
    arm()
    keeper.delete(uuid)
    keeper.let_leases_end()
    keeper.settle()
    assert _status(keeper.world, task.image_id) in ("active", None)


def backed_up(keeper: ProcessKeeper, arm: Arm) -> None:
    """A backup takes the place of the oldest one; if it is not made, none goes."""
    world = keeper.world
    uuid = _running(keeper)
    older = [world.images.create(_backup(uuid)).id for _ in range(2)]
    disk = world.folder / "disk-of-a-backup"
    disk.write_bytes(b"a disk")
    for image_id in older:
        world.images.upload(image_id, disk)
    arm()
    task = _begin_image(world, uuid, rotation=2)
    keeper.call(_create_record, keeper, task)
    made = _end_image(keeper, uuid, task)
    assert [_status(world, image_id) for image_id in older].count("active") == (1 if made == "active" else 2)
    for image_id in older:
        world.images.delete(image_id)
    _delete(keeper, uuid)


def _backup(uuid: str) -> dict[str, str]:
    """A record of one."""
    kind = {"image_type": "backup", "backup_type": "daily", "instance_uuid": uuid, "owner": str(_user().project_id)}
    return {"name": "backup", "disk_format": "qcow2", "container_format": "bare", **kind}


def _copy(keeper: ProcessKeeper, arm: Arm, uuid: str) -> str | None:
    """The status of the image in the end."""
    world = keeper.world
    arm()
    task = _begin_image(world, uuid)
    keeper.call(_create_record, keeper, task)
    return _end_image(keeper, uuid, task)


def _end_image(keeper: ProcessKeeper, uuid: str, task: ImageTask) -> str | None:
    keeper.settle()
    row = keeper.world.instances()[uuid][1]
    assert (row.vm_state, row.task_state) == (states.ACTIVE, None)
    status = _status(keeper.world, task.image_id)
    assert status in (("active", None) if row.fault else ("active",)), f"the image is {status}"
    keeper.world.images.delete(task.image_id)
    return status


def _begin_image(world: World, uuid: str, *, rotation: int | None = None) -> ImageTask:
    """What the API does first; with a rotation it is a backup."""
    copy = {"name": "copy", "disk_format": "qcow2", "container_format": "bare"}
    record = {**(copy if rotation is None else _backup(uuid)), "id": str(uuids.uuid4())}
    begun = _gate_of(world, uuid).write_now(
        cell_db.image_tasks.begin, uuid, _user(), image_id=record["id"], record=record, rotation=rotation,
        position=CATALOG.begin("create-image" if rotation is None else "create-backup"),
        token=str(uuids.uuid4()), lease_s=5.0,
    )  # fmt: skip
    return value_of(begun)


def _create_record(keeper: ProcessKeeper, task: ImageTask) -> None:
    """What the API does then."""
    world = keeper.world
    gate = _gate_of(world, task.uuid)
    with keeper.api_steps("cell.create-record"):
        world.images.create_once(task.record)
    after = CATALOG.take_report(task.position, "cell.create-record", "created")
    gate.write_now(cell_db.image_tasks.move, task, after, token=None)
    gate.hint(cell_verbs.QUEUE, cell_verbs.ACT, cell_verbs.Uuids([task.uuid]), _user())


def _gate_of(world: World, uuid: str) -> Gate:
    return world.cells.by_name(world.instances()[uuid][0])


def _status(world: World, image_id: str) -> str | None:
    try:
        return world.images.look(image_id).status
    except core.errors.NotFound:
        return None


def _running(keeper: ProcessKeeper, name: str = "server") -> str:
    """A server that runs, with all at rest."""
    (uuid,) = keeper.world.accept(name)
    keeper.wait_until(lambda: keeper.world.state_of(uuid) == states.BUILD_ACTIVE, "a server runs")
    keeper.settle()
    return uuid


def _begin(world: World, uuid: str, operation: str, arguments: dict[str, object]) -> None:
    """What the API does."""
    gate = world.cells.by_name(world.instances()[uuid][0])
    value_of(
        gate.write_now(cell_db.operations.begin_operation, uuid, OPERATIONS[operation], _user(), arguments=arguments)
    )
    gate.hint(cell_verbs.QUEUE, cell_verbs.ACT, cell_verbs.Uuids([uuid]), _user())


def _user() -> Context:
    return Context(user_id="u", project_id="p", roles=("member", "reader"), request_id=new_request_id())


def _vm_state(world: World, uuid: str, *allowed: str) -> str:
    row = world.instances()[uuid][1]
    assert row.vm_state in allowed and row.task_state is None, (row.vm_state, row.task_state)
    assert row.vm_state != states.ERROR or row.fault
    return str(row.vm_state)


def _delete(keeper: ProcessKeeper, uuid: str) -> None:
    keeper.delete(uuid)
    keeper.settle()
