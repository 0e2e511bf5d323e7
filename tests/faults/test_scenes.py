"""Single scenes of the build protocol, step by step: who is slow at which moment, and what must not come of it."""

import uuid

import pytest

import api_db.quota
import api_db.tables
import cell_db.tables
import core.errors
import messaging.verbs.cell as cell_verbs
import messaging.verbs.compute as compute_verbs
from clients.placement import Claim
from lifecycle import states
from objects.host import node_uuid
from tests.faults.harness import CELL, Harness, Message
from tests.faults.scene import Scene, until
from tests.faults.steps import BreakableSteps, Killed, Kind, Trap
from tests.faults.world import UNLIMITED

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_a_refusal_answers_for_no_cleanup(scene: Scene) -> None:
    """A second `build` came between fence and destroy of a delete and was refused. The refusal took the cleanup with
    it: had the `destroy` been lost then, nobody would have asked again, and the guest would have stayed for ever.
    """
    harness = scene.harness
    scene.place()
    scene.send()
    agent = scene.agent()
    order = scene.message(compute_verbs.BUILD)
    late = Message(order.queue, order.verb, order.arguments)
    scene.deliver(compute_verbs.BUILD)
    scene.build(agent)
    harness.delete(scene.uuid).run()
    harness.sweeps.cleanups()
    destroy = harness.deliver(scene.message(compute_verbs.DESTROY))
    until(destroy, "after agent.fence")

    harness.post.messages.append(late)
    scene.deliver(compute_verbs.BUILD)
    scene.deliver(cell_verbs.REFUSED)

    owed = harness.world.rows(CELL, cell_db.tables.cleanups)
    guest = agent.guest(scene.uuid)
    destroy.run()
    assert guest is not None
    assert [(one.uuid, one.attempt) for one in owed] == [(scene.uuid, 1)]


def test_a_slow_conductor_does_not_put_the_claim_back(scene: Scene) -> None:
    harness = scene.harness
    scene.place()
    harness.force_down(scene.row().host, True)  # type: ignore[attr-defined]
    slow = harness.worker("slow", harness.sweeps.builds)
    until(slow, "before cell.claim")
    harness.force_down(scene.row().host, True)  # type: ignore[attr-defined]
    harness.let_leases_end()
    harness.sweeps.builds()
    row = scene.row()

    slow.run()

    assert row.attempt == 3  # type: ignore[attr-defined]
    assert scene.claimed_on() == {node_uuid(row.host)}  # type: ignore[attr-defined]


def test_a_super_conductor_that_lost_its_lease_changes_nothing(scene: Scene) -> None:
    harness = scene.harness
    slow = harness.place()
    until(slow, "before super.claim")
    harness.let_leases_end()
    scene.place()
    row, claim = scene.row(), scene.claimed_on()

    slow.run()

    assert scene.row() == row
    assert scene.claimed_on() == claim == {node_uuid(row.host)}  # type: ignore[attr-defined]
    assert harness.world.rows("api", api_db.tables.build_requests) == []


def test_an_order_that_was_deleted_while_it_was_claimed_reaches_no_cell(scene: Scene) -> None:
    harness = scene.harness
    slow = harness.place()
    until(slow, "after super.claim")
    harness.delete(scene.uuid).run()

    slow.run()

    assert harness.world.rows(CELL, cell_db.tables.instances) == []
    assert harness.world.rows("api", api_db.tables.build_requests) == []
    assert scene.claimed_on() == set()


def test_a_delete_between_assign_and_insert_leaves_a_tombstone(scene: Scene) -> None:
    harness = scene.harness
    slow = harness.place()
    until(slow, "before super.insert")
    harness.delete(scene.uuid).run()
    harness.let_leases_end()
    scene.place()

    slow.run()

    assert scene.row().state == states.BUILD_DELETING  # type: ignore[attr-defined]
    harness.sweeps.cleanups()
    assert scene.row().state == states.BUILD_DELETED  # type: ignore[attr-defined]
    assert scene.claimed_on() == set()


def test_a_host_wrongly_thought_dead_keeps_no_guest(scene: Scene) -> None:
    harness = scene.harness
    scene.place()
    scene.send()
    first = scene.agent()
    scene.deliver(compute_verbs.BUILD)
    scene.build(first)
    harness.force_down(first.host, True)
    scene.send()
    second = scene.agent()
    scene.deliver(compute_verbs.BUILD)
    scene.build(second)
    for _ in range(2):
        scene.deliver(cell_verbs.ACTIVE)

    harness.force_down(first.host, False)
    harness.let_leases_end()
    harness.sweeps.cleanups()
    for verb in (compute_verbs.DESTROY, cell_verbs.GONE):
        scene.deliver(verb)

    assert (first.guest(scene.uuid), scene.row().state) == (None, states.BUILD_ACTIVE)  # type: ignore[attr-defined]
    assert scene.claimed_on() == {node_uuid(second.host)}
    assert harness.world.rows(CELL, cell_db.tables.cleanups) == []


def test_a_late_claim_in_another_cell_is_released(scene: Scene) -> None:
    """A frozen super-conductor's claim landed on a host of the west after the server had lived and died in the east.
    The west's conductor knows no such server, and the super-conductor's sweep trusted the cell that the mapping names:
    it stood for ever.
    """
    harness = scene.harness
    scene.place()
    harness.delete(scene.uuid).run()
    harness.let_leases_end()
    harness.sweeps.cleanups()
    scene.deliver(compute_verbs.DESTROY)
    scene.deliver(cell_verbs.GONE)
    assert (scene.row().state, scene.claimed_on()) == (states.BUILD_DELETED, set())  # type: ignore[attr-defined]
    node = node_uuid(harness.hosts[0])
    claim = Claim(
        uuid=scene.uuid, provider_uuid=node, resources={"VCPU": 1}, project_id="p", user_id="u", generation=None
    )
    harness.world.placement.claim([claim])

    sweep = harness.claim_sweep(cell_uuid=str(uuid.uuid4()))
    for _ in range(2):
        sweep.sweep()

    assert scene.claimed_on() == set()


def test_a_claim_of_a_server_that_lives_is_left_alone(scene: Scene) -> None:
    harness = scene.harness
    scene.place()

    sweep = harness.claim_sweep()
    for _ in range(2):
        sweep.sweep()

    assert scene.claimed_on() == {node_uuid(scene.row().host)}  # type: ignore[attr-defined]


def test_a_host_that_was_disabled_since_it_was_chosen_gets_nothing(scene: Scene) -> None:
    """The view of hosts is up to a second old: the host was disabled in between, and got the build all the same."""
    harness = scene.harness
    slow = harness.place()
    until(slow, "before super.insert")
    chosen = harness.world.rows("api", api_db.tables.build_requests)[0].host
    harness.disable(chosen, True)

    slow.run()
    scene.send()

    row = scene.row()
    assert (row.state, row.attempt) == (states.BUILD, 2)  # type: ignore[attr-defined]
    assert row.host != chosen  # type: ignore[attr-defined]
    assert chosen not in {alternate["host"] for alternate in row.alternates}  # type: ignore[attr-defined]
    assert {message.queue for message in harness.post.messages} == {compute_verbs.queue(row.host)}  # type: ignore[attr-defined]
    assert scene.claimed_on() == {node_uuid(row.host)}  # type: ignore[attr-defined]
    assert harness.world.rows(CELL, cell_db.tables.cleanups) == []


def test_a_build_stays_where_it_was_meant_to_go_when_every_alternate_is_disabled(scene: Scene) -> None:
    harness = scene.harness
    slow = harness.place()
    until(slow, "before super.insert")
    chosen = harness.world.rows("api", api_db.tables.build_requests)[0].host
    for host in harness.hosts:
        harness.disable(host, True)

    slow.run()

    assert (scene.row().host, scene.row().attempt) == (chosen, 1)  # type: ignore[attr-defined]
    assert scene.claimed_on() == {node_uuid(chosen)}


# ---- accepting -------------------------------------------------------------------------------------------------------


def test_a_create_whose_commit_nobody_confirmed_is_answered_like_any_other(harness: Harness) -> None:
    """The user was told 503, asked again, and had twice the servers."""
    steps = BreakableSteps("api")
    steps.trap = Trap("api.accept", Kind.ERROR_AFTER)
    orders = harness.world.orders("one", "two")

    harness.world.create(orders, steps)

    journal = {row.uuid for row in harness.world.rows("api", api_db.tables.build_requests)}
    harness.wipe(orders[0].uuid)
    assert journal == {order.uuid for order in orders}


@pytest.mark.parametrize(("kind", "kept"), [(Kind.KILLED_BEFORE, 0), (Kind.KILLED_AFTER, 2)])
def test_a_killed_create_is_whole_or_nothing(harness: Harness, kind: Kind, kept: int) -> None:
    steps = BreakableSteps("api")
    steps.trap = Trap("api.accept", kind)
    orders = harness.world.orders("one", "two", project="killed")

    with pytest.raises(Killed):
        harness.world.create(orders, steps)

    with harness.world.databases["api"].reading() as connection:
        charged = api_db.quota.usage(connection, "killed")
    journal = harness.world.rows("api", api_db.tables.build_requests)
    harness.wipe(orders[0].uuid)
    assert (len(journal), charged["instances"]) == (kept, kept)


def test_a_create_above_the_quota_leaves_nothing(harness: Harness) -> None:
    steps = BreakableSteps("api")
    steps.trap = Trap("api.accept", Kind.ERROR_AFTER)
    orders = harness.world.orders("one", "two", project="poor")

    with pytest.raises(core.errors.OverQuota):
        harness.world.create(orders, steps, quota={**UNLIMITED, "instances": 1})

    assert harness.world.rows("api", api_db.tables.build_requests) == []
    assert harness.world.rows("api", api_db.tables.instance_mappings) == []
