"""Takes messages from a queue and has them handled.

One thread reads the queue and owns the connection; worker threads run the functions, so that a slow function keeps
neither heartbeats nor acks waiting. Functions must be idempotent: a message may come twice, late, or after a newer one.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import msgspec

from core import errors, log
from core.clock import jittered
from core.context import Context, service_context
from messaging import access, dead_letters, envelopes
from messaging.broker import WORK, Broker, NoSuchQueue, TooLarge
from messaging.consumer import Consumer, Received
from messaging.refusals import Refusals
from messaging.verbs import Verb
from messaging.worker_pool import AT_LEISURE_S, DelayQueue, WorkerPool

LOG = log.get(__name__)

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_TRIES = "x-tries"
_FAILURES = "x-failures"
_SENDER = "x-sender"
_DIED = "x-first-death-reason"
_MAX_DEAD_LETTER_TRIES = 12
_MAX_DOUBLED = 10
_UNREADABLE_S = 10.0
"""How long somebody may wait for the answer to a call that nobody can read."""


@dataclasses.dataclass(frozen=True, slots=True)
class Forward:
    """What a function returns to send the same message on: the other queue answers, within the deadline that is
    left."""

    queue: str


@dataclasses.dataclass(frozen=True, slots=True)
class Handle:
    """A verb whose messages are handled one by one; acked after the function has returned.

    The function gives the reply of a call, or `None`, or a `Forward`. A `CellplaneError` that it raises answers a call;
    for a cast `Unavailable` means later again, any other error is logged and the message is done with. Any other
    exception is a defect: a call is answered with `Broken`, a cast is delivered again, and after `max_deliveries`
    becomes a dead letter.
    """

    verb: Verb
    function: Callable[[Context, Any], msgspec.Struct | Forward | None]
    from_host: "FromHost | None" = None


@dataclasses.dataclass(frozen=True, slots=True)
class HandleMany:
    """A verb whose messages are gathered; one batch of it at a time; all acked after the function has returned.

    What comes while a batch is being handled makes the next one. Errors as for `Handle`; a batch that fails is tried
    again message by message, so that one that is poisonous does not take the others along.

    `from_host`: of a verb that hosts speak, the host that the arguments are of. A message that the broker does not
    vouch for as this host's is refused: acked, counted and logged.
    """

    verb: Verb
    function: "Callable[[list[Delivery]], None]"
    from_host: "FromHost | None" = None


FromHost = Callable[[Any], str]


class Delivery:
    """One message of a batch. `sender`: the host that sent it, as the broker vouches for; `None`: no host did."""

    __slots__ = ("_job", "_listener", "arguments", "context", "headers", "sender")

    def __init__(self, listener: "Listener", job: "_Job", arguments: Any) -> None:
        self._listener = listener
        self._job = job
        self.context = job.context
        self.arguments = arguments
        self.headers = job.message.headers
        self.sender = job.sender

    def ack(self) -> None:
        """The message is done with, even if the rest of the batch fails."""
        self._listener._ack(self._job)


class Listener:
    """Handles the messages of one queue. Whatever a message holds, it leaves: acked, put off, or buried as a dead
    letter.

    Args:
        workers: how many functions may run at the same time; their threads start when they are needed.
        prefetch: how many messages may be in hand; no less than `workers` and `gather_most` make sense.
        max_deliveries: how often a message may fail before it becomes a dead letter.
        gather_s: batches of a verb begin at least so far apart, unless one is full. One that comes after a pause is not
            kept waiting.
        gather_most: messages in a batch.
        on_listening: called whenever a connection has begun to read; must be quick.
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
        on_listening: Callable[[], None] = lambda: None,
    ) -> None:
        self.queue = queue
        self._broker = broker
        self._max_deliveries = max_deliveries
        self._handlers = {handler.verb.name: handler for handler in handlers}
        self._gatherings = {
            handler.verb.name: _Gathering(handler, gather_s, gather_most)
            for handler in handlers
            if isinstance(handler, HandleMany)
        }
        self._worker_pool = WorkerPool(f"worker {queue}", workers)
        self._later = DelayQueue()
        self.refusals = Refusals(queue)
        self._stopping = False
        self._consumer = Consumer(
            broker,
            queue,
            WORK,
            prefetch=prefetch,
            on_message=self._on_message,
            on_turn=self._on_turn,
            on_reading=on_listening,
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
    def in_hand(self) -> int:
        """How many messages were taken from the broker and are not settled."""
        return self._consumer.in_hand

    @property
    def is_stopping(self) -> bool:
        """Whether it takes no more messages up."""
        return self._stopping

    def stop(self, timeout_s: float) -> None:
        """Takes no more, finishes what is being handled; all else, and what is not finished in time, goes back to the
        queue."""
        ends_at = time.monotonic() + timeout_s
        self._stopping = True
        self._consumer.stop_taking()
        if not self._worker_pool.stop(max(0.0, ends_at - time.monotonic())):
            LOG.warning("listener stopped with unfinished messages queue=%s", self.queue)
        self._consumer.stop(max(1.0, ends_at - time.monotonic()))

    # In the consumer's thread.

    def _on_message(self, message: Received) -> None:
        job = _Job(message)
        if message.exchange == access.FROM_HOSTS and job.sender is None:
            self._refuse_sender(job)
            return
        why = job.open()
        if self.queue == dead_letters.QUEUE and _DIED in message.headers and message.exchange != access.FROM_HOSTS:
            self._put([job], functools.partial(self._handle_broker_letter, job))
        elif why is not None:
            self._put([job], functools.partial(self._refuse, job, why))
        elif job.asked.verb in self._gatherings:
            self._gatherings[job.asked.verb].add(job)
        else:
            self._put([job], functools.partial(self._handle, job))

    def _put(self, jobs: "list[_Job]", action: Callable[[], None]) -> None:
        self._worker_pool.put(functools.partial(self._in_frame, jobs, action))

    def _put_later(self, pause_s: float, job: "_Job", action: Callable[[], None]) -> None:
        self._later.add(time.monotonic() + pause_s, functools.partial(self._in_frame, [job], action))
        self._consumer.wake()

    def _on_turn(self) -> float:
        """Begins the batches and the second tries that are due; the time until the next."""
        now = time.monotonic()
        for action in self._later.due(now):
            self._worker_pool.put(action)
        waits_s = [self._later.wait_s(now)]
        for gathering in self._gatherings.values():
            batch = gathering.due(now)
            if batch:
                self._put(batch, functools.partial(self._handle_batch, gathering, batch))
            waits_s.append(gathering.wait_s(now))
        return min(waits_s)

    # In the workers' threads.

    def _in_frame(self, jobs: "list[_Job]", action: Callable[[], None]) -> None:
        """The frame round all that is done with messages: what escapes from it takes them out of the queue, else they
        would fill the prefetch."""
        try:
            action()
        except Exception as why:
            LOG.exception(
                "messages dropped queue=%s %s",
                self.queue,
                log.requests(job.request_id() for job in jobs if not job.is_settled),
            )
            for job in jobs:
                self._discard(job, f"{type(why).__name__}: {why}")

    def _discard(self, job: "_Job", why: str) -> None:
        """The way out for a message that nothing else could be done with: a letter without its contents if that can be
        had, and away."""
        if job.is_settled:
            return
        try:
            if self.queue != dead_letters.QUEUE:
                self._publish_dead_letter(job.letter(self.queue, why, with_contents=False))
        except Exception:
            LOG.exception("no dead letter could be written queue=%s request_id=%s", self.queue, job.request_id())
        job.is_settled = True
        self._consumer.reject(job.message)

    def _handle(self, job: "_Job") -> None:
        handler = self._handlers.get(job.asked.verb)
        if handler is None:
            self._refuse(job, errors.Invalid(f"unknown verb {job.asked.verb}", field="verb"))
            return
        arguments = self._admit(job, handler)
        if arguments is None:
            return
        assert isinstance(handler, Handle)
        try:
            answer = handler.function(job.context, arguments)
        except Exception as why:  # The frame round every function.
            self._failed(job, why)
            return
        self._finish(job, answer)

    def _handle_broker_letter(self, job: "_Job") -> None:
        """Gives a message that RabbitMQ itself put among the dead letters the form of those that we write."""
        message = job.message
        letter = dead_letters.given_up_by_broker(
            message.headers, message.body, job.envelope, message.redeliveries, sender=job.sender
        )
        if letter is None:
            self._ack(job)
            return
        body = envelopes.envelope(
            dead_letters.DEAD_LETTER, letter, context=job.context, deadline_s=dead_letters.KEPT_S, sent_by="broker"
        )
        job.envelope = envelopes.decode(body, envelopes.Envelope)
        gathering = self._gatherings.get(dead_letters.DEAD_LETTER.name)
        if gathering is None:
            self._handle(job)
        else:
            self._deliver(gathering.handler, [job])

    def _handle_batch(self, gathering: "_Gathering", batch: "list[_Job]") -> None:
        try:
            self._deliver(gathering.handler, batch)
        finally:
            gathering.is_running = False
            self._consumer.wake()

    def _deliver(self, handler: HandleMany, jobs: "list[_Job]") -> None:
        admitted = [(job, self._admit(job, handler)) for job in jobs]
        self._run_batch(
            handler, [Delivery(self, job, arguments) for job, arguments in admitted if arguments is not None]
        )

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
            LOG.warning(
                "batch failed, trying one by one queue=%s verb=%s count=%d why=%s",
                self.queue,
                handler.verb.name,
                len(deliveries),
                why,
            )
            for delivery in deliveries:
                if not delivery._job.is_settled:
                    self._run_batch(handler, [delivery])
            return
        for delivery in deliveries:
            self._finish(delivery._job, None)

    def _admit(self, job: "_Job", handler: Handle | HandleMany) -> Any:
        """The arguments if the message is to be handled, else `None` and it has been dealt with."""
        if not self._consumer.is_unfinished(job.message) or self._stopping:
            return None  # It is, or will be, delivered again.
        if job.left_s() <= 0:
            LOG.info("message expired queue=%s verb=%s request_id=%s", self.queue, job.asked.verb, job.asked.request_id)
            self._ack(job)
            return None
        if job.failures() >= self._max_deliveries:
            self._send_dead_letter(job, "it was delivered too often and never acked")
            return None
        try:
            arguments = envelopes.arguments_of(job.asked, handler.verb)
        except errors.Invalid as why:
            self._refuse(job, why)
            return None
        if handler.from_host is not None and (job.sender is None or job.sender != handler.from_host(arguments)):
            self._refuse_sender(job)
            return None
        return arguments

    def _refuse_sender(self, job: "_Job") -> None:
        """A message that is not of the host whose name it carries. Not a dead letter: who forges one forges a
        million."""
        self.refusals.note(job.sender, job.envelope.verb if job.envelope else "")
        self._ack(job)

    def _finish(self, job: "_Job", answer: msgspec.Struct | Forward | None) -> None:
        if isinstance(answer, Forward):
            self._forward(job, answer.queue)
            return
        if job.message.reply_to and not job.is_settled:
            self._reply(job, envelopes.reply_with(answer))
        else:
            self._ack(job)

    def _failed(self, job: "_Job", why: Exception) -> None:
        """Deals with a message whose function raised."""
        if job.is_settled:
            LOG.warning(
                "function failed after its ack queue=%s verb=%s request_id=%s why=%s",
                self.queue,
                job.asked.verb,
                job.asked.request_id,
                why,
            )
        elif not isinstance(why, errors.CellplaneError):
            LOG.error(
                "function failed queue=%s verb=%s request_id=%s",
                self.queue,
                job.asked.verb,
                job.asked.request_id,
                exc_info=why,
            )
            if job.message.reply_to:
                self._reply(
                    job, envelopes.reply_with_error(errors.Broken("unexpected error", request_id=job.asked.request_id))
                )
            elif job.failures() + 1 >= self._max_deliveries:
                self._send_dead_letter(job, f"{type(why).__name__}: {why}")
            else:
                self._again(job, failures=job.failures() + 1)
        elif job.message.reply_to:
            self._reply(job, envelopes.reply_with_error(why))
        elif isinstance(why, errors.Unavailable):
            LOG.info(
                "message put off queue=%s verb=%s request_id=%s why=%s",
                self.queue,
                job.asked.verb,
                job.asked.request_id,
                why.message,
            )
            self._again(job, failures=job.failures())
        else:
            LOG.warning(
                "message refused queue=%s verb=%s request_id=%s why=%s: %s",
                self.queue,
                job.asked.verb,
                job.asked.request_id,
                why.code,
                why.message,
            )
            self._ack(job)

    def _refuse(self, job: "_Job", why: errors.Invalid) -> None:
        """A message that cannot be understood: asking again would not help."""
        if job.message.reply_to:
            self._reply(job, envelopes.reply_with_error(why))
        else:
            self._send_dead_letter(job, why.message)

    def _reply(self, job: "_Job", body: bytes) -> None:
        try:
            self._send_reply(job, body)
        except TooLarge as why:
            LOG.warning("reply too large queue=%s request_id=%s why=%s", self.queue, job.request_id(), why.message)
            self._reply(job, envelopes.reply_with_error(errors.Broken("the answer is larger than a message may be")))
            return
        except NoSuchQueue:
            LOG.info("reply queue of the caller is gone queue=%s request_id=%s", self.queue, job.request_id())
        except errors.Unavailable as why:
            # The caller hears nothing and decides by his deadline; doing the work again would not help him.
            LOG.warning("reply not sent queue=%s request_id=%s why=%s", self.queue, job.request_id(), why.message)
        self._ack(job)

    def _send_reply(self, job: "_Job", body: bytes) -> None:
        left_s = job.left_s()
        if left_s > 0:
            self._broker.publish(
                job.message.reply_to or "",
                body,
                expires_s=left_s,
                correlation_id=job.message.correlation_id,
                persistent=False,
                timeout_s=left_s,
            )

    def _forward(self, job: "_Job", queue: str) -> None:
        try:
            self._publish_copy(job, queue, headers={})
        except errors.CellplaneError as why:
            self._failed(job, why)
            return
        self._ack(job)

    def _again(self, job: "_Job", *, failures: int) -> None:
        """After a pause a copy goes to the end of the queue, with its own count: RabbitMQ's would count the pauses too.

        An agent, who may not write its queue, keeps the message in hand and handles it once more.
        """
        pause_s = jittered(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(job.tries, _MAX_DOUBLED)), 0.5, 1.0)
        job.tries, job.failed = job.tries + 1, failures
        again_in = access.put_off_queue(self.queue)
        again = (
            functools.partial(self._handle_again, job)
            if again_in is None
            else functools.partial(self._send_again, job, again_in)
        )
        self._put_later(pause_s, job, again)

    def _handle_again(self, job: "_Job") -> None:
        gathering = self._gatherings.get(job.asked.verb)
        if gathering is None:
            self._handle(job)
        else:
            self._deliver(gathering.handler, [job])

    def _send_again(self, job: "_Job", queue: str) -> None:
        if not self._consumer.is_unfinished(job.message) or self._stopping:
            return
        headers: dict[str, Any] = {_TRIES: job.tries, _FAILURES: job.failed}
        if job.sender is not None:
            headers[_SENDER] = job.sender
        try:
            if job.left_s() > 0:
                self._publish_copy(job, queue, headers=headers)
        except errors.Unavailable:
            self._put_later(_LONGEST_PAUSE_S, job, functools.partial(self._send_again, job, queue))
            return
        self._ack(job)

    def _publish_copy(self, job: "_Job", queue: str, *, headers: dict[str, Any]) -> None:
        left_s = job.left_s()
        body = envelopes.encode(msgspec.structs.replace(job.asked, deadline_ms=max(0, round(left_s * 1000))))
        self._broker.publish(
            queue, body, expires_s=left_s, headers=headers, reply_to=job.message.reply_to,
            correlation_id=job.message.correlation_id, persistent=not job.message.reply_to,
        )

    def _send_dead_letter(self, job: "_Job", why: str) -> None:
        """Makes it a dead letter; of a dead letter itself a line in the log."""
        LOG.error("message given up queue=%s request_id=%s why=%s", self.queue, job.request_id(), why)
        if self.queue == dead_letters.QUEUE:
            self._ack(job)
        else:
            self._send_letter(job, job.letter(self.queue, why), tries=1)

    def _send_letter(self, job: "_Job", letter: bytes, *, tries: int) -> None:
        try:
            self._publish_dead_letter(letter)
        except errors.Unavailable as why:
            if tries < _MAX_DEAD_LETTER_TRIES:
                self._put_later(
                    _LONGEST_PAUSE_S, job, functools.partial(self._send_letter, job, letter, tries=tries + 1)
                )
                return
            LOG.error(
                "no dead letter could be written queue=%s request_id=%s why=%s",
                self.queue,
                job.request_id(),
                why.message,
            )
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
    """A message in hand, decoded as far as it could be. `context` is the service's own as long as it could not be."""

    __slots__ = ("context", "envelope", "failed", "is_settled", "message", "sender", "tries")

    def __init__(self, message: Received) -> None:
        self.message = message
        self.envelope: envelopes.Envelope | None = None
        self.context = service_context()
        self.sender = _sender(message)
        self.tries = message.count(_TRIES)
        self.failed = message.count(_FAILURES)
        self.is_settled = False

    def open(self) -> errors.Invalid | None:
        """Decodes it; what is wrong with it."""
        try:
            self.envelope, self.context = envelopes.opened(self.message.body)
        except errors.Invalid as why:
            return why
        return None

    def letter(self, queue: str, why: str, *, with_contents: bool = True) -> bytes:
        """The dead letter that it becomes."""
        return dead_letters.letter(
            queue=queue, why=why, deliveries=self.failures() + 1, body=self.message.body if with_contents else b"",
            envelope=self.envelope if with_contents else None, context=self.context, sent_by=queue,
        )

    @property
    def asked(self) -> envelopes.Envelope:
        assert self.envelope is not None
        return self.envelope

    def request_id(self) -> str:
        return self.envelope.request_id if self.envelope else "-"

    def left_s(self) -> float:
        """What is left of its deadline, counted from when it came."""
        deadline_s = self.envelope.deadline_ms / 1000 if self.envelope else _UNREADABLE_S
        return deadline_s - (time.monotonic() - self.message.received_at)

    def failures(self) -> int:
        """How often it was delivered before and not acked."""
        return self.failed + self.message.redeliveries


def _sender(message: Received) -> str | None:
    """The host that sent a message: who the broker says logged in, or, of what a listener put off, who that listener
    says."""
    if not access.is_put_off(message.queue):
        return access.host_of(message.user)
    sender = message.headers.get(_SENDER)
    return sender if isinstance(sender, str) else None


class _Gathering:
    """The messages of one verb that wait for the next batch. Used by the consumer's thread; `is_running` is reset by a
    worker."""

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
