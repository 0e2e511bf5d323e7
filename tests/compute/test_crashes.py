"""The agent killed, or deceived, at every durable step: a fresh agent on the same directory ends it right.

A kill: from that instant on no step of the dead agent does anything, its connections break and its lock is free. A
deception: the step took effect, but whoever did it saw an error; the same agent has to find out.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest

import core.errors
from compute.agent import Agent
from core.crash_points import CrashPoints
from devstack.waiting import wait_until
from lifecycle import states
from messaging.verbs import cell, compute
from objects.host import Attempt
from tests.compute.conftest import DEADLINE_S, HOST, Bench, new_uuid

pytestmark = [pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"), pytest.mark.slow]


class Killed(BaseException):
    """The process is no more."""


class Fate(CrashPoints):
    """What happens at the first visit of one step: death before it, death after it, or a wrong answer."""

    def __init__(self, name: str, how: str, *, armed: bool = True) -> None:
        self.struck = threading.Event()
        self._is_armed = armed
        self._name = name
        self._how = how
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._die_if_dead()
        if self._is_armed and name == self._name and self._how == "before":
            self._strike()
        yield
        self._die_if_dead()
        if self._is_armed and name == self._name and self._how in ("after", "deceived"):
            self._strike()

    def arm(self) -> None:
        """From now on it may strike."""
        self._is_armed = True

    def _die_if_dead(self) -> None:
        if self.struck.is_set() and self._how != "deceived":
            raise Killed

    def _strike(self) -> None:
        with self._lock:
            if self._how != "deceived":
                self.struck.set()
                raise Killed
            if not self.struck.is_set():
                self.struck.set()
                raise core.errors.Unavailable("it took effect, but nobody heard")


HOW = ["before", "after", "deceived"]


def live_on(bench: Bench, fate: Fate, how: str) -> Agent:
    """The agent that goes on after fate struck."""
    assert fate.struck.wait(DEADLINE_S)
    if how == "deceived":
        return bench.agents[-1]
    bench.agents[-1].stop(0.5)  # Dead, it can do nothing; this breaks its connections and frees its lock.
    return bench.start()


def at_rest(bench: Bench) -> None:
    wait_until(lambda: bench.intents() == [], what="end of all intents", deadline_s=DEADLINE_S)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("step", ["agent.accept", "agent.create", "agent.report"])
def test_a_build(bench: Bench, step: str, how: str) -> None:
    fate = Fate(step, how)
    bench.start(fate)
    server = new_uuid()

    bench.cell.build((server, 1))
    live_on(bench, fate, how)

    if (step, how) == ("agent.create", "deceived"):
        bench.cell.hear(cell.REFUSED, lambda row: (row.uuid, row.attempt) == (server, 1))
        assert bench.guests() == {}
    else:
        bench.cell.hear(cell.ACTIVE, lambda row: row == cell.Built(server, 1, states.RUNNING))
        assert bench.guests() == {server: 1}
    at_rest(bench)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("step", ["agent.cannot", "agent.report"])
def test_a_build_that_fails(bench: Bench, step: str, how: str) -> None:
    fate = Fate(step, how)
    bench.start(fate)
    bench.faults(spawn_error="no")
    server = new_uuid()

    bench.cell.build((server, 1))
    live_on(bench, fate, how)
    at_rest(bench)
    bench.cell.build((server, 1))  # As the row's sweep does when it hears nothing.

    bench.cell.hear(cell.REFUSED, lambda row: (row.uuid, row.attempt) == (server, 1))
    assert bench.guests() == {}
    assert bench.fences() == [f"{server}.1"]
    assert not list((bench.directory / "simulated").rglob(f"{server}*"))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("step", ["agent.fence", "agent.destroy", "agent.gone"])
def test_a_destroy(bench: Bench, step: str, how: str) -> None:
    fate = Fate(step, how)
    bench.start(fate)
    server = new_uuid()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)

    bench.cell.destroy((server, 1))
    live_on(bench, fate, how)

    bench.cell.hear(cell.GONE, lambda row: row == Attempt(server, 1))
    assert bench.guests() == {}
    assert bench.fences() == [f"{server}.1"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("step", ["agent.fence", "agent.destroy", "agent.gone"])
def test_a_destroy_in_the_middle_of_a_build(bench: Bench, step: str, how: str) -> None:
    fate = Fate(step, how)
    bench.start(fate)
    bench.faults(spawn_s=120.0)
    server = new_uuid()
    bench.cell.build((server, 1))
    wait_until(lambda: bench.intents() == [server], what="intent", deadline_s=DEADLINE_S)

    bench.cell.destroy((server, 1))
    live_on(bench, fate, how)

    bench.cell.hear(cell.GONE, lambda row: row == Attempt(server, 1))
    assert bench.guests() == {}
    at_rest(bench)
    assert not list((bench.directory / "simulated").rglob(f"{server}*"))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("step", ["agent.accept", "agent.destroy", "agent.create", "agent.report"])
def test_a_newer_attempt_on_the_same_host(bench: Bench, step: str, how: str) -> None:
    bench.start()
    server = new_uuid()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)
    at_rest(bench)
    bench.agents[-1].stop(2.0)
    bench.cell.forget()
    fate = Fate(step, how, armed=False)
    bench.start(fate)
    bench.cell.hear(cell.POWER_STATES)
    fate.arm()

    bench.cell.build((server, 2))
    live_on(bench, fate, how)

    if how == "deceived" and step in ("agent.destroy", "agent.create"):
        bench.cell.hear(cell.REFUSED, lambda row: (row.uuid, row.attempt) == (server, 2))
        assert bench.guests() == {}
    else:
        bench.cell.hear(cell.ACTIVE, lambda row: row == cell.Built(server, 2, states.RUNNING))
        assert bench.guests() == {server: 2}
    at_rest(bench)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("step", ["agent.act-intent", "agent.act", "agent.acted", "agent.report"])
def test_an_operation(bench: Bench, step: str, how: str) -> None:
    bench.start()
    server = new_uuid()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)
    at_rest(bench)
    bench.agents[-1].stop(2.0)
    bench.cell.forget()
    fate = Fate(step, how, armed=False)
    bench.start(fate)
    bench.cell.hear(cell.POWER_STATES)  # What a fresh agent says of the guests it finds is another story.
    fate.arm()

    bench.cell.act(server, 1, "op-1", "stop")
    live_on(bench, fate, how)

    outcome = bench.cell.hear(cell.ACTED, lambda row: row.operation_id == "op-1")
    assert bench.agents[-1].hypervisor.guests.get(server).power_state == states.SHUTDOWN
    assert (outcome.power_state, outcome.fault is None) == (states.SHUTDOWN, (step, how) != ("agent.act", "deceived"))
    records = bench.agents[-1].host.records
    wait_until(lambda: not records.operations(server).unreported, what="end of the report", deadline_s=DEADLINE_S)
    assert records.operations(server).waiting == ()


def test_reports_wait_for_a_broker_that_is_away(bench: Bench) -> None:
    agent = bench.start()
    bench.faults(hang=True)
    server = new_uuid()
    bench.cell.build((server, 1))
    wait_until(lambda: bench.intents() == [server], what="intent", deadline_s=DEADLINE_S)
    bench.place._broker.go_away()

    bench.faults()
    wait_until(
        lambda: agent.host.reporter.is_waiting(cell.ACTIVE, (server, 1)),
        what="report that waits",
        deadline_s=DEADLINE_S,
    )
    assert bench.intents() == [server]
    bench.place._broker.come_back()

    bench.cell.hear(cell.ACTIVE)
    wait_until(lambda: bench.intents() == [], what="cleared intent", deadline_s=DEADLINE_S)


@pytest.mark.parametrize("lost", ["active", "gone"])
def test_a_report_that_the_broker_lost_is_given_again_when_asked(bench: Bench, lost: str) -> None:
    bench.start()
    server = new_uuid()
    if lost == "active":
        _lose_next_report(bench)
        bench.cell.build((server, 1))
        at_rest(bench)
        _until(lambda: bench.cell.build((server, 1)), lambda: bench.cell.heard(cell.ACTIVE))
        assert bench.guests() == {server: 1}
        return
    _lose_next_report(bench)
    bench.cell.destroy((server, 1))
    _until(lambda: bench.cell.destroy((server, 1)), lambda: bench.cell.heard(cell.GONE))


def test_messages_that_come_twice_change_nothing(bench: Bench) -> None:
    bench.start()
    server = new_uuid()
    bench.place._broker.double_next(compute.queue(HOST), 10)
    bench.place._broker.double_next(cell.REPORTS, 10)

    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)
    assert bench.guests() == {server: 1}
    bench.cell.act(server, 1, "op-1", "reboot-hard")
    bench.cell.hear(cell.ACTED)
    assert bench.cell.console(server).count("GUEST-READY") == 2
    bench.cell.destroy((server, 1))
    bench.cell.hear(cell.GONE)

    assert bench.guests() == {}


def _lose_next_report(bench: Bench) -> None:
    # Heartbeats share the queue: lose enough of what comes next.
    bench.place._broker.lose_next(cell.REPORTS, 2)


def _until(act: Callable[[], None], condition: Callable[[], object]) -> None:
    def acted() -> bool:
        if condition():
            return True
        act()
        return False

    wait_until(acted, what="answer", deadline_s=DEADLINE_S, every_s=0.3)
