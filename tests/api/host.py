"""A host of the small cloud's cell `east`, as its conductor lets it be asked."""

import contextlib
from collections.abc import Iterator
from typing import Any

import core.errors
from core.context import Context
from messaging.broker import Broker
from messaging.listener import Handle, Listener
from messaging.verbs import Verb, cell
from tests.api.small_cloud import SmallCloud


@contextlib.contextmanager
def host_that_answers(cloud: SmallCloud, verb: Verb, answer: Any) -> Iterator[list[Any]]:
    """Inside the `with` it answers, or raises, this; gives what it was asked."""
    asked: list[Any] = []

    def reply(_: Context, wanted: Any) -> Any:
        asked.append(wanted)
        if isinstance(answer, core.errors.CellplaneError):
            raise answer
        return answer

    broker = Broker(cloud.cloud.cells.by_name("east").cell.transport_url)
    listener = Listener(broker, cell.QUEUE, [Handle(verb, reply)], workers=1, prefetch=1)
    listener.start()
    assert listener.wait_until_listening(5)
    try:
        yield asked
    finally:
        listener.stop(5)
        broker.close()
