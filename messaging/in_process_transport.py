"""The kombu transport of the in-process broker: connections and channels with the methods that are used here.

A waiting connection sleeps on a condition; nothing polls.
"""

import collections
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import amqp
from kombu.message import Message
from kombu.transport import base

from messaging import access
from messaging.in_process import InProcessBroker, broker
from messaging.in_process_queues import Delivered, Stored, Subscription, Unacked
from messaging.in_process_rights import Rights

_PATIENCE_S = 2.0
"""How long a question waits for a frozen broker."""


class Transport(base.Transport):
    """What kombu asks of a transport."""

    driver_type = "inproc"
    driver_name = "inproc"
    connection_errors = amqp.Connection.connection_errors
    channel_errors = amqp.Connection.channel_errors
    implements = base.Transport.implements.extend(
        heartbeats=False, asynchronous=False, exchange_type=frozenset(access.EXCHANGES.values())
    )

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        self._client = client

    def establish_connection(self) -> "Connection":
        connection = Connection(broker(self._client.hostname), self._client.userid)
        connection.rights = connection.broker.enter(connection, self._client.password, self._client.connect_timeout)
        return connection

    def close_connection(self, connection: "Connection") -> None:
        connection.close()

    def create_channel(self, connection: "Connection") -> "Channel":
        return connection.channel()

    def drain_events(self, connection: "Connection", **kwargs: Any) -> None:
        connection.drain_events(**kwargs)

    def verify_connection(self, connection: "Connection") -> bool:
        return connection.connected


class Connection:
    """One connection: belongs to one thread but for `wake`."""

    heartbeat = 0

    def __init__(self, of: InProcessBroker, user: str | None) -> None:
        self.broker = of
        self.user = user
        self.rights = Rights(None, user)
        self.connected = True
        self.arrived = threading.Condition(of.lock)
        self.channels: list[Channel] = []
        self._inbox: collections.deque[tuple[Subscription, Delivered]] = collections.deque()
        self._woken = False

    def channel(self) -> "Channel":
        with self.broker.lock:
            most = self.rights.most_channels
            if most is not None and sum(channel.is_open for channel in self.channels) >= most:
                self.break_off()
                raise amqp.NotAllowed(f"user {self.user} has {most} channels")
            channel = Channel(self)
            self.channels.append(channel)
            return channel

    def push(self, consumer: Subscription, message: Delivered) -> None:
        """The broker hands a message over (its lock is held)."""
        self._inbox.append((consumer, message))
        self.arrived.notify()

    def drain(self, timeout_s: float) -> None:
        """Handles what has come, or sleeps until something comes, `wake` is called or the time is over."""
        with self.broker.lock:
            if not self._inbox and not self._woken and self.connected:
                self.arrived.wait(timeout_s)
            self._woken = False
            self._check()
            arrived, self._inbox = self._inbox, collections.deque()
        for consumer, message in arrived:
            consumer.callback(message)

    def drain_events(self, timeout: float | None = None) -> None:
        """kombu's form of `drain`: one message, or `TimeoutError`."""
        with self.broker.lock:
            self.arrived.wait_for(lambda: self._inbox or not self.connected, timeout)
            self._check()
            if not self._inbox:
                raise TimeoutError("nothing came")
            consumer, message = self._inbox.popleft()
        consumer.callback(message)

    def wake(self) -> None:
        """Ends the `drain` that another thread is in, or the next one."""
        with self.broker.lock:
            self._woken = True
            self.arrived.notify()

    def break_off(self) -> None:
        """The broker's end of the connection goes."""
        self._inbox.clear()
        self.broker.leave(self)

    def close(self) -> None:
        if self.connected:
            self.broker.leave(self)

    collect = close

    def _check(self) -> None:
        if not self.connected:
            raise amqp.RecoverableConnectionError("in-process broker closed the connection")


class Channel(base.StdChannel):
    """A channel as kombu and py-amqp know it, with the methods that are used here."""

    Message = Message

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.is_open = True
        self.auto_decode = False
        self._rights = connection.rights
        self.events: collections.defaultdict[str, set[Callable[..., None]]] = collections.defaultdict(set)
        self._broker = connection.broker
        self._prefetch = 0
        self._consumers: dict[str, Subscription] = {}
        self._unacked: dict[int, Unacked] = {}
        self._in_hand: collections.Counter[str] = collections.Counter()
        self._tags = itertools.count(1)

    def prepare_message(
        self,
        body: bytes,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
    ) -> Stored:
        return Stored(
            body,
            dict(
                properties or {},
                application_headers=dict(headers or {}),
                content_type=content_type,
                content_encoding=content_encoding,
            ),
        )

    def message_to_python(self, raw: Delivered) -> Message:
        properties = raw.properties
        return Message(
            body=raw.body, channel=self, delivery_tag=raw.delivery_tag, content_type=properties.get("content_type"),
            delivery_info=raw.delivery_info, properties=properties, headers=properties["application_headers"],
        )

    def basic_publish(
        self,
        message: Stored,
        exchange: str,
        routing_key: str,
        mandatory: bool = False,
        timeout: float | None = None,
        confirm_timeout: float | None = None,
        **_: Any,
    ) -> None:
        with self._asking():
            self._rights.publish(exchange, routing_key)
            self._rights.check_message(message.body, message.properties)
        sent = Stored(message.body, message.properties, exchange=exchange, key=routing_key)
        with self._asking():
            is_routed = self._broker.ask(lambda: self._broker.publish(sent), confirm_timeout or timeout)
        if not is_routed and mandatory:
            refusal = amqp.ChannelError(f"no queue {routing_key}")
            for callback in self.events["basic_return"]:
                callback(refusal, exchange, routing_key, message)

    def queue_declare(
        self,
        queue: str,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = True,
        arguments: dict[str, Any] | None = None,
    ) -> amqp.protocol.queue_declare_ok_t:
        with self._asking():
            queue = queue or f"amq.gen-{next(self._tags)}"
            owner = self.connection if exclusive else None
            if passive:
                if not self._broker.exists(queue):
                    raise amqp.NotFound(f"no queue {queue}")
                self._broker.check_lock(queue, self.connection)
                return amqp.protocol.queue_declare_ok_t(queue, self._broker.waiting(queue), 0)
            self._rights.configure(queue)
            count = self._broker.ask(
                lambda: self._broker.declare(queue, durable=durable, auto_delete=auto_delete, owner=owner), _PATIENCE_S
            )
            return amqp.protocol.queue_declare_ok_t(queue, count, 0)

    def queue_bind(self, queue: str, exchange: str = "", routing_key: str = "") -> None:
        with self._asking():
            self._rights.bind(queue, exchange, routing_key)
            self._broker.ask(lambda: self._broker.bind(queue, exchange, routing_key), _PATIENCE_S)

    def exchange_declare(
        self, exchange: str, type: str, passive: bool = False, durable: bool = False, auto_delete: bool = True
    ) -> None:
        """There are the exchanges of `messaging.access` and no others."""
        with self._asking():
            if not passive:
                self._rights.configure(exchange)
            if access.EXCHANGES.get(exchange) != type:
                raise amqp.NotFound(f"no exchange {exchange} of the type {type}")

    def exchange_delete(self, exchange: str) -> None:
        """None of them goes."""
        with self._asking():
            self._rights.configure(exchange)
            raise amqp.AccessRefused(f"exchange {exchange} stays")

    def queue_delete(self, queue: str) -> None:
        with self._asking():
            self._rights.configure(queue)
            self._broker.check_lock(queue, self.connection)
            self._broker.ask(lambda: self._broker.delete(queue), _PATIENCE_S)

    def queue_purge(self, queue: str) -> int:
        with self._asking():
            self._rights.read(queue)
            self._broker.check_lock(queue, self.connection)
            return int(self._broker.ask(lambda: self._broker.purge(queue), _PATIENCE_S))

    def basic_qos(self, prefetch_size: int, prefetch_count: int, a_global: bool) -> None:
        self._prefetch = prefetch_count

    def basic_consume(
        self,
        queue: str,
        consumer_tag: str = "",
        no_ack: bool = False,
        callback: Callable[[Delivered], None] | None = None,
    ) -> str:
        assert callback is not None
        with self._asking():
            self._rights.read(queue)
            tag = consumer_tag or f"ctag-{next(self._tags)}"
            consumer = self._consumers[tag] = Subscription(self, queue, tag, no_ack, callback)
            self._broker.ask(lambda: self._broker.subscribe(consumer), _PATIENCE_S)
            return tag

    def basic_cancel(self, consumer_tag: str) -> None:
        consumer = self._consumers.pop(consumer_tag, None)
        if consumer is not None:
            self._broker.tell(lambda: self._broker.unsubscribe(consumer))

    def basic_get(self, queue: str, no_ack: bool = False) -> Delivered | None:
        with self._asking():
            self._rights.read(queue)
            self._broker.check_lock(queue, self.connection)
            return self._broker.ask(lambda: self._get(queue, no_ack), _PATIENCE_S)  # type: ignore[no-any-return]

    def basic_ack(self, delivery_tag: int) -> None:
        self._check()
        self._broker.tell(lambda: self._settle(delivery_tag, requeue=False))

    def basic_reject(self, delivery_tag: int, requeue: bool) -> None:
        self._check()
        self._broker.tell(lambda: self._settle(delivery_tag, requeue=requeue))

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._broker.tell(self.release)

    # What the broker asks of it, with its lock held.

    def has_room(self, subscription: Subscription) -> bool:
        """Whether this reader of it may be given another message."""
        return not self._prefetch or self._in_hand[subscription.tag] < self._prefetch

    def deliver(self, consumer: Subscription, message: Stored) -> None:
        """Hands a message to the consumer and remembers it until it is acked."""
        self.connection.push(consumer, self._delivered(consumer.queue, message, consumer.tag, no_ack=consumer.no_ack))

    def break_off(self) -> None:
        """The broker ends its connection."""
        self.connection.break_off()

    def release(self) -> None:
        """The channel is gone: its consumers end, its messages go back."""
        for consumer in self._consumers.values():
            self._broker.unsubscribe(consumer)
        self._consumers.clear()
        unacked, self._unacked = self._unacked, {}
        self._broker.give_back(list(unacked.values()))

    def _get(self, queue: str, no_ack: bool) -> Delivered | None:
        message = self._broker.take(queue)
        return None if message is None else self._delivered(queue, message, "", no_ack=no_ack)

    def _delivered(self, queue: str, message: Stored, consumer_tag: str, *, no_ack: bool) -> Delivered:
        tag = next(self._tags)
        if not no_ack:
            self._unacked[tag] = Unacked(queue, message, consumer_tag)
            self._in_hand[consumer_tag] += 1
        return Delivered(message, tag, consumer_tag)

    def _settle(self, delivery_tag: int, *, requeue: bool) -> None:
        entry = self._unacked.pop(delivery_tag, None)
        if entry is not None:
            self._in_hand[entry.tag] -= 1
        if entry is not None and requeue:
            self._broker.give_back([entry])
        self._broker.more_room({consumer.queue for consumer in self._consumers.values()})

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """As RabbitMQ: a question that is refused ends the channel."""
        self._check()
        try:
            yield
        except amqp.ChannelError:
            self.close()
            raise

    def _check(self) -> None:
        if not (self.is_open and self.connection.connected):
            raise amqp.RecoverableConnectionError("in-process broker closed the connection")
