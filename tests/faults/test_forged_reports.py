"""A host's reports count only for what is on that host: whatever it says of other hosts' servers changes nothing.

Whether the host that a report names is the one that sent it, the broker would have to say (a user for each host, its `user_id` checked):
that is not asked yet, so here a forger reports under its own name.
"""

import uuid

import pytest

import cell_db.heartbeats
import cell_db.operations
import cell_db.tables
import messaging.verbs.cell as cell_verbs
import messaging.verbs.compute as compute_verbs
from cells.answers import value_of
from compute.resources.inventory import node_uuid
from lifecycle import states
from lifecycle.actions import OPERATIONS
from objects.host import Attempt
from tests.faults.bench import CELL, Bench, Message, heartbeat_of, inventory_of
from tests.faults.scene import Scene
from tests.faults.world import USER

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def other_than(bench: Bench, host: str) -> str:
    return next(name for name in bench.hosts if name != host)


def rows(bench: Bench) -> list[object]:
    """What the cell knows of servers and of what hosts owe."""
    return [bench.world.rows(CELL, table) for table in (cell_db.tables.instances, cell_db.tables.cleanups)]


def failed_builds(bench: Bench, host: str) -> int:
    return next(int(node.failed_builds) for node in bench.world.rows(CELL, cell_db.tables.compute_nodes) if node.host == host)


def report(bench: Bench, verb: object, arguments: object) -> None:
    """A message of the queue `reports`, handled at once."""
    bench.deliver(Message(cell_verbs.REPORTS, verb, arguments)).run()  # type: ignore[arg-type]


def under_way(scene: Scene) -> tuple[str, str]:
    """A server that its host builds; gives that host and another one."""
    scene.place()
    scene.send()
    scene.deliver(compute_verbs.BUILD)
    host = scene.agent().host
    return host, other_than(scene.bench, host)


def running(scene: Scene) -> tuple[str, str]:
    """A server that runs on its host; gives that host and another one."""
    host, forger = under_way(scene)
    scene.build(scene.agent())
    scene.deliver(cell_verbs.ACTIVE)
    assert scene.row().state == states.LIVE  # type: ignore[attr-defined]
    return host, forger


def test_another_host_cannot_report_a_server_active(scene: Scene) -> None:
    _, forger = under_way(scene)
    before = rows(scene.bench)

    report(scene.bench, cell_verbs.ACTIVE, cell_verbs.Active(forger, [cell_verbs.Built(scene.uuid, 1, states.RUNNING)]))

    assert rows(scene.bench) == before


def test_a_forged_report_spoils_no_true_one_that_comes_with_it(scene: Scene) -> None:
    """The forger would have been forgiven its failed builds, and the record would have named it as the server's host."""
    host, forger = under_way(scene)
    bench = scene.bench
    with bench.database.transaction() as connection:
        cell_db.heartbeats.build_failed(connection, forger)
    mine, forged = (
        Message(cell_verbs.REPORTS, cell_verbs.ACTIVE, cell_verbs.Active(name, [cell_verbs.Built(scene.uuid, 1, states.RUNNING)]))
        for name in (host, forger)
    )

    bench.worker("conductor", lambda: bench.reports.on_active([mine, forged])).run()  # type: ignore[list-item]

    events = bench.world.rows(CELL, cell_db.tables.instance_action_events)
    assert (scene.row().state, scene.row().host) == (states.LIVE, host)  # type: ignore[attr-defined]
    assert [event.host for event in events][-1] == host
    assert failed_builds(bench, forger) == 1
    with bench.database.transaction() as connection:
        cell_db.heartbeats.build_succeeded(connection, [forger])


def test_another_host_cannot_refuse_a_build(scene: Scene) -> None:
    _, forger = under_way(scene)
    before = rows(scene.bench)

    report(scene.bench, cell_verbs.REFUSED, cell_verbs.Refused(forger, [cell_verbs.Refusal(scene.uuid, 1, "so there")]))

    assert rows(scene.bench) == before
    assert failed_builds(scene.bench, forger) == 0


def test_another_host_cannot_say_that_a_server_is_gone(scene: Scene) -> None:
    """The claim would have been released, and the row been ended, with the guest still on its host."""
    host, forger = running(scene)
    bench = scene.bench
    bench.delete(scene.uuid).run()
    before, claimed = rows(bench), scene.claimed_on()

    report(bench, cell_verbs.GONE, cell_verbs.Gone(forger, [Attempt(scene.uuid, 99)]))

    assert rows(bench) == before
    assert scene.claimed_on() == claimed == {node_uuid(host)}
    bench.let_leases_end()
    bench.sweeps.cleanups()
    scene.deliver(compute_verbs.DESTROY)
    scene.deliver(cell_verbs.GONE)
    assert (scene.row().state, scene.claimed_on()) == (states.GONE, set())  # type: ignore[attr-defined]


def test_another_host_cannot_end_an_operation(scene: Scene) -> None:
    """Its id was all that was compared."""
    host, forger = running(scene)
    bench = scene.bench
    gate = bench.world.cells.by_name(CELL)
    operation = value_of(
        gate.write_now(cell_db.operations.begin_operation, scene.uuid, "stop", OPERATIONS["stop"], USER, arguments={}, deadline_s=600.0)
    )

    def acted(name: str) -> None:
        outcome = cell_verbs.Outcome(scene.uuid, operation)
        message = Message(cell_verbs.REPORTS, cell_verbs.ACTED, cell_verbs.Acted(name, [outcome]))
        bench.worker("conductor", lambda: bench.reports.on_acted([message])).run()  # type: ignore[list-item]

    acted(forger)
    assert scene.row().operation_id == operation  # type: ignore[attr-defined]
    acted(host)
    assert (scene.row().operation_id, scene.row().vm_state) == (None, states.STOPPED)  # type: ignore[attr-defined]


def test_another_host_cannot_change_a_power_state(scene: Scene) -> None:
    _, forger = running(scene)
    bench = scene.bench
    before = rows(bench)
    stopped = cell_verbs.PowerStates(forger, [cell_verbs.Built(scene.uuid, 1, states.SHUTDOWN)])

    message = Message(cell_verbs.REPORTS, cell_verbs.POWER_STATES, stopped)
    bench.worker("conductor", lambda: bench.reports.on_power_states([message])).run()  # type: ignore[list-item]

    assert rows(bench) == before


def test_another_hosts_hello_neither_keeps_nor_loses_a_server(scene: Scene) -> None:
    """It says that it builds the server, that it has its guest, or (by saying nothing) that it has not."""
    _, forger = running(scene)
    before, orders = rows(scene.bench), list(scene.bench.post.messages)

    for intents, guests in (([Attempt(scene.uuid, 1)], []), ([], [Attempt(scene.uuid, 1)]), ([], [])):
        report(scene.bench, cell_verbs.HEARTBEAT, heartbeat_of(forger, boot_id=str(uuid.uuid4()), intents=intents, guests=guests))

    assert rows(scene.bench) == before
    assert scene.bench.post.messages == orders


def test_a_host_cannot_speak_for_another_hosts_node(scene: Scene) -> None:
    """Placement would have been told of the other node what this host says, under this host's name."""
    bench = scene.bench
    victim, forger = bench.hosts[:2]
    nodes = {node.host: node for node in bench.world.rows(CELL, cell_db.tables.compute_nodes)}
    beat = heartbeat_of(forger, boot_id=str(uuid.uuid4()), intents=[], guests=[])
    forged = type(beat)(
        host=forger, boot_id=beat.boot_id, version=beat.version, started_at=0.0, inventory=inventory_of(victim), usage=beat.usage, hello=True, guests=[],
    )  # fmt: skip

    report(bench, cell_verbs.HEARTBEAT, forged)

    now = {node.host: node for node in bench.world.rows(CELL, cell_db.tables.compute_nodes)}
    assert [(node.uuid, node.inventory) for node in (now[victim], now[forger])] == [
        (node.uuid, node.inventory) for node in (nodes[victim], nodes[forger])
    ]
    with bench.database.reading() as connection:
        assert node_uuid(victim) not in {inventory.node_uuid for inventory in cell_db.heartbeats.inventories_to_place(connection)}
