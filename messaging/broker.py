"""A broker, as those who send see it: publish with an answer, within a time."""

import enum
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from core import errors, log
from core.broker_url import parse
from messaging.channel import Channel, ChannelLost, NoSuchQueue, QueueFull, TooLarge, open_channel

__all__ = ["REPLY", "WORK", "Broker", "Kind", "NoSuchQueue", "QueueFull", "TooLarge"]

LOG = log.get(__name__)


class Kind(enum.Enum):
    """What a queue is for."""

    WORK = "work"
    """Outlives the broker's restart; on RabbitMQ a quorum queue. Limits are set by the operator's policies."""
    REPLY = "reply"
    """Belongs to one connection and goes with it."""


WORK = Kind.WORK
REPLY = Kind.REPLY
LONGEST_NAME_BYTES = 255
"""Of a queue (AMQP 0-9-1: a short string). A row may name a host whose queue would be longer."""


class Broker:
    """One broker (several addresses of one cluster: separated by `;`). May be used by any thread, and after a fork.

    Publishing connections are few, opened at first use and lent to one thread at a time.

    Args:
        url: `amqp://user:password@host:port/vhost`, `inproc://NAME` or `inproc://user:password@NAME`. The user decides
            which way a message takes (`messaging.access`), and is the one that the broker names to who reads it.
        connect_timeout_s: for opening a connection.
        publish_timeout_s: for a publish altogether, the wait for a free connection included.
        connections: how many threads may publish at the same time.

    Raises:
        Invalid: the URL is none.
    """

    _idle: list[Channel]
    _open: int

    def __init__(
        self, url: str, *, connect_timeout_s: float = 2.0, publish_timeout_s: float = 2.0, connections: int = 4
    ) -> None:
        self._addresses = parse(url)
        self.url = url
        self.address = log.masked(url)
        self._connect_timeout_s = connect_timeout_s
        self._publish_timeout_s = publish_timeout_s
        self._most = connections
        self._start_over()

    def publish(
        self,
        queue: str,
        body: bytes,
        *,
        expires_s: float | None,
        headers: dict[str, Any] | None = None,
        reply_to: str | None = None,
        correlation_id: str | None = None,
        persistent: bool = True,
        timeout_s: float | None = None,
    ) -> None:
        """Puts one message into a queue and returns when the broker has taken it.

        Args:
            expires_s: how long it may wait in the queue; `None` for ever.
            timeout_s: less than the broker's `publish_timeout_s`, if so much time is not left.

        Raises:
            NoSuchQueue: nobody declared the queue; nothing was sent.
            QueueFull: it has no room; nothing was sent.
            TooLarge: no broker takes a message of this size; nothing was sent.
            Unavailable: the broker is away or too slow; the message may or may not arrive, once or twice.
        """
        if len(queue.encode()) > LONGEST_NAME_BYTES:
            raise NoSuchQueue(f"no queue can have the name {queue[:64]}...", queue=queue[:64])
        self._lend(
            lambda channel, left_s: channel.publish(
                queue, body, expires_s=expires_s, headers=headers, reply_to=reply_to, correlation_id=correlation_id,
                persistent=persistent, timeout_s=left_s,
            ),
            min(self._publish_timeout_s, timeout_s if timeout_s is not None else self._publish_timeout_s),
        )

    def declare(self, queue: str, kind: Kind = WORK) -> None:
        """Makes a queue of kind `WORK` if it is not there; a `REPLY` queue is its consumer's own affair."""
        if kind is not WORK:
            raise errors.Broken("a reply queue is declared by the connection that reads it", queue=queue)
        self._lend(lambda channel, _: channel.declare_work(queue), self._publish_timeout_s)

    def waiting(self, queue: str) -> int | None:
        """How many messages wait in the queue; `None` if there is no such queue."""
        with_new_link = self.open(
            heartbeats=False
        )  # RabbitMQ ends the channel of whoever asks for a queue that is not there.
        try:
            return with_new_link.waiting(queue)
        finally:
            with_new_link.close()

    def look(self, queue: str) -> None:
        """Returns if the broker answers; asked on a publishing connection, so that it costs one round trip. Any queue
        that is there will do.

        Raises:
            Unavailable: it does not answer.
        """
        self._lend(lambda channel, _: _look(channel, queue), self._publish_timeout_s)

    def purge(self, queue: str) -> None:
        """Throws away what waits in a queue."""
        self._lend(lambda channel, _: channel.purge(queue), self._publish_timeout_s)

    def delete(self, queue: str) -> None:
        """Removes a queue with what waits in it."""
        self._lend(lambda channel, _: channel.delete(queue), self._publish_timeout_s)

    def open(self, *, heartbeats: bool = True, confirms: bool = False, timeout_s: float | None = None) -> Channel:
        """A connection of one's own, for the calling thread: to the first address that answers, beginning anywhere.

        Raises:
            Unavailable: none answers.
        """
        first = random.randrange(len(self._addresses))
        ends_at = time.monotonic() + (self._connect_timeout_s if timeout_s is None else timeout_s)
        for number in range(len(self._addresses)):
            left_s = max(0.05, (ends_at - time.monotonic()) / (len(self._addresses) - number))
            try:
                return open_channel(
                    self._addresses[(first + number) % len(self._addresses)], connect_timeout_s=left_s,
                    timeout_s=self._publish_timeout_s, heartbeats=heartbeats, confirms=confirms,
                )
            except ChannelLost as why:
                silence = why
        raise silence

    def close(self) -> None:
        """Ends the publishing connections that nobody uses at the moment; the others end when they come back."""
        if self._pid != os.getpid():
            return
        with self._free:
            self._closed = True
            idle, self._idle = self._idle, []
            self._open -= len(idle)
        for channel in idle:
            channel.close()

    def _start_over(self) -> None:
        """Nothing open yet; in a forked child also nothing of the parent's, whose sockets are left alone."""
        self._pid = os.getpid()
        self._free = threading.Condition()
        self._idle = []
        self._open = 0
        self._closed = False

    def _lend(self, function: Callable[[Channel, float], None], timeout_s: float) -> None:
        if self._pid != os.getpid():
            self._start_over()
        ends_at = time.monotonic() + timeout_s
        channel, is_fresh = self._borrow(ends_at)
        try:
            try:
                function(channel, max(0.05, ends_at - time.monotonic()))
            except ChannelLost as why:
                channel.drop()
                if is_fresh or why.timed_out:
                    raise
                # It had died while nobody used it (the broker was restarted): that says nothing about the broker now.
                channel = self._open_to_publish(ends_at)
                function(channel, max(0.05, ends_at - time.monotonic()))
        except (NoSuchQueue, QueueFull, TooLarge):
            self._give_back(channel)
            raise
        except BaseException:
            channel.drop()
            self._give_up(channel)
            raise
        self._give_back(channel)

    def _borrow(self, ends_at: float) -> tuple[Channel, bool]:
        with self._free:
            if not self._free.wait_for(lambda: self._idle or self._open < self._most, ends_at - time.monotonic()):
                raise errors.Unavailable(f"broker {self.address}: all {self._most} publishing connections are busy")
            if self._idle:
                return self._idle.pop(), False
            self._open += 1
        try:
            return self._open_to_publish(ends_at), True
        except BaseException:
            self._one_less()
            raise

    def _open_to_publish(self, ends_at: float) -> Channel:
        left_s = max(0.05, min(self._connect_timeout_s, ends_at - time.monotonic()))
        return self.open(heartbeats=False, confirms=True, timeout_s=left_s)

    def _give_back(self, channel: Channel) -> None:
        with self._free:
            if not self._closed:
                self._idle.append(channel)
                self._free.notify()
                return
        channel.close()
        self._one_less()

    def _give_up(self, channel: Channel) -> None:
        """One connection failed: the idle ones lead to the same broker and are let go too."""
        with self._free:
            idle, self._idle = self._idle, []
            self._open -= len(idle)
        for other in idle:
            other.drop()
        self._one_less()

    def _one_less(self) -> None:
        with self._free:
            self._open -= 1
            self._free.notify()


def _look(channel: Channel, queue: str) -> None:
    if channel.waiting(queue) is None:
        channel.drop()  # The broker answered, and ended the channel of whoever asked for a queue that is not there.
