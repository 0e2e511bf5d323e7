"""The broker of the embedded profile: queues that live in this process, one broker per `inproc://NAME`.

It gives what the design needs of RabbitMQ: messages that were not acked come back when their connection goes, with the redelivered
flag and an `x-delivery-count`; time to live; unroutable mandatory publishes handed back; exclusive and auto-delete queues. Nothing
polls: a waiting connection sleeps on a condition. Tests reach it through `broker(name)` and may freeze it, take it away, make it
forget, lose or double messages.
"""

import collections
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import amqp

from messaging.in_process_queues import Peer, Queue, Stored, Subscription, Unacked

SCHEME = "inproc://"
MOST_MESSAGES = 100_000
"""In one queue; a publish beyond is refused."""

# The one table that this process holds for everybody: a broker must be reachable by its name alone, as a port is.
_brokers: dict[str, "InProcessBroker"] = {}
_brokers_lock = threading.Lock()


def broker(name: str) -> "InProcessBroker":
    """The process's broker of this name (made at first use)."""
    with _brokers_lock:
        return _brokers.setdefault(name, InProcessBroker(name))


class InProcessBroker:
    """Queues of one name, shared by all connections of the process. All methods may be called from any thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._queues: dict[str, Queue] = {}
        self._connections: set[Peer] = set()
        self._away = False
        self._frozen = False
        self._held: list[Callable[[], object]] = []
        self._to_lose: collections.Counter[str] = collections.Counter()
        self._to_double: collections.Counter[str] = collections.Counter()

    # What a test may do to it.

    def freeze(self) -> None:
        """Stops answering, as a stopped process does; what is sent meanwhile takes effect at `thaw`."""
        with self.lock:
            self._frozen = True

    def thaw(self) -> None:
        """Goes on after `freeze`, first with all that was sent meanwhile."""
        with self.lock:
            self._frozen = False
            held, self._held = self._held, []
            for action in held:
                with contextlib.suppress(amqp.AMQPError, amqp.exceptions.MessageNacked):  # whoever sent it has given up waiting
                    action()
            for queue in list(self._queues.values()):
                self._deliver(queue)
            self._changed.notify_all()
            for connection in self._connections:
                connection.arrived.notify_all()

    def go_away(self) -> None:
        """Breaks all connections and refuses new ones until `come_back`; durable queues keep their messages."""
        with self.lock:
            self._away = True
            self._break_connections()

    def come_back(self) -> None:
        """Ends `go_away`."""
        with self.lock:
            self._away = False

    def forget(self) -> None:
        """Loses all queues and messages and breaks all connections, as a broker that lost its disk."""
        with self.lock:
            self._break_connections()
            self._queues.clear()

    def lose_next(self, queue: str, count: int = 1) -> None:
        """The next messages to this queue are confirmed and lost."""
        with self.lock:
            self._to_lose[queue] += count

    def double_next(self, queue: str, count: int = 1) -> None:
        """The next messages to this queue arrive twice."""
        with self.lock:
            self._to_double[queue] += count

    def purge(self, queue: str) -> int:
        """Throws away what waits in the queue; how many that were."""
        with self.lock:
            found = self._queues.get(queue)
            if found is None:
                return 0
            found.drop_expired()
            count = len(found.ready)
            found.ready.clear()
            return count

    def waiting(self, queue: str) -> int:
        """How many messages wait in the queue for a consumer."""
        with self.lock:
            found = self._queues.get(queue)
            if found is None:
                return 0
            found.drop_expired()
            return len(found.ready)

    def queues(self) -> list[str]:
        """The names of all queues."""
        with self.lock:
            return sorted(self._queues)

    # What connections and channels ask of it.

    def enter(self, connection: Peer, timeout_s: float | None) -> None:
        """Lets a new connection in."""
        with self.lock:
            if self._away:
                raise ConnectionRefusedError(f"in-process broker {self.name} is away")
            try:
                self.ask(lambda: self._admit(connection), timeout_s)
            except TimeoutError:
                connection.connected = False
                raise

    def leave(self, connection: Peer) -> None:
        """Ends a connection: its unacked messages go back, its exclusive queues vanish."""
        with self.lock:
            connection.connected = False
            connection.arrived.notify_all()
            self.tell(lambda: self._forget(connection))

    def tell(self, action: Callable[[], object]) -> None:
        """Does it now, or at `thaw`; nobody waits for an answer."""
        with self.lock:
            if self._frozen:
                self._held.append(action)
            else:
                action()

    def ask(self, action: Callable[[], Any], timeout_s: float | None) -> Any:
        """Does it and gives the answer.

        Raises:
            TimeoutError: the broker is frozen; it will still be done at `thaw`.
        """
        with self.lock:
            if not self._frozen:
                return action()
            answers: list[Any] = []
            self._held.append(lambda: answers.append(action()))
            if not self._changed.wait_for(lambda: answers, timeout_s):
                raise TimeoutError("in-process broker did not answer")
            return answers[0]

    def declare(self, name: str, *, durable: bool, auto_delete: bool, owner: Peer | None) -> int:
        """Makes the queue if it is not there; how many messages wait in it."""
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = Queue(name, durable, auto_delete, owner)
        elif queue.owner is not owner:
            raise amqp.ResourceLocked(f"queue {name} belongs to another connection")
        return len(queue.ready)

    def exists(self, name: str) -> bool:
        """Whether there is such a queue."""
        return name in self._queues

    def delete(self, name: str) -> None:
        """Removes the queue and what is in it."""
        queue = self._queues.pop(name, None)
        for subscription in list(queue.subscriptions) if queue else []:
            subscription.channel.break_off()

    def put(self, name: str, message: Stored) -> bool:
        """Takes a message into a queue; `False` if there is no such queue."""
        queue = self._queues.get(name)
        if queue is None:
            return False
        if self._to_lose[name]:
            self._to_lose[name] -= 1
            return True
        queue.drop_expired()
        if len(queue.ready) >= MOST_MESSAGES:
            raise amqp.exceptions.MessageNacked(f"queue {name} is full")
        queue.ready.append(message)
        if self._to_double[name]:
            self._to_double[name] -= 1
            queue.ready.append(message.copy())
        self._deliver(queue)
        return True

    def take(self, name: str) -> Stored | None:
        """One message out of the queue."""
        queue = self._queues[name]
        queue.drop_expired()
        return queue.ready.popleft() if queue.ready else None

    def subscribe(self, subscription: Subscription) -> None:
        """From now on the reader gets the queue's messages."""
        queue = self._queues.get(subscription.queue)
        if queue is None:
            raise amqp.NotFound(f"no queue {subscription.queue}")
        queue.subscriptions.append(subscription)
        self._deliver(queue)

    def unsubscribe(self, subscription: Subscription) -> None:
        """The reader gets no more messages; the last one of an auto-delete queue takes it along."""
        queue = self._queues.get(subscription.queue)
        if queue is None or subscription not in queue.subscriptions:
            return
        queue.subscriptions.remove(subscription)
        if queue.auto_delete and not queue.subscriptions:
            del self._queues[queue.name]

    def give_back(self, unacked: list[Unacked]) -> None:
        """Puts messages that were not acked back where they were, oldest first."""
        touched: dict[str, Queue] = {}
        for entry in reversed(unacked):
            queue = self._queues.get(entry.queue)
            if queue is not None:
                entry.message.deliveries += 1
                queue.ready.appendleft(entry.message)
                touched[queue.name] = queue
        for queue in touched.values():
            self._deliver(queue)

    def more_room(self, queue_names: set[str]) -> None:
        """A consumer can take more: deliver what waits."""
        for name in queue_names:
            if name in self._queues:
                self._deliver(self._queues[name])

    def _deliver(self, queue: Queue) -> None:
        if self._frozen:
            return
        while queue.ready and queue.subscriptions:
            subscription = queue.next_with_room()
            if subscription is None:
                return
            message = queue.ready.popleft()
            if not message.is_expired():
                subscription.channel.deliver(subscription, message)

    def _admit(self, connection: Peer) -> None:
        if connection.connected:  # Else it was frozen out and has given up.
            self._connections.add(connection)

    def _forget(self, connection: Peer) -> None:
        self._connections.discard(connection)
        for channel in connection.channels:
            channel.let_go()
        for name, queue in list(self._queues.items()):
            if queue.owner is connection:
                del self._queues[name]

    def _break_connections(self) -> None:
        self._frozen = False
        self._held.clear()
        for connection in list(self._connections):
            connection.break_off()
        for name, queue in list(self._queues.items()):
            if not queue.durable:
                del self._queues[name]
        self._changed.notify_all()
