"""Messages that nobody can handle: kept for the operator, without their secrets, and what they stand for ends with a
fault."""

import pathlib
import types

import msgspec
import pytest
import sqlalchemy as sa

import api_db.tables
import cell_db.tables
import messaging.verbs.compute as compute_verbs
import messaging.verbs.superconductor as superconductor
from conductor.superconductor.dead_letters import DeadLetterHandler
from core.context import service_context
from lifecycle import states
from messaging import envelopes
from messaging.dead_letters import DeadLetter
from messaging.verbs import Verb
from tests.faults.conftest import Worlds
from tests.faults.world import World, wait_until

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_the_server_of_a_poisonous_place_is_buried_with_a_fault(tmp_path: pathlib.Path) -> None:
    world = World(tmp_path)
    try:
        program = world.super_conductor()
        program.cells.start()
        uuid = world.accept(hint=False)[0]
        arguments = msgspec.Raw(msgspec.json.encode(superconductor.Place([uuid])))
        envelope = envelopes.Envelope(
            verb="place", version="99.0", arguments=arguments, request_id="req-1", context={}, deadline_ms=1000
        )
        letter = DeadLetter(queue=superconductor.QUEUE, why="nobody here speaks 99.0", deliveries=1, envelope=envelope)

        # No sweep runs in this world, so nobody else takes the order up meanwhile.
        DeadLetterHandler(program.api, program.journal).on_dead_letter(
            [types.SimpleNamespace(arguments=letter, context=service_context())]
        )
        program.stop(5.0)

        kept = world.rows("api", api_db.tables.dead_letters)[0]
        assert (kept.verb, kept.queue, kept.arguments) == ("place", superconductor.QUEUE, {"uuids": [uuid]})
        cell, row = world.instances()[uuid]
        assert (cell, row.state) == ("cell0", states.BUILD_ERROR)
        assert "nobody here speaks 99.0" in row.fault["message"]
        assert not world.rows("api", api_db.tables.build_requests)
    finally:
        world.stop()


def test_a_poisonous_build_goes_to_the_next_host_and_leaves_no_secret(worlds: Worlds) -> None:
    world = worlds.keeper().world
    uuid = world.accept()[0]
    world.wait_for([uuid], states.BUILD_ACTIVE)
    cell, row = world.instances()[uuid]
    spec = {"uuid": uuid, "name": "one", "user_data": "aHVzaA==", "public_key": "ssh-rsa hush"}

    _publish(world, cell, compute_verbs.queue(row.host), compute_verbs.BUILD, _Orders([{"attempt": 1, "spec": spec}]))
    _publish(world, cell, compute_verbs.queue(row.host), compute_verbs.BUILD, _Orders([{"attempt": "?", "spec": spec}]))

    letters = wait_until(
        lambda: len(rows := world.rows(cell, cell_db.tables.dead_letters)) == 2 and rows,
        "two dead letters of the cell",
    )
    for letter in letters:
        assert (letter.verb, letter.queue) == ("build", compute_verbs.queue(row.host))
        assert letter.arguments["orders"][0]["spec"] == {
            "uuid": uuid,
            "name": "one",
            "user_data": "***",
            "public_key": "***",
        }
    assert world.state_of(uuid) == states.BUILD_ACTIVE
    _clean_up(worlds, cell, cell_db.tables.dead_letters)


def test_of_what_is_no_message_nothing_is_kept(worlds: Worlds) -> None:
    world = worlds.keeper().world

    for where in ("api", world.cell_names[0]):
        world.brokers[where].publish("conductor", b'{"user_data": "hush"', expires_s=60)
        table = api_db.tables.dead_letters if where == "api" else cell_db.tables.dead_letters
        letter = wait_until(lambda where=where, table=table: world.rows(where, table), "a dead letter")[0]
        assert (letter.verb, letter.arguments) == ("", {"characters": 20})
        assert "hush" not in letter.why
        _clean_up(worlds, where, table)


class _Orders(msgspec.Struct):
    orders: list[dict[str, object]]


def _publish(world: World, where: str, queue: str, verb: Verb, arguments: msgspec.Struct) -> None:
    """Sends what a program of a release sends that nobody here knows yet."""
    newer = Verb(verb.name, "99.0", type(arguments))
    world.brokers[where].publish(
        queue,
        envelopes.envelope(newer, arguments, context=service_context(), deadline_s=60, sent_by="test"),
        expires_s=60,
    )


def _clean_up(worlds: Worlds, where: str, table: sa.Table) -> None:
    keeper = worlds.keeper()
    with keeper.world.databases[where].transaction() as connection:
        connection.execute(sa.delete(table))
    keeper.tidy_up()
