"""A host's reports count only for what is on that host: whatever it says of other hosts' servers changes nothing.

Whether the host that a report names is the one that sent it, the listener says. Here a forger reports under its own
name, and lies about everything else.
"""

import pathlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

import cell_db.heartbeats
import cell_db.image_tasks
import cell_db.operations
import cell_db.tables
import messaging.verbs.cell as cell_verbs
import messaging.verbs.compute as compute_verbs
from cells.gate.answers import value_of
from core.sealed import Opener
from lifecycle import states
from lifecycle.actions import OPERATIONS
from messaging.verbs import Verb
from objects.host import Attempt, Usage, node_uuid
from objects.host_limits import heartbeat_defect
from tests.faults.harness import CELL, Harness, Message, heartbeat_of, inventory_of
from tests.faults.scene import Scene
from tests.faults.world import USER
from workflows.definitions.create_image import CATALOG

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def other_than(harness: Harness, host: str) -> str:
    return next(name for name in harness.hosts if name != host)


def rows(harness: Harness) -> list[object]:
    """What the cell knows of servers and of what hosts owe."""
    return [
        harness.world.rows(CELL, table)
        for table in (cell_db.tables.instances, cell_db.tables.cleanups, cell_db.tables.image_tasks)
    ]


def failed_builds(harness: Harness, host: str) -> int:
    return next(
        int(node.failed_builds) for node in harness.world.rows(CELL, cell_db.tables.compute_nodes) if node.host == host
    )


def report(harness: Harness, verb: Verb, arguments: Any) -> None:
    """A message of the queue `reports`, handled at once; a malformed one ends at the listener."""
    try:
        received = msgspec.json.decode(msgspec.json.encode(arguments), type=verb.arguments)
    except msgspec.ValidationError:
        return
    harness.deliver(Message(cell_verbs.REPORTS, verb, received)).run()


def under_way(scene: Scene) -> tuple[str, str]:
    """A server that its host builds; gives that host and another one."""
    scene.place()
    scene.send()
    scene.deliver(compute_verbs.BUILD)
    host = scene.agent().host
    return host, other_than(scene.harness, host)


def running(scene: Scene) -> tuple[str, str]:
    """A server that runs on its host; gives that host and another one."""
    host, forger = under_way(scene)
    scene.build(scene.agent())
    scene.deliver(cell_verbs.ACTIVE)
    assert scene.row().state == states.BUILD_ACTIVE  # type: ignore[attr-defined]
    return host, forger


# ---- every verb, of every server that is not its own, in every state -------------------------------------------------


def busy(scene: Scene) -> tuple[str, str]:
    """A server with an operation under way."""
    host, forger = running(scene)
    begin(scene, "create-image")
    return host, forger


def copied(scene: Scene) -> tuple[str, str]:
    """A server whose host is to upload an image of it."""
    host, forger = running(scene)
    image_id = str(uuid.uuid4())
    at_host = CATALOG.take_report(CATALOG.begin("create-image"), "cell.create-record", "created")
    value_of(
        scene.harness.world.cells.by_name(CELL).write_now(
            cell_db.image_tasks.begin, scene.uuid, USER, image_id=image_id, record={"id": image_id}, position=at_host,
            token=str(uuid.uuid4()), lease_s=600.0,
        )
    )  # fmt: skip
    return host, forger


def going(scene: Scene) -> tuple[str, str]:
    """A server that was deleted, and that its host still has to answer for."""
    host, forger = running(scene)
    scene.harness.delete(scene.uuid).run()
    return host, forger


def begin(scene: Scene, key: str) -> str:
    gate = scene.harness.world.cells.by_name(CELL)
    begun = gate.write_now(
        cell_db.operations.begin_operation, scene.uuid, OPERATIONS[key], USER, arguments={}, deadline_s=600.0
    )
    return value_of(begun)


SCENES: dict[str, Callable[[Scene], tuple[str, str]]] = {
    "building": under_way,
    "running": running,
    "busy": busy,
    "copied": copied,
    "going": going,
}
ABSURD = (-1, 2**31, 2**70)
POWER = (states.RUNNING, states.SHUTDOWN, states.NO_STATE)


def claims(host: str, server: str, attempt: int, operation: str) -> Iterator[tuple[Verb, Any]]:
    """All that a host can say of a server."""
    for power_state in (*POWER, 2, *ABSURD):
        yield cell_verbs.ACTIVE, cell_verbs.Active(host, [cell_verbs.Built(server, attempt, power_state)])
        yield cell_verbs.POWER_STATES, cell_verbs.PowerStates(host, [cell_verbs.Built(server, attempt, power_state)])
        for fault in (None, "it is broken"):
            yield cell_verbs.ACTED, cell_verbs.Acted(host, [cell_verbs.Outcome(server, operation, power_state, fault)])
    for is_fenced in (True, False):
        yield cell_verbs.REFUSED, cell_verbs.Refused(host, [cell_verbs.Refusal(server, attempt, "so there", is_fenced)])
    yield cell_verbs.GONE, cell_verbs.Gone(host, [Attempt(server, attempt)])
    yield cell_verbs.STAGES, cell_verbs.Stages(host, [cell_verbs.Stage(server, operation, states.IMAGE_UPLOADING)])
    named = [Attempt(server, attempt)]
    for intents, guests in ((named, []), ([], named), ([], [])):
        yield cell_verbs.HEARTBEAT, heartbeat_of(host, boot_id=str(uuid.uuid4()), intents=intents, guests=guests)


@pytest.mark.parametrize("name", SCENES)
def test_a_host_changes_nothing_of_another_hosts_server(scene: Scene, name: str) -> None:
    _, forger = SCENES[name](scene)
    harness = scene.harness
    operation = scene.row().operation_id or str(uuid.uuid4())  # type: ignore[attr-defined]
    before, claimed, orders = rows(harness), scene.claimed_on(), for_others(harness, forger)

    for attempt in (0, 1, 2, 99, *ABSURD):
        for verb, arguments in claims(forger, scene.uuid, attempt, operation):
            report(harness, verb, arguments)
            assert rows(harness) == before, (verb.name, arguments)

    assert (scene.claimed_on(), for_others(harness, forger)) == (claimed, orders)
    assert failed_builds(harness, forger) == 0
    dropped = {verb for (who, verb), count in harness.reports.dropped.counts().items() if who == forger and count}
    assert {"active", "power-states", "acted"} <= dropped


@pytest.mark.parametrize("name", SCENES)
def test_a_host_changes_nothing_of_an_attempt_or_an_operation_that_it_was_not_given(scene: Scene, name: str) -> None:
    host, _ = SCENES[name](scene)
    before, claimed = rows(scene.harness), scene.claimed_on()

    for attempt in (0, 2, 99, *ABSURD):
        for verb, arguments in claims(host, scene.uuid, attempt, str(uuid.uuid4())):
            # What a host says that it has, or has not, of its own servers is its own to say.
            if verb is cell_verbs.HEARTBEAT or (verb is cell_verbs.GONE and attempt > 0):
                continue
            report(scene.harness, verb, arguments)
            assert rows(scene.harness) == before, (verb.name, arguments)

    assert scene.claimed_on() == claimed


def test_a_server_that_no_cell_knows_is_nobodys(scene: Scene) -> None:
    host, _ = running(scene)
    before = rows(scene.harness)

    for server in (str(uuid.uuid4()), "", "x" * 36, "x" * 5000, "' or 1=1 --"):
        for verb, arguments in claims(host, server, 1, str(uuid.uuid4())):
            if verb is not cell_verbs.HEARTBEAT:
                report(scene.harness, verb, arguments)
                assert rows(scene.harness) == before, (verb.name, arguments)


def for_others(harness: Harness, host: str) -> list[object]:
    """The orders under way to other hosts: what a host says of its own guests may bring it orders, but nobody else."""
    return [message for message in harness.post.messages if message.queue != compute_verbs.queue(host)]


def test_a_refusal_that_could_not_be_noted_down_is_answered_for_once_more(scene: Scene) -> None:
    """Its host's disk was full: another agent there would know nothing of it. The next host takes over all the same."""
    host, _ = under_way(scene)

    report(
        scene.harness,
        cell_verbs.REFUSED,
        cell_verbs.Refused(host, [cell_verbs.Refusal(scene.uuid, 1, "the disk is full", is_fenced=False)]),
    )

    assert (scene.row().attempt, scene.row().host != host) == (2, True)  # type: ignore[attr-defined]
    owed = scene.harness.world.rows(CELL, cell_db.tables.cleanups)
    assert [(cleanup.uuid, cleanup.host, cleanup.attempt) for cleanup in owed] == [(scene.uuid, host, 1)]


# ---- what a host says of itself --------------------------------------------------------------------------------------


LIES: dict[str, dict[str, Any]] = {
    "node_uuid": {"node_uuid": str(uuid.uuid4())},
    "hypervisor_hostname": {"hypervisor_hostname": "west-1"},
    "hypervisor_hostname, long": {"hypervisor_hostname": "x" * 5000},
    "hypervisor_type": {"hypervisor_type": "x" * 65},
    "hypervisor_type, not ascii": {"hypervisor_type": "ü"},
    "hypervisor_version": {"hypervisor_version": 2**31},
    "vcpus": {"vcpus": 10**9},
    "vcpus, negative": {"vcpus": -1},
    "memory_mib": {"memory_mib": 2**70},
    "disk_gib": {"disk_gib": 2**31},
    "reserved_vcpus": {"reserved_vcpus": -5},
    "reserved_memory_mib": {"reserved_memory_mib": 10**6},
    "cpu_allocation_ratio": {"cpu_allocation_ratio": 1e300},
    "ram_allocation_ratio": {"ram_allocation_ratio": 0.0},
    "disk_allocation_ratio": {"disk_allocation_ratio": float("nan")},
    "host_ip": {"host_ip": "db.example"},
    "host_ip, mapped": {"host_ip": "::ffff:10.0.0.1"},
    "traits": {"traits": ["CUSTOM_PAYMENT_CARDS"]},
    "traits, many": {"traits": [f"HW_CPU_{number}" for number in range(5000)]},
    "traits, long": {"traits": ["HW_" + "X" * 300]},
    "dedicated_cpus": {"dedicated_cpus": 10_000},
    "page_sizes_kib": {"page_sizes_kib": [-4]},
    "page_sizes_kib, many": {"page_sizes_kib": [4] * 100},
    "cpu_info": {"cpu_info": {"features": ["x" * 100_000]}},
}
OTHER_LIES: dict[str, dict[str, Any]] = {
    "started_at": {"started_at": 1e300},
    "version": {"version": "x" * 33},
    "boot_id": {"boot_id": "ü"},
    "sealing_key": {"sealing_key": "no key"},
    "refuses": {"refuses": "x" * 5000},
    "usage.vcpus": {"usage": Usage(vcpus=2**40)},
    "usage.cpu_percent": {"usage": Usage(cpu_percent=101)},
    "intents": {"intents": [Attempt("s", 1)] * 30_000},
}


@pytest.mark.parametrize("lie", [*LIES, *OTHER_LIES])
def test_a_heartbeat_that_says_what_cannot_be_was_not_heard(harness: Harness, lie: str) -> None:
    """Placement would have been told, sums would have overflown, or one commit failed for all hosts that report at the
    time."""
    liar, honest = harness.hosts[:2]
    inventory = msgspec.structs.replace(inventory_of(liar), **LIES.get(lie, {}))
    lying = msgspec.structs.replace(
        heartbeat_of(liar, boot_id="b", intents=[], guests=None), inventory=inventory, **OTHER_LIES.get(lie, {})
    )
    honestly = heartbeat_of(honest, boot_id=f"boot {lie}"[:36], intents=[], guests=None)
    before = known_of(harness, liar)

    harness.reports.on_heartbeat(
        [Message(cell_verbs.REPORTS, cell_verbs.HEARTBEAT, beat) for beat in (lying, honestly)]
    )  # type: ignore[misc]

    assert known_of(harness, liar) == before
    assert boot_of(harness, honest) == honestly.boot_id
    assert heartbeat_defect(lying).startswith(lie.partition(",")[0])  # type: ignore[union-attr]
    assert heartbeat_defect(honestly) is None


def known_of(harness: Harness, host: str) -> list[object]:
    tables = (cell_db.tables.services, cell_db.tables.compute_nodes)
    return [row for table in tables for row in harness.world.rows(CELL, table) if row.host == host]


def boot_of(harness: Harness, host: str) -> str | None:
    services = harness.world.rows(CELL, cell_db.tables.services)
    return next(service.boot_id for service in services if service.host == host)


def test_only_a_host_itself_changes_the_key_to_which_its_secrets_are_sealed(
    harness: Harness, tmp_path: pathlib.Path
) -> None:
    """Its agent may be installed anew, with a new key; the listener knows that it was it. Nobody else's report touches
    its row."""
    host, other = harness.hosts[:2]
    keys = {name: Opener(tmp_path / f"{name}.key").public_key() for name in ("old", "new", "theirs")}

    def beat(name: str, key: str) -> None:
        said = heartbeat_of(name, boot_id=str(uuid.uuid4()), intents=[], guests=None)
        report(harness, cell_verbs.HEARTBEAT, msgspec.structs.replace(said, sealing_key=keys[key]))

    beat(host, "old")
    beat(other, "theirs")
    assert sealing_key(harness, host) == keys["old"]
    beat(host, "new")
    assert (sealing_key(harness, host), sealing_key(harness, other)) == (keys["new"], keys["theirs"])


def sealing_key(harness: Harness, host: str) -> str | None:
    with harness.database.reading() as connection:
        return cell_db.operations.sealing_key(connection, host)


# ---- single workloads ------------------------------------------------------------------------------------------------


def test_another_host_cannot_report_a_server_active(scene: Scene) -> None:
    _, forger = under_way(scene)
    before = rows(scene.harness)

    report(
        scene.harness, cell_verbs.ACTIVE, cell_verbs.Active(forger, [cell_verbs.Built(scene.uuid, 1, states.RUNNING)])
    )

    assert rows(scene.harness) == before


def test_a_forged_report_spoils_no_true_one_that_comes_with_it(scene: Scene) -> None:
    """The forger would have been forgiven its failed builds, and the record would have named it as the server's
    host."""
    host, forger = under_way(scene)
    harness = scene.harness
    with harness.database.transaction() as connection:
        cell_db.heartbeats.build_failed(connection, forger)
    mine, forged = (
        Message(
            cell_verbs.REPORTS,
            cell_verbs.ACTIVE,
            cell_verbs.Active(name, [cell_verbs.Built(scene.uuid, 1, states.RUNNING)]),
        )
        for name in (host, forger)
    )

    harness.worker("conductor", lambda: harness.reports.on_active([mine, forged])).run()  # type: ignore[list-item]

    events = harness.world.rows(CELL, cell_db.tables.instance_action_events)
    assert (scene.row().state, scene.row().host) == (states.BUILD_ACTIVE, host)  # type: ignore[attr-defined]
    assert [event.host for event in events][-1] == host
    assert failed_builds(harness, forger) == 1
    with harness.database.transaction() as connection:
        cell_db.heartbeats.build_succeeded(connection, [forger])


def test_another_host_cannot_refuse_a_build(scene: Scene) -> None:
    _, forger = under_way(scene)
    before = rows(scene.harness)

    report(
        scene.harness, cell_verbs.REFUSED, cell_verbs.Refused(forger, [cell_verbs.Refusal(scene.uuid, 1, "so there")])
    )

    assert rows(scene.harness) == before
    assert failed_builds(scene.harness, forger) == 0


def test_another_host_cannot_say_that_a_server_is_gone(scene: Scene) -> None:
    """The claim would have been released, and the row been ended, with the guest still on its host."""
    host, forger = running(scene)
    harness = scene.harness
    harness.delete(scene.uuid).run()
    before, claimed = rows(harness), scene.claimed_on()

    report(harness, cell_verbs.GONE, cell_verbs.Gone(forger, [Attempt(scene.uuid, 99)]))

    assert rows(harness) == before
    assert scene.claimed_on() == claimed == {node_uuid(host)}
    harness.let_leases_end()
    harness.sweeps.cleanups()
    scene.deliver(compute_verbs.DESTROY)
    scene.deliver(cell_verbs.GONE)
    assert (scene.row().state, scene.claimed_on()) == (states.BUILD_DELETED, set())  # type: ignore[attr-defined]


def test_another_host_cannot_end_an_operation(scene: Scene) -> None:
    """Its id was all that was compared."""
    host, forger = running(scene)
    harness = scene.harness
    gate = harness.world.cells.by_name(CELL)
    operation = value_of(
        gate.write_now(
            cell_db.operations.begin_operation, scene.uuid, OPERATIONS["stop"], USER, arguments={}, deadline_s=600.0
        )
    )

    def acted(name: str) -> None:
        outcome = cell_verbs.Outcome(scene.uuid, operation)
        message = Message(cell_verbs.REPORTS, cell_verbs.ACTED, cell_verbs.Acted(name, [outcome]))
        harness.worker("conductor", lambda: harness.reports.on_acted([message])).run()  # type: ignore[list-item]

    acted(forger)
    assert scene.row().operation_id == operation  # type: ignore[attr-defined]
    acted(host)
    assert (scene.row().operation_id, scene.row().vm_state) == (None, states.STOPPED)  # type: ignore[attr-defined]


def test_another_host_cannot_change_a_power_state(scene: Scene) -> None:
    _, forger = running(scene)
    harness = scene.harness
    before = rows(harness)
    stopped = cell_verbs.PowerStates(forger, [cell_verbs.Built(scene.uuid, 1, states.SHUTDOWN)])

    message = Message(cell_verbs.REPORTS, cell_verbs.POWER_STATES, stopped)
    harness.worker("conductor", lambda: harness.reports.on_power_states([message])).run()  # type: ignore[list-item]

    assert rows(harness) == before


def test_another_hosts_hello_neither_keeps_nor_loses_a_server(scene: Scene) -> None:
    """It says that it builds the server, that it has its guest, or (by saying nothing) that it has not."""
    _, forger = running(scene)
    before, orders = rows(scene.harness), list(scene.harness.post.messages)

    for intents, guests in (([Attempt(scene.uuid, 1)], []), ([], [Attempt(scene.uuid, 1)]), ([], [])):
        report(
            scene.harness,
            cell_verbs.HEARTBEAT,
            heartbeat_of(forger, boot_id=str(uuid.uuid4()), intents=intents, guests=guests),
        )

    assert rows(scene.harness) == before
    assert scene.harness.post.messages == orders


def test_a_host_cannot_speak_for_another_hosts_node(scene: Scene) -> None:
    """Placement would have been told of the other node what this host says, under this host's name."""
    harness = scene.harness
    victim, forger = harness.hosts[:2]
    nodes = {node.host: node for node in harness.world.rows(CELL, cell_db.tables.compute_nodes)}
    beat = heartbeat_of(forger, boot_id=str(uuid.uuid4()), intents=[], guests=[])
    forged = type(beat)(
        host=forger, boot_id=beat.boot_id, version=beat.version, started_at=0.0, inventory=inventory_of(victim),
        usage=beat.usage, hello=True, guests=[],
    )  # fmt: skip

    report(harness, cell_verbs.HEARTBEAT, forged)

    now = {node.host: node for node in harness.world.rows(CELL, cell_db.tables.compute_nodes)}
    assert [(node.uuid, node.inventory) for node in (now[victim], now[forger])] == [
        (node.uuid, node.inventory) for node in (nodes[victim], nodes[forger])
    ]
    with harness.database.reading() as connection:
        assert cell_db.heartbeats.inventories_to_write(connection).inventories == []
