"""Sends verbs: casts, which nobody answers, and calls, which somebody does."""

import concurrent.futures
import os
import socket
import threading
import time
import uuid
from typing import Any

import msgspec

from core import errors
from core.context import Context
from messaging import wire
from messaging.broker import REPLY, Broker
from messaging.consumer import Consumer, Received
from messaging.verbs import Verb

CAST_DEADLINE_S = 3600.0


class Caller:
    """Casts and calls on one broker; one per process and broker is enough. May be used by any thread, and after a fork.

    The reply queue is opened with the first call. `sent_by` is what listeners log as the sender.
    """

    _replies: "_Replies | None"

    def __init__(self, broker: Broker, *, sent_by: str = "") -> None:
        self._broker = broker
        self._sent_by = sent_by or f"{socket.gethostname()}:{os.getpid()}"
        self._start_over()

    def cast(
        self,
        queue: str,
        verb: Verb,
        arguments: msgspec.Struct,
        *,
        context: Context,
        deadline_s: float = CAST_DEADLINE_S,
    ) -> None:
        """Asks without waiting for an answer; the message is dropped if nobody took it up within the deadline.

        Raises:
            NoSuchQueue: nobody listens there, nor ever did; nothing was sent.
            Unavailable: it may or may not arrive.
        """
        body = wire.envelope(verb, arguments, context=context, deadline_s=deadline_s, sent_by=self._sent_by)
        self._broker.publish(queue, body, expires_s=deadline_s)

    def call(self, queue: str, verb: Verb, arguments: msgspec.Struct, *, context: Context, deadline_s: float) -> Any:
        """Asks and waits for the answer: the verb's reply.

        Raises:
            NoSuchQueue: nobody listens there, nor ever did; nothing was sent.
            Unavailable: no answer within the deadline; the work may or may not have been done.
            CellplaneError: what the other side answered with.
        """
        ends_at = time.monotonic() + deadline_s
        replies = self._open_replies()
        with replies.expected(ends_at) as expected:
            left_s = ends_at - time.monotonic()
            body = wire.envelope(verb, arguments, context=context, deadline_s=left_s, sent_by=self._sent_by)
            self._broker.publish(
                queue, body, expires_s=left_s, reply_to=expected.queue, correlation_id=expected.id, persistent=False, timeout_s=left_s,
            )
            return wire.value_of(expected.wait(ends_at, f"no answer to {verb.name} from {queue}"), verb)

    def close(self) -> None:
        """Ends the reply queue; calls under way end by their deadlines."""
        if self._pid != os.getpid():
            return
        with self._lock:
            replies, self._replies = self._replies, None
        if replies is not None:
            replies.stop()

    def _start_over(self) -> None:
        """No reply queue yet; in a forked child the parent's is left alone."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._replies = None

    def _open_replies(self) -> "_Replies":
        if self._pid != os.getpid():
            self._start_over()
        with self._lock:
            if self._replies is None:
                self._replies = _Replies(self._broker)
            return self._replies


class _Replies:
    """The queue of answers to this process and the calls that wait for them."""

    def __init__(self, broker: Broker) -> None:
        self._waiting: dict[str, concurrent.futures.Future[bytes]] = {}
        self._consumer = Consumer(broker, "reply", REPLY, prefetch=0, on_message=self._on_reply)
        self._consumer.start()

    def expected(self, ends_at: float) -> "_Expected":
        """A place for one answer."""
        if not self._consumer.wait_until_reading(max(0.0, ends_at - time.monotonic())):
            raise errors.Unavailable("the broker is away: no queue for the answer")
        return _Expected(self._waiting, self._consumer.queue)

    def stop(self) -> None:
        self._consumer.stop(timeout_s=2.0)

    def _on_reply(self, message: Received) -> None:
        future = self._waiting.pop(message.correlation_id or "", None)
        if future is not None:  # Else it is late, or doubled.
            future.set_result(message.body)


class _Expected:
    """The answer that one call waits for; nobody waits for it any more after the `with`."""

    def __init__(self, waiting: dict[str, concurrent.futures.Future[bytes]], queue: str) -> None:
        self.id = uuid.uuid4().hex
        self.queue = queue
        self._waiting = waiting
        self._future: concurrent.futures.Future[bytes] = concurrent.futures.Future()

    def wait(self, ends_at: float, silence: str) -> bytes:
        try:
            return self._future.result(max(0.0, ends_at - time.monotonic()))
        except TimeoutError:
            raise errors.Unavailable(silence) from None

    def __enter__(self) -> "_Expected":
        self._waiting[self.id] = self._future
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.pop(self.id, None)
