"""A host that does not answer holds up nobody but those who ask it."""

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator

import pytest

import core.errors
from cells.gate.answers import Answer, Cell, Silence, Unknown
from cells.gate.gate import MAX_CALLS_OF_HOST, Gate
from core.context import service_context
from devstack.waiting import wait_until
from messaging import in_process
from messaging.broker import Broker
from messaging.listener import Forward, Handle, Listener
from messaging.verbs import cell, compute

DEADLINE_S = 30.0
FROZEN, HEALTHY = "frozen-1", "healthy-1"


class CellWithHosts:
    """A conductor that passes on what is asked of hosts, a host that answers, and one that has a queue and nothing
    else."""

    def __init__(self) -> None:
        url = f"inproc://calls-{uuid.uuid4().hex}"
        self.broker = Broker(url)
        self.place = in_process.broker(url.removeprefix("inproc://"))
        self.hinted = threading.Event()
        self.gate = Gate(Cell(str(uuid.uuid4()), "west", "sqlite://", url), deadline_s=5.0)
        self.broker.declare(compute.queue(FROZEN))
        conductor = [
            Handle(cell.CONSOLE, lambda _, asked: Forward(compute.queue(asked.host))),
            Handle(cell.CLEAN, lambda *_: self.hinted.set()),
        ]
        host = [Handle(compute.CONSOLE, lambda _, asked: compute.ConsoleOutput(output=asked.uuid))]
        self._listeners = [
            Listener(self.broker, cell.QUEUE, conductor, workers=2, prefetch=20),
            Listener(self.broker, compute.queue(HEALTHY), host, workers=2, prefetch=20)
        ]  # fmt: skip
        for listener in self._listeners:
            listener.start()
            assert listener.wait_until_listening(DEADLINE_S)

    async def ask(self, host: str, *, deadline_s: float = DEADLINE_S) -> object:
        """The answer; or the error, if it is one."""
        try:
            return await self.gate.call(
                cell.QUEUE, cell.CONSOLE, cell.ConsoleLogOnHost(uuid="it", host=host), service_context(), deadline_s
            )
        except core.errors.CellplaneError as error:
            return error

    def close(self) -> None:
        self.gate.close()
        for listener in self._listeners:
            listener.stop(2.0)
        self.broker.close()


@pytest.fixture
def hosts() -> Iterator[CellWithHosts]:
    cell_with_hosts = CellWithHosts()
    yield cell_with_hosts
    cell_with_hosts.close()


def test_a_frozen_host_delays_neither_another_host_nor_a_hint(hosts: CellWithHosts) -> None:
    async def ask() -> tuple[list[object], list[object]]:
        frozen = [asyncio.ensure_future(hosts.ask(FROZEN)) for _ in range(8)]
        await asyncio.sleep(0)
        healthy = [await hosts.ask(HEALTHY) for _ in range(3)]
        hosts.gate.hint(cell.QUEUE, cell.CLEAN, cell.Uuids(["it"]), service_context())
        assert await asyncio.get_running_loop().run_in_executor(None, hosts.hinted.wait, DEADLINE_S)
        refused = [each.result() for each in frozen if each.done()]
        for each in frozen:
            each.cancel()
        return healthy, refused

    healthy, refused = asyncio.run(ask())

    assert [answer.value.output for answer in healthy if isinstance(answer, Answer)] == ["it"] * 3
    assert len(refused) == 8 - MAX_CALLS_OF_HOST
    assert all(isinstance(each, core.errors.Unavailable) for each in refused)
    assert hosts.gate.health()["broker"] == "up"


def test_no_thread_waits_for_a_host(hosts: CellWithHosts) -> None:
    async def ask() -> int:
        asked = [asyncio.ensure_future(hosts.ask(f"frozen-{number}")) for number in range(20)]
        for number in range(20):
            hosts.broker.declare(compute.queue(f"frozen-{number}"))
        while (
            len(hosts.gate._caller._replies._waiting if hosts.gate._caller and hosts.gate._caller._replies else ()) < 20
        ):
            await asyncio.sleep(0.01)
        running = hosts.gate._broker_bulkhead._pool.busy_threads
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        return running

    assert asyncio.run(ask()) == 0
    assert hosts.gate._caller is not None and hosts.gate._caller._replies is not None
    wait_until(lambda: not hosts.gate._caller._replies._waiting, what="end of the waiting", deadline_s=DEADLINE_S)  # type: ignore[union-attr]


def test_a_call_that_is_late_is_unknown_and_says_nothing_about_the_broker(hosts: CellWithHosts) -> None:
    for _ in range(3):
        assert isinstance(asyncio.run(hosts.ask(FROZEN, deadline_s=0.2)), Unknown)
    assert hosts.gate.health()["broker"] == "up"
    assert isinstance(asyncio.run(hosts.ask(HEALTHY)), Answer)


def test_a_call_to_a_broker_that_is_away_opens_its_breaker(hosts: CellWithHosts) -> None:
    hosts.place.go_away()

    answers = [asyncio.run(hosts.ask(HEALTHY)) for _ in range(3)]

    assert all(isinstance(answer, Unknown | Silence) for answer in answers)
    wait_until(lambda: hosts.gate.broker_is_down, what="open breaker", deadline_s=DEADLINE_S)
    began = time.thread_time()
    assert isinstance(asyncio.run(hosts.ask(HEALTHY)), Silence)
    assert time.thread_time() - began < 1.0
