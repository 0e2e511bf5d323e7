"""Destroys: fenced first, then destroyed, and only then said to be gone; never behind slow builds."""

import threading

import pytest

from devstack.waiting import wait_until
from messaging.verbs import cell, compute
from objects.host import Attempt
from tests.compute.conftest import DEADLINE_S, HOST, Bench, new_uuid


def test_a_destroyed_server_leaves_only_its_fence(bench: Bench) -> None:
    bench.start()
    server = new_uuid()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)

    bench.cell.destroy((server, 1))

    assert bench.cell.hear(cell.GONE) == Attempt(server, 1)
    assert bench.guests() == {}
    assert not [path for path in bench.directory.rglob(f"{server}*") if path.parent.name != "fences"]
    assert bench.fences() == [f"{server}.1"]


def test_a_server_that_never_was_here_is_gone_too(bench: Bench) -> None:
    bench.start()

    bench.cell.destroy((server := new_uuid(), 4))

    assert bench.cell.hear(cell.GONE) == Attempt(server, 4)


def test_gone_is_said_again_when_asked_again(bench: Bench) -> None:
    bench.start()
    server = new_uuid()
    bench.cell.destroy((server, 1))
    bench.cell.hear(cell.GONE)
    bench.cell.forget()

    bench.cell.destroy((server, 1))

    bench.cell.hear(cell.GONE)


def test_a_destroy_ends_a_build_under_way(bench: Bench) -> None:
    bench.start()
    bench.faults(spawn_s=120.0)
    server = new_uuid()
    bench.cell.build((server, 1))
    wait_until(bench.is_spawning, what="spawn", deadline_s=DEADLINE_S)

    bench.cell.destroy((server, 1))

    bench.cell.hear(cell.GONE)
    assert bench.guests() == {}
    assert bench.intents() == []
    assert bench.cell.heard(cell.ACTIVE) == bench.cell.heard(cell.REFUSED) == []


def test_a_destroy_does_not_wait_behind_slow_builds(bench: Bench) -> None:
    bench.start(compute__build_slots=2)
    bench.faults(spawn_s=120.0)
    servers = [new_uuid() for _ in range(12)]
    bench.cell.build(*((server, 1) for server in servers))
    wait_until(lambda: len(bench.intents()) == 12, what="12 intents", deadline_s=DEADLINE_S)

    bench.cell.destroy((servers[0], 1))
    bench.cell.destroy((servers[-1], 1))

    for server in (servers[0], servers[-1]):
        bench.cell.hear(cell.GONE, lambda row, server=server: row.uuid == server)
    assert len(bench.intents()) == 10


def test_a_destroy_of_an_older_attempt_leaves_the_build_of_a_newer_one(bench: Bench) -> None:
    bench.start(compute__destroy_deadline_s=0.2)
    server = new_uuid()
    bench.faults(hang=True)
    bench.cell.build((server, 2))
    wait_until(lambda: bench.intents() == [server], what="intent", deadline_s=DEADLINE_S)

    bench.cell.destroy((server, 1))
    wait_until(lambda: bench.fences() == [f"{server}.1"], what="fence", deadline_s=DEADLINE_S)
    bench.faults()

    bench.cell.hear(cell.ACTIVE, lambda row: row.attempt == 2)
    bench.cell.hear(cell.GONE, lambda row: row.attempt == 1)
    assert bench.guests() == {server: 2}


def test_nothing_is_said_to_be_gone_while_the_hypervisor_hangs(bench: Bench) -> None:
    bench.start(compute__destroy_deadline_s=0.2)
    bench.faults(hang=True, ignores_deadline=True)
    server = new_uuid()
    bench.cell.build((server, 1))
    wait_until(bench.is_spawning, what="spawn", deadline_s=DEADLINE_S)

    bench.cell.destroy((server, 1))
    wait_until(lambda: bench.fences() == [f"{server}.1"], what="fence", deadline_s=DEADLINE_S)
    bench.cell.build((other := new_uuid(), 1))
    wait_until(lambda: bench.intents() == [other], what="other intent", deadline_s=DEADLINE_S)
    assert bench.cell.heard(cell.GONE) == []
    bench.faults()

    bench.cell.hear(cell.GONE, lambda row: row.uuid == server)
    bench.cell.hear(cell.ACTIVE, lambda row: row.uuid == other)
    assert bench.guests() == {other: 1}


def test_orders_repeated_while_the_hypervisor_hangs_do_not_keep_builds_out(bench: Bench) -> None:
    bench.start()
    bench.faults(hang=True, ignores_deadline=True)
    server = new_uuid()
    bench.cell.build((server, 1))
    wait_until(bench.is_spawning, what="spawn", deadline_s=DEADLINE_S)

    for _ in range(40):
        bench.cell.destroy((server, 1))
    bench.cell.build((other := new_uuid(), 1))

    wait_until(lambda: bench.intents() == [other], what="other intent", deadline_s=5.0)
    bench.faults()
    bench.cell.hear(cell.GONE, lambda row: row.uuid == server)


def test_many_servers_in_one_message(bench: Bench) -> None:
    bench.start()
    servers = [new_uuid() for _ in range(20)]
    bench.cell.build(*((server, 1) for server in servers))
    bench.cell.hear_of(servers, cell.ACTIVE)

    bench.cell.destroy(*((server, 1) for server in servers))
    bench.cell.hear_of(servers, cell.GONE)

    assert bench.guests() == {}


def test_what_is_gone_is_said_although_another_server_of_the_message_is_not(bench: Bench) -> None:
    bench.start()
    stuck, free = new_uuid(), new_uuid()
    bench.cell.build((stuck, 1), (free, 1))
    wait_until(lambda: len(bench.guests()) == 2, what="2 guests", deadline_s=DEADLINE_S)
    bench.faults(servers={stuck: {"destroy_error": "busy"}})

    bench.cell.destroy((stuck, 1), (free, 1))
    bench.cell.hear(cell.GONE, lambda row: row.uuid == free)
    assert bench.guests() == {stuck: 1}
    bench.faults()

    bench.cell.hear(cell.GONE, lambda row: row.uuid == stuck)
    assert bench.guests() == {}


def test_a_destroy_is_not_acked_before_gone_is_confirmed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = bench.start()
    broker = bench.place._broker
    silent = threading.Event()
    cast = agent.host.reporter._caller.cast

    def fail_on_gone(queue: str, verb: object, *arguments: object, **settings: object) -> None:
        if verb == cell.GONE and not silent.is_set():
            broker.go_away()
            silent.set()
        cast(queue, verb, *arguments, **settings)

    monkeypatch.setattr(agent.host.reporter._caller, "cast", fail_on_gone)
    server = new_uuid()
    bench.cell.destroy((server, 1))
    assert silent.wait(DEADLINE_S)
    broker.come_back()

    assert bench.cell.hear(cell.GONE) == Attempt(server, 1)
    wait_until(lambda: broker.waiting(compute.queue(HOST)) == 0, what="empty queue", deadline_s=DEADLINE_S)
