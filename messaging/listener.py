"""Takes messages from a queue and has them handled.

One thread reads the queue and owns the connection; worker threads run the functions, so that a slow function keeps neither
heartbeats nor acks waiting. Functions must be idempotent: a message may come twice, late, or after a newer one.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import msgspec

from core import errors, log
from core.clock import jittered
from core.context import Context, service_context
from messaging import dead_letters, wire
from messaging.broker import WORK, Broker, NoSuchQueue
from messaging.consumer import Consumer, Received
from messaging.verbs import Verb
from messaging.workers import AT_LEISURE_S, Crew, Later

LOG = log.get(__name__)

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_TRIES = "x-tries"
_FAILURES = "x-failures"
_DIED = "x-first-death-reason"


@dataclasses.dataclass(frozen=True, slots=True)
class Forward:
    """What a function returns to send the same message on: the other queue answers, within the deadline that is left."""

    queue: str


@dataclasses.dataclass(frozen=True, slots=True)
class Handle:
    """A verb whose messages are handled one by one; acked after the function has returned.

    The function gives the reply of a call, or `None`, or a `Forward`. A `CellplaneError` that it raises answers a call; for a cast
    `Unavailable` means later again, any other error is logged and the message is done with. Any other exception is a defect: a call
    is answered with `Broken`, a cast is delivered again, and after `max_deliveries` becomes a dead letter.
    """

    verb: Verb
    function: Callable[[Context, Any], msgspec.Struct | Forward | None]


@dataclasses.dataclass(frozen=True, slots=True)
class HandleMany:
    """A verb whose messages are gathered; one batch of it at a time; all acked after the function has returned.

    What comes while a batch is being handled makes the next one. Errors as for `Handle`; a batch that fails is tried again message
    by message, so that one that is poisonous does not take the others along.
    """

    verb: Verb
    function: "Callable[[list[Delivery]], None]"


class Delivery:
    """One message of a batch."""

    __slots__ = ("_job", "_listener", "arguments", "context", "headers")

    def __init__(self, listener: "Listener", job: "_Job", context: Context, arguments: Any) -> None:
        self._listener = listener
        self._job = job
        self.context = context
        self.arguments = arguments
        self.headers = job.message.headers

    def ack(self) -> None:
        """The message is done with, even if the rest of the batch fails."""
        self._listener._ack(self._job)


class Listener:
    """Handles the messages of one queue.

    Args:
        workers: how many functions may run at the same time; their threads start when they are needed.
        prefetch: how many messages may be in hand; no less than `workers` and `gather_most` make sense.
        max_deliveries: how often a message may fail before it becomes a dead letter.
        gather_s: batches of a verb begin at least so far apart, unless one is full. One that comes after a pause is not kept waiting.
        gather_most: messages in a batch.
    """

    def __init__(
        self,
        broker: Broker,
        queue: str,
        handlers: list[Handle | HandleMany],
        *,
        workers: int,
        prefetch: int,
        max_deliveries: int = 5,
        gather_s: float = 0.05,
        gather_most: int = 100,
    ) -> None:
        self.queue = queue
        self._broker = broker
        self._max_deliveries = max_deliveries
        self._handlers = {handler.verb.name: handler for handler in handlers}
        self._gatherings = {
            handler.verb.name: _Gathering(handler, gather_s, gather_most) for handler in handlers if isinstance(handler, HandleMany)
        }
        self._crew = Crew(f"worker {queue}", workers)
        self._later = Later()
        self._stopping = False
        self._consumer = Consumer(
            broker, queue, WORK, prefetch=prefetch, on_message=self._on_message, on_turn=self._on_turn,
        )

    def start(self) -> None:
        """Begins to listen and returns; the queue is declared as soon as the broker can be reached."""
        self._consumer.start()

    def wait_until_listening(self, timeout_s: float) -> bool:
        """Whether the queue is being read, now or within this time."""
        return self._consumer.wait_until_reading(timeout_s)

    @property
    def is_listening(self) -> bool:
        """Whether the broker answers and the queue is being read."""
        return self._consumer.reading.is_set()

    @property
    def is_stopping(self) -> bool:
        """Whether it takes no more messages up."""
        return self._stopping

    def stop(self, timeout_s: float) -> None:
        """Takes no more, finishes what is being handled; all else, and what is not finished in time, goes back to the queue."""
        ends_at = time.monotonic() + timeout_s
        self._stopping = True
        self._consumer.stop_taking()
        if not self._crew.stop(max(0.0, ends_at - time.monotonic())):
            LOG.warning("listener stopped with work in hand queue=%s", self.queue)
        self._consumer.stop(max(1.0, ends_at - time.monotonic()))

    # In the consumer's thread.

    def _on_message(self, message: Received) -> None:
        job = _Job(message)
        if self.queue == dead_letters.QUEUE and _DIED in message.headers:
            self._crew.put(functools.partial(self._handle_broker_letter, job))
            return
        try:
            job.envelope = wire.decode(message.body, wire.Envelope)
        except errors.Invalid as why:
            self._crew.put(functools.partial(self._refuse, job, why))
            return
        gathering = self._gatherings.get(job.envelope.verb)
        if gathering is None:
            self._crew.put(functools.partial(self._handle, job))
        else:
            gathering.add(job)

    def _on_turn(self) -> float:
        """Begins the batches and the second tries that are due; the time until the next."""
        now = time.monotonic()
        for action in self._later.due(now):
            self._crew.put(action)
        waits_s = [self._later.wait_s(now)]
        for gathering in self._gatherings.values():
            batch = gathering.due(now)
            if batch:
                self._crew.put(functools.partial(self._handle_batch, gathering, batch))
            waits_s.append(gathering.wait_s(now))
        return min(waits_s)

    # In the workers' threads.

    def _handle(self, job: "_Job") -> None:
        handler = self._handlers.get(job.asked.verb)
        if handler is None:
            self._refuse(job, errors.Invalid(f"nobody here knows the verb {job.asked.verb}", field="verb"))
            return
        arguments = self._admit(job, handler.verb)
        if arguments is None:
            return
        assert isinstance(handler, Handle)
        try:
            answer = handler.function(job.context(), arguments)
        except Exception as why:  # The frame round every function.
            self._failed(job, why)
            return
        self._finish(job, answer)

    def _handle_broker_letter(self, job: "_Job") -> None:
        """Gives a message that RabbitMQ itself put among the dead letters the form of those that we write."""
        message = job.message
        with contextlib.suppress(errors.Invalid):
            job.envelope = wire.decode(message.body, wire.Envelope)
        letter = dead_letters.given_up_by_broker(message.headers, message.body, job.envelope, message.redeliveries)
        if letter is None:
            self._ack(job)
            return
        context = service_context() if job.envelope is None else job.context()
        body = wire.envelope(dead_letters.DEAD_LETTER, letter, context=context, deadline_s=dead_letters.KEPT_S, sent_by="broker")
        job.envelope = wire.decode(body, wire.Envelope)
        self._handle(job)

    def _handle_batch(self, gathering: "_Gathering", batch: "list[_Job]") -> None:
        try:
            deliveries = []
            for job in batch:
                arguments = self._admit(job, gathering.handler.verb)
                if arguments is not None:
                    deliveries.append(Delivery(self, job, job.context(), arguments))
            self._run_batch(gathering.handler, deliveries)
        finally:
            gathering.is_running = False
            self._consumer.wake()

    def _run_batch(self, handler: HandleMany, deliveries: list[Delivery]) -> None:
        if not deliveries:
            return
        try:
            handler.function(deliveries)
        except Exception as why:  # The frame round every function.
            if len(deliveries) == 1 or isinstance(why, errors.Unavailable):
                for delivery in deliveries:
                    self._failed(delivery._job, why)
                return
            LOG.warning("batch failed, trying one by one queue=%s verb=%s count=%d why=%s", self.queue, handler.verb.name, len(deliveries), why)
            for delivery in deliveries:
                if not delivery._job.is_settled:
                    self._run_batch(handler, [delivery])
            return
        for delivery in deliveries:
            self._finish(delivery._job, None)

    def _admit(self, job: "_Job", verb: Verb) -> Any:
        """The arguments if the message is to be handled, else `None` and it has been dealt with."""
        if not self._consumer.still_holds(job.message) or self._stopping:
            return None  # It is, or will be, delivered again.
        if job.left_s() <= 0:
            LOG.info("message expired queue=%s verb=%s request=%s", self.queue, job.asked.verb, job.asked.request_id)
            self._ack(job)
            return None
        if job.failures() >= self._max_deliveries:
            self._bury(job, "it was delivered too often and never acked")
            return None
        try:
            return wire.arguments_of(job.asked, verb)
        except errors.Invalid as why:
            self._refuse(job, why)
            return None

    def _finish(self, job: "_Job", answer: msgspec.Struct | Forward | None) -> None:
        if isinstance(answer, Forward):
            self._forward(job, answer.queue)
            return
        if job.message.reply_to and not job.is_settled:
            self._reply(job, wire.reply_with(answer))
        else:
            self._ack(job)

    def _failed(self, job: "_Job", why: Exception) -> None:
        """Deals with a message whose function raised."""
        if job.is_settled:
            LOG.warning("function failed after its ack queue=%s verb=%s request=%s why=%s", self.queue, job.asked.verb, job.asked.request_id, why)
        elif not isinstance(why, errors.CellplaneError):
            LOG.error("function failed queue=%s verb=%s request=%s", self.queue, job.asked.verb, job.asked.request_id, exc_info=why)
            if job.message.reply_to:
                self._reply(job, wire.reply_with_error(errors.Broken("unexpected error", request_id=job.asked.request_id)))
            elif job.failures() + 1 >= self._max_deliveries and self.queue != dead_letters.QUEUE:
                self._bury(job, f"{type(why).__name__}: {why}")
            else:
                self._again(job, failures=job.failures() + 1)
        elif job.message.reply_to:
            self._reply(job, wire.reply_with_error(why))
        elif isinstance(why, errors.Unavailable):
            LOG.info("message put off queue=%s verb=%s request=%s why=%s", self.queue, job.asked.verb, job.asked.request_id, why.message)
            self._again(job, failures=job.failures())
        else:
            LOG.warning("message refused queue=%s verb=%s request=%s why=%s: %s", self.queue, job.asked.verb, job.asked.request_id, why.code, why.message)
            self._ack(job)

    def _refuse(self, job: "_Job", why: errors.Invalid) -> None:
        """A message that cannot be understood: asking again would not help."""
        if job.message.reply_to:
            self._reply(job, wire.reply_with_error(why))
        elif self.queue == dead_letters.QUEUE:
            LOG.error("dead letter cannot be read why=%s", why.message)
            self._ack(job)
        else:
            self._bury(job, why.message)

    def _reply(self, job: "_Job", body: bytes) -> None:
        left_s = job.left_s()
        try:
            if left_s > 0:
                self._broker.publish(
                    job.message.reply_to or "", body, expires_s=left_s, correlation_id=job.message.correlation_id,
                    persistent=False, timeout_s=left_s,
                )
        except NoSuchQueue:
            LOG.info("caller is gone queue=%s request=%s", self.queue, job.request_id())
        except errors.Unavailable as why:
            # The caller hears nothing and decides by his deadline; doing the work again would not help him.
            LOG.warning("reply not sent queue=%s request=%s why=%s", self.queue, job.request_id(), why.message)
        self._ack(job)

    def _forward(self, job: "_Job", queue: str) -> None:
        try:
            self._publish_copy(job, queue, headers={})
        except errors.Unavailable as why:
            self._failed(job, why)
            return
        self._ack(job)

    def _again(self, job: "_Job", *, failures: int) -> None:
        """After a pause a copy goes to the end of the queue, with its own count: RabbitMQ's would count the pauses too."""
        tries = int(job.message.headers.get(_TRIES, 0))
        pause_s = jittered(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**tries), 0.5, 1.0)
        headers = {_TRIES: tries + 1, _FAILURES: failures}
        self._later.add(time.monotonic() + pause_s, lambda: self._send_again(job, headers))
        self._consumer.wake()

    def _send_again(self, job: "_Job", headers: dict[str, int]) -> None:
        if not self._consumer.still_holds(job.message) or self._stopping:
            return
        try:
            if job.left_s() > 0:
                self._publish_copy(job, self.queue, headers=headers)
        except errors.Unavailable:
            self._later.add(time.monotonic() + _LONGEST_PAUSE_S, lambda: self._send_again(job, headers))
            return
        self._ack(job)

    def _publish_copy(self, job: "_Job", queue: str, *, headers: dict[str, int]) -> None:
        left_s = job.left_s()
        body = wire.encode(msgspec.structs.replace(job.asked, deadline_ms=max(0, round(left_s * 1000))))
        self._broker.publish(
            queue, body, expires_s=left_s, headers=headers, reply_to=job.message.reply_to,
            correlation_id=job.message.correlation_id, persistent=not job.message.reply_to,
        )

    def _bury(self, job: "_Job", why: str) -> None:
        """Makes it a dead letter."""
        LOG.error("message given up queue=%s request=%s why=%s", self.queue, job.request_id(), why)
        body = dead_letters.letter(
            queue=self.queue, why=why, deliveries=job.failures() + 1, body=job.message.body, envelope=job.envelope, sent_by=self.queue,
        )
        try:
            self._publish_dead_letter(body)
        except errors.Unavailable:
            self._later.add(time.monotonic() + _LONGEST_PAUSE_S, lambda: self._bury(job, why))
            return
        self._ack(job)

    def _publish_dead_letter(self, body: bytes) -> None:
        try:
            self._broker.publish(dead_letters.QUEUE, body, expires_s=dead_letters.KEPT_S)
        except NoSuchQueue:
            self._broker.declare(dead_letters.QUEUE, WORK)
            self._broker.publish(dead_letters.QUEUE, body, expires_s=dead_letters.KEPT_S)

    def _ack(self, job: "_Job") -> None:
        job.is_settled = True
        self._consumer.ack(job.message)


class _Job:
    """A message in hand, decoded as far as it could be."""

    __slots__ = ("envelope", "is_settled", "message")

    def __init__(self, message: Received) -> None:
        self.message = message
        self.envelope: wire.Envelope | None = None
        self.is_settled = False

    @property
    def asked(self) -> wire.Envelope:
        assert self.envelope is not None
        return self.envelope

    def context(self) -> Context:
        return Context.from_wire(self.asked.context)

    def request_id(self) -> str:
        return self.envelope.request_id if self.envelope else "-"

    def left_s(self) -> float:
        """What is left of its deadline, counted from when it came."""
        return self.asked.deadline_ms / 1000 - (time.monotonic() - self.message.received_at)

    def failures(self) -> int:
        """How often it was delivered before and not acked."""
        return int(self.message.headers.get(_FAILURES, 0)) + self.message.redeliveries


class _Gathering:
    """The messages of one verb that wait for the next batch. Used by the consumer's thread; `is_running` is reset by a worker."""

    def __init__(self, handler: HandleMany, gather_s: float, most: int) -> None:
        self.handler = handler
        self.is_running = False
        self._gather_s = gather_s
        self._most = most
        self._jobs: list[_Job] = []
        self._next_at = 0.0

    def add(self, job: _Job) -> None:
        self._jobs.append(job)

    def due(self, now: float) -> list[_Job]:
        """The batch that may begin now."""
        if not self._jobs or self.wait_s(now) > 0:
            return []
        batch, self._jobs = self._jobs[: self._most], self._jobs[self._most :]
        self.is_running = True
        self._next_at = now + self._gather_s
        return batch

    def wait_s(self, now: float) -> float:
        """The time until a batch may begin."""
        if self.is_running or not self._jobs:
            return AT_LEISURE_S  # A new message or the end of the running batch wakes us.
        return 0.0 if len(self._jobs) >= self._most else max(0.0, self._next_at - now)
