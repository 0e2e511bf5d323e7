"""A thread that reads one queue for as long as it is wanted, whatever becomes of the broker meanwhile."""

import collections
import functools
import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from core import errors, log
from core.clock import jittered
from messaging import access
from messaging.broker import REPLY, Broker, Kind
from messaging.channel import HEARTBEAT_S, Channel, Raw

LOG = log.get(__name__)

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_BEAT_S = HEARTBEAT_S / 4
_MAX_COUNTED = 1_000_000

Settle = Callable[[Channel, int], None]


class Received:
    """A message in hand. It can be settled once, from any thread; after its connection has gone that does nothing.

    Whatever its sender put into it, each field has its type here; what has another one counts as absent. `user` is who
    sent it, as the broker vouches for (`None`: the sender did not ask it to); `exchange` is what it came through.
    """

    __slots__ = (
        "_channel", "body", "correlation_id", "exchange", "headers", "queue", "received_at", "redeliveries", "reply_to",
        "tag", "user",
    )  # fmt: skip

    def __init__(self, raw: Raw, channel: Channel, queue: str) -> None:
        properties = raw.properties
        self._channel: Channel | None = channel
        self.queue = queue
        self.exchange = str(raw.delivery_info.get("exchange", ""))
        self.body = _bytes(raw.body)
        headers = properties.get("application_headers")
        self.headers: dict[str, Any] = headers if isinstance(headers, dict) else {}
        self.user = _text(properties.get("user_id"))
        reply_to = _text(properties.get("reply_to"))
        self.reply_to = reply_to if reply_to and access.REPLY_QUEUE.match(reply_to) else None
        self.correlation_id = _text(properties.get("correlation_id"))
        self.redeliveries = self.count("x-delivery-count")
        self.tag = raw.delivery_tag
        self.received_at = time.monotonic()

    def count(self, header: str) -> int:
        """A header that counts something; 0 if it is no such number."""
        value = self.headers.get(header)
        return value if type(value) is int and 0 <= value <= _MAX_COUNTED else 0

    def take_link(self) -> Channel | None:
        """The connection it came by, for the first who asks."""
        channel, self._channel = self._channel, None
        return channel

    def came_by(self, channel: Channel | None) -> bool:
        """Whether it can still be settled on this connection."""
        return channel is not None and self._channel is channel


def _bytes(body: object) -> bytes:
    return body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)  # type: ignore[call-overload]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class Consumer:
    """Reads a queue in a thread of its own, which also owns the connection; and beside it the queue of what was put
    off, if that is another.

    Args:
        queue: its name; for `REPLY` only the beginning of it: each connection gets a queue of its own.
        prefetch: how many messages of each queue may be in hand, not settled.
        on_message: called in the thread with each message; must be quick.
        on_reading: called in the thread whenever a connection has begun to read.
        on_turn: called in the thread every time it wakes; gives the seconds until it wants to be called again.
    """

    def __init__(
        self,
        broker: Broker,
        queue: str,
        kind: Kind,
        *,
        prefetch: int,
        on_message: Callable[[Received], None],
        on_turn: Callable[[], float] = lambda: _BEAT_S,
        on_reading: Callable[[], None] = lambda: None,
    ) -> None:
        self.queue = queue
        self.reading = threading.Event()
        self.in_hand = 0
        self._broker = broker
        self._kind = kind
        self._prefetch = prefetch
        self._on_message = on_message
        self._on_turn = on_turn
        self._on_reading = on_reading
        self._channel: Channel | None = None
        self._tags: list[str] = []
        self._beat_at = 0.0
        self._to_settle: collections.deque[tuple[Received, Channel, Settle]] = collections.deque()
        self._taking = True
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"consumer {queue}", daemon=True)
        self._prefix = queue

    def start(self) -> None:
        """Begins to read; `reading` is set whenever the queue is there and being read."""
        self._thread.start()

    def wait_until_reading(self, timeout_s: float) -> bool:
        """Whether the queue is being read, now or within this time; somebody waits, so the next attempt to connect is
        made now."""
        if not self.reading.is_set():
            self._hurry.set()
        return self.reading.wait(timeout_s)

    def stop_taking(self) -> None:
        """Takes no more messages; those in hand can still be settled."""
        self._taking = False
        self.wake()

    def stop(self, timeout_s: float) -> bool:
        """Settles what there is to settle and ends; what is in hand then is delivered again. Whether the thread ended
        in time."""
        self._taking = False
        self._stop.set()
        self._hurry.set()
        self.wake()
        if self._thread.ident is not None:  # one that was never started has nothing to settle
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def wake(self) -> None:
        """Makes the thread take a turn now."""
        channel = self._channel
        if channel is not None:
            channel.wake()

    def ack(self, message: Received) -> None:
        """The message is done with."""
        self._settle(message, Channel.ack)

    def reject(self, message: Received) -> None:
        """The message is not wanted; the broker deals with it as its policies say."""
        self._settle(message, Channel.reject)

    def is_unfinished(self, message: Received) -> bool:
        """Whether the message is ours and not settled; `False` once its connection has gone: then another copy is on
        its way."""
        return message.came_by(self._channel)

    def _settle(self, message: Received, how: Settle) -> None:
        channel = message.take_link()
        if channel is not None:
            self._to_settle.append((message, channel, how))
            channel.wake()

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        level = logging.WARNING
        while not self._stop.is_set():
            began_at = time.monotonic()
            try:
                self._connect()
                while not self._stop.is_set():
                    self._turn()
                self._end()
            except errors.Unavailable as why:
                # The loss is said once, not with every attempt to come back.
                LOG.log(
                    logging.WARNING if self.reading.is_set() else level,
                    "consumer cannot reach the broker queue=%s why=%s",
                    self.queue,
                    why.message,
                )
                level = logging.DEBUG
            except Exception:
                LOG.exception("consumer failed queue=%s", self.queue)
            self._disconnect()
            if time.monotonic() - began_at > _LONGEST_PAUSE_S:
                pause_s = _FIRST_PAUSE_S
            self._pause(jittered(pause_s, 0.5, 1.0))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _pause(self, pause_s: float) -> None:
        """Waits before the next attempt: the whole time, or the shortest if somebody is in a hurry."""
        self._stop.wait(min(pause_s, _FIRST_PAUSE_S))
        self._hurry.wait(max(0.0, pause_s - _FIRST_PAUSE_S))
        self._hurry.clear()

    def _connect(self) -> None:
        channel = self._channel = self._broker.open()
        if self._kind is REPLY:
            # A new name each time: the broker may not have noticed yet that the connection that owned the last one is
            # gone.
            self.queue = f"{self._prefix}.{uuid.uuid4().hex}"
            channel.declare_reply(self.queue)
            queues = [self.queue]
        else:
            queues = sorted({self.queue, access.put_off_queue(self.queue) or self.queue})
            for queue in queues:
                channel.declare_work(queue)
        self._beat_at = time.monotonic() + _BEAT_S
        for queue in queues if self._taking else ():
            take = functools.partial(self._take, channel, queue)
            self._tags.append(
                channel.consume(queue, prefetch=self._prefetch, no_ack=self._kind is REPLY, callback=take)
            )
        self.reading.set()
        LOG.info("consumer reads queue=%s broker=%s", self.queue, channel.address)
        self._on_reading()

    def _take(self, channel: Channel, queue: str, raw: Raw) -> None:
        self.in_hand += 1
        try:
            self._on_message(Received(raw, channel, queue))
        except (
            Exception
        ):  # The frame round every message of this thread: none may end the connection that the others come by.
            LOG.exception("message dropped queue=%s", queue)
            if self._kind is not REPLY:
                channel.reject(raw.delivery_tag)
                self.in_hand -= 1

    def _turn(self) -> None:
        channel = self._channel
        assert channel is not None
        channel.drain(max(0.0, min(self._on_turn(), self._beat_at - time.monotonic())))
        self._settle_all(channel)
        while not self._taking and self._tags:
            channel.cancel(self._tags.pop())
        if time.monotonic() >= self._beat_at:
            channel.heartbeat()
            self._beat_at = time.monotonic() + _BEAT_S

    def _settle_all(self, channel: Channel) -> None:
        while self._to_settle:
            message, of_link, how = self._to_settle.popleft()
            if of_link is channel:  # Else its connection has gone, and the broker delivers it again.
                how(channel, message.tag)
                self.in_hand -= 1

    def _end(self) -> None:
        channel = self._channel
        assert channel is not None
        self._settle_all(channel)
        channel.close()

    def _disconnect(self) -> None:
        self.reading.clear()
        channel, self._channel = self._channel, None
        self._tags.clear()
        self.in_hand = 0
        if channel is not None:
            channel.drop()
