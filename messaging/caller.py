"""Sends verbs: casts, which nobody answers, and calls, which somebody does."""

import asyncio
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
from messaging import envelopes
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
        body = envelopes.envelope(verb, arguments, context=context, deadline_s=deadline_s, sent_by=self._sent_by)
        self._broker.publish(queue, body, expires_s=deadline_s)

    def call(self, queue: str, verb: Verb, arguments: msgspec.Struct, *, context: Context, deadline_s: float) -> Any:
        """Asks and waits for the answer: the verb's reply.

        Raises:
            NoSuchQueue: nobody listens there, nor ever did; nothing was sent.
            Unavailable: no answer within the deadline; the work may or may not have been done.
            CellplaneError: what the other side answered with.
        """
        ends_at = time.monotonic() + deadline_s
        with self.send(
            queue, verb, arguments, context=context, deadline_s=deadline_s, send_within_s=deadline_s
        ) as sent:
            return sent.wait(ends_at)

    def send(
        self,
        queue: str,
        verb: Verb,
        arguments: msgspec.Struct,
        *,
        context: Context,
        deadline_s: float,
        send_within_s: float,
    ) -> "Sent":
        """Asks; the answer comes by itself, and no thread need wait for it. It counts until `deadline_s` from now, or
        until it is forgotten.

        Raises:
            NoSuchQueue: nobody listens there, nor ever did; nothing was sent.
            Unavailable: it was not sent in time; it may have been sent.
        """
        ends_at = time.monotonic() + deadline_s
        sent_by = time.monotonic() + min(deadline_s, send_within_s)
        sent = self._open_replies().expected(sent_by, verb, queue)
        try:
            body = envelopes.envelope(
                verb, arguments, context=context, deadline_s=ends_at - time.monotonic(), sent_by=self._sent_by
            )
            self._broker.publish(
                queue, body, expires_s=ends_at - time.monotonic(), reply_to=sent.reply_to, correlation_id=sent.id,
                persistent=False, timeout_s=sent_by - time.monotonic(),
            )  # fmt: skip
        except BaseException:
            sent.forget()
            raise
        return sent

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

    def expected(self, ends_at: float, verb: Verb, queue: str) -> "Sent":
        """A place for one answer."""
        if not self._consumer.wait_until_reading(max(0.0, ends_at - time.monotonic())):
            raise errors.Unavailable("the broker does not answer: no queue for the reply")
        return Sent(self._waiting, reply_to=self._consumer.queue, verb=verb, queue=queue)

    def stop(self) -> None:
        self._consumer.stop(timeout_s=2.0)

    def _on_reply(self, message: Received) -> None:
        future = self._waiting.pop(message.correlation_id or "", None)
        # Else it is late, or doubled, or nobody waits any more.
        if future is not None and future.set_running_or_notify_cancel():
            future.set_result(message.body)


class Sent:
    """A call that was sent. After the `with`, or `forget`, nobody waits for its answer any more."""

    def __init__(
        self, waiting: dict[str, concurrent.futures.Future[bytes]], *, reply_to: str, verb: Verb, queue: str
    ) -> None:
        self.id = uuid.uuid4().hex
        self.reply_to = reply_to
        self.reply: concurrent.futures.Future[bytes] = concurrent.futures.Future()
        self._waiting = waiting
        self._verb = verb
        self._queue = queue
        waiting[self.id] = self.reply

    def wait(self, ends_at: float) -> Any:
        """Waits for the answer, in this thread.

        Raises:
            Unavailable: it did not come.
            CellplaneError: what the other side answered with.
        """
        try:
            return envelopes.value_of(self.reply.result(max(0.0, ends_at - time.monotonic())), self._verb)
        except TimeoutError:
            raise self._silence() from None

    async def answer(self, ends_at: float) -> Any:
        """As `wait`, in an event loop: no thread waits."""
        try:
            async with asyncio.timeout(max(0.0, ends_at - time.monotonic())):
                return envelopes.value_of(await asyncio.wrap_future(self.reply), self._verb)
        except TimeoutError:
            raise self._silence() from None

    def forget(self) -> None:
        """Nobody waits for the answer any more."""
        self._waiting.pop(self.id, None)

    def _silence(self) -> errors.Unavailable:
        return errors.Unavailable(f"no answer to {self._verb.name} from {self._queue}")

    def __enter__(self) -> "Sent":
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()


def forget(sending: "concurrent.futures.Future[Sent]") -> None:
    """For a future's `add_done_callback`: whether the call is sent in time, late or not at all, nobody waits for its
    answer."""
    if not sending.cancelled() and sending.exception() is None:
        sending.result().forget()
