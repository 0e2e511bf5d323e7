"""Single scenes of the build protocol, step by step: who is slow at which moment, and what must not come of it."""

import uuid
from collections.abc import Iterator

import pytest

import api_db.tables
import cell_db.tables
import messaging.verbs.cell as cell_verbs
import messaging.verbs.compute as compute_verbs
from clients.placement import Claim
from compute.resources.inventory import node_uuid
from lifecycle import states
from messaging.verbs import Verb
from tests.faults.bench import CELL, Agent, Bench, Message
from tests.faults.single_steps import Worker

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Scene:
    """One server on the bench."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.uuid = bench.world.accept(hint=False)[0]

    def row(self) -> object:
        return self.bench.world.rows(CELL, cell_db.tables.instances)[0]

    def agent(self) -> Agent:
        """That of the host that the row names."""
        return self.bench.agents[self.row().host]  # type: ignore[attr-defined]

    def place(self) -> None:
        """A super-conductor hands it over."""
        self.bench.place().run()

    def send(self) -> None:
        """A conductor sends what its row says."""
        self.bench.let_leases_end()
        self.bench.sweeps.builds()

    def message(self, verb: Verb) -> Message:
        return next(message for message in self.bench.post.messages if message.verb is verb and not message.in_hand)

    def deliver(self, verb: Verb) -> None:
        self.bench.deliver(self.message(verb)).run()

    def build(self, agent: Agent) -> None:
        """The agent does what it has accepted."""
        job = agent.lines.next()
        assert job is not None
        job()

    def claimed_on(self) -> set[str]:
        return set(self.bench.world.placement.read_claim(self.uuid).providers)


def until(worker: Worker, at: str) -> None:
    """The worker goes on until it stands there."""
    while worker.at != at:
        assert not worker.has_ended, f"{worker.name} never came to {at}"
        worker.step()


@pytest.fixture
def scene(bench: Bench) -> Iterator[Scene]:
    bench.post.echoes = False
    scene = Scene(bench)
    yield scene
    for host, agent in bench.agents.items():
        agent.refuse(False)
        bench.force_down(host, False)
    bench.wipe(scene.uuid)


def test_a_refusal_answers_for_no_cleanup(scene: Scene) -> None:
    """A second `build` came between fence and destroy of a delete and was refused. The refusal took the cleanup with it: had the
    `destroy` been lost then, nobody would have asked again, and the guest would have stayed for ever.
    """
    bench = scene.bench
    scene.place()
    scene.send()
    agent = scene.agent()
    order = scene.message(compute_verbs.BUILD)
    late = Message(order.queue, order.verb, order.arguments)
    scene.deliver(compute_verbs.BUILD)
    scene.build(agent)
    bench.delete(scene.uuid).run()
    bench.sweeps.cleanups()
    destroy = bench.deliver(scene.message(compute_verbs.DESTROY))
    until(destroy, "after agent.fence")

    bench.post.messages.append(late)
    scene.deliver(compute_verbs.BUILD)
    scene.deliver(cell_verbs.REFUSED)

    owed = bench.world.rows(CELL, cell_db.tables.cleanups)
    guest = agent.guest(scene.uuid)
    destroy.run()
    assert guest is not None
    assert [(one.uuid, one.attempt) for one in owed] == [(scene.uuid, 1)]


def test_a_slow_conductor_does_not_put_the_claim_back(scene: Scene) -> None:
    bench = scene.bench
    scene.place()
    bench.force_down(scene.row().host, True)  # type: ignore[attr-defined]
    slow = bench.worker("slow", bench.sweeps.builds)
    until(slow, "before cell.claim")
    bench.force_down(scene.row().host, True)  # type: ignore[attr-defined]
    bench.let_leases_end()
    bench.sweeps.builds()
    row = scene.row()

    slow.run()

    assert row.attempt == 3  # type: ignore[attr-defined]
    assert scene.claimed_on() == {node_uuid(row.host)}  # type: ignore[attr-defined]


def test_a_super_conductor_that_lost_its_lease_changes_nothing(scene: Scene) -> None:
    bench = scene.bench
    slow = bench.place()
    until(slow, "before super.claim")
    bench.let_leases_end()
    scene.place()
    row, claim = scene.row(), scene.claimed_on()

    slow.run()

    assert scene.row() == row
    assert scene.claimed_on() == claim == {node_uuid(row.host)}  # type: ignore[attr-defined]
    assert bench.world.rows("api", api_db.tables.build_requests) == []


def test_an_order_that_was_deleted_while_it_was_claimed_reaches_no_cell(scene: Scene) -> None:
    bench = scene.bench
    slow = bench.place()
    until(slow, "after super.claim")
    bench.delete(scene.uuid).run()

    slow.run()

    assert bench.world.rows(CELL, cell_db.tables.instances) == []
    assert bench.world.rows("api", api_db.tables.build_requests) == []
    assert scene.claimed_on() == set()


def test_a_delete_between_assign_and_insert_leaves_a_tombstone(scene: Scene) -> None:
    bench = scene.bench
    slow = bench.place()
    until(slow, "before super.insert")
    bench.delete(scene.uuid).run()
    bench.let_leases_end()
    scene.place()

    slow.run()

    assert scene.row().state == states.GOING  # type: ignore[attr-defined]
    bench.sweeps.cleanups()
    assert scene.row().state == states.GONE  # type: ignore[attr-defined]
    assert scene.claimed_on() == set()


def test_a_host_wrongly_thought_dead_keeps_no_guest(scene: Scene) -> None:
    bench = scene.bench
    scene.place()
    scene.send()
    first = scene.agent()
    scene.deliver(compute_verbs.BUILD)
    scene.build(first)
    bench.force_down(first.host, True)
    scene.send()
    second = scene.agent()
    scene.deliver(compute_verbs.BUILD)
    scene.build(second)
    for _ in range(2):
        scene.deliver(cell_verbs.ACTIVE)

    bench.force_down(first.host, False)
    bench.let_leases_end()
    bench.sweeps.cleanups()
    for verb in (compute_verbs.DESTROY, cell_verbs.GONE):
        scene.deliver(verb)

    assert (first.guest(scene.uuid), scene.row().state) == (None, states.LIVE)  # type: ignore[attr-defined]
    assert scene.claimed_on() == {node_uuid(second.host)}
    assert bench.world.rows(CELL, cell_db.tables.cleanups) == []


def test_a_late_claim_in_another_cell_is_released(scene: Scene) -> None:
    """A frozen super-conductor's claim landed on a host of the west after the server had lived and died in the east. The west's
    conductor knows no such server, and the super-conductor's sweep trusted the cell that the mapping names: it stood for ever.
    """
    bench = scene.bench
    scene.place()
    bench.delete(scene.uuid).run()
    bench.let_leases_end()
    bench.sweeps.cleanups()
    scene.deliver(compute_verbs.DESTROY)
    scene.deliver(cell_verbs.GONE)
    assert (scene.row().state, scene.claimed_on()) == (states.GONE, set())  # type: ignore[attr-defined]
    node = node_uuid(bench.hosts[0])
    claim = Claim(uuid=scene.uuid, provider_uuid=node, resources={"VCPU": 1}, project_id="p", user_id="u", generation=None)
    bench.world.placement.claim([claim])

    sweep = bench.claim_sweep(cell_uuid=str(uuid.uuid4()))
    for _ in range(2):
        sweep.sweep()

    assert scene.claimed_on() == set()


def test_a_claim_of_a_server_that_lives_is_left_alone(scene: Scene) -> None:
    bench = scene.bench
    scene.place()

    sweep = bench.claim_sweep()
    for _ in range(2):
        sweep.sweep()

    assert scene.claimed_on() == {node_uuid(scene.row().host)}  # type: ignore[attr-defined]
