"""Brokers that freeze, restart and come back."""

import threading
import time

import pytest

from core import errors
from core.context import Context
from devstack.waiting import wait_until
from messaging import in_process
from messaging.broker import Broker, NoSuchQueue
from messaging.caller import Caller
from messaging.listener import Handle
from tests.messaging.conftest import Listen, Place, Rabbit
from tests.messaging.test_messages import DEADLINE_S, Notes, add_one
from tests.messaging.vocabulary import ADD_ONE, NOTE, Number, Sum

RECOVERY_S = 30.0


@pytest.mark.alone
def test_a_frozen_broker_is_unavailable_in_time_and_goes_on_later(
    place: Place, broker: Broker, caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    notes = Notes()
    listen(queue, Handle(NOTE, notes), Handle(ADD_ONE, add_one))
    caller.call(queue, ADD_ONE, Number(1), context=context, deadline_s=DEADLINE_S)
    place.freeze()

    for _ in range(2):  # With a connection that was open, then with a new one.
        began_at = time.monotonic()
        with pytest.raises(errors.Unavailable):
            caller.cast(queue, NOTE, Number(1), context=context)
        assert time.monotonic() - began_at < 1.5
    began_at = time.monotonic()
    with pytest.raises(errors.Unavailable):
        caller.call(queue, ADD_ONE, Number(1), context=context, deadline_s=0.5)
    assert time.monotonic() - began_at < 1.0

    place.thaw()
    assert works_again(caller, queue, context)
    caller.cast(queue, NOTE, Number(2), context=context)
    wait_until(lambda: 2 in notes.numbers, what="second note", deadline_s=DEADLINE_S)


@pytest.mark.alone
def test_a_look_says_whether_the_broker_answers(place: Place, broker: Broker, queue: str) -> None:
    broker.declare(queue)
    for asked in (queue, "nobody-made-it", queue):
        broker.look(asked)
    other = Broker(place.url, publish_timeout_s=1.0)
    other.look("nobody-made-it")
    other.close()

    if isinstance(place, Rabbit):  # the one in the process answers such a question even when it is frozen
        place.freeze()
        for _ in range(2):
            began_at = time.monotonic()
            with pytest.raises(errors.Unavailable):
                broker.look(queue)
            assert time.monotonic() - began_at < 1.5
        place.thaw()

    place.restart()
    wait_until(lambda: _answers(broker, queue), what="answer of the broker", deadline_s=RECOVERY_S)


def _answers(broker: Broker, queue: str) -> bool:
    try:
        broker.look(queue)
    except errors.Unavailable:
        return False
    return True


@pytest.mark.alone
def test_a_frozen_broker_holds_up_no_stop(
    place: Place, broker: Broker, caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    listener = listen(queue, Handle(ADD_ONE, add_one))
    caller.call(queue, ADD_ONE, Number(1), context=context, deadline_s=DEADLINE_S)
    place.freeze()
    began_at = time.monotonic()

    listener.stop(1.0)
    caller.close()
    broker.close()

    assert time.monotonic() - began_at < 6.0


@pytest.mark.parametrize("fault", ["restart", "crash"])
def test_everybody_comes_back_after_a_restart(
    fault: str, place: Place, broker: Broker, caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    listen(queue, Handle(ADD_ONE, add_one))
    caller.call(queue, ADD_ONE, Number(1), context=context, deadline_s=DEADLINE_S)
    other, notes = f"{queue}.other", Notes()
    broker.declare(other)
    caller.cast(other, NOTE, Number(1), context=context)

    getattr(place, fault)()

    assert works_again(caller, queue, context)
    listen(other, Handle(NOTE, notes))
    notes.wait_for(1)


def test_an_ack_after_the_connection_was_lost_harms_nobody(
    place: Place, caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    done: list[int] = []

    def slowly(context: Context, asked: Number) -> None:
        begun.set()
        go_on.wait(RECOVERY_S)
        done.append(asked.number)

    listen(queue, Handle(NOTE, slowly), Handle(ADD_ONE, add_one))
    caller.cast(queue, NOTE, Number(1), context=context)
    assert begun.wait(DEADLINE_S)
    place.restart()
    assert works_again(caller, queue, context)
    go_on.set()

    wait_until(lambda: done == [1, 1], what=f"second delivery: {done}", deadline_s=RECOVERY_S)
    assert works_again(caller, queue, context)


def test_no_message_that_the_broker_took_is_lost_over_a_restart(
    place: Place, caller: Caller, listen: Listen, queue: str, context: Context
) -> None:
    notes = Notes()
    listen(queue, Handle(NOTE, notes), Handle(ADD_ONE, add_one))
    taken: list[int] = []
    enough = threading.Event()

    def cast_on() -> None:
        number = 0
        while not enough.is_set():
            number += 1
            try:
                caller.cast(queue, NOTE, Number(number), context=context)
            except errors.Unavailable:
                enough.wait(0.01)
            else:
                taken.append(number)

    casting = threading.Thread(target=cast_on)
    casting.start()
    wait_until(lambda: len(taken) > 50, what="casts", deadline_s=DEADLINE_S)
    place.restart()
    before = len(taken)
    wait_until(lambda: len(taken) > before + 50, what="casts after the restart", deadline_s=RECOVERY_S)
    enough.set()
    casting.join(DEADLINE_S)

    wait_until(lambda: set(taken) <= set(notes.numbers), what="all that was taken", deadline_s=RECOVERY_S)


def works_again(caller: Caller, queue: str, context: Context) -> bool:
    """Whether calls are answered again after a while."""

    def works() -> bool:
        try:
            return bool(caller.call(queue, ADD_ONE, Number(1), context=context, deadline_s=2.0) == Sum(2))
        except errors.Unavailable:
            return False

    wait_until(works, what="answer", deadline_s=RECOVERY_S)
    return True


def test_the_next_address_is_tried(listen: Listen, queue: str, context: Context) -> None:
    in_process.broker("faults-away").go_away()
    broker = Broker("inproc://faults-away;inproc://faults")
    broker.declare(queue)

    Caller(broker).cast(queue, NOTE, Number(1), context=context)

    assert in_process.broker("faults").purge(queue) == 1


@pytest.mark.alone
def test_a_waiting_call_does_not_sit_out_the_pause_between_attempts(queue: str, context: Context) -> None:
    """After long trouble the pauses are seconds; the first call after it ends must not wait for the end of one."""
    memory = in_process.broker("faults-pause")
    memory.go_away()
    caller = Caller(Broker("inproc://faults-pause"))
    for _ in range(8):  # The pause doubles with each attempt that one of these provokes.
        with pytest.raises(errors.Unavailable):
            caller.call(queue, ADD_ONE, Number(1), context=context, deadline_s=0.12)
    memory.come_back()
    began_at = time.monotonic()

    with pytest.raises(NoSuchQueue):
        caller.call(queue, ADD_ONE, Number(1), context=context, deadline_s=DEADLINE_S)

    assert time.monotonic() - began_at < 0.5
    caller.close()


@pytest.fixture
def memory() -> in_process.InProcessBroker:
    return in_process.broker("faults")


def test_a_lost_and_a_doubled_message(memory: in_process.InProcessBroker, queue: str, context: Context) -> None:
    broker = Broker("inproc://faults")
    caller = Caller(broker)
    broker.declare(queue)
    memory.lose_next(queue)
    caller.cast(queue, NOTE, Number(1), context=context)
    assert memory.waiting(queue) == 0
    memory.double_next(queue)
    caller.cast(queue, NOTE, Number(2), context=context)
    assert memory.waiting(queue) == 2
    assert memory.purge(queue) == 2


def test_a_publish_to_a_frozen_broker_takes_effect_when_it_thaws(
    memory: in_process.InProcessBroker, queue: str, context: Context
) -> None:
    broker = Broker("inproc://faults", publish_timeout_s=0.2)
    broker.declare(queue)
    memory.freeze()
    with pytest.raises(errors.Unavailable):
        Caller(broker).cast(queue, NOTE, Number(1), context=context)
    assert memory.waiting(queue) == 0

    memory.thaw()

    assert memory.waiting(queue) == 1


def test_a_forgetful_broker_loses_its_queues(memory: in_process.InProcessBroker, queue: str) -> None:
    broker = Broker("inproc://faults")
    broker.declare(queue)
    memory.forget()

    assert broker.waiting(queue) is None
