"""Who has one host's own URL of the broker can speak as that host, read its queue, and nothing else: on both brokers,
by the same table."""

import json
import pathlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import amqp
import pytest

from core import errors
from core.context import Context
from devstack.waiting import wait_until
from messaging import access, dead_letters, envelopes, in_process
from messaging.broker import Broker, QueueFull, TooLarge
from messaging.caller import Caller
from messaging.channel import Channel
from messaging.listener import Delivery, Handle, HandleMany, Listener
from tests.messaging.conftest import DOTTED, HOST, OTHER, PLAYER, USERS, Connect, InProcess, Place, Rabbit
from tests.messaging.vocabulary import ADD_ONE, NOTE, REPORT, Number, Sum

DEADLINE_S = 20.0
REFUSED = (amqp.AMQPError, errors.Unavailable, OSError)

RawChannel = Any


class Cell:
    """The cell's side: what a conductor hears, and queues for its hosts."""

    def __init__(self, url: str, connect: Connect) -> None:
        self.broker = connect(url)
        self.caller = Caller(self.broker)
        self.heard: list[tuple[str | None, str]] = []
        for queue in (
            "conductor",
            "reports",
            dead_letters.QUEUE,
            *(f"compute.{host}" for host in (HOST, OTHER, DOTTED)),
        ):
            self.broker.declare(queue)
            self.broker.purge(queue)
        self.listener = Listener(
            self.broker, "reports", [HandleMany(REPORT, self._hear, from_host=_host_of)], workers=2, prefetch=50
        )

    def _hear(self, deliveries: list[Delivery]) -> None:
        self.heard += [(delivery.sender, delivery.arguments.remark) for delivery in deliveries]

    def waits_to_hear(self, *wanted: tuple[str, str]) -> None:
        wait_until(
            lambda: set(wanted) <= set(self.heard),
            what=f"reports {wanted}, only {self.heard}",
            deadline_s=DEADLINE_S,
            every_s=0.01,
        )

    def waiting(self) -> dict[str, int]:
        queues = (
            "conductor",
            "reports.again",
            dead_letters.QUEUE,
            *(f"compute.{host}" for host in (HOST, OTHER, DOTTED)),
        )
        return {queue: count for queue in queues if (count := self.broker.waiting(queue))}


def _host_of(arguments: Number) -> str:
    """In these tests a report says in `remark` of which host it is: HOST:WHAT."""
    return arguments.remark.partition(":")[0]


@pytest.fixture
def cell(guarded: Place, connect: Connect) -> Iterator[Cell]:
    cell = Cell(guarded.url, connect)
    cell.listener.start()
    assert cell.listener.wait_until_listening(DEADLINE_S)
    yield cell
    cell.listener.stop(5.0)
    cell.caller.close()
    for queue in cell.waiting():
        cell.broker.purge(queue)


class Attacker:
    """Somebody with one host's URL and a client of his own: every try on a fresh connection, for a refusal ends the
    channel."""

    def __init__(self, url: str, connect: Connect) -> None:
        self.url = url
        self.broker = connect(url)

    def tries(self, action: Callable[[RawChannel], Any]) -> Exception | None:
        """What he is told; `None`: it was done."""
        try:
            link = self.broker.open(heartbeats=False, confirms=True)
        except REFUSED as why:
            return why
        try:
            action(link._channel)
        except (*REFUSED, amqp.exceptions.MessageNacked) as why:
            return why
        finally:
            link.drop()
        return None


def publish(exchange: str, key: str, body: bytes = b"x", **properties: Any) -> Callable[[RawChannel], None]:
    def send(channel: RawChannel) -> None:
        message = channel.prepare_message(body, content_type="application/json", properties=properties)
        channel.basic_publish(message, exchange, key, timeout=10.0, confirm_timeout=10.0)

    return send


def of_queue(method: str, queue: str, **arguments: Any) -> Callable[[RawChannel], Any]:
    return lambda channel: getattr(channel, method)(queue, **arguments)


REPLY = f"reply.{uuid.uuid4().hex}"
TRIES: dict[str, Callable[[RawChannel], Any]] = {
    **{
        f"publish {queue} by the default exchange": publish("", queue)
        for queue in (
            "reports",
            "reports.again",
            "conductor",
            dead_letters.QUEUE,
            "dead_letters.again",
            f"compute.{OTHER}",
            f"compute.{HOST}",
            REPLY,
        )
    },
    **{
        f"publish {key} from hosts": publish("from-hosts", key)
        for key in (
            f"report.{OTHER}",
            f"letter.{OTHER}",
            "report",
            "report.#",
            f"report.{HOST}.more",
            f"report.{DOTTED}",
            f"{HOST}",
            f"report.{HOST}2",
            f"xreport.{HOST}",
            "reply.short",
            "reply.#",
            f"reply.{'0' * 31}G",
            f"compute.{OTHER}",
            "",
        )
    },
    **{
        f"publish to {name}": publish(name, f"compute.{OTHER}")
        for name in ("to-hosts", "amq.topic", "amq.direct", "amq.fanout", "nowhere")
    },
    "publish to its own queue as the conductor does": publish("to-hosts", f"compute.{HOST}"),
    "publish to conductors": publish("to-conductors", "conductor"),
    "speak as another user": publish("from-hosts", f"report.{HOST}", user_id=f"compute.{OTHER}"),
    "speak as a user of none": publish("from-hosts", f"report.{HOST}", user_id="messaging"),
    "send too much": publish("from-hosts", f"report.{HOST}", b"x" * (60 * 1024 * 1024)),
    "send a little too much": publish("from-hosts", f"report.{HOST}", b"x" * (access.MAX_BYTES + 1)),
    "send what never expires as a number": publish("from-hosts", f"report.{HOST}", expiration="soon"),
    **{
        f"consume {queue}": of_queue("basic_consume", queue, callback=print)
        for queue in (
            "reports",
            "reports.again",
            "conductor",
            dead_letters.QUEUE,
            f"compute.{OTHER}",
            f"compute.{DOTTED}",
            REPLY,
        )
    },
    **{
        f"{what} {queue}": of_queue(what, queue)
        for what in ("basic_get", "queue_purge")
        for queue in ("reports", "conductor", f"compute.{OTHER}")
    },
    **{
        f"delete {queue}": of_queue("queue_delete", queue)
        for queue in ("reports", "conductor", f"compute.{OTHER}", f"compute.{HOST}")
    },
    **{
        f"declare {queue}": of_queue("queue_declare", queue, durable=True, auto_delete=False, exclusive=False)
        for queue in ("new", "compute.invented", f"compute.{HOST}", f"compute.{OTHER}", "reports")
    },
    "declare a queue without a name": lambda channel: channel.queue_declare("", exclusive=True),
    "declare a reply queue": lambda channel: channel.queue_declare(f"reply.{uuid.uuid4().hex}", exclusive=True),
    "declare an exchange": lambda channel: channel.exchange_declare(
        "from-hosts", "topic", durable=True, auto_delete=False
    ),
    "delete an exchange": lambda channel: channel.exchange_delete("from-hosts"),
    "bind its queue to what others report": lambda channel: channel.queue_bind(
        f"compute.{HOST}", "from-hosts", "report.#"
    ),
    "bind its queue to answers": lambda channel: channel.queue_bind(f"compute.{HOST}", "from-hosts", "reply.#"),
    "bind its queue to others' orders": lambda channel: channel.queue_bind(
        f"compute.{HOST}", "to-hosts", f"compute.{OTHER}"
    ),
    "bind another's queue": lambda channel: channel.queue_bind(f"compute.{OTHER}", "from-hosts", f"report.{HOST}"),
}


def test_everything_that_is_not_its_own_is_refused(
    cell: Cell, guarded: Place, connect: Connect, context: Context
) -> None:
    attacker = Attacker(guarded.url_of(access.host(HOST)), connect)
    not_refused = [what for what, action in TRIES.items() if attacker.tries(action) is None]

    assert not_refused == []
    good = Caller(connect(guarded.url_of(access.host(OTHER))))
    good.cast("reports", REPORT, Number(1, remark=f"{OTHER}:alive"), context=context)
    cell.waits_to_hear((OTHER, f"{OTHER}:alive"))
    assert cell.heard == [(OTHER, f"{OTHER}:alive")]
    assert cell.waiting() == {}


@pytest.mark.rabbitmq
@pytest.mark.parametrize("place", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize("header", ["CC", "BCC"])
def test_keys_in_headers_lead_to_no_other_host(
    header: str, cell: Cell, guarded: Place, connect: Connect, context: Context
) -> None:
    """RabbitMQ follows the keys in these headers without asking for rights to them: nothing that is bound to what hosts
    write may be a host's."""
    forged = envelopes.envelope(
        REPORT, Number(1, remark=f"{OTHER}:gone"), context=context, deadline_s=60.0, sent_by=f"compute {OTHER}"
    )
    keys = [
        prefix + word
        for word in (OTHER, HOST, DOTTED, access.word_of(DOTTED), "#", "*")
        for prefix in ("report.", "compute.", "again.", "reply.", "")
    ]

    def send(channel: RawChannel) -> None:
        message = channel.prepare_message(
            forged,
            content_type="application/json",
            headers={header: [*keys, "conductor", "reports.again"]},
            properties={"user_id": f"compute.{HOST}"},
        )
        channel.basic_publish(message, "from-hosts", f"report.{HOST}", confirm_timeout=10.0)

    assert Attacker(guarded.url_of(access.host(HOST)), connect).tries(send) is None

    wait_until(lambda: cell.listener.refusals.count == 1, what="refusal of the one report", deadline_s=DEADLINE_S)
    assert cell.heard == []
    assert cell.waiting() == {}


def test_another_account_does_not_open_with_its_password(guarded: Place, connect: Connect, cell: Cell) -> None:
    url = guarded.url_of(access.host(HOST))
    wrong = [url.replace(f"compute.{HOST}:", f"compute.{OTHER}:", 1), url.replace(f"compute.{HOST}:", "guest:", 1)]
    if isinstance(guarded, InProcess):
        wrong = [
            wrong[0].replace(":secret@", ":other@"),
            url.replace(":secret@", "@"),
            f"inproc://{url.rpartition('@')[2]}",
        ]
    for other in wrong:
        with pytest.raises(errors.Unavailable):
            connect(other).open()


def test_it_may_do_what_is_its_own(cell: Cell, guarded: Place, connect: Connect, context: Context) -> None:
    for host in (HOST, DOTTED):
        own = Caller(connect(guarded.url_of(access.host(host))))
        own.cast("reports", REPORT, Number(1, remark=f"{host}:alive"), context=context)
        cell.waits_to_hear((host, f"{host}:alive"))
        listener = Listener(
            connect(guarded.url_of(access.host(host))),
            f"compute.{host}",
            [Handle(ADD_ONE, _add_one)],
            workers=1,
            prefetch=5,
        )
        listener.start()
        try:
            assert cell.caller.call(
                f"compute.{host}", ADD_ONE, Number(1), context=context, deadline_s=DEADLINE_S
            ) == Sum(2)
        finally:
            listener.stop(5.0)
    assert cell.listener.refusals.count == 0


def _add_one(_: Context, asked: Number) -> Sum:
    return Sum(asked.number + 1)


def test_what_a_host_puts_off_it_keeps_in_hand_and_what_it_gives_up_is_heard_of(
    guarded: Place, connect: Connect, cell: Cell, context: Context
) -> None:
    tries: list[int] = []

    def away_at_first(_: Context, asked: Number) -> None:
        tries.append(asked.number)
        if len(tries) < 3:
            raise errors.Unavailable("the disk is full")

    def fails(_: list[Delivery]) -> None:
        raise ZeroDivisionError("always")

    handlers = [Handle(NOTE, away_at_first), HandleMany(REPORT, fails)]
    listener = Listener(
        connect(guarded.url_of(access.host(DOTTED))), f"compute.{DOTTED}", handlers, workers=1, prefetch=5
    )
    listener.start()
    try:
        cell.caller.cast(f"compute.{DOTTED}", NOTE, Number(7), context=context)
        wait_until(lambda: tries == [7, 7, 7], what="third try", deadline_s=DEADLINE_S)
        cell.broker.publish(f"compute.{DOTTED}", b"no message", expires_s=60.0)
        cell.caller.cast(f"compute.{DOTTED}", REPORT, Number(8), context=context)
        wait_until(lambda: cell.broker.waiting(dead_letters.QUEUE) == 2, what="two dead letters", deadline_s=DEADLINE_S)
    finally:
        listener.stop(5.0)


def test_a_letter_does_not_become_the_brokers_by_its_headers(
    guarded: Place, connect: Connect, cell: Cell, context: Context
) -> None:
    """RabbitMQ says in such headers in which queue a message died; a host said that it died in another host's."""
    read: list[tuple[str | None, str, str]] = []

    def keep(deliveries: list[Delivery]) -> None:
        read.extend((delivery.sender, delivery.arguments.queue, delivery.arguments.why) for delivery in deliveries)

    died = {
        "x-first-death-reason": "delivery_limit",
        "x-first-death-queue": f"compute.{OTHER}",
        "x-first-death-exchange": "",
    }
    report = envelopes.envelope(REPORT, Number(1, remark=f"{HOST}:died"), context=context, deadline_s=60.0, sent_by="")
    letter = dead_letters.letter(
        queue=f"compute.{HOST}", why="its own", deliveries=1, body=b"", envelope=None, sent_by=""
    )

    def send(channel: RawChannel) -> None:
        for body in (report, b"no message", letter):
            properties = {"user_id": f"compute.{HOST}"}
            message = channel.prepare_message(
                body, content_type="application/json", headers=died, properties=properties
            )
            channel.basic_publish(message, "from-hosts", f"letter.{HOST}", confirm_timeout=10.0)

    listener = Listener(
        cell.broker, dead_letters.QUEUE, [HandleMany(dead_letters.DEAD_LETTER, keep)], workers=1, prefetch=5
    )
    listener.start()
    try:
        assert Attacker(guarded.url_of(access.host(HOST)), connect).tries(send) is None
        wait_until(lambda: (HOST, f"compute.{HOST}", "its own") in read, what="the letter", deadline_s=DEADLINE_S)
    finally:
        listener.stop(5.0)
    assert read == [(HOST, f"compute.{HOST}", "its own")]


def test_what_a_host_sent_died_where_hosts_send() -> None:
    died = {"x-first-death-reason": "delivery_limit", "x-first-death-queue": f"compute.{OTHER}"}

    theirs, ours = (dead_letters.given_up_by_broker(died, b"", None, 1, sender=sender) for sender in (HOST, None))

    assert theirs is not None and theirs.queue == access.REPORTS
    assert ours is not None and ours.queue == f"compute.{OTHER}"


@pytest.mark.parametrize("user_id", [None, f"compute.{HOST}"], ids=["unsigned", "signed"])
def test_a_report_in_the_name_of_another_host_is_refused_and_counted(
    user_id: str | None,
    cell: Cell,
    guarded: Place,
    connect: Connect,
    context: Context,
    caplog: pytest.LogCaptureFixture,
) -> None:
    attacker = Attacker(guarded.url_of(access.host(HOST)), connect)
    forged = envelopes.envelope(
        REPORT, Number(1, remark=f"{OTHER}:gone"), context=context, deadline_s=60.0, sent_by=f"compute {OTHER}"
    )
    own = envelopes.envelope(REPORT, Number(1, remark=f"{HOST}:alive"), context=context, deadline_s=60.0, sent_by="")
    properties = {"user_id": user_id} if user_id else {}

    def flood(channel: RawChannel) -> None:
        for _ in range(50):
            publish("from-hosts", f"report.{HOST}", forged, **properties)(channel)
            message = channel.prepare_message(
                forged, content_type="application/json", headers={"x-sender": OTHER}, properties=properties
            )
            channel.basic_publish(message, "from-hosts", f"report.{HOST}", confirm_timeout=10.0)
        publish("from-hosts", f"report.{HOST}", own, user_id=f"compute.{HOST}")(channel)

    assert attacker.tries(flood) is None

    cell.waits_to_hear((HOST, f"{HOST}:alive"))
    wait_until(lambda: cell.listener.refusals.count == 100, what="refusals", deadline_s=DEADLINE_S)
    assert cell.heard == [(HOST, f"{HOST}:alive")]
    assert cell.waiting() == {}, "who forges one forges a million: they are no dead letters"
    assert len([record for record in caplog.records if "messages refused" in record.getMessage()]) == 1


def test_a_report_that_nobody_signed_is_refused_whichever_way_it_came(cell: Cell, context: Context) -> None:
    cell.caller.cast("reports", REPORT, Number(1, remark=f"{HOST}:gone"), context=context)

    wait_until(lambda: cell.listener.refusals.count == 1, what="refusal", deadline_s=DEADLINE_S)
    assert cell.heard == []


def test_the_sender_outlives_being_put_off(guarded: Place, connect: Connect, context: Context) -> None:
    """What comes again was sent by the listener itself; the host is noted where hosts cannot write."""
    heard: list[tuple[str | None, str]] = []

    def away_at_first(deliveries: list[Delivery]) -> None:
        heard.extend((delivery.sender, delivery.arguments.remark) for delivery in deliveries)
        if len(heard) < 3:
            raise errors.Unavailable("the database is away")

    owner = connect(guarded.url)
    listener = Listener(
        owner, "reports", [HandleMany(REPORT, away_at_first, from_host=_host_of)], workers=1, prefetch=5
    )
    listener.start()
    assert listener.wait_until_listening(DEADLINE_S)
    try:
        Caller(connect(guarded.url_of(access.host(HOST)))).cast(
            "reports", REPORT, Number(1, remark=f"{HOST}:alive"), context=context
        )
        wait_until(lambda: len(heard) == 3, what="third try", deadline_s=DEADLINE_S)
    finally:
        listener.stop(5.0)
    assert set(heard) == {(HOST, f"{HOST}:alive")}
    assert not owner.waiting("reports.again")


def test_connections_and_channels_of_a_host_are_counted(guarded: Place, connect: Connect, cell: Cell) -> None:
    user = access.host(HOST)
    broker, links = connect(guarded.url_of(user)), []
    assert user.most_connections
    try:
        with pytest.raises(errors.Unavailable):
            for _ in range(10 * user.most_connections):
                links.append(broker.open(heartbeats=False))
        assert len(links) <= user.most_connections
        connect(guarded.url_of(access.host(OTHER))).open().close()
    finally:
        for link in links:
            link.close()
    one = _opens(broker)
    with pytest.raises(REFUSED):
        for _ in range(10 * (user.most_channels or 1)):
            one._connection.channel()
    one.drop()


def _opens(broker: Broker) -> Channel:
    """The broker may notice a moment late that connections have gone."""
    channels: list[Channel] = []

    def opens() -> bool:
        try:
            channels.append(broker.open(heartbeats=False))
        except errors.Unavailable:
            return False
        return True

    wait_until(opens, what="connection", deadline_s=DEADLINE_S)
    return channels[0]


def test_a_flood_of_reports_ends_at_the_queues_limit(guarded: Place, connect: Connect, context: Context) -> None:
    owner = connect(guarded.url)
    owner.declare("reports")
    owner.purge("reports")
    limit = access.limits("reports")["max-length-bytes"]
    flood, large = connect(guarded.url_of(access.host(HOST))), b"x" * (access.MAX_BYTES - 1000)
    sent = 0
    with pytest.raises(QueueFull):
        while sent < 2 * limit:
            flood.publish("reports", large, expires_s=600.0)
            sent += len(large)
    assert sent <= limit + 4 * len(large)

    heard: list[str] = []
    hear = HandleMany(
        REPORT, lambda deliveries: heard.extend(one.arguments.remark for one in deliveries), from_host=_host_of
    )
    listener = Listener(owner, "reports", [hear], workers=2, prefetch=50)
    listener.start()
    try:
        good = Caller(connect(guarded.url_of(access.host(OTHER))))
        wait_until(lambda: _is_taken(good, context), what="room for a report", deadline_s=DEADLINE_S)
        wait_until(lambda: heard == [f"{OTHER}:alive"], what="a good host's report", deadline_s=DEADLINE_S)
    finally:
        listener.stop(5.0)
        for queue in ("reports", dead_letters.QUEUE):
            owner.declare(queue)
            owner.purge(queue)


def _is_taken(good: Caller, context: Context) -> bool:
    try:
        good.cast("reports", REPORT, Number(1, remark=f"{OTHER}:alive"), context=context)
    except errors.Unavailable:
        return False
    return True


def test_what_is_too_large_is_said_before_it_is_sent(
    guarded: Place, connect: Connect, caller: Caller, context: Context
) -> None:
    broker = connect(guarded.url)
    broker.declare("conductor")
    with pytest.raises(TooLarge):
        broker.publish("conductor", b"x" * (access.MAX_BYTES + 1), expires_s=60.0)
    listener = Listener(
        broker, "conductor", [Handle(ADD_ONE, lambda *_: Sum(1, remark="x" * access.MAX_BYTES))], workers=1, prefetch=5
    )
    listener.start()
    asking = Caller(connect(guarded.url))
    try:
        with pytest.raises(errors.Broken, match="larger than a message may be"):
            asking.call("conductor", ADD_ONE, Number(1), context=context, deadline_s=DEADLINE_S)
    finally:
        asking.close()
        listener.stop(5.0)


def test_a_guest_asks_conductors_and_reads_its_answers_and_no_more(
    cell: Cell, guarded: Place, connect: Connect, context: Context
) -> None:
    """The API level's user in a cell, and the console proxy's."""
    listener = Listener(connect(guarded.url), "conductor", [Handle(ADD_ONE, _add_one)], workers=1, prefetch=5)
    listener.start()
    assert listener.wait_until_listening(DEADLINE_S)
    asking = Caller(connect(guarded.url_of(access.guest("asker"))))
    guest = Attacker(guarded.url_of(access.guest("asker")), connect)
    bind_reply: Callable[[RawChannel], Any] = lambda channel: (  # noqa: E731
        channel.queue_declare(REPLY, exclusive=True), channel.queue_bind(REPLY, "from-hosts", "report.#"),
    )
    tries = {
        "order": publish("to-hosts", f"compute.{HOST}"), "report": publish("from-hosts", f"report.{HOST}"),
        "default": publish("", f"compute.{HOST}"), "read orders": lambda channel: channel.basic_get(f"compute.{HOST}"),
        "listen to reports": bind_reply,
        "declare": lambda channel: channel.queue_declare("compute.invented", durable=True, auto_delete=False),
    }  # fmt: skip
    try:
        assert asking.call("conductor", ADD_ONE, Number(1), context=context, deadline_s=DEADLINE_S) == Sum(2)
        assert asking._broker.waiting("conductor") == 0
        assert [what for what, action in tries.items() if guest.tries(action) is None] == []
    finally:
        asking.close()
        listener.stop(5.0)


def test_who_plays_hosts_speaks_for_each_of_them(
    cell: Cell, guarded: Place, connect: Connect, context: Context
) -> None:
    """As benchmarks do; RabbitMQ lets a user with this tag name others, and nobody else."""
    link = connect(guarded.url_of(PLAYER)).open(heartbeats=False, confirms=True)
    for host in (HOST, DOTTED):
        body = envelopes.envelope(
            REPORT, Number(1, remark=f"{host}:alive"), context=context, deadline_s=60.0, sent_by="played"
        )
        link.publish(
            "reports",
            body,
            expires_s=60.0,
            headers=None,
            reply_to=None,
            correlation_id=None,
            persistent=True,
            timeout_s=5.0,
            user=access.host(host).name,
        )
    link.close()

    cell.waits_to_hear((HOST, f"{HOST}:alive"), (DOTTED, f"{DOTTED}:alive"))


def test_names_of_hosts_are_one_word_of_a_topic() -> None:
    """A dot ends a word, and `*` and `#` stand for others: a host must not be called what matches others' keys."""
    names = ["east-1", "a.b", "a.#", "#", "*", "a.*", "a%2Eb", "ü", "a b", "a~b", "."]
    for queue in ("reports", dead_letters.QUEUE):
        keys = [access.route(queue, user=access.host(name).name).key for name in names]
        assert len(set(keys)) == len(names)
        assert all(len(key.split(".")) == 2 and not set("*#") & set(key) and key.isascii() for key in keys)


@pytest.mark.parametrize("name", ["east.1", "east.+", "east|west", "a$", "[a-z]", "(", "a\\"])
def test_a_name_is_no_expression(name: str) -> None:
    """A host whose name reads as an expression gets no more than its own."""
    rights = in_process.Rights(access.host(name), access.host(name).name)
    rights.read(f"compute.{name}")
    rights.publish("from-hosts", access.route("reports", user=access.host(name).name).key)
    for other in ("eastX1", "east1", "east", "west", "a", "b", ""):
        with pytest.raises(amqp.AccessRefused):
            rights.read(f"compute.{other}")
        with pytest.raises(amqp.AccessRefused):
            rights.publish("from-hosts", f"report.{other}")


@pytest.mark.rabbitmq
@pytest.mark.parametrize("place", ["rabbitmq"], indirect=True)
def test_rabbitmq_has_the_same_limits(guarded: Rabbit) -> None:
    told = guarded._node.control("list_policies", "-p", "messaging")
    assert all(policy.name in told for policy in access.POLICIES)
    assert {user.name for user in USERS} <= {
        line.split("\t")[0] for line in guarded._node.control("list_permissions", "-p", "messaging").splitlines()
    }


def test_the_pages_for_operators_say_what_the_table_says() -> None:
    """Who sets a broker up by hand gives it the same rights and limits."""
    pages = pathlib.Path(__file__).parents[2] / "docs" / "operations"
    limits, users = (pages / "rabbitmq.md").read_text(), (pages / "adding-a-cell.md").read_text()
    for priority, policy in enumerate(access.POLICIES):
        definition = json.dumps(dict(policy.limits), separators=(",", ":"))
        assert (
            f"set_policy -p north {policy.name} '{policy.pattern}' '{definition}' --apply-to queues --priority "
            f"{priority}\n"
            in limits
        )
    assert f"max_message_size = {access.MAX_BYTES}\n" in limits
    asker = access.guest("api.north")
    assert f"set_permissions -p north api.north '{asker.configure}' '{asker.write}' '{asker.read}'\n" in users
    for exchange, (write, read) in asker.topics.items():
        assert f"set_topic_permissions -p north api.north {exchange} '{write}' '{read}'\n" in users
