"""What users and operators do while a trap is set. Each story brings certain steps about; it calls `arm` when the trap may spring."""

from collections.abc import Callable, Sequence

import api_db.journal
import cell_db.operations
import messaging.verbs.cell as cell_verbs
from cells.gate.answers import value_of
from clients.placement import Claim
from lifecycle import states
from lifecycle.actions import OPERATIONS
from scheduler.resources import DISK_GB, MEMORY_MB, VCPU
from tests.faults.caretaker import Caretaker
from tests.faults.world import FLAVOR, HOPELESS, PICKY, SLOW, USER, World

Arm = Callable[[], None]
Story = Callable[[Caretaker, Arm], None]
RESOURCES = {VCPU: FLAVOR.vcpus, MEMORY_MB: FLAVOR.memory_mib, DISK_GB: FLAVOR.root_gib}


def everyday(caretaker: Caretaker, arm: Arm) -> None:
    """Two servers in one request, one of them refused by its first host; a third one deleted while it is built, the first once it runs."""
    world = caretaker.world
    pair = world.accept("plain", PICKY, hint=False)
    slow = world.accept(SLOW, hint=False)
    arm()
    world.hint(pair)
    world.hint(slow)
    caretaker.wait_until(lambda: world.state_of(slow[0]) is not None, "a cell has the slow one")
    caretaker.delete(slow[0])
    _wait_for_end(caretaker, pair)
    caretaker.delete(pair[0])
    caretaker.settle()


def accepted(caretaker: Caretaker, arm: Arm) -> None:
    """A request for two servers: both are accepted or neither, and both if the user was told so."""
    world = caretaker.world
    orders = world.orders("plain", "plain")
    told: list[str] = []
    arm()

    def request() -> None:
        world.create(orders, caretaker.api_steps)
        told.append("202")

    caretaker.call(request)
    caretaker.settle()
    there = [order.uuid for order in orders if order.uuid in world.instances()]
    assert len(there) in ((2,) if told else (0, 2)), f"{len(there)} of 2 are there; the user was told {told}"
    for uuid in there:
        caretaker.delete(uuid)
    caretaker.settle()


def claimed_before(caretaker: Caretaker, arm: Arm) -> None:
    """An earlier super-conductor claimed for the server and died."""
    world = caretaker.world
    uuids = world.accept(asleep=True)
    node = world.placement.providers([])[0].uuid
    world.placement.claim([Claim(uuid=uuids[0], provider_uuid=node, resources=RESOURCES, project_id="p", user_id="u", generation=None)])
    arm()
    caretaker.let_leases_end()
    _wait_for_end(caretaker, uuids)
    caretaker.settle()


def nowhere_to_go(caretaker: Caretaker, arm: Arm) -> None:
    """No valid host: the server is buried in cell0, and deleted there."""
    world = caretaker.world
    uuids = world.accept(zone="mars", hint=False)
    arm()
    world.hint(uuids)
    caretaker.settle()
    caretaker.delete(uuids[0])
    caretaker.settle()


def deleted_before_placed(caretaker: Caretaker, arm: Arm) -> None:
    """Deleted right after the 202."""
    world = caretaker.world
    uuids = world.accept("plain", SLOW, asleep=True)
    for uuid in uuids:
        world.delete(uuid)
    arm()
    caretaker.let_leases_end()
    caretaker.settle()


def deleted_by_an_api_that_died(caretaker: Caretaker, arm: Arm) -> None:
    """The API process dies right after `api.delete`: the super-conductor's sweep tells the cell."""
    world = caretaker.world
    uuids = world.accept()
    _wait_for_end(caretaker, uuids)
    arm()
    value_of(world.api_db.write_now(api_db.journal.request_delete, uuid=uuids[0], lease_s=0.0))
    caretaker.settle()


def refused_everywhere(caretaker: Caretaker, arm: Arm) -> None:
    """Every host refuses: ERROR, and then deleted, with no host left to ask."""
    world = caretaker.world
    uuids = world.accept(HOPELESS, hint=False)
    arm()
    world.hint(uuids)
    _wait_for_end(caretaker, uuids)
    caretaker.delete(uuids[0])
    caretaker.settle()


def sent_again(caretaker: Caretaker, arm: Arm) -> None:
    """A build whose lease ends while its host is at it."""
    world = caretaker.world
    uuids = world.accept(SLOW, SLOW)
    caretaker.wait_until(lambda: all(world.state_of(uuid) for uuid in uuids), "a cell has them")
    arm()
    caretaker.let_leases_end()
    caretaker.settle()


def stopped(caretaker: Caretaker, arm: Arm) -> None:
    """A running server is stopped, then deleted."""
    world = caretaker.world
    uuids = world.accept()
    _wait_for_end(caretaker, uuids)
    caretaker.settle()
    cell, _ = world.instances()[uuids[0]]
    arm()
    begin_stop(world, cell, uuids[0])
    caretaker.settle()
    _, row = world.instances()[uuids[0]]
    assert row.vm_state in (states.STOPPED, states.ACTIVE), row.vm_state
    caretaker.delete(uuids[0])
    caretaker.settle()


def begin_stop(world: World, cell: str, uuid: str) -> None:
    """What the API does for os-stop."""
    gate = world.cells.by_name(cell)
    value_of(
        gate.write_now(cell_db.operations.begin_operation, uuid, OPERATIONS["stop"], USER, arguments={}, deadline_s=30.0)
    )
    gate.hint(cell_verbs.QUEUE, cell_verbs.ACT, cell_verbs.Uuids([uuid]), USER)


def restarted_agent(caretaker: Caretaker, arm: Arm) -> None:
    """An agent is restarted in good order and says hello, with a server that runs and one under way."""
    world = caretaker.world
    arm()
    uuids = world.accept("plain", SLOW)
    cell = world.cell_names[0]
    caretaker.restart(caretaker.one("agent", cell, world.hosts[cell][0]))
    _wait_for_end(caretaker, uuids)
    caretaker.delete(uuids[0])
    caretaker.settle()


def _wait_for_end(caretaker: Caretaker, uuids: Sequence[str]) -> None:
    ends = (states.BUILD_ACTIVE, states.BUILD_ERROR, states.BUILD_DELETED)
    caretaker.wait_until(lambda: all(caretaker.world.state_of(uuid) in ends for uuid in uuids), f"{len(uuids)} servers end somewhere")
