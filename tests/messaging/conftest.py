"""The two brokers that every test of messaging runs against: ours in the process, and a RabbitMQ of the test run's own."""

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from core.context import Context, service_context
from devstack.services import rabbitmq
from devstack.waiting import wait_until
from messaging import in_process
from messaging.broker import Broker
from messaging.caller import Caller
from messaging.listener import Handle, HandleMany, Listener


class Place(Protocol):
    """Where messages go, and what a test may do to it."""

    url: str

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...

    def restart(self) -> None: ...

    def crash(self) -> None: ...


class InProcess:
    def __init__(self, name: str) -> None:
        self.url = f"inproc://{name}"
        self._broker = in_process.broker(name)

    def freeze(self) -> None:
        self._broker.freeze()

    def thaw(self) -> None:
        self._broker.thaw()

    def restart(self) -> None:
        self._broker.go_away()
        self._broker.come_back()

    crash = restart


class Rabbit:
    def __init__(self, node: rabbitmq.RabbitMQ) -> None:
        self.url = node.url("messaging")
        self._node = node

    def freeze(self) -> None:
        self._node.freeze()

    def thaw(self) -> None:
        self._node.thaw()

    def restart(self) -> None:
        self._node.stop()
        self._node.start()

    def crash(self) -> None:
        """Killed, but not before the queues made last are on disk.

        RabbitMQ 3.10 keeps the register of its quorum queues in memory for three seconds. A queue made in the last three seconds
        before a kill comes back without a leader, and takes and gives nothing until it is deleted.
        """
        killed_at = time.monotonic() + 4.0
        wait_until(lambda: time.monotonic() > killed_at, what="time", deadline_s=10.0)
        self._node.kill()
        self._node.start()


@pytest.fixture(scope="session")
def rabbit_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rabbitmq.RabbitMQ]:
    if not rabbitmq.is_installed():
        pytest.skip("RabbitMQ is not installed")
    node = rabbitmq.RabbitMQ(Path(tmp_path_factory.mktemp("rabbitmq")), name=f"messaging-{uuid.uuid4().hex[:8]}")
    node.create_vhost("messaging")
    try:
        node.start()
        yield node
    finally:
        node.stop()


@pytest.fixture(params=["in-process", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "in-process":
        yield InProcess(uuid.uuid4().hex)
        return
    rabbit = Rabbit(request.getfixturevalue("rabbit_node"))
    try:
        yield rabbit
    finally:
        rabbit.thaw()


@pytest.fixture
def broker(place: Place) -> Iterator[Broker]:
    broker = Broker(place.url, connect_timeout_s=1.0, publish_timeout_s=1.0)
    yield broker
    broker.close()


@pytest.fixture
def caller(broker: Broker) -> Iterator[Caller]:
    caller = Caller(broker, sent_by="a test")
    yield caller
    caller.close()


@pytest.fixture
def queue() -> str:
    """The name of a queue that no other test uses."""
    return f"work.{uuid.uuid4().hex}"


@pytest.fixture
def context() -> Context:
    return service_context()


Listen = Callable[..., Listener]


@pytest.fixture
def listen(place: Place) -> Iterator[Listen]:
    """Starts a listener and waits until it reads its queue; a broker of its own, as another process has."""
    listeners: list[Listener] = []
    brokers: list[Broker] = []

    def start(queue: str, *handlers: Handle | HandleMany, **settings: Any) -> Listener:
        brokers.append(Broker(place.url, connect_timeout_s=1.0, publish_timeout_s=1.0))
        listener = Listener(brokers[-1], queue, list(handlers), **{"workers": 4, "prefetch": 100, **settings})
        listeners.append(listener)
        listener.start()
        assert listener.wait_until_listening(10.0)
        return listener

    yield start
    for listener in listeners:
        listener.stop(5.0)
    for broker in brokers:
        broker.close()
