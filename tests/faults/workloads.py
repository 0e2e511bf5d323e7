"""What users and operators do while a trap is set. Each story brings certain steps about; it calls `arm` when the trap
may spring."""

from collections.abc import Callable, Sequence

import api_db.journal
import cell_db.operations
import messaging.verbs.cell as cell_verbs
from cells.gate.answers import value_of
from clients.placement import Claim
from lifecycle import states
from lifecycle.actions import OPERATIONS
from scheduler.resources import DISK_GB, MEMORY_MB, VCPU
from tests.faults.process_keeper import ProcessKeeper
from tests.faults.world import FLAVOR, HOPELESS, PICKY, SLOW, USER, World

Arm = Callable[[], None]
Workload = Callable[[ProcessKeeper, Arm], None]
RESOURCES = {VCPU: FLAVOR.vcpus, MEMORY_MB: FLAVOR.memory_mib, DISK_GB: FLAVOR.root_gib}


def everyday(keeper: ProcessKeeper, arm: Arm) -> None:
    """Two servers in one request, one of them refused by its first host; a third one deleted while it is built, the
    first once it runs."""
    world = keeper.world
    pair = world.accept("plain", PICKY, hint=False)
    slow = world.accept(SLOW, hint=False)
    arm()
    world.hint(pair)
    world.hint(slow)
    keeper.wait_until(lambda: world.state_of(slow[0]) is not None, "a cell has the slow one")
    keeper.delete(slow[0])
    _wait_for_end(keeper, pair)
    keeper.delete(pair[0])
    keeper.settle()


def accepted(keeper: ProcessKeeper, arm: Arm) -> None:
    """A request for two servers: both are accepted or neither, and both if the user was told so."""
    world = keeper.world
    orders = world.orders("plain", "plain")
    told: list[str] = []
    arm()

    def request() -> None:
        world.create(orders, keeper.api_steps)
        told.append("202")

    keeper.call(request)
    keeper.settle()
    there = [order.uuid for order in orders if order.uuid in world.instances()]
    assert len(there) in ((2,) if told else (0, 2)), f"{len(there)} of 2 are there; the user was told {told}"
    for uuid in there:
        keeper.delete(uuid)
    keeper.settle()


def claimed_before(keeper: ProcessKeeper, arm: Arm) -> None:
    """An earlier super-conductor claimed for the server and died."""
    world = keeper.world
    uuids = world.accept(asleep=True)
    node = world.placement.providers([])[0].uuid
    world.placement.claim(
        [Claim(uuid=uuids[0], provider_uuid=node, resources=RESOURCES, project_id="p", user_id="u", generation=None)]
    )
    arm()
    keeper.let_leases_end()
    _wait_for_end(keeper, uuids)
    keeper.settle()


def nowhere_to_go(keeper: ProcessKeeper, arm: Arm) -> None:
    """No valid host: the server is buried in cell0, and deleted there."""
    world = keeper.world
    uuids = world.accept(zone="mars", hint=False)
    arm()
    world.hint(uuids)
    keeper.settle()
    keeper.delete(uuids[0])
    keeper.settle()


def deleted_before_placed(keeper: ProcessKeeper, arm: Arm) -> None:
    """Deleted right after the 202."""
    world = keeper.world
    uuids = world.accept("plain", SLOW, asleep=True)
    for uuid in uuids:
        world.delete(uuid)
    arm()
    keeper.let_leases_end()
    keeper.settle()


def deleted_by_an_api_that_died(keeper: ProcessKeeper, arm: Arm) -> None:
    """The API process dies right after `api.delete`: the super-conductor's sweep tells the cell."""
    world = keeper.world
    uuids = world.accept()
    _wait_for_end(keeper, uuids)
    arm()
    value_of(world.api_db.write_now(api_db.journal.request_delete, uuid=uuids[0], lease_s=0.0))
    keeper.settle()


def refused_everywhere(keeper: ProcessKeeper, arm: Arm) -> None:
    """Every host refuses: ERROR, and then deleted, with no host left to ask."""
    world = keeper.world
    uuids = world.accept(HOPELESS, hint=False)
    arm()
    world.hint(uuids)
    _wait_for_end(keeper, uuids)
    keeper.delete(uuids[0])
    keeper.settle()


def sent_again(keeper: ProcessKeeper, arm: Arm) -> None:
    """A build whose lease ends while its host is at it."""
    world = keeper.world
    uuids = world.accept(SLOW, SLOW)
    keeper.wait_until(lambda: all(world.state_of(uuid) for uuid in uuids), "a cell has them")
    arm()
    keeper.let_leases_end()
    keeper.settle()


def stopped(keeper: ProcessKeeper, arm: Arm) -> None:
    """A running server is stopped, then deleted."""
    world = keeper.world
    uuids = world.accept()
    _wait_for_end(keeper, uuids)
    keeper.settle()
    cell, _ = world.instances()[uuids[0]]
    arm()
    begin_stop(world, cell, uuids[0])
    keeper.settle()
    _, row = world.instances()[uuids[0]]
    assert row.vm_state in (states.STOPPED, states.ACTIVE), row.vm_state
    keeper.delete(uuids[0])
    keeper.settle()


def begin_stop(world: World, cell: str, uuid: str) -> None:
    """What the API does for os-stop."""
    gate = world.cells.by_name(cell)
    value_of(
        gate.write_now(
            cell_db.operations.begin_operation, uuid, OPERATIONS["stop"], USER, arguments={}, deadline_s=30.0
        )
    )
    gate.hint(cell_verbs.QUEUE, cell_verbs.ACT, cell_verbs.Uuids([uuid]), USER)


def restarted_agent(keeper: ProcessKeeper, arm: Arm) -> None:
    """An agent is restarted in good order and says hello, with a server that runs and one under way."""
    world = keeper.world
    arm()
    uuids = world.accept("plain", SLOW)
    cell = world.cell_names[0]
    keeper.restart(keeper.one("agent", cell, world.hosts[cell][0]))
    _wait_for_end(keeper, uuids)
    keeper.delete(uuids[0])
    keeper.settle()


def _wait_for_end(keeper: ProcessKeeper, uuids: Sequence[str]) -> None:
    ends = (states.BUILD_ACTIVE, states.BUILD_ERROR, states.BUILD_DELETED)
    keeper.wait_until(
        lambda: all(keeper.world.state_of(uuid) in ends for uuid in uuids), f"{len(uuids)} servers end somewhere"
    )
