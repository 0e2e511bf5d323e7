"""An agent that lies: with its own account at the broker it speaks for its own host and for no other, whatever the
message is."""

import types
from typing import Any

import msgspec
import pytest

import cell_db.tables
import messaging.verbs.cell as cell_verbs
import messaging.verbs.compute as compute_verbs
from core.context import service_context
from lifecycle import states
from messaging import dead_letters, envelopes
from messaging.broker import Broker
from messaging.caller import Caller
from messaging.listener import Listener
from messaging.verbs import Verb
from objects.host import Attempt, Heartbeat, Inventory, Usage
from tests.faults.conftest import Worlds
from tests.faults.world import World, wait_until

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

INVENTED = "evil-1"
SHUTDOWN = 4


def test_every_verb_that_hosts_speak_counts_only_from_the_host_it_names(worlds: Worlds) -> None:
    """The rule stands at the door: a verb that is added to the queue `reports` without it fails here."""
    world = worlds.keeper().world
    reports = _listener_of_reports(world, world.cell_names[0])
    spoken = {
        verb.name for verb in vars(cell_verbs).values() if isinstance(verb, Verb) and verb.arguments in _said_by_hosts()
    }

    assert set(reports._handlers) == spoken
    for handler in reports._handlers.values():
        assert handler.from_host is not None, handler.verb.name
        assert handler.from_host(types.SimpleNamespace(host="east-1")) == "east-1"


def _said_by_hosts() -> set[type]:
    asked_of_hosts = (cell_verbs.ConsoleLogOnHost, cell_verbs.ServerOnHost, cell_verbs.ImagesOnHost)
    types = [
        one
        for one in vars(cell_verbs).values()
        if isinstance(one, type) and issubclass(one, msgspec.Struct) and one not in asked_of_hosts
    ]
    return {one for one in types if "host" in {field.name for field in msgspec.structs.fields(one)}}


def test_what_an_agent_says_of_others_changes_nothing(worlds: Worlds) -> None:
    world = worlds.keeper().world
    uuid = world.accept()[0]
    world.wait_for([uuid], states.BUILD_ACTIVE)
    cell, row = world.instances()[uuid]
    liar = next(host for host in world.hosts[cell] if host != row.host)
    broker = Broker(world.at.of_host(liar, world.at.brokers[cell]))
    caller = Caller(broker)
    refusals = _listener_of_reports(world, cell).refusals
    before = refusals.count
    lies = _lies(row.host, uuid)
    for verb, arguments in lies:
        caller.cast(cell_verbs.REPORTS, verb, arguments, context=service_context())
    _cast_dead_letter(broker, row.host, uuid)

    wait_until(lambda: refusals.count >= before + len(lies), "every lie is refused")
    letters = wait_until(lambda: world.rows(cell, cell_db.tables.dead_letters), "the dead letter is kept")
    after = world.instances()[uuid][1]
    assert (after.state, after.power_state, after.host, after.attempt) == (
        row.state,
        row.power_state,
        row.host,
        row.attempt,
    )
    assert len(letters) == 1
    assert INVENTED not in {service.host for service in world.rows(cell, cell_db.tables.services)}
    assert not world.brokers[cell].waiting(compute_verbs.queue(INVENTED))
    broker.close()
    with worlds.keeper().world.databases[cell].transaction() as connection:
        connection.execute(cell_db.tables.dead_letters.delete())
    worlds.keeper().tidy_up()


def _listener_of_reports(world: World, cell: str) -> Listener:
    conductor = next(
        program for program in world.programs.values()
        if hasattr(program, "commands") and program._broker.url == world.at.brokers[cell]
    )  # fmt: skip
    return next(listener for listener in conductor._listeners if listener.queue == cell_verbs.REPORTS)  # type: ignore[no-any-return]


def _lies(host: str, uuid: str) -> list[tuple[Any, Any]]:
    inventory = Inventory(
        node_uuid=uuid, hypervisor_hostname=INVENTED, hypervisor_type="x", hypervisor_version=1, vcpus=999,
        memory_mib=9999, disk_gib=9999,
    )  # fmt: skip
    beat = Heartbeat(
        host=INVENTED, boot_id="b", version="0", started_at=0.0, inventory=inventory,
        usage=Usage(vcpus=0, memory_mib=0, disk_gib=0, guests=0), hello=True, guests=[],
    )  # fmt: skip
    return [
        (cell_verbs.POWER_STATES, cell_verbs.PowerStates(host, [cell_verbs.Built(uuid, 1, SHUTDOWN)])),
        (cell_verbs.GONE, cell_verbs.Gone(host, [Attempt(uuid, 9)])),
        (cell_verbs.REFUSED, cell_verbs.Refused(host, [cell_verbs.Refusal(uuid, 1, "no")])),
        (cell_verbs.HEARTBEAT, beat),
        (cell_verbs.HEARTBEAT, msgspec.structs.replace(beat, host=host)),
    ]


def _cast_dead_letter(broker: Broker, host: str, uuid: str) -> None:
    """An agent may say that it could not handle a message; that another host's build has failed it may not."""
    arguments = msgspec.Raw(msgspec.json.encode({"orders": [{"attempt": 1, "spec": {"uuid": uuid}}]}))
    envelope = envelopes.Envelope(
        verb="build",
        version="1.0",
        arguments=arguments,
        request_id="req-1",
        context=service_context().to_fields(),
        deadline_ms=1000,
    )
    body = dead_letters.letter(
        queue=compute_verbs.queue(host), why="forged", deliveries=9, body=b"", envelope=envelope, sent_by="x"
    )
    broker.publish(dead_letters.QUEUE, body, expires_s=60.0)
