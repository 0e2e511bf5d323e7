"""A thread that reads one queue for as long as it is wanted, whatever becomes of the broker meanwhile."""

import collections
import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from core import errors, log
from core.clock import jittered
from messaging.broker import REPLY, Broker, Kind
from messaging.link import HEARTBEAT_S, Link, Raw

LOG = log.get(__name__)

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_BEAT_S = HEARTBEAT_S / 4


class Received:
    """A message in hand. It can be settled once, from any thread; after its connection has gone that does nothing."""

    __slots__ = ("_link", "body", "correlation_id", "headers", "received_at", "redeliveries", "reply_to", "tag")

    def __init__(self, raw: Raw, link: Link) -> None:
        properties = raw.properties
        self._link: Link | None = link
        self.body = raw.body
        self.headers: dict[str, Any] = properties.get("application_headers") or {}
        self.reply_to: str | None = properties.get("reply_to")
        self.correlation_id: str | None = properties.get("correlation_id")
        self.redeliveries = int(self.headers.get("x-delivery-count", 0))
        self.tag = raw.delivery_tag
        self.received_at = time.monotonic()

    def take_link(self) -> Link | None:
        """The connection it came by, for the first who asks."""
        link, self._link = self._link, None
        return link

    def came_by(self, link: Link | None) -> bool:
        """Whether it can still be settled on this connection."""
        return link is not None and self._link is link


class Consumer:
    """Reads a queue in a thread of its own, which also owns the connection.

    Args:
        queue: its name; for `REPLY` only the beginning of it: each connection gets a queue of its own.
        prefetch: how many messages may be in hand, not settled.
        on_message: called in the thread with each message; must be quick.
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
    ) -> None:
        self.queue = queue
        self.reading = threading.Event()
        self._broker = broker
        self._kind = kind
        self._prefetch = prefetch
        self._on_message = on_message
        self._on_turn = on_turn
        self._link: Link | None = None
        self._tag = ""
        self._beat_at = 0.0
        self._to_settle: collections.deque[tuple[Received, Link, bool]] = collections.deque()
        self._taking = True
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"consumer {queue}", daemon=True)
        self._prefix = queue

    def start(self) -> None:
        """Begins to read; `reading` is set whenever the queue is there and being read."""
        self._thread.start()

    def wait_until_reading(self, timeout_s: float) -> bool:
        """Whether the queue is being read, now or within this time; somebody waits, so the next attempt to connect is made now."""
        if not self.reading.is_set():
            self._hurry.set()
        return self.reading.wait(timeout_s)

    def stop_taking(self) -> None:
        """Takes no more messages; those in hand can still be settled."""
        self._taking = False
        self.wake()

    def stop(self, timeout_s: float) -> bool:
        """Settles what there is to settle and ends; what is in hand then is delivered again. Whether the thread ended in time."""
        self._taking = False
        self._stop.set()
        self._hurry.set()
        self.wake()
        if self._thread.ident is not None:  # one that was never started has nothing to settle
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def wake(self) -> None:
        """Makes the thread take a turn now."""
        link = self._link
        if link is not None:
            link.wake()

    def ack(self, message: Received) -> None:
        """The message is done with."""
        self._settle(message, requeue=False)

    def give_back(self, message: Received) -> None:
        """The message is to be delivered again."""
        self._settle(message, requeue=True)

    def still_holds(self, message: Received) -> bool:
        """Whether the message is ours and not settled; `False` once its connection has gone: then another copy is on its way."""
        return message.came_by(self._link)

    def _settle(self, message: Received, *, requeue: bool) -> None:
        link = message.take_link()
        if link is not None:
            self._to_settle.append((message, link, requeue))
            link.wake()

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
                LOG.log(logging.WARNING if self.reading.is_set() else level, "consumer has no broker queue=%s why=%s", self.queue, why.message)
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
        link = self._link = self._broker.open()
        if self._kind is REPLY:
            # A new name each time: the broker may not have noticed yet that the connection that owned the last one is gone.
            self.queue = f"{self._prefix}.{uuid.uuid4().hex}"
            link.declare_reply(self.queue)
        else:
            link.declare_work(self.queue)
        self._beat_at = time.monotonic() + _BEAT_S
        if self._taking:
            self._tag = link.consume(
                self.queue, prefetch=self._prefetch, no_ack=self._kind is REPLY,
                callback=lambda raw: self._on_message(Received(raw, link)),
            )
        self.reading.set()
        LOG.info("consumer reads queue=%s broker=%s", self.queue, link.address)

    def _turn(self) -> None:
        link = self._link
        assert link is not None
        link.drain(max(0.0, min(self._on_turn(), self._beat_at - time.monotonic())))
        self._settle_all(link)
        if not self._taking and self._tag:
            link.cancel(self._tag)
            self._tag = ""
        if time.monotonic() >= self._beat_at:
            link.heartbeat()
            self._beat_at = time.monotonic() + _BEAT_S

    def _settle_all(self, link: Link) -> None:
        while self._to_settle:
            message, of_link, requeue = self._to_settle.popleft()
            if of_link is not link:
                continue  # Its connection has gone, and the broker delivers it again.
            if requeue:
                link.give_back(message.tag)
            else:
                link.ack(message.tag)

    def _end(self) -> None:
        link = self._link
        assert link is not None
        self._settle_all(link)
        link.close()

    def _disconnect(self) -> None:
        self.reading.clear()
        link, self._link = self._link, None
        self._tag = ""
        if link is not None:
            link.drop()
