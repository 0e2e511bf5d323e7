"""The agent's parts, each alone."""

import threading
import time
from typing import Any

import pytest

import core.errors
from compute.agent_context import ServerLocks
from compute.deadline import Deadline
from compute.reporter import MAX_GATHER, Reporter
from compute.resources.power import KnownPowerStates
from compute.resources.tracker import Tracker, need_of, usage
from compute.work_queues import WorkQueues
from core.crash_points import CrashPoints
from devstack.waiting import wait_until
from messaging.verbs import cell
from objects.build import Guest
from objects.host import Inventory, Usage
from tests.compute.conftest import new_uuid, spec_of

DEADLINE_S = 10.0


class Broker:
    """Takes casts; may be away."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []
        self.is_away = False
        self.tries = 0

    def cast(self, queue: str, verb: Any, arguments: Any, *, context: Any, deadline_s: float = 0.0) -> None:
        self.tries += 1
        if self.is_away:
            raise core.errors.Unavailable("away")
        self.said.append((verb.name, arguments))

    def rows(self) -> list[Any]:
        return [row for name, arguments in self.said if name != "heartbeat" for row in arguments.servers]


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def reporter(broker: Broker):
    reporter = Reporter(broker, "host-1", CrashPoints())
    reporter.start()
    yield reporter
    reporter.stop(1.0)


def built(number: int) -> cell.Built:
    return cell.Built(f"server-{number}", 1, 1)


def test_reports_gather_and_none_is_lost(broker: Broker, reporter: Reporter) -> None:
    confirmed: list[int] = []

    for number in range(250):
        reporter.report(cell.ACTIVE, number, built(number), lambda number=number: confirmed.append(number))
    wait_until(lambda: len(confirmed) == 250, what="250 confirmations", deadline_s=DEADLINE_S)

    assert broker.rows() == [built(number) for number in range(250)]
    assert len(broker.said) <= 10
    assert max(len(arguments.servers) for _, arguments in broker.said) <= MAX_GATHER


@pytest.mark.alone
def test_a_lone_report_leaves_at_once(broker: Broker, reporter: Reporter) -> None:
    began = time.monotonic()
    reporter.report_now(cell.GONE, [("a", cell.Refusal("a", 1, ""))], deadline_s=DEADLINE_S)
    assert time.monotonic() - began < 0.04


def test_a_newer_report_takes_the_place_of_one_that_waits(broker: Broker, reporter: Reporter) -> None:
    broker.is_away = True
    confirmed: list[str] = []
    reporter.report(cell.ACTIVE, "a", built(1), lambda: confirmed.append("older"))
    reporter.report(cell.ACTIVE, "a", built(2), lambda: confirmed.append("newer"))
    broker.is_away = False
    wait_until(lambda: len(confirmed) == 2, what="confirmations", deadline_s=DEADLINE_S)

    assert broker.rows()[-1] == built(2)
    assert sorted(confirmed) == ["newer", "older"]


def test_a_broker_that_is_away_is_tried_again_with_pauses(broker: Broker, reporter: Reporter) -> None:
    broker.is_away = True
    reporter.report(cell.ACTIVE, 1, built(1))
    wait_until(lambda: broker.tries >= 3, what="tries", deadline_s=DEADLINE_S)
    assert reporter.is_waiting(cell.ACTIVE, 1)
    assert broker.tries < 10

    broker.is_away = False
    wait_until(lambda: broker.rows() == [built(1)], what="report", deadline_s=DEADLINE_S)
    assert not reporter.is_waiting(cell.ACTIVE, 1)


def test_who_waits_for_confirmation_waits_no_longer_than_its_deadline(broker: Broker, reporter: Reporter) -> None:
    broker.is_away = True

    with pytest.raises(core.errors.Unavailable):
        reporter.report_now(cell.GONE, [("a", built(1))], deadline_s=0.2)


def test_a_report_that_cannot_be_sent_does_not_silence_the_others(
    broker: Broker, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = broker.cast

    def cast(queue: str, verb: Any, arguments: Any, **settings: Any) -> None:
        if verb == cell.REFUSED:
            raise TypeError("a defect")
        take(queue, verb, arguments, **settings)

    monkeypatch.setattr(broker, "cast", cast)
    reporter.report(cell.REFUSED, "a", built(1))
    reporter.report(cell.ACTIVE, "b", built(2))

    wait_until(lambda: broker.rows() == [built(2)], what="the other report", deadline_s=DEADLINE_S)


def test_stopping_sends_what_waits(broker: Broker, reporter: Reporter) -> None:
    for number in range(30):
        reporter.report(cell.ACTIVE, number, built(number))

    assert reporter.stop(DEADLINE_S)
    assert len(broker.rows()) == 30


@pytest.mark.alone
def test_stopping_without_a_broker_ends_in_time(broker: Broker, reporter: Reporter) -> None:
    broker.is_away = True
    reporter.report(cell.ACTIVE, 1, built(1))
    began = time.monotonic()

    assert not reporter.stop(0.3)
    assert time.monotonic() - began < 1.0


def test_a_line_is_worked_off_in_order_and_lines_side_by_side() -> None:
    slots = WorkQueues("test", 2)
    seen: list[tuple[str, int]] = []
    gate = threading.Event()
    slots.submit("a", lambda: gate.wait(DEADLINE_S) and None)
    for number in range(3):
        slots.submit("a", lambda number=number: seen.append(("a", number)))
    slots.submit("b", lambda: seen.append(("b", 0)))
    wait_until(lambda: seen == [("b", 0)], what="the other line", deadline_s=DEADLINE_S)
    assert slots.has("a")
    gate.set()

    assert slots.join(DEADLINE_S)
    assert seen == [("b", 0), ("a", 0), ("a", 1), ("a", 2)]
    assert not slots.has("a")


def test_idle_slots_have_no_threads() -> None:
    slots = WorkQueues("idle slots", 4)
    for number in range(20):
        slots.submit(str(number), lambda: None)
    slots.join(DEADLINE_S)

    wait_until(
        lambda: not [thread for thread in threading.enumerate() if thread.name == "idle slots"],
        what="no threads",
        deadline_s=DEADLINE_S,
    )


def test_closed_slots_take_nothing_and_drop_what_waits() -> None:
    slots = WorkQueues("test", 1)
    gate = threading.Event()
    done: list[int] = []
    slots.submit("a", lambda: gate.wait(DEADLINE_S) and None)
    slots.submit("b", lambda: done.append(1))
    slots.close()
    gate.set()

    assert not slots.submit("c", lambda: done.append(2))
    assert slots.join(DEADLINE_S)
    assert done == []


def test_a_server_is_held_by_one_at_a_time() -> None:
    servers = ServerLocks()

    with servers.lock("a", Deadline(attempt=1, deadline_s=DEADLINE_S)):
        assert servers.is_busy("a")
        with servers.lock("b", Deadline(attempt=1, deadline_s=DEADLINE_S)):
            pass
        with pytest.raises(core.errors.Unavailable), servers.lock("a", Deadline(attempt=1, deadline_s=0.05)):
            pass
    assert not servers.is_busy("a")


def test_only_the_work_on_older_attempts_is_interrupted() -> None:
    servers = ServerLocks()
    deadline = Deadline(attempt=2, deadline_s=DEADLINE_S)

    with servers.lock("a", deadline):
        servers.interrupt("a", 1, "given up")
        deadline.check()
        servers.interrupt("a", 2, "given up")
        with pytest.raises(core.errors.Conflict, match="given up"):
            deadline.wait(DEADLINE_S)


INVENTORY = Inventory(
    node_uuid="n", hypervisor_hostname="h", hypervisor_type="t", hypervisor_version=1, vcpus=2, memory_mib=1000,
    disk_gib=10, reserved_memory_mib=100, cpu_allocation_ratio=2.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("flavor", "short"),
    [
        ({"vcpus": 4, "memory_mib": 900, "root_gib": 10}, None),
        ({"vcpus": 5}, "vcpus (wanted 5, free 4)"),
        ({"memory_mib": 901}, "memory_mib (wanted 901, free 900)"),
        ({"root_gib": 10, "swap_mib": 1}, "disk_gib (wanted 11, free 10)"),
    ],
)
def test_what_fits_is_let_in(flavor: dict[str, int], short: str | None) -> None:
    tracker = Tracker(lambda: INVENTORY, list)
    spec = spec_of(new_uuid(), **flavor)

    if short is None:
        with tracker.claim(spec):
            pass
        return
    with pytest.raises(core.errors.Conflict) as raised, tracker.claim(spec):
        pass
    assert short in raised.value.message


def test_claims_and_guests_count_together_and_once() -> None:
    guests: list[Guest] = []
    tracker = Tracker(lambda: INVENTORY, lambda: guests)
    first, second = spec_of(new_uuid(), memory_mib=500), spec_of(new_uuid(), memory_mib=400)

    with tracker.claim(first):
        guests.append(Guest(first.uuid, 1, 1, 1, 500, 1))
        with tracker.claim(second):
            pass
    with pytest.raises(core.errors.Conflict), tracker.claim(spec_of(new_uuid(), memory_mib=401)):
        pass


def test_usage_counts_a_server_once() -> None:
    spec = spec_of("a", vcpus=2, memory_mib=64, root_gib=1, swap_mib=1025)

    assert need_of(spec).disk_gib == 3
    assert usage([Guest("a", 1, 1, 2, 64, 3), Guest("b", 1, 1, 1, 32, 1)], [spec]) == Usage(3, 96, 4, 2)


def running(uuid: str, power_state: int = 1) -> Guest:
    return Guest(uuid, 1, power_state)


def test_changes_by_themselves_are_told_once() -> None:
    book = KnownPowerStates()
    book.note(running("a"))
    moment = book.moment()

    assert book.changes([running("a", 4)], since=moment, is_busy=lambda _: False) == [cell.Built("a", 1, 4)]
    assert book.changes([running("a", 4)], since=moment, is_busy=lambda _: False) == []
    assert book.changes([], since=moment, is_busy=lambda _: False) == [cell.Built("a", 1, 0)]
    assert book.changes([], since=moment, is_busy=lambda _: False) == []


def test_a_list_older_than_an_order_is_not_believed() -> None:
    book = KnownPowerStates()
    moment = book.moment()
    book.note(running("a"))
    book.forget("b")

    assert book.changes([running("b")], since=moment, is_busy=lambda _: False) == []


def test_a_server_in_hand_is_looked_at_later() -> None:
    book = KnownPowerStates()

    assert book.changes([running("a")], since=0, is_busy=lambda _: True) == []
    assert book.changes([running("a")], since=0, is_busy=lambda _: False) == [cell.Built("a", 1, 1)]
