"""Builds, as the protocol says: accepted on disk, built once, reported until confirmed, refused when given up."""

import pathlib
import threading

import msgspec
import pytest

import core.errors
from compute.records import Intent
from core.crash_points import CrashPoints
from devstack.waiting import wait_until
from lifecycle import states
from messaging.verbs import cell, compute
from objects.build import ImageRef
from objects.host import Attempt
from tests.compute.conftest import DEADLINE_S, Bench, Cell, Place, new_uuid, spec_of


@pytest.fixture
def bench(any_place: Place, tmp_path: pathlib.Path):
    bench = Bench(any_place, tmp_path, Cell(any_place.url), [])
    yield bench
    bench.faults()
    for agent in bench.agents:
        agent.stop(2.0)
    bench.cell.stop()


def test_a_build_ends_active_and_its_intent_is_cleared(bench: Bench) -> None:
    bench.start()
    server = new_uuid()

    bench.cell.build((server, 1))

    assert bench.cell.hear(cell.ACTIVE) == cell.Built(server, 1, states.RUNNING)
    assert bench.guests() == {server: 1}
    wait_until(lambda: bench.intents() == [], what="cleared intent", deadline_s=DEADLINE_S)


def test_an_order_is_on_disk_before_it_is_done_and_its_message_is_not_held(bench: Bench) -> None:
    agent = bench.start()
    bench.faults(hang=True)
    server = new_uuid()

    bench.cell.build((server, 1))
    bench.cell.hear(cell.HEARTBEAT, lambda beat: Attempt(server, 1) in beat.intents)

    intent = msgspec.json.decode((bench.agent_directory / "intents" / f"{server}.json").read_bytes(), type=Intent)
    assert (intent.uuid, intent.attempt) == (server, 1)
    agent.listener.stop(2.0)  # What it held would go back to the queue and be built by the next agent's listener.
    assert agent.host.records.intent(server) is not None


def test_an_order_that_comes_twice_makes_one_guest(bench: Bench) -> None:
    bench.start()
    bench.faults(spawn_s=0.3)
    server = new_uuid()

    for _ in range(3):
        bench.cell.build((server, 1))

    bench.cell.hear(cell.ACTIVE)
    assert bench.guests() == {server: 1}


def test_an_order_for_a_guest_that_is_there_is_answered_with_active(bench: Bench) -> None:
    agent = bench.start()
    server = new_uuid()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)
    wait_until(lambda: agent.host.records.intent(server) is None, what="cleared intent", deadline_s=DEADLINE_S)
    bench.cell.forget()

    bench.cell.build((server, 1))

    assert bench.cell.hear(cell.ACTIVE) == cell.Built(server, 1, states.RUNNING)


def test_many_builds_share_reports(bench: Bench) -> None:
    bench.start()
    servers = {new_uuid() for _ in range(40)}

    bench.cell.build(*((server, 1) for server in servers))
    bench.cell.hear_of(servers, cell.ACTIVE)

    assert len([name for name, _ in bench.cell.said if name == "active"]) <= 20
    assert set(bench.guests()) == servers


def test_a_build_that_was_given_up_is_refused_when_its_order_comes_late(bench: Bench) -> None:
    bench.start()
    server = new_uuid()
    bench.cell.destroy((server, 1))
    bench.cell.hear(cell.GONE)

    bench.cell.build((server, 1))

    assert bench.cell.hear(cell.REFUSED).attempt == 1
    assert bench.guests() == {}
    assert bench.intents() == []


def test_a_later_attempt_is_built_although_an_earlier_one_was_given_up(bench: Bench) -> None:
    bench.start()
    server = new_uuid()
    bench.cell.destroy((server, 1))
    bench.cell.hear(cell.GONE)

    bench.cell.build((server, 2))

    assert bench.cell.hear(cell.ACTIVE).attempt == 2


def test_a_spawn_that_fails_is_undone_fenced_and_refused_with_the_reason(bench: Bench) -> None:
    bench.start()
    bench.faults(spawn_error="the disk is on fire")
    server = new_uuid()

    bench.cell.build((server, 1))

    assert bench.cell.hear(cell.REFUSED) == cell.Refusal(server, 1, "the disk is on fire")
    assert bench.guests() == {}
    assert bench.fences() == [f"{server}.1"]
    assert bench.intents() == []
    assert not list((bench.directory / "simulated").rglob(f"{server}*"))


def test_a_driver_that_breaks_is_a_refusal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = bench.start()
    monkeypatch.setattr(agent.hypervisor.guests, "spawn", lambda *_, **__: 1 / 0)
    server = new_uuid()

    bench.cell.build((server, 1))

    assert "ZeroDivisionError" in bench.cell.hear(cell.REFUSED).reason


def test_a_server_that_does_not_fit_is_refused(bench: Bench) -> None:
    bench.start(simulated__memory_mib=1000)
    small, large = new_uuid(), new_uuid()
    bench.cell.build((small, 1), memory_mib=600)
    bench.cell.hear(cell.ACTIVE)

    bench.cell.build((large, 1), memory_mib=600)

    assert "memory_mib (wanted 600, free 400)" in bench.cell.hear(cell.REFUSED, lambda row: row.uuid == large).reason
    assert bench.guests() == {small: 1}


def test_builds_side_by_side_do_not_overfill_the_host(bench: Bench) -> None:
    bench.start(simulated__memory_mib=1000)
    bench.faults(spawn_s=0.2)
    servers = [new_uuid() for _ in range(8)]

    bench.cell.build(*((server, 1) for server in servers), memory_mib=400)
    bench.cell.hear_of(servers, cell.ACTIVE, cell.REFUSED)

    assert len(bench.guests()) == 2


def test_a_build_past_its_deadline_is_refused(bench: Bench) -> None:
    bench.start(compute__build_deadline_s=0.3)
    bench.faults(hang=True)

    bench.cell.build((new_uuid(), 1))

    assert "within 0.3 s" in bench.cell.hear(cell.REFUSED).reason


def test_an_image_that_cannot_be_fetched_is_a_refusal(bench: Bench) -> None:
    bench.start(simulated__fetch_images="true")
    server = new_uuid()
    spec = msgspec.structs.replace(spec_of(server), image=ImageRef(image_id=new_uuid()))

    bench.cell.order(compute.BUILD, compute.Build([compute.BuildAttempt(1, spec)]))

    assert "cannot fetch images" in bench.cell.hear(cell.REFUSED).reason


def test_a_newer_attempt_takes_the_place_of_a_guest_of_an_older_one(bench: Bench) -> None:
    bench.start()
    server = new_uuid()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)

    bench.cell.build((server, 2))

    bench.cell.hear(cell.ACTIVE, lambda row: row.attempt == 2)
    assert bench.guests() == {server: 2}


def test_a_newer_attempt_ends_an_older_build_under_way(bench: Bench) -> None:
    bench.start()
    bench.faults(hang=True)
    server = new_uuid()
    bench.cell.build((server, 1))
    wait_until(lambda: bench.is_spawning(attempt=1), what="spawn", deadline_s=DEADLINE_S)

    bench.cell.build((server, 2))
    wait_until(lambda: bench.is_spawning(attempt=2), what="second spawn", deadline_s=DEADLINE_S)
    bench.faults()

    bench.cell.hear(cell.ACTIVE, lambda row: row.attempt == 2)
    assert bench.guests() == {server: 2}
    assert bench.cell.heard(cell.REFUSED) == []


def test_an_older_order_behind_a_newer_one_is_ignored(bench: Bench) -> None:
    bench.start()
    server = new_uuid()
    bench.cell.build((server, 2))
    bench.cell.hear(cell.ACTIVE)

    bench.cell.build((server, 1))
    bench.cell.build((other := new_uuid(), 1))
    bench.cell.hear(cell.ACTIVE, lambda row: row.uuid == other)

    assert bench.guests() == {server: 2, other: 1}


def test_a_failed_build_that_cannot_be_undone_is_tried_again_and_not_refused(bench: Bench) -> None:
    bench.start()
    bench.faults(spawn_error="no", destroy_error="nor that")
    server = new_uuid()

    bench.cell.build((server, 1))
    bench.cell.hear(cell.HEARTBEAT, lambda beat: Attempt(server, 1) in beat.intents)
    assert bench.cell.heard(cell.REFUSED) == []
    # A try is under way at this very moment: could its guest be undone, it would be refused.
    bench.faults(destroy_error="nor that")

    bench.cell.hear(cell.ACTIVE)
    assert bench.guests() == {server: 1}


def test_a_name_that_is_no_uuid_touches_no_file(bench: Bench) -> None:
    bench.start()

    bench.cell.build(("../../escape", 1))
    bench.cell.build((server := new_uuid(), 1))

    bench.cell.hear(cell.ACTIVE, lambda row: row.uuid == server)
    assert list(bench.guests()) == [server]


def test_no_more_builds_at_a_time_than_slots(bench: Bench) -> None:
    counting = _Counting("agent.create")
    bench.start(counting, compute__build_slots=3)
    bench.faults(spawn_s=0.1)
    servers = [new_uuid() for _ in range(9)]

    bench.cell.build(*((server, 1) for server in servers))
    bench.cell.hear_of(servers, cell.ACTIVE)

    assert counting.most == 3


def test_a_second_agent_on_the_same_directory_refuses_to_start(bench: Bench) -> None:
    bench.start()

    with pytest.raises(core.errors.Conflict, match="Another agent"):
        bench.agent().start()


class _Counting(CrashPoints):
    """How many are in a step at the same time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    def __call__(self, name: str):
        return self if name == self._name else super().__call__(name)

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1
