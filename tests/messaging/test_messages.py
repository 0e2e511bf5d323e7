"""Casts, calls and those who handle them, on both brokers."""

import itertools
import os
import threading
import time

import msgspec
import pytest

from core import errors
from core.context import Context
from devstack.waiting import wait_until
from messaging import dead_letters, envelopes
from messaging.broker import Broker, NoSuchQueue
from messaging.caller import Caller
from messaging.dead_letters import DEAD_LETTER, DeadLetter
from messaging.listener import Delivery, Forward, Handle, HandleMany
from messaging.verbs import Verb
from tests.messaging.conftest import Listen
from tests.messaging.vocabulary import ADD_ONE, NOTE, REPORT, Number, Sum

DEADLINE_S = 10.0


def add_one(context: Context, asked: Number) -> Sum:
    return Sum(asked.number + 1)


class Notes:
    """A handler that remembers what came."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __call__(self, context: Context, asked: Number) -> None:
        self.numbers.append(asked.number)

    def wait_for(self, *numbers: int) -> None:
        wait_until(
            lambda: sorted(self.numbers) == sorted(numbers),
            what=f"notes {numbers}, only {self.numbers}",
            deadline_s=DEADLINE_S,
            every_s=0.01,
        )


def test_a_call_is_answered(caller: Caller, listen: Listen, queue: str, context: Context) -> None:
    listen(queue, Handle(ADD_ONE, add_one))

    assert caller.call(queue, ADD_ONE, Number(2), context=context, deadline_s=DEADLINE_S) == Sum(3)


def test_a_cast_carries_its_context_and_arguments(caller: Caller, listen: Listen, queue: str) -> None:
    came: list[tuple[Context, Number]] = []
    listen(queue, Handle(NOTE, lambda context, asked: came.append((context, asked))))
    context = Context(
        user_id="alice", project_id="p", roles=("member", "reader"), request_id="req-1", global_request_id="req-2"
    )

    caller.cast(queue, NOTE, Number(1, remark="grüezi"), context=context)

    wait_until(lambda: bool(came), what="note", deadline_s=DEADLINE_S, every_s=0.01)
    assert came == [(context, Number(1, remark="grüezi"))]


def test_many_callers_get_their_own_answers(caller: Caller, listen: Listen, queue: str, context: Context) -> None:
    listen(queue, Handle(ADD_ONE, add_one))
    wrong: list[object] = []

    def ask(first: int) -> None:
        for number in range(first, first + 20):
            answer = caller.call(queue, ADD_ONE, Number(number), context=context, deadline_s=DEADLINE_S)
            if answer != Sum(number + 1):
                wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(100 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)

    assert wrong == []


def test_an_error_comes_back_to_the_caller(caller: Caller, listen: Listen, queue: str, context: Context) -> None:
    def refuse(context: Context, asked: Number) -> None:
        raise errors.WrongState("it is paused", state="paused")

    listen(queue, Handle(ADD_ONE, refuse))

    with pytest.raises(errors.WrongState, match="it is paused") as refusal:
        caller.call(queue, ADD_ONE, Number(1), context=context, deadline_s=DEADLINE_S)
    assert refusal.value.fields == {"state": "paused"}


def test_a_defect_answers_a_call_with_broken(caller: Caller, listen: Listen, queue: str, context: Context) -> None:
    listen(queue, Handle(ADD_ONE, lambda context, asked: 1 // 0))  # type: ignore[arg-type, return-value]

    with pytest.raises(errors.Broken) as answer:
        caller.call(queue, ADD_ONE, Number(1), context=context, deadline_s=DEADLINE_S)
    assert "division" not in answer.value.message


def test_a_verb_without_a_reply_can_be_called(caller: Caller, listen: Listen, queue: str, context: Context) -> None:
    notes = Notes()
    listen(queue, Handle(NOTE, notes))

    assert caller.call(queue, NOTE, Number(1), context=context, deadline_s=DEADLINE_S) is None
    assert notes.numbers == [1]


def test_a_message_to_nobody_is_refused(caller: Caller, queue: str, context: Context) -> None:
    with pytest.raises(NoSuchQueue):
        caller.cast(queue, NOTE, Number(1), context=context)
    with pytest.raises(NoSuchQueue):
        caller.call(queue, ADD_ONE, Number(1), context=context, deadline_s=DEADLINE_S)


@pytest.mark.alone
def test_a_call_that_nobody_answers_ends_at_its_deadline(
    broker: Broker, caller: Caller, queue: str, context: Context
) -> None:
    broker.declare(queue)
    began_at = time.monotonic()

    with pytest.raises(errors.Unavailable):
        caller.call(queue, ADD_ONE, Number(1), context=context, deadline_s=0.5)
    assert 0.4 < time.monotonic() - began_at < 2.0


def test_a_late_answer_is_dropped(caller: Caller, listen: Listen, queue: str, context: Context) -> None:
    go_on = threading.Event()

    def slowly(context: Context, asked: Number) -> Sum:
        if asked.number == 1:
            go_on.wait(DEADLINE_S)
        return Sum(asked.number + 1)

    listen(queue, Handle(ADD_ONE, slowly))
    with pytest.raises(errors.Unavailable):
        caller.call(queue, ADD_ONE, Number(1), context=context, deadline_s=0.3)
    go_on.set()

    assert caller.call(queue, ADD_ONE, Number(5), context=context, deadline_s=DEADLINE_S) == Sum(6)


def test_a_message_waits_for_its_listener(
    broker: Broker, caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    broker.declare(queue)
    caller.cast(queue, NOTE, Number(1), context=context)
    notes = Notes()

    listen(queue, Handle(NOTE, notes))

    notes.wait_for(1)


def test_an_expired_message_is_not_handled(
    broker: Broker, caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    broker.declare(queue)
    expires_at = time.monotonic() + 0.3
    caller.cast(queue, NOTE, Number(1), context=context, deadline_s=0.2)
    caller.cast(queue, NOTE, Number(2), context=context)
    wait_until(lambda: time.monotonic() > expires_at, what="time", deadline_s=DEADLINE_S)
    notes = Notes()

    listen(queue, Handle(NOTE, notes))

    notes.wait_for(2)


def test_a_message_in_the_hand_of_a_process_that_dies_comes_again(
    broker: Broker, caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    broker.declare(queue)
    caller.cast(queue, NOTE, Number(1), context=context)
    in_hand: list[object] = []
    victim = broker.open()
    victim.consume(queue, prefetch=1, no_ack=False, callback=in_hand.append)
    while not in_hand:
        victim.drain(DEADLINE_S)
    victim.drop()
    notes = Notes()

    listen(queue, Handle(NOTE, notes))

    notes.wait_for(1)


def test_a_message_that_kills_whoever_takes_it_becomes_a_dead_letter(
    broker: Broker, caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    broker.declare(queue)
    caller.cast(queue, NOTE, Number(1), context=context)
    for _ in range(2):
        in_hand: list[object] = []
        victim = broker.open()
        victim.consume(queue, prefetch=1, no_ack=False, callback=in_hand.append)
        while not in_hand:
            victim.drain(DEADLINE_S)
        victim.drop()
    notes, letters = Notes(), Letters()
    listen(dead_letters.QUEUE, Handle(DEAD_LETTER, letters))

    listen(queue, Handle(NOTE, notes), max_deliveries=2)

    letters.wait_for_one_from(queue)
    assert notes.numbers == []


def test_a_failing_function_gets_the_message_again(
    caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    tries: list[int] = []

    def fail_once(context: Context, asked: Number) -> None:
        tries.append(asked.number)
        if len(tries) == 1:
            raise ZeroDivisionError

    listen(queue, Handle(NOTE, fail_once))
    caller.cast(queue, NOTE, Number(1), context=context)

    wait_until(lambda: tries == [1, 1], what="second try", deadline_s=DEADLINE_S, every_s=0.01)


class Letters:
    """A handler of dead letters that remembers them."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []

    def __call__(self, context: Context, letter: DeadLetter) -> None:
        self.letters.append(letter)

    def wait_for_one_from(self, queue: str) -> DeadLetter:
        wait_until(
            lambda: any(letter.queue == queue for letter in self.letters),
            what=f"dead letter from {queue}",
            deadline_s=DEADLINE_S,
            every_s=0.01,
        )
        return next(letter for letter in self.letters if letter.queue == queue)


def test_a_poisonous_message_becomes_a_dead_letter(
    caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    tries: list[int] = []

    def fail(context: Context, asked: Number) -> None:
        tries.append(asked.number)
        raise ZeroDivisionError("poison")

    letters = Letters()
    listen(dead_letters.QUEUE, Handle(DEAD_LETTER, letters))
    listen(queue, Handle(NOTE, fail), max_deliveries=2)
    caller.cast(queue, NOTE, Number(7), context=context)

    letter = letters.wait_for_one_from(queue)
    assert tries == [7, 7]
    assert letter.why == "ZeroDivisionError: poison"
    assert letter.deliveries == 2
    assert letter.envelope is not None
    assert letter.envelope.request_id == context.request_id
    assert letter.envelope.verb == "note"
    assert envelopes.arguments_of(letter.envelope, NOTE) == Number(7)


@pytest.mark.parametrize("body", [b"no json", b"{}", b"\xff\x00"])
def test_a_message_that_cannot_be_read_becomes_a_dead_letter(
    broker: Broker, listen: Listen, queue: str, body: bytes
) -> None:
    letters = Letters()
    listen(dead_letters.QUEUE, Handle(DEAD_LETTER, letters))
    listen(queue, Handle(NOTE, Notes()))
    broker.publish(queue, body, expires_s=60.0)

    letter = letters.wait_for_one_from(queue)
    assert letter.envelope is None
    assert letter.body == body.decode("utf-8", "replace")


def test_a_dead_letter_needs_no_reader(broker: Broker, listen: Listen, queue: str) -> None:
    """Nobody has declared the queue of dead letters: who has one to send does it."""
    listen(queue, Handle(NOTE, Notes()))
    broker.publish(queue, b"no json", expires_s=60.0)

    wait_until(lambda: bool(broker.waiting(dead_letters.QUEUE)), what="dead letter", deadline_s=DEADLINE_S)
    broker.purge(dead_letters.QUEUE)


def test_what_the_broker_itself_gives_up_is_read_as_a_dead_letter(
    broker: Broker, listen: Listen, queue: str, context: Context
) -> None:
    """RabbitMQ moves the message as it is, with headers that say why; one that expired is no failure."""
    letters = Letters()
    listen(dead_letters.QUEUE, Handle(DEAD_LETTER, letters), workers=1)
    body = envelopes.envelope(NOTE, Number(9), context=context, deadline_s=60.0, sent_by="a test")

    for reason in ("expired", "delivery_limit"):
        headers = {"x-first-death-reason": reason, "x-first-death-queue": queue}
        broker.publish(dead_letters.QUEUE, body, expires_s=60.0, headers=headers)

    letter = letters.wait_for_one_from(queue)
    assert letter.why == "given up by the broker: delivery_limit"
    assert letter.envelope is not None
    assert envelopes.arguments_of(letter.envelope, NOTE) == Number(9)
    assert len([one for one in letters.letters if one.queue == queue]) == 1


def test_another_major_version_is_refused_by_name(caller: Caller, listen: Listen, queue: str, context: Context) -> None:
    listen(queue, Handle(ADD_ONE, add_one))
    newer = Verb("add_one", "2.0", Number, Sum)

    with pytest.raises(
        errors.Invalid, match=r"add_one 2\.0 from a test is refused: this program supports add_one 1\.0"
    ):
        caller.call(queue, newer, Number(1), context=context, deadline_s=DEADLINE_S)


def test_an_unknown_verb_is_refused_by_name(caller: Caller, listen: Listen, queue: str, context: Context) -> None:
    listen(queue, Handle(ADD_ONE, add_one))

    with pytest.raises(errors.Invalid, match="note"):
        caller.call(queue, NOTE, Number(1), context=context, deadline_s=DEADLINE_S)


def test_a_wrong_argument_is_named(caller: Caller, listen: Listen, queue: str, context: Context) -> None:
    class Strange(msgspec.Struct):
        number: str

    listen(queue, Handle(ADD_ONE, add_one))

    with pytest.raises(errors.Invalid) as refusal:
        caller.call(queue, Verb("add_one", "1.1", Strange, Sum), Strange("one"), context=context, deadline_s=DEADLINE_S)
    assert refusal.value.fields == {"field": "number"}


def test_unavailable_puts_a_cast_off_and_does_not_count_as_failure(
    caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    tries: list[int] = []

    def away_at_first(context: Context, asked: Number) -> None:
        tries.append(asked.number)
        if len(tries) < 4:
            raise errors.Unavailable("the database is away")

    listen(queue, Handle(NOTE, away_at_first), max_deliveries=2)
    caller.cast(queue, NOTE, Number(1), context=context)

    wait_until(lambda: len(tries) == 4, what="fourth try", deadline_s=DEADLINE_S, every_s=0.01)


def test_unavailable_ends_with_the_deadline_of_the_message(
    broker: Broker, caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    tries: list[int] = []

    def away(context: Context, asked: Number) -> None:
        tries.append(asked.number)
        raise errors.Unavailable("the database is away")

    notes = Notes()
    listen(queue, Handle(NOTE, away), Handle(REPORT, notes))
    caller.cast(queue, NOTE, Number(1), context=context, deadline_s=0.1)
    wait_until(lambda: len(tries) == 1, what="try", deadline_s=DEADLINE_S, every_s=0.01)
    caller.cast(queue, REPORT, Number(2), context=context)

    notes.wait_for(2)
    assert tries == [1]


def test_another_error_ends_a_cast(caller: Caller, listen: Listen, queue: str, context: Context) -> None:
    tries: list[int] = []

    def refuse(context: Context, asked: Number) -> None:
        tries.append(asked.number)
        raise errors.NotFound("no such server")

    listen(queue, Handle(NOTE, refuse), workers=1)
    caller.cast(queue, NOTE, Number(1), context=context)
    caller.cast(queue, NOTE, Number(2), context=context)

    wait_until(lambda: tries == [1, 2], what=f"both tries: {tries}", deadline_s=DEADLINE_S, every_s=0.01)


def test_a_forwarded_call_is_answered_by_the_other_queue(
    caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    other = f"{queue}.host"
    listen(queue, Handle(ADD_ONE, lambda context, asked: Forward(other)))
    listen(other, Handle(ADD_ONE, add_one))

    assert caller.call(queue, ADD_ONE, Number(1), context=context, deadline_s=DEADLINE_S) == Sum(2)


def test_a_call_forwarded_to_nobody_is_answered(caller: Caller, listen: Listen, queue: str, context: Context) -> None:
    listen(queue, Handle(ADD_ONE, lambda context, asked: Forward(f"{queue}.nobody")))

    with pytest.raises(errors.Unavailable, match="nobody"):
        caller.call(queue, ADD_ONE, Number(1), context=context, deadline_s=DEADLINE_S)


class Batches:
    """A function for `HandleMany` whose batches a test can hold up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go_on = threading.Event()

    def __call__(self, deliveries: list[Delivery]) -> None:
        self.batches.append([delivery.arguments.number for delivery in deliveries])
        self.go_on.wait(DEADLINE_S)

    def wait_for_all(self, numbers: range) -> None:
        wait_until(
            lambda: sorted(itertools.chain(*self.batches)) == list(numbers),
            what=f"all reports: {self.batches}",
            deadline_s=DEADLINE_S,
            every_s=0.01,
        )


def test_what_comes_while_a_batch_is_handled_makes_the_next(
    caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    batches, notes = Batches(), Notes()
    listen(queue, HandleMany(REPORT, batches), Handle(NOTE, notes))
    caller.cast(queue, REPORT, Number(0), context=context)
    wait_until(lambda: len(batches.batches) == 1, what="first batch", deadline_s=DEADLINE_S, every_s=0.01)
    for number in range(1, 20):
        caller.cast(queue, REPORT, Number(number), context=context)
    caller.cast(queue, NOTE, Number(1), context=context)
    notes.wait_for(1)  # It came last, so all the reports are in hand; and it did not wait for the batch.
    batches.go_on.set()

    batches.wait_for_all(range(20))
    assert [len(batch) for batch in batches.batches] == [1, 19]


def test_a_batch_is_no_larger_than_said(
    broker: Broker, caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    broker.declare(queue)
    for number in range(20):
        caller.cast(queue, REPORT, Number(number), context=context)
    batches = Batches()
    batches.go_on.set()

    listen(queue, HandleMany(REPORT, batches), gather_most=5)

    batches.wait_for_all(range(20))
    assert max(len(batch) for batch in batches.batches) <= 5


def test_poison_in_a_batch_takes_nobody_along(
    broker: Broker, caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    good: set[int] = set()

    def fail_for_three(deliveries: list[Delivery]) -> None:
        if any(delivery.arguments.number == 3 for delivery in deliveries):
            raise ZeroDivisionError("three")
        good.update(delivery.arguments.number for delivery in deliveries)

    broker.declare(queue)
    for number in range(6):
        caller.cast(queue, REPORT, Number(number), context=context)
    letters = Letters()
    listen(dead_letters.QUEUE, Handle(DEAD_LETTER, letters))

    listen(queue, HandleMany(REPORT, fail_for_three), max_deliveries=2)

    assert envelopes.arguments_of(letters.wait_for_one_from(queue).envelope, REPORT) == Number(3)  # type: ignore[arg-type]
    wait_until(lambda: good == {0, 1, 2, 4, 5}, what="the others", deadline_s=DEADLINE_S, every_s=0.01)


def test_an_early_ack_holds_although_the_batch_fails(
    caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    came: list[int] = []

    def ack_then_fail(deliveries: list[Delivery]) -> None:
        came.extend(delivery.arguments.number for delivery in deliveries)
        for delivery in deliveries:
            if delivery.arguments.number == 1:
                delivery.ack()
                raise ZeroDivisionError

    listen(queue, HandleMany(REPORT, ack_then_fail), max_deliveries=2)
    caller.cast(queue, REPORT, Number(1), context=context)
    wait_until(lambda: came == [1], what="report", deadline_s=DEADLINE_S, every_s=0.01)
    caller.cast(queue, REPORT, Number(2), context=context)

    wait_until(lambda: came == [1, 2], what="second report", deadline_s=DEADLINE_S, every_s=0.01)


def test_stop_finishes_what_is_in_hand_and_gives_the_rest_back(
    broker: Broker, caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    done: list[int] = []

    def slowly(context: Context, asked: Number) -> None:
        begun.set()
        go_on.wait(DEADLINE_S)
        done.append(asked.number)

    listener = listen(queue, Handle(NOTE, slowly), workers=1)
    for number in range(3):
        caller.cast(queue, NOTE, Number(number), context=context)
    assert begun.wait(DEADLINE_S)
    stopping = threading.Thread(target=listener.stop, args=(DEADLINE_S,))
    stopping.start()
    wait_until(lambda: listener.is_stopping, what="stop", deadline_s=DEADLINE_S)
    go_on.set()
    stopping.join(DEADLINE_S)
    assert done == [0]
    notes = Notes()

    listen(queue, Handle(NOTE, notes))

    notes.wait_for(1, 2)


@pytest.mark.alone
def test_stop_does_not_wait_longer_than_told(caller: Caller, listen: Listen, queue: str, context: Context) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hang(context: Context, asked: Number) -> None:
        begun.set()
        go_on.wait(DEADLINE_S)

    listener = listen(queue, Handle(NOTE, hang))
    caller.cast(queue, NOTE, Number(1), context=context)
    assert begun.wait(DEADLINE_S)
    began_at = time.monotonic()
    listener.stop(0.2)
    assert time.monotonic() - began_at < 3.0
    notes = Notes()

    listen(queue, Handle(NOTE, notes))

    notes.wait_for(1)
    go_on.set()


def test_a_forked_child_has_connections_of_its_own(
    broker: Broker, caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    if broker.url.startswith("inproc://"):
        pytest.skip("an in-process broker ends at the process")
    notes = Notes()
    listen(queue, Handle(NOTE, notes), Handle(ADD_ONE, add_one))
    assert caller.call(queue, ADD_ONE, Number(1), context=context, deadline_s=DEADLINE_S) == Sum(2)
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            answer = caller.call(queue, ADD_ONE, Number(10), context=context, deadline_s=DEADLINE_S)
            caller.cast(queue, NOTE, Number(1), context=context)
            outcome = 0 if answer == Sum(11) else 2
        finally:
            os._exit(outcome)

    _, status = os.waitpid(child, 0)
    caller.cast(queue, NOTE, Number(2), context=context)

    assert status == 0
    notes.wait_for(1, 2)


@pytest.mark.parametrize("name", ["compute." + "x" * 255, "compute." + "ß" * 200])
def test_a_queue_whose_name_is_too_long_is_none(broker: Broker, name: str) -> None:
    """A row with a long host ended the sweep that sent to it: the library's own error was taken for a defect."""
    with pytest.raises(NoSuchQueue):
        broker.publish(name, b"{}", expires_s=1.0)
