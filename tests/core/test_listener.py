"""Connections that ask for nothing: they end, make room for those who ask, and cost nobody else anything."""

import asyncio
import contextlib
import logging
import pathlib
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from core.listener import ConnectionLimits, Listener, deliver

WITHIN_S = 10.0
ANSWER_BYTES = 20_000_000


class Program(asyncio.Protocol):
    """Answers each byte with a byte; `busy` and `big` make it take its time, and say much."""

    def __init__(self, served: "Served") -> None:
        self._served = served

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.may_write = asyncio.Event()
        self.may_write.set()

    def data_received(self, data: bytes) -> None:
        if data == b"b":
            self._served.tasks.append(asyncio.ensure_future(self._be_busy()))
        elif data == b"l":
            self._served.tasks.append(asyncio.ensure_future(self._say_much()))
        elif data != b"d":
            with self._served.listener.busy(self.transport):
                self.transport.write(data)

    async def _be_busy(self) -> None:
        with self._served.listener.busy(self.transport):
            await self._served.is_free.wait()
            self.transport.write(b"b")

    async def _say_much(self) -> None:
        self._served.delivered.append(await deliver(self._write(), self.transport, within_s=WITHIN_S, progress_s=0.4))

    async def _write(self) -> None:
        self.transport.write(bytes(ANSWER_BYTES))
        await self.may_write.wait()

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()


class Served:
    """A listener in a loop and a thread of its own, and clients of it."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._taken = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = self._taken.getsockname()
        self._clients = contextlib.ExitStack()
        self.listener = Listener(self._taken, lambda: Program(self), limits)
        self.tasks: list[asyncio.Future[None]] = []
        self.delivered: list[bool] = []
        self.failures: list[dict[str, Any]] = []
        self.is_free = asyncio.Event()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> "Served":
        self._thread.start()
        self.loop.call_soon_threadsafe(self.listener.start)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.listener.stop)
        self._clients.close()
        until(lambda: not len(self.listener))
        until(lambda: all(task.done() for task in self.tasks))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WITHIN_S)
        self.loop.close()
        self._taken.close()
        assert not self.failures

    def client(self) -> socket.socket:
        return self._clients.enter_context(socket.create_connection(self.address, timeout=WITHIN_S))

    def clients(self, number: int) -> list[socket.socket]:
        """So many, each known to the listener before the next one comes."""
        connected: list[socket.socket] = []
        for _ in range(number):
            connected.append(self.client())
            assert is_answered(connected[-1])
        return connected

    def free(self) -> None:
        self.loop.call_soon_threadsafe(self.is_free.set)


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def is_answered(client: socket.socket) -> bool:
    try:
        client.sendall(b"x")
        return client.recv(1) == b"x"
    except ConnectionError:
        return False


def is_closed(client: socket.socket) -> bool:
    """Waits for it."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_a_connection_that_says_nothing_is_closed() -> None:
    with Served(ConnectionLimits(head_timeout_s=0.2)) as served:
        assert is_closed(served.client())


def test_bytes_that_drip_do_not_keep_a_connection() -> None:
    with Served(ConnectionLimits(head_timeout_s=0.3)) as served:
        dripping = served.client()
        until(lambda: len(served.listener))
        with contextlib.suppress(ConnectionError):
            until(lambda: dripping.send(b"d") and not len(served.listener))


def test_an_answered_connection_stands_for_its_own_time() -> None:
    with Served(ConnectionLimits(head_timeout_s=30.0, idle_timeout_s=0.2)) as served:
        (client,) = served.clients(1)
        assert is_closed(client)


def test_a_connection_that_is_being_answered_stands_as_long_as_that_takes() -> None:
    with Served(ConnectionLimits(head_timeout_s=0.1, idle_timeout_s=30.0)) as served:
        busy, silent = served.client(), served.client()
        busy.sendall(b"b")
        assert is_closed(silent)
        served.free()
        assert busy.recv(1) == b"b"


def test_one_more_than_there_may_be_takes_the_place_of_the_oldest_idle_one() -> None:
    with Served(ConnectionLimits(most=3)) as served:
        busy, oldest, newest = served.clients(3)
        busy.sendall(b"b")
        until(lambda: served.tasks)
        assert is_answered(served.client())
        assert is_closed(oldest)
        assert is_answered(newest)
        served.free()
        assert busy.recv(1) == b"b"
        assert len(served.listener) == 3


def test_nobody_is_broken_off_for_one_more() -> None:
    with Served(ConnectionLimits(most=1)) as served:
        (busy,) = served.clients(1)
        busy.sendall(b"b")
        until(lambda: served.tasks)
        assert is_closed(served.client())
        served.free()
        assert busy.recv(1) == b"b"


def test_one_address_takes_no_more_than_its_share() -> None:
    with Served(ConnectionLimits(most=100, most_per_address=2)) as served:
        clients = served.clients(5)
        assert [is_closed(each) for each in clients[:3]] == [True] * 3
        assert [is_answered(each) for each in clients[3:]] == [True] * 2


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """This process may have only a few more than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    has = max(int(each.name) for each in pathlib.Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (has + 30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_it_says_so_once_a_second_and_goes_on(
    few_descriptors: None, caplog: pytest.LogCaptureFixture
) -> None:
    with Served(ConnectionLimits()) as served, caplog.at_level(logging.WARNING, logger="core.listener"):
        with contextlib.ExitStack() as used:
            clients = [used.enter_context(socket.socket()) for _ in range(3)]
            with contextlib.ExitStack() as filled:
                fill(filled)
                for client in clients:
                    client.settimeout(WITHIN_S)
                    client.connect(served.address)
                began = time.monotonic()
                until(lambda: caplog.records and time.monotonic() > began + 0.5)
                assert len(caplog.records) <= 1 + time.monotonic() - began
                assert "can't be accepted" in caplog.records[0].getMessage()
            assert all(is_answered(client) for client in clients)


def fill(filled: contextlib.ExitStack) -> None:
    """Takes all descriptors that are left."""
    with contextlib.suppress(OSError):
        while True:
            filled.enter_context(socket.socket())


def test_an_answer_that_nobody_reads_is_given_up() -> None:
    with Served(ConnectionLimits()) as served:
        served.client().sendall(b"l")
        until(lambda: served.delivered == [False])
        until(lambda: not len(served.listener))


def test_an_answer_that_is_read_slowly_is_delivered() -> None:
    with Served(ConnectionLimits()) as served:
        client, got = served.client(), 0
        client.sendall(b"l")
        while got < ANSWER_BYTES:
            got += len(client.recv(1 << 18))
            time.sleep(0.002)
        until(lambda: served.delivered == [True])
