"""What users do to servers that live, while a trap is set: each operation ends, well or with a fault, and leaves nothing half done."""

import cell_db.operations
import cell_db.rebuilds
import core.errors
import core.sealed
import messaging.verbs.cell as cell_verbs
from cells.gate.answers import value_of
from core.context import Context, new_request_id
from lifecycle import states
from lifecycle.actions import OPERATIONS
from objects.build import ImageRef
from tests.faults.process_keeper import ProcessKeeper
from tests.faults.workloads import Arm
from tests.faults.world import CLUMSY, World

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
    assert (after.image_ref, after.display_name, after.attempt, after.host) == (IMAGE.image_id, "anew", row.attempt, row.host)
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
    assert "clumsy" in why or "no image" in why
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


def _copy(keeper: ProcessKeeper, arm: Arm, uuid: str) -> str | None:
    """The status of the image in the end."""
    images = keeper.world.images
    image_id = images.create({"name": "copy", "disk_format": "qcow2", "container_format": "bare"}).id
    arm()
    _begin(keeper.world, uuid, "create-image", {"image_id": image_id})
    keeper.settle()
    row = keeper.world.instances()[uuid][1]
    assert (row.vm_state, row.task_state) == (states.ACTIVE, None)
    status = _status(keeper.world, image_id)
    assert status in (("active", None) if row.fault else ("active",)), f"the image is {status}"
    images.delete(image_id)
    return status


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
    value_of(gate.write_now(cell_db.operations.begin_operation, uuid, OPERATIONS[operation], _user(), arguments=arguments))
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
