"""Whatever a message holds, it leaves the queue: acked, put off, or buried. No bytes, header or property stops a
listener."""

import collections
import itertools
import json
import random
import struct
import uuid
from collections.abc import Iterator
from typing import Any

import amqp
import msgspec
import pytest

from core import errors
from core.context import Context
from devstack.waiting import wait_until
from messaging import access, dead_letters, envelopes, frames
from messaging.broker import Broker
from messaging.caller import Caller
from messaging.channel import Channel
from messaging.dead_letters import DEAD_LETTER
from messaging.listener import Handle, HandleMany, Listener
from messaging.verbs import Verb
from tests.messaging.conftest import HOST, Connect, InProcess, Place
from tests.messaging.vocabulary import ADD_ONE, NOTE, REPORT, Number, Sum

pytestmark = pytest.mark.slow

MESSAGES = 1000
GOOD_EVERY = 50
DEADLINE_S = 60.0
OWN_QUEUES = ("conductor", "reports", "dead_letters", f"compute.{HOST}")

DEEP = b"[" * 600 + b"]" * 600
BEYOND = b"[" * 50_000
WRONG: tuple[Any, ...] = (
    None,
    {},
    [],
    "",
    "abc",
    "\udcff",
    -1,
    10**18,
    True,
    1.5,
    {"a": {"b": []}},
    b"\xff\xfe",
    "x" * 255,
)


def _good(verb: Verb, arguments: msgspec.Struct, context: Context) -> bytes:
    return envelopes.envelope(verb, arguments, context=context, deadline_s=600.0, sent_by="a test")


def _bodies(chance: random.Random, context: Context) -> bytes:
    """A body that is nearly, or not at all, a message."""
    whole = _good(chance.choice((NOTE, REPORT, ADD_ONE, DEAD_LETTER)), Number(chance.randrange(9)), context)
    values = json.loads(whole)
    kind = chance.randrange(9)
    if kind == 0:
        return chance.randbytes(chance.randrange(200))
    if kind == 1:
        return whole[: chance.randrange(len(whole))]
    if kind == 2:
        return chance.choice(
            (
                b"",
                b"null",
                b"[]",
                b"{}",
                b'"x"',
                BEYOND,
                b'{"context":' + b'{"a":' * 20_000,
                b'{"verb":"\xff"}',
                b"9" * 5000,
            )
        )
    if kind == 3:
        return whole.replace(b'"arguments":{', b'"arguments":{"deep":' + DEEP + b",")
    field = chance.choice(list(values))
    if kind == 4:
        values.pop(field)
    elif kind == 5:
        values[field] = chance.choice([value for value in WRONG if not isinstance(value, bytes) and value != "\udcff"])
    elif kind == 6:
        values["context"] = chance.choice(
            ({}, {"user_id": 1}, {"user_id": None, "project_id": None, "roles": "abc", "request_id": "a\nb"})
        )
    elif kind == 7:
        values["deadline_ms"] = chance.choice((-1, 0, 10**30, "1", 1e300, None, True))
    else:
        values[chance.choice(("verb", "version", "request_id", "sent_by", "trace"))] = chance.choice(
            ("\n", "v" * 500, "é", "\u2028", "%s{}")
        )
    return json.dumps(values).encode()


def _headers(chance: random.Random) -> dict[str, Any]:
    names = (
        "x-tries",
        "x-failures",
        "x-delivery-count",
        "x-sender",
        "x-first-death-reason",
        "x-first-death-queue",
        "compression",
        "odd \udcff",
    )
    return {name: chance.choice(WRONG) for name in names if chance.random() < 0.3}


def _properties(chance: random.Random) -> dict[str, Any]:
    wanted = {
        "reply_to": ("conductor", "reply.", "x" * 255, "\udcff", f"reply.{uuid.uuid4().hex}"),
        "correlation_id": ("", "y" * 255, "\udcff"),
        "expiration": ("1", "600000", "4294967295"),
        "message_id": ("\udcff",), "type": ("\udcff",), "app_id": ("a" * 255,), "timestamp": (2**63,),
    }  # fmt: skip
    return {name: chance.choice(values) for name, values in wanted.items() if chance.random() < 0.3}


class Flood:
    """Sends raw messages, as no program of ours would; nobody waits for the broker's word."""

    def __init__(self, url: str, seed: int) -> None:
        self._broker = Broker(url)
        self._link: Channel = self._broker.open(heartbeats=False)
        self.chance = random.Random(seed)

    def send(self, queue: str, body: bytes, *, exchange: str = "", key: str | None = None, **properties: Any) -> None:
        encoding = self.chance.choice(("utf-8", "utf-16", "base64", "gzip", "binary", "nonsense", "\udcff"))
        kind = self.chance.choice(
            ("application/json", "application/x-python-serialize", "text/plain", "application/data")
        )
        channel = self._link._channel
        message = channel.prepare_message(
            body,
            content_type=kind,
            content_encoding=encoding,
            headers=_headers(self.chance),
            properties={**_properties(self.chance), **properties},
        )
        channel.basic_publish(message, exchange, queue if key is None else key)

    def rubbish(self, queue: str, context: Context, **way: Any) -> None:
        for _ in range(MESSAGES):
            self.send(queue, _bodies(self.chance, context), **way)

    def close(self) -> None:
        self._link.close()
        self._broker.close()


class Counts:
    """Handlers that remember the good ones."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def one(self, _: Context, asked: Number) -> None:
        self.seen.add(asked.remark)

    def many(self, deliveries: list[Any]) -> None:
        self.seen.update(delivery.arguments.remark for delivery in deliveries)

    def letters(self, deliveries: list[Any]) -> None:
        """As the conductor: what it keeps must go into a column."""
        for delivery in deliveries:
            msgspec.json.encode(dead_letters.for_the_record(delivery.arguments, delivery.context))
            delivery.arguments.arguments()


@pytest.fixture
def flood(guarded: Place) -> Iterator[Flood]:
    flood = Flood(guarded.url, seed=6)
    yield flood
    flood.close()


def _handlers(counts: Counts) -> list[Handle | HandleMany]:
    return [
        Handle(NOTE, counts.one), HandleMany(REPORT, counts.many),
        Handle(ADD_ONE, lambda _, asked: Sum(asked.number + 1)), HandleMany(DEAD_LETTER, counts.letters),
    ]  # fmt: skip


@pytest.mark.parametrize("queue", OWN_QUEUES)
def test_no_message_stays(queue: str, guarded: Place, connect: Connect, flood: Flood, context: Context) -> None:
    counts = Counts()
    owner = connect(guarded.url)
    post = Caller(owner)
    owner.declare(queue)
    owner.declare(dead_letters.QUEUE)
    own_url = guarded.url_of(access.host(HOST)) if queue.startswith("compute.") else guarded.url
    listener = Listener(connect(own_url), queue, _handlers(counts), workers=4, prefetch=20)
    reader = Listener(connect(guarded.url), dead_letters.QUEUE, _handlers(counts), workers=1, prefetch=10)
    wanted = {f"good {number}" for number in range(0, MESSAGES, GOOD_EVERY)}
    for number in range(MESSAGES):
        flood.send(queue, _bodies(flood.chance, context))
        if number % GOOD_EVERY == 0:
            post.cast(
                queue,
                REPORT if number % (2 * GOOD_EVERY) else NOTE,
                Number(1, remark=f"good {number}"),
                context=context,
            )
    listeners = [listener] if queue == dead_letters.QUEUE else [listener, reader]
    for one in listeners:
        one.start()
    try:
        wait_until(
            lambda: wanted <= counts.seen,
            what=f"good messages among bad ones: {wanted - counts.seen}",
            deadline_s=DEADLINE_S,
        )
        for one in listeners:
            for name in (one.queue, access.put_off_queue(one.queue) or one.queue):
                wait_until(
                    lambda one=one, name=name: not owner.waiting(name) and not one.in_hand,
                    what=f"end of queue {name}",
                    deadline_s=DEADLINE_S,
                )
        if queue in ("conductor", dead_letters.QUEUE):
            assert post.call(queue, ADD_ONE, Number(1), context=context, deadline_s=10.0) == Sum(2)
    finally:
        for one in listeners:
            one.stop(5.0)
    # What a listener held and never settled would have gone back.
    for name in (queue, access.put_off_queue(queue) or queue, dead_letters.QUEUE):
        assert not owner.waiting(name)
    post.close()


def test_a_caller_survives_answers_that_are_none(
    guarded: Place, connect: Connect, flood: Flood, context: Context
) -> None:
    """Every host may write into a reply queue whose name it knows."""
    caller = Caller(connect(guarded.url))
    listener = Listener(connect(guarded.url), "conductor", _handlers(Counts()), workers=1, prefetch=10)
    listener.start()
    assert listener.wait_until_listening(DEADLINE_S)
    assert caller.call("conductor", ADD_ONE, Number(1), context=context, deadline_s=DEADLINE_S) == Sum(2)
    queue = caller._open_replies()._consumer.queue
    flood.rubbish(queue, context)

    assert caller.call("conductor", ADD_ONE, Number(2), context=context, deadline_s=DEADLINE_S) == Sum(3)
    assert caller._open_replies()._consumer.queue == queue, "the rubbish cost the connection"
    caller.close()
    listener.stop(5.0)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b'{"value": 3}', b'{"error": 1}', BEYOND, b"\xff", b'{"error": {"code": "\xff", "message": ""}}',
        b"{}", b'{"value": {"sum": 1e999}}',
        b'{"error": {"code": "NotFound", "message": "' + b"x" * 10_000
        + b'", "fields": {"message": 1, "self": 2, "error": {}}}}',
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_an_error_of_ours(body: bytes) -> None:
    with pytest.raises((errors.Broken, errors.NotFound)) as answer:
        envelopes.value_of(body, ADD_ONE)
    assert len(answer.value.message) < 5000


@pytest.mark.parametrize("place", ["in-process"], indirect=True)
def test_what_fails_outside_of_every_function_leaves_too(place: InProcess, connect: Connect, context: Context) -> None:
    """A defect of the listener itself: the last frame takes the message out and says so among the dead letters."""
    broker = connect(place.url)
    listener = Listener(broker, "conductor", [Handle(NOTE, lambda *_: None)], workers=1, prefetch=1)
    listener._admit = None  # type: ignore[assignment]
    broker.declare(dead_letters.QUEUE)
    listener.start()
    assert listener.wait_until_listening(DEADLINE_S)
    for number in range(5):  # More than the prefetch.
        Caller(broker).cast("conductor", NOTE, Number(number), context=context)

    wait_until(lambda: broker.waiting(dead_letters.QUEUE) == 5, what="five letters", deadline_s=DEADLINE_S)
    listener.stop(5.0)
    assert broker.waiting("conductor") == 0


def test_properties_that_cannot_be_decoded_are_left_out() -> None:
    size = 77
    prefix = struct.pack(">HHQ", 60, 0, size)
    table = b""
    for _ in range(3000):
        table = b"\x01aF" + struct.pack(">I", len(table)) + table
    deep = prefix + struct.pack(">H", 1 << 13) + struct.pack(">I", len(table)) + table
    unknown = prefix + struct.pack(">H", 1 << 13) + struct.pack(">I", 3) + b"\x01a?"
    no_text = prefix + struct.pack(">H", 1 << 9) + b"\x02\xff\xfe"
    never = prefix + struct.pack(">H", 1 << 13) + struct.pack(">I", 11) + b"\x01aT" + b"\xff" * 8
    for header in (deep, unknown, no_text, never, prefix + b"\xff"):
        message = amqp.basic_message.Message()
        with pytest.raises(Exception):  # noqa: B017  whatever py-amqp raises there
            amqp.basic_message.Message().inbound_header(header)
        message.inbound_header(frames._readable(header))
        assert (message.properties, message.body_size) == ({}, size)


def test_the_rubbish_is_of_many_kinds(context: Context) -> None:
    """The fuzz is worth its name: each way out of `wire.opened` is taken."""
    chance = random.Random(6)
    ways = collections.Counter(_way(_bodies(chance, context)) for _ in range(MESSAGES))
    assert set(ways) == {"message", "Envelope", "context"}
    assert len(set(itertools.islice(ways.values(), 3))) == 3


def _way(body: bytes) -> str:
    try:
        envelopes.opened(body)
    except errors.Invalid as why:
        return why.message.partition(":")[0]
    return "message"
