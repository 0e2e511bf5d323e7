"""The broker of the embedded profile: queues that live in this process, one broker per `inproc://NAME`.

It gives what the design needs of RabbitMQ: messages that were not acked come back when their connection goes, with the
redelivered flag and an `x-delivery-count`; time to live; unroutable mandatory publishes handed back; exclusive and
auto-delete queues. Nothing polls: a waiting connection sleeps on a condition. It has the exchanges, the users' rights
and the queues' limits of `messaging.access`. Tests reach it through `broker(name)` and may freeze it, take it away,
make it forget, lose or double messages.
"""

import collections
import contextlib
import hmac
import threading
from collections.abc import Callable
from typing import Any

import amqp

from messaging import access
from messaging.in_process_queues import Peer, Queue, Stored, Subscription, Unacked
from messaging.in_process_rights import Rights

SCHEME = "inproc://"

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
        self._bindings: dict[tuple[str, str], set[str]] = {}
        self._users: dict[str, tuple[access.User, str]] = {}
        self._connections: set[Peer] = set()
        self._away = False
        self._frozen = False
        self._unacked: list[Callable[[], object]] = []
        self._to_lose: collections.Counter[str] = collections.Counter()
        self._to_double: collections.Counter[str] = collections.Counter()

    def let_in(self, user: access.User, password: str) -> None:
        """From now on only users that were named here are let in, with the rights that they have. Until then everybody
        is, with all rights."""
        with self.lock:
            self._users[user.name] = (user, password)

    def keep_out(self, name: str) -> None:
        """Forgets a user and ends its connections."""
        with self.lock:
            self._users.pop(name, None)
            for connection in [one for one in self._connections if one.user == name]:
                connection.break_off()

    # What a test may do to it.

    def freeze(self) -> None:
        """Stops answering, as a stopped process does; what is sent meanwhile takes effect at `thaw`."""
        with self.lock:
            self._frozen = True

    def thaw(self) -> None:
        """Goes on after `freeze`, first with all that was sent meanwhile."""
        with self.lock:
            self._frozen = False
            unacked, self._unacked = self._unacked, []
            for action in unacked:
                with contextlib.suppress(
                    amqp.AMQPError, amqp.exceptions.MessageNacked
                ):  # whoever sent it has given up waiting
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
            self._bindings.clear()

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
            contents = self._queues.get(queue)
            if contents is None:
                return 0
            contents.drop_expired()
            count = len(contents.ready)
            contents.clear()
            return count

    def waiting(self, queue: str) -> int:
        """How many messages wait in the queue for a consumer."""
        with self.lock:
            contents = self._queues.get(queue)
            if contents is None:
                return 0
            contents.drop_expired()
            return len(contents.ready)

    def queues(self) -> list[str]:
        """The names of all queues."""
        with self.lock:
            return sorted(self._queues)

    # What connections and channels ask of it.

    def enter(self, connection: Peer, password: str | None, timeout_s: float | None) -> Rights:
        """Lets a new connection in; what it may do.

        Raises:
            AccessRefused: the user is unknown, or this is not its password.
            NotAllowed: it has as many connections as it may have.
        """
        with self.lock:
            if self._away:
                raise ConnectionRefusedError(f"in-process broker {self.name} is down")
            try:
                user = self._known(connection.user, password)
                self.ask(lambda: self._admit(connection, user), timeout_s)
            except (TimeoutError, amqp.AMQPError):
                connection.connected = False
                raise
            return Rights(user, connection.user)

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
                self._unacked.append(action)
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
            self._unacked.append(lambda: answers.append(action()))
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

    def bind(self, name: str, exchange: str, key: str) -> None:
        """From now on the queue gets what comes to the exchange with such a routing key."""
        if exchange not in access.EXCHANGES or name not in self._queues:
            raise amqp.NotFound(f"no exchange {exchange} or no queue {name}")
        self._bindings.setdefault((exchange, key), set()).add(name)

    def exists(self, name: str) -> bool:
        """Whether there is such a queue."""
        return name in self._queues

    def delete(self, name: str) -> None:
        """Removes the queue and what is in it."""
        queue = self._queues.get(name)
        self._drop(name)
        for subscription in list(queue.subscriptions) if queue else []:
            subscription.channel.break_off()

    def publish(self, message: Stored) -> bool:
        """Takes a message into the queues that its exchange and its key lead to; `False` if there is none."""
        if message.exchange != access.DEFAULT and message.exchange not in access.EXCHANGES:
            raise amqp.NotFound(f"no exchange {message.exchange}")
        names = sorted(self._led_to(message.exchange, message.key))
        for number, name in enumerate(names):
            self._put(self._queues[name], message if number == 0 else message.copy())
        return bool(names)

    def _led_to(self, exchange: str, key: str) -> set[str]:
        if exchange == access.DEFAULT:
            return {key} & self._queues.keys()
        if access.EXCHANGES[exchange] == "direct":
            return self._bindings.get((exchange, key), set())
        matching = [
            queues for (of, pattern), queues in self._bindings.items() if of == exchange and _matches(pattern, key)
        ]
        return set().union(*matching)

    def _put(self, queue: Queue, message: Stored) -> None:
        if self._to_lose[queue.name]:
            self._to_lose[queue.name] -= 1
            return
        if not queue.has_room(message):
            raise amqp.exceptions.MessageNacked(f"queue {queue.name} is full")
        queue.put(message)
        if self._to_double[queue.name]:
            self._to_double[queue.name] -= 1
            queue.put(message.copy())
        self._deliver(queue)

    def take(self, name: str) -> Stored | None:
        """One message out of the queue."""
        queue = self._queues[name]
        queue.drop_expired()
        return queue.take() if queue.ready else None

    def subscribe(self, subscription: Subscription) -> None:
        """From now on the reader gets the queue's messages."""
        queue = self._queues.get(subscription.queue)
        if queue is None:
            raise amqp.NotFound(f"no queue {subscription.queue}")
        self.check_lock(queue.name, subscription.channel.connection)
        queue.subscriptions.append(subscription)
        self._deliver(queue)

    def unsubscribe(self, subscription: Subscription) -> None:
        """The reader gets no more messages; the last one of an auto-delete queue takes it along."""
        queue = self._queues.get(subscription.queue)
        if queue is None or subscription not in queue.subscriptions:
            return
        queue.subscriptions.remove(subscription)
        if queue.auto_delete and not queue.subscriptions:
            self._drop(queue.name)

    def give_back(self, unacked: list[Unacked]) -> None:
        """Puts messages that were not acked back where they were, oldest first."""
        touched: dict[str, Queue] = {}
        for entry in reversed(unacked):
            queue = self._queues.get(entry.queue)
            if queue is not None:
                queue.put_back(entry.message)
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
            message = queue.take()
            if not message.is_expired():
                subscription.channel.deliver(subscription, message)

    def check_lock(self, name: str, connection: Peer) -> None:
        """Raises `ResourceLocked` if the queue belongs to another connection."""
        queue = self._queues.get(name)
        if queue is not None and queue.owner not in (None, connection):
            raise amqp.ResourceLocked(f"queue {name} belongs to another connection")

    def _known(self, name: str | None, password: str | None) -> access.User | None:
        """The user, or `None` where nobody was named and so everybody may do everything."""
        if not self._users:
            return None
        user, right = self._users.get(name or "", (None, ""))
        if user is None or not hmac.compare_digest(right.encode(), (password or "").encode()):
            raise amqp.AccessRefused(f"in-process broker {self.name} refuses the login of {name}")
        return user

    def _admit(self, connection: Peer, user: access.User | None) -> None:
        if not connection.connected:  # It was frozen out and has given up.
            return
        most = user.most_connections if user else None
        if most is not None and sum(one.user == connection.user for one in self._connections) >= most:
            raise amqp.NotAllowed(f"user {connection.user} has {most} connections")
        self._connections.add(connection)

    def _drop(self, name: str) -> None:
        """The queue goes with its bindings."""
        self._queues.pop(name, None)
        for queues in self._bindings.values():
            queues.discard(name)
        self._bindings = {way: queues for way, queues in self._bindings.items() if queues}

    def _forget(self, connection: Peer) -> None:
        self._connections.discard(connection)
        for channel in connection.channels:
            channel.release()
        for name, queue in list(self._queues.items()):
            if queue.owner is connection:
                self._drop(name)

    def _break_connections(self) -> None:
        self._frozen = False
        self._unacked.clear()
        for connection in list(self._connections):
            connection.break_off()
        for name, queue in list(self._queues.items()):
            if not queue.durable:
                self._drop(name)
        self._changed.notify_all()


def _matches(pattern: str, key: str) -> bool:
    """Whether a topic has this pattern; only `#` at the end is used here, so only that is known."""
    if pattern.endswith(".#"):
        return f"{key}.".startswith(pattern[:-1])
    return key == pattern
