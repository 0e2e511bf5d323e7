"""The two brokers that every test of messaging runs against: ours in the process, and a RabbitMQ of the test run's
own."""

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from core.context import Context, service_context
from devstack.services import rabbitmq
from devstack.waiting import wait_until
from messaging import access, in_process
from messaging.broker import Broker
from messaging.caller import Caller
from messaging.listener import Handle, HandleMany, Listener
from tests.rabbitmq_node import SharedRabbitMQ, skip_without_rabbitmq

HOST, OTHER, DOTTED = "host-1", "host-2", "host-1.example.org"
PLAYER = access.User("player", tags="impersonator")
USERS = (access.host(HOST), access.host(OTHER), access.host(DOTTED), access.guest("asker"), PLAYER)
"""Who is let in beside the owner, where that matters."""


class Place(Protocol):
    """Where messages go, and what a test may do to it. `url`: of who owns it, with all rights."""

    url: str

    def url_of(self, user: access.User) -> str: ...

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...

    def restart(self) -> None: ...

    def crash(self) -> None: ...


class InProcess:
    def __init__(self, name: str) -> None:
        self._name = name
        self.url = f"inproc://{name}"
        self._broker = in_process.broker(name)

    def url_of(self, user: access.User) -> str:
        return f"inproc://{user.name}:secret@{self._name}"

    def let_in(self, *users: access.User) -> None:
        """Only these, and who owns it."""
        owner = access.owner("owner")
        for user in (owner, *users):
            self._broker.let_in(user, "secret")
        self.url = self.url_of(owner)

    def freeze(self) -> None:
        self._broker.freeze()

    def thaw(self) -> None:
        self._broker.thaw()

    def restart(self) -> None:
        self._broker.go_away()
        self._broker.come_back()

    crash = restart


class Rabbit:
    """Whoever has a node that others use, too, must leave it as it is."""

    def __init__(self, node: rabbitmq.RabbitMQ | SharedRabbitMQ) -> None:
        self.url = node.url("messaging")
        self._node = node

    def url_of(self, user: access.User) -> str:
        return self._node.url("messaging", user.name)

    def freeze(self) -> None:
        self._node.freeze()

    def thaw(self) -> None:
        self._node.thaw()

    def restart(self) -> None:
        self._node.stop()
        self._node.start()

    def crash(self) -> None:
        """Killed, but not before the queues made last are on disk.

        RabbitMQ 3.10 keeps the register of its quorum queues in memory for three seconds. A queue made in the last
        three seconds before a kill comes back without a leader, and takes and gives nothing until it is deleted.
        """
        killed_at = time.monotonic() + 4.0
        wait_until(lambda: time.monotonic() > killed_at, what="time", deadline_s=10.0)
        self._node.kill()
        self._node.start()


@pytest.fixture(scope="package")
def rabbit_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rabbitmq.RabbitMQ]:
    """A node of this suite's own, for its tests freeze it and end it."""
    skip_without_rabbitmq()
    node = rabbitmq.RabbitMQ(Path(tmp_path_factory.mktemp("rabbitmq")), name=f"messaging-{uuid.uuid4().hex[:8]}")
    node.create_vhost("messaging", USERS)
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
def guarded(place: Place) -> Place:
    """A broker that lets the owner and `USERS` in, and nobody else."""
    if isinstance(place, InProcess):
        place.let_in(*USERS)
    return place


Connect = Callable[[str], Broker]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Brokers by their URLs, closed at the end."""
    brokers: list[Broker] = []

    def to(url: str) -> Broker:
        brokers.append(Broker(url, connect_timeout_s=2.0, publish_timeout_s=5.0))
        return brokers[-1]

    yield to
    for broker in brokers:
        broker.close()


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
