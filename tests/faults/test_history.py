"""A delete is in its server's history under the request that asked for it, whichever process told the cell, and however
late."""

import pytest
import sqlalchemy as sa

import api_db.tables
import cell_db.history
import cell_db.tables
import messaging.verbs.cell as cell_verbs
import messaging.verbs.compute as compute_verbs
from cells.gate.answers import CELL0_UUID
from lifecycle import states
from tests.faults.harness import CELL
from tests.faults.scene import Scene, until
from tests.faults.world import USER

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def deletes(scene: Scene, cell: str = CELL) -> list[sa.Row[object]]:
    """The records of the delete in its cell; all of them are over."""
    rows = [row for row in scene.harness.world.rows(cell, cell_db.tables.instance_actions) if row.uuid == scene.uuid]
    assert all(row.finish_time is not None for row in rows)
    return [row for row in rows if row.action == "delete"]


def finish(scene: Scene) -> None:
    """What sweeps do, until nothing of the server is left."""
    scene.harness.let_leases_end()
    scene.place()
    scene.harness.sweeps.cleanups()
    for verb in (compute_verbs.DESTROY, cell_verbs.GONE):
        while any(message.verb is verb for message in scene.harness.post.messages):
            scene.deliver(verb)


def test_a_delete_right_after_its_cell_got_the_server(scene: Scene) -> None:
    """Its order is in the journal still, so the super-conductor tells the cell."""
    scene.place()
    scene.harness.delete(scene.uuid).run()

    finish(scene)

    [record] = deletes(scene)
    assert (record.request_id, record.user_id, record.project_id) == (USER.request_id, USER.user_id, USER.project_id)


def test_a_delete_that_its_cell_hears_of_later(scene: Scene) -> None:
    """The cell is away, or the API dies before it has told the cell."""
    scene.place()
    scene.harness.let_leases_end()
    scene.place()  # drops the order
    dying = scene.harness.delete(scene.uuid)
    until(dying, "before super.tombstone")
    dying.kill()

    finish(scene)

    [record] = deletes(scene)
    assert record.request_id == USER.request_id


def test_a_delete_of_a_server_that_its_cell_never_got(scene: Scene) -> None:
    slow = scene.harness.place()
    until(slow, "before super.insert")
    scene.harness.delete(scene.uuid).run()

    finish(scene)

    assert scene.row().state == states.BUILD_DELETED  # type: ignore[attr-defined]
    [record] = deletes(scene)
    assert record.request_id == USER.request_id
    slow.run()
    assert len(deletes(scene)) == 1


@pytest.mark.parametrize("killed_at", [None, "before super.tombstone", "after super.tombstone"])
def test_a_delete_of_a_server_that_no_cell_ever_got(scene: Scene, killed_at: str | None) -> None:
    """Nothing was chosen for it yet: cell0 keeps its history, and the mapping says so."""
    world = scene.harness.world
    scene.harness.delete(scene.uuid).run()
    if killed_at is not None:
        scene.harness.let_leases_end()
        dying = scene.harness.place()
        until(dying, killed_at)
        dying.kill()

    finish(scene)

    [record] = deletes(scene, "cell0")
    assert (record.request_id, record.user_id, record.project_id) == (USER.request_id, USER.user_id, USER.project_id)
    [created] = [
        row
        for row in world.rows("cell0", cell_db.tables.instance_actions)
        if (row.uuid, row.action) == (scene.uuid, "create")
    ]
    assert created.message == cell_db.history.ERROR
    [row] = world.rows("cell0", cell_db.tables.instances)
    assert (row.state, row.vm_state, row.deleted) == (states.BUILD_DELETED, states.DELETED, True)
    [mapping] = [
        mapping for mapping in world.rows("api", api_db.tables.instance_mappings) if mapping.uuid == scene.uuid
    ]
    assert (mapping.deleted, mapping.cell_uuid) == (True, CELL0_UUID)
    assert world.rows("api", api_db.tables.build_requests) == []
