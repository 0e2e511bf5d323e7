"""What the in-process broker keeps: queues, messages, and who reads them. The broker's lock guards all of it."""

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from messaging import access

MAX_MESSAGES = 100_000
"""In one queue; a publish beyond is refused."""


class Reader(Protocol):
    """A channel, as the broker sees it; called with the broker's lock held."""

    @property
    def connection(self) -> "Peer":
        """Its connection."""

    def has_room(self, subscription: "Subscription") -> bool:
        """Whether this reader of it may be given another message."""

    def deliver(self, subscription: "Subscription", message: "Stored") -> None:
        """Hands a message over; the channel remembers it until it is acked."""

    def release(self) -> None:
        """The channel is gone: its subscriptions end, its messages go back."""

    def break_off(self) -> None:
        """The broker ends the channel's connection."""


class Peer(Protocol):
    """A connection, as the broker sees it."""

    connected: bool
    arrived: threading.Condition
    user: str | None

    @property
    def channels(self) -> Sequence[Reader]:
        """All channels it ever had."""

    def break_off(self) -> None:
        """The broker ends it."""


class Delivered:
    """A message as a consumer gets it."""

    __slots__ = ("body", "delivery_info", "delivery_tag", "properties")

    def __init__(self, message: "Stored", tag: int, consumer_tag: str) -> None:
        headers = dict(message.properties["application_headers"])
        if message.deliveries:
            headers["x-delivery-count"] = message.deliveries
        self.body = message.body
        self.properties = dict(message.properties, application_headers=headers)
        self.delivery_tag = tag
        self.delivery_info = {
            "consumer_tag": consumer_tag, "delivery_tag": tag, "redelivered": message.deliveries > 0,
            "exchange": message.exchange, "routing_key": message.key,
        }


class Stored:
    """A message in a queue, and how it came there; `deliveries` counts those that did not end with an ack."""

    __slots__ = ("_expires_at", "body", "deliveries", "exchange", "key", "properties")

    def __init__(self, body: bytes, properties: dict[str, Any], *, exchange: str = "", key: str = "") -> None:
        expiration_ms = str(properties.get("expiration"))
        self.body = body
        self.properties = properties
        self.exchange = exchange
        self.key = key
        self.deliveries = 0
        self._expires_at = time.monotonic() + int(expiration_ms) / 1000 if expiration_ms.isdecimal() else None

    def is_expired(self) -> bool:
        return self._expires_at is not None and time.monotonic() >= self._expires_at

    def copy(self) -> "Stored":
        return Stored(self.body, self.properties, exchange=self.exchange, key=self.key)


class Queue:
    """Messages in order and those who take them in turn. `owner` is the connection of an exclusive queue."""

    __slots__ = ("auto_delete", "durable", "limits", "name", "owner", "ready", "size", "subscriptions")

    def __init__(self, name: str, durable: bool, auto_delete: bool, owner: Peer | None) -> None:
        self.name = name
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner
        self.limits = access.limits(name)
        self.ready: collections.deque[Stored] = collections.deque()
        self.size = 0
        """Bytes of the bodies that wait."""
        self.subscriptions: collections.deque[Subscription] = collections.deque()

    def has_room(self, message: Stored) -> bool:
        """Whether the queue's limits let the message in."""
        self.drop_expired()
        return len(self.ready) < MAX_MESSAGES and self.size + len(message.body) <= self.limits.get(
            "max-length-bytes", float("inf")
        )

    def put(self, message: Stored) -> None:
        """At the end."""
        self.ready.append(message)
        self.size += len(message.body)

    def put_back(self, message: Stored) -> None:
        """At the head, once more; one that was delivered too often is dropped."""
        message.deliveries += 1
        if message.deliveries <= self.limits.get("delivery-limit", float("inf")):
            self.ready.appendleft(message)
            self.size += len(message.body)

    def take(self) -> Stored:
        """The one at the head."""
        message = self.ready.popleft()
        self.size -= len(message.body)
        return message

    def clear(self) -> None:
        """Throws away what waits."""
        self.ready.clear()
        self.size = 0

    def next_with_room(self) -> "Subscription | None":
        """Whose turn it is, among those that can take a message."""
        for _ in range(len(self.subscriptions)):
            subscription = self.subscriptions[0]
            self.subscriptions.rotate(-1)
            if subscription.no_ack or subscription.channel.has_room(subscription):
                return subscription
        return None

    def drop_expired(self) -> None:
        """Throws away what expired, at the head only, as RabbitMQ does; the rest is looked at when it gets there."""
        while self.ready and self.ready[0].is_expired():
            self.take()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """One reader of one queue."""

    channel: Reader
    queue: str
    tag: str
    no_ack: bool
    callback: Callable[[Delivered], None]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Unacked:
    """A message that was delivered and not acked yet."""

    queue: str
    message: Stored
    tag: str
