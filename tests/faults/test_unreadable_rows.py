"""Rows and letters that say nonsense: one server's loss, and nobody else's."""

import collections
import dataclasses
import types
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

import cell_db.build_status
import cell_db.console_proxies
import cell_db.endings
import cell_db.operations
import cell_db.tables
import core.errors
import messaging.verbs.cell as cell_verbs
import messaging.verbs.compute as compute_verbs
from cell_db.dead_letters import MAX_OF_HOST
from cells.gate.answers import value_of
from conductor.cell.dead_letters import DeadLetterHandler
from conductor.cell.dropped import Dropped
from conductor.superconductor.builds import MAX_TRIES
from core.clock import utcnow
from core.context import Context, service_context
from database.types import now_sql
from lifecycle import states
from lifecycle.actions import OPERATIONS
from messaging import envelopes
from messaging.dead_letters import DeadLetter
from messaging.verbs.cell import Acted, Outcome
from objects.console import Proxy
from tests.faults.harness import CELL, Harness
from tests.faults.scene import Scene
from tests.faults.test_forged_reports import copied, other_than, report, rows, running, under_way
from tests.faults.world import USER

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NONSENSE = ("[1", "null", "{}", "", '"text"', "[[]]", '{"a":' * 3000)


def change(harness: Harness, uuid: str, **columns: str | None) -> None:
    assigned = ", ".join(f"{name} = ?" for name in columns)
    with harness.database.transaction() as connection:
        connection.exec_driver_sql(f"UPDATE instances SET {assigned} WHERE uuid = ?", (*columns.values(), uuid))


def row_of(harness: Harness, uuid: str) -> sa.Row[Any]:
    """What can be read of the server's row."""
    mine = cell_db.tables.instances.c
    with harness.database.reading() as connection:
        return connection.execute(sa.select(mine.state, mine.fault, mine.operation_id).where(mine.uuid == uuid)).one()


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_build_whose_order_cannot_be_read_ends_in_error_and_stops_no_other(scene: Scene, nonsense: str) -> None:
    """The sweep of builds stopped at it, for every server of the cell."""
    harness, other = scene.harness, scene.harness.world.accept(hint=False)[0]
    scene.place()
    host = scene.row().host  # type: ignore[attr-defined]
    change(harness, scene.uuid, spec=nonsense)

    scene.send()

    assert row_of(harness, scene.uuid).state == states.BUILD_ERROR
    assert "cannot be read" in row_of(harness, scene.uuid).fault["message"]
    owed = harness.world.rows(CELL, cell_db.tables.cleanups)
    assert [(cleanup.uuid, cleanup.host) for cleanup in owed] == [(scene.uuid, host)]
    sent = [message for message in harness.post.messages if message.verb is compute_verbs.BUILD]
    assert [order.spec.uuid for message in sent for order in message.arguments.orders] == [other]
    harness.world.placement.release(other)


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_request_spec_that_cannot_be_read_keeps_no_other_build_from_its_host(scene: Scene, nonsense: str) -> None:
    """All builds that were leased together were tried again until they ended in cell0."""
    harness, other = scene.harness, scene.harness.world.accept(hint=False)[0]
    with harness.world.databases["api"].transaction() as connection:
        damage = (
            "UPDATE request_specs SET spec = ? WHERE uuid = (SELECT request_uuid FROM build_requests WHERE uuid = ?)"
        )
        connection.exec_driver_sql(damage, (nonsense, scene.uuid))

    scene.place()
    assert set(harness.world.instances()) == {other}

    for _ in range(MAX_TRIES):
        harness.let_leases_end()
        harness.super_conductor().sweep()
    cell, row = harness.world.instances()[scene.uuid]
    assert (cell, row.state) == ("cell0", states.BUILD_ERROR)
    harness.world.placement.release(other)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE build_requests SET instance = NULL WHERE uuid = ?",
        "UPDATE build_requests SET phase = 'assigned' WHERE uuid = ?",
        # It is readable, and fails in the hands of whoever works on it.
        "UPDATE instance_mappings SET cell_uuid = '00000000-0000-0000-0000-000000000000' WHERE uuid = ?",
    ],
)
def test_a_build_that_nobody_can_place_keeps_no_other_from_its_host(scene: Scene, damage: str) -> None:
    """Builds that were leased with it were tried again with it, until all of them ended in cell0."""
    harness = scene.harness
    others = {harness.world.accept(hint=False)[0] for _ in range(3)}
    with harness.world.databases["api"].transaction() as connection:
        connection.exec_driver_sql(damage, (scene.uuid,))

    scene.place()

    assert set(harness.world.instances()) - {scene.uuid} == others
    for uuid in {scene.uuid, *others}:
        harness.world.placement.release(uuid)


DEEP = '{"a":' * 3000


@pytest.mark.parametrize(
    "nonsense",
    [{"alternates": DEEP}, {"alternates": "[1"}, {"alternates": "[{}]"}, {"spec": DEEP}, {"resources": DEEP},
        {"host": None}, {"node_uuid": None},
     {"host": None, "alternates": DEEP}, {"user_id": ""}, {"deadline": None}, {"lease_until": None}],
    ids=str,
)  # fmt: skip
def test_an_overdue_build_that_cannot_be_read_stops_no_sweep(scene: Scene, nonsense: dict[str, str | None]) -> None:
    """One row ended the sweep of builds for all servers of its cell, every five seconds."""
    harness = scene.harness
    under_way(scene)
    other = harness.world.accept(hint=False)[0]
    scene.place()
    change(harness, scene.uuid, **nonsense)
    with harness.database.transaction() as connection:
        connection.execute(sa.update(cell_db.tables.instances).values(deadline=now_sql(-1.0)))

    harness.sweeps.builds()
    harness.let_leases_end()
    harness.sweeps.builds()

    with harness.database.reading() as connection:
        mine = cell_db.tables.instances.c
        attempt = connection.execute(sa.select(mine.attempt).where(mine.uuid == other)).scalar_one()
        shown = cell_db.build_status.under_way(connection, most=100, down_after_s=60.0)
    assert attempt > 1
    assert other in {status.uuid for status in shown}


@pytest.mark.parametrize("column", ["operation_arguments", "spec", "operation"])
def test_an_operation_that_cannot_be_read_stops_no_sweep(scene: Scene, column: str) -> None:
    running(scene)
    harness = scene.harness
    gate = harness.world.cells.by_name(CELL)
    value_of(
        gate.write_now(
            cell_db.operations.begin_operation, scene.uuid, OPERATIONS["rebuild"], USER, arguments={}, deadline_s=600.0
        )
    )

    change(harness, scene.uuid, **{column: "[1"})
    harness.let_leases_end()
    harness.sweeps.operations()
    with harness.database.transaction() as connection:
        connection.execute(sa.update(cell_db.tables.instances).values(operation_deadline=now_sql(-1.0)))
    harness.sweeps.operations()

    ended = row_of(harness, scene.uuid).operation_id is None
    assert ended == (column != "operation")


@pytest.mark.parametrize("reports", ["5", "null", "[1", '[["cell.check-record", "zz"]]'])
def test_a_report_of_an_image_that_cannot_be_read_ends_its_operation(scene: Scene, reports: str) -> None:
    """The report was handled five times and became a dead letter, and those that came with it, too."""
    host, _ = copied(scene)
    operation_id = row_of(scene.harness, scene.uuid).operation_id
    with scene.harness.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE image_tasks SET reports = ?", (reports,))

    outcome = Outcome(scene.uuid, operation_id)
    report(scene.harness, cell_verbs.ACTED, Acted(host, [outcome]))

    ended = row_of(scene.harness, scene.uuid)
    assert ended.operation_id is None and "cannot be read" in ended.fault["message"]


def test_a_server_that_is_going_without_a_lease_is_ended(scene: Scene) -> None:
    running(scene)
    change(scene.harness, scene.uuid, state=states.BUILD_DELETING, lease_until=None)

    with scene.harness.database.reading() as connection:
        assert cell_db.endings.ended_without_cleanups(connection, most=9) == [scene.uuid]


def test_an_end_that_cannot_be_brought_about_keeps_no_other_server(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness, placement = scene.harness, scene.harness.commands._placement
    release, asked = placement.release, list[str]()

    def refuse_one(uuid: str) -> None:
        asked.append(uuid)
        if uuid == "bad":
            raise core.errors.Broken("Placement answered 400")
        release(uuid)

    monkeypatch.setattr(placement, "release", refuse_one)
    harness.commands.end(["bad", "good"])
    harness.commands.release(["bad", "good"])
    assert asked == ["bad", "good", "bad", "good"]

    def away(_: str) -> None:
        raise core.errors.Unavailable("Placement is away")

    monkeypatch.setattr(placement, "release", away)
    with pytest.raises(core.errors.Unavailable):
        harness.commands.end(["one", "two"])


def test_an_overdue_operation_that_cannot_be_ended_keeps_no_other(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(scene)
    harness = scene.harness
    gate = harness.world.cells.by_name(CELL)
    value_of(
        gate.write_now(
            cell_db.operations.begin_operation, scene.uuid, OPERATIONS["rebuild"], USER, arguments={}, deadline_s=-1.0
        )
    )
    with harness.database.reading() as connection:
        (late,) = [
            each for each in cell_db.operations.overdue_operations(connection, most=9) if each.uuid == scene.uuid
        ]
    bad = dataclasses.replace(late, host=object())  # type: ignore[arg-type]
    monkeypatch.setattr(cell_db.operations, "overdue_operations", lambda *_, **__: [bad, late])

    harness.sweeps.operations()

    assert row_of(harness, scene.uuid).operation_id is None


def test_a_build_that_somebody_else_could_not_handle_takes_no_server_from_its_host(scene: Scene) -> None:
    """A host sent a `build` where nobody understands one, and the letter that came of it gave up another host's
    build."""
    host, forger = under_way(scene)
    harness = scene.harness
    before = rows(harness)
    dead_letter_handler = DeadLetterHandler(harness.database, harness.commands, Dropped())

    for queue in (
        "reports",
        "conductor",
        compute_verbs.queue(forger),
        compute_verbs.queue(other_than(harness, forger)) + "x",
        "",
    ):
        dead_letter_handler.on_dead_letter([delivery_of(letter_of(scene.uuid, queue))])
    # The queue is the sender's own word; who it is, the broker's.
    dead_letter_handler.on_dead_letter([delivery_of(letter_of(scene.uuid, compute_verbs.queue(host)), sender=forger)])
    assert rows(harness) == before

    dead_letter_handler.on_dead_letter([delivery_of(letter_of(scene.uuid, compute_verbs.queue(host)), sender=host)])
    assert scene.row().attempt == 2  # type: ignore[attr-defined]


def test_letters_of_a_host_are_filed_under_its_name_and_fill_nothing(scene: Scene) -> None:
    harness = scene.harness
    dead_letter_handler = DeadLetterHandler(harness.database, harness.commands, dropped := Dropped())
    envelope = envelopes.Envelope(
        verb="\x1b[2Jß" * 50, version="1", arguments=msgspec.Raw(b"{}"), request_id="", context={}, deadline_ms=1
    )
    forged = DeadLetter(queue="compute.neighbour" * 50, why="ß\n" * 5000, deliveries=1, envelope=envelope)
    ours = DeadLetter(queue="conductor", why="ours", deliveries=1, body="x")

    for number in range(MAX_OF_HOST + 20):
        context = dataclasses.replace(service_context(), request_id=f"ß{number}" * 100)
        dead_letter_handler.on_dead_letter([delivery_of(forged, sender="evil", context=context)])
    dead_letter_handler.on_dead_letter([delivery_of(forged, sender="other"), delivery_of(ours)])

    letters = harness.world.rows(CELL, cell_db.tables.dead_letters)
    kept = collections.Counter(
        (letter.host, letter.queue) for letter in letters if letter.host in ("evil", "other") or letter.why == ours.why
    )
    assert kept == {("evil", "compute.evil"): MAX_OF_HOST, ("other", "compute.other"): 1, (None, "conductor"): 1}
    assert dropped.counts() == {("evil", "dead_letter"): 20}


def delivery_of(letter: DeadLetter, sender: str | None = None, context: Context | None = None) -> Any:
    return types.SimpleNamespace(arguments=letter, context=context or service_context(), sender=sender)


def letter_of(server: str, queue: str) -> DeadLetter:
    orders = {"orders": [{"attempt": 1, "spec": {"uuid": server}}]}
    envelope = envelopes.Envelope(
        verb="build",
        version="99.0",
        arguments=msgspec.Raw(msgspec.json.encode(orders)),
        request_id="req-1",
        context={},
        deadline_ms=1000,
    )
    return DeadLetter(queue=queue, why="unknown verb", deliveries=1, envelope=envelope)


def test_a_console_proxy_that_says_nonsense_is_not_named(harness: Harness) -> None:
    good = Proxy(public_url="https://consoles.example", token_ttl_s=600.0)
    with harness.database.transaction() as connection:
        for host in ("good", "bad"):
            cell_db.console_proxies.beat(connection, host=host, version="1", started_at=utcnow(), proxy=good)
        connection.exec_driver_sql("UPDATE services SET console = '[1' WHERE host = 'bad'")

        assert {cell_db.console_proxies.living(connection, down_after_s=30.0) for _ in range(20)} == {good}
        connection.exec_driver_sql("DELETE FROM services WHERE host IN ('good', 'bad')")
