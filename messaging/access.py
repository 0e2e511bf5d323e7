"""Who may do what on a cell's broker: its exchanges, what is bound to them, and the rights of each kind of user.

RabbitMQ's rights are expressions over names of queues and exchanges, and for topic exchanges over routing keys. They
cannot say who may publish into which queue as long as everything goes through the default exchange. So hosts write one
topic exchange only, with their own name in the key, and everybody else's messages come by exchanges that no host may
write.

The key proves nothing: RabbitMQ asks for rights to the key itself, and then also follows the keys in the headers `CC`
and `BCC` *(tried: 3.10)*. So any host may reach whatever is bound to that exchange: what all hosts may write, and reply
queues, whose names cannot be guessed; never another host's queue. Who a message is from says its `user_id`, which the
broker compares with who logged in.

One table serves RabbitMQ (`messaging.rabbitmq`) and the broker in the process (`messaging.in_process`).
"""

import dataclasses
import re
import urllib.parse
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from messaging.verbs import cell, compute

DEFAULT = ""
FROM_HOSTS = "from-hosts"
TO_HOSTS = "to-hosts"
TO_CONDUCTORS = "to-conductors"
EXCHANGES: Mapping[str, str] = MappingProxyType({FROM_HOSTS: "topic", TO_HOSTS: "direct", TO_CONDUCTORS: "direct"})
"""Each exchange and its type; all are durable."""

DEAD_LETTERS = "dead_letters"
REPORTS = cell.REPORTS
REPLY = "reply."
REPLY_QUEUE = re.compile(r"reply\.[0-9a-f]{32}\Z")
"""What a reply queue may be called. Every host may write to reply queues, so what follows the dot cannot be guessed."""

MAX_BYTES = 1024 * 1024
"""Of the body of a message; brokers refuse more (RabbitMQ: `max_message_size`)."""

MAX_DELIVERIES = 50
"""A safety net far above a listener's own count: no message circulates for ever, even if it ends every process that
takes it."""

_PUT_OFF = ".again"
_WRITTEN_BY_HOSTS = (REPORTS, DEAD_LETTERS)
_HOST_USER = compute.queue("")
_MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """The exchange and the routing key that lead to a queue, or that a queue is bound by."""

    exchange: str
    key: str


@dataclasses.dataclass(frozen=True, slots=True)
class User:
    """A user and its rights in one virtual host: expressions, as RabbitMQ's `set_permissions` takes them.

    `topics`: for a topic exchange, the routing keys with which the user may publish, and those by which it may bind. An
    exchange that is not named there has no such limit. `tags`: with RabbitMQ's `impersonator` it may name others as
    senders.
    """

    name: str
    configure: str = ".*"
    write: str = ".*"
    read: str = ".*"
    topics: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    most_connections: int | None = None
    most_channels: int | None = None
    tags: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """Limits of queues, as RabbitMQ's `set_policy` takes them; of those that match a queue the last counts."""

    name: str
    pattern: str
    limits: Mapping[str, Any]


POLICIES = (
    # What RabbitMQ drops among the dead letters would be lost for the operator.
    Policy("limits", "^(?!dead_letters$)", {"delivery-limit": MAX_DELIVERIES}),
    Policy("dead-letters", "^dead_letters$", {"max-length-bytes": 64 * _MIB, "overflow": "reject-publish"}),
    Policy(
        "reports",
        "^reports$",
        {"delivery-limit": MAX_DELIVERIES, "max-length-bytes": 64 * _MIB, "overflow": "reject-publish"},
    ),
    Policy(
        "hosts",
        r"^compute\.",
        {"delivery-limit": MAX_DELIVERIES, "max-length-bytes": 32 * _MIB, "overflow": "reject-publish"},
    ),
    Policy("replies", r"^reply\.", {"max-length-bytes": 16 * _MIB, "overflow": "reject-publish"}),
)
"""What a host may fill has a size; a full queue refuses what comes, and senders keep it."""


def limits(queue: str) -> Mapping[str, Any]:
    """The limits of a queue."""
    return next((policy.limits for policy in reversed(POLICIES) if re.search(policy.pattern, queue)), {})


# ---- users -----------------------------------------------------------------------------------------------------------


def owner(name: str) -> User:
    """Who may do everything in its virtual host: a cell's conductors; at the API level, where no host comes, all
    processes."""
    return User(name)


def host(name: str) -> User:
    """The agent of one host: it speaks in its own name, reads its own queue and declares nothing."""
    word = re.escape(word_of(name))
    return User(
        compute.queue(name),
        configure="^$",
        write=f"^{FROM_HOSTS}$",
        read=f"^{re.escape(compute.queue(name))}$",
        topics={FROM_HOSTS: (rf"^((report|letter)\.{word}|reply\.[0-9a-f]{{32}})$", "^$")},
        # One to read with, two to publish with, and as many that died unnoticed.
        most_connections=8,
        most_channels=16,
    )


def guest(name: str) -> User:
    """Who asks a cell's conductors and reads their answers: the API level, a console proxy."""
    return User(
        name,
        configure=r"^reply\.",
        write=rf"^({TO_CONDUCTORS}$|reply\.)",
        read=rf"^({FROM_HOSTS}$|reply\.)",
        topics={FROM_HOSTS: ("^$", r"^reply\.[0-9a-f]{32}$")},
    )


def host_of(user: str | None) -> str | None:
    """The host whose agent logs in as this user; `None`: it is no host's."""
    if user is None or not user.startswith(_HOST_USER):
        return None
    return user.removeprefix(_HOST_USER)


# ---- routes ----------------------------------------------------------------------------------------------------------


def route(queue: str, *, user: str | None) -> Route:
    """The way to a queue for who has logged in as this user."""
    sender = host_of(user)
    if sender is not None:
        return Route(FROM_HOSTS, _topics(sender).get(queue, queue))
    if queue.startswith(_HOST_USER):
        return Route(TO_HOSTS, queue)
    return Route(TO_CONDUCTORS if queue == cell.QUEUE else DEFAULT, queue)


def bindings(queue: str) -> list[Route]:
    """How messages come into a queue, beside those that name it to the default exchange."""
    if queue.startswith(_HOST_USER):
        return [Route(TO_HOSTS, queue)]
    if queue.startswith(REPLY):
        return [Route(FROM_HOSTS, queue)]
    ways = {
        cell.QUEUE: Route(TO_CONDUCTORS, cell.QUEUE),
        cell.REPORTS: Route(FROM_HOSTS, "report.#"),
        DEAD_LETTERS: Route(FROM_HOSTS, "letter.#"),
    }
    return [ways[queue]] if queue in ways else []


def put_off_queue(queue: str) -> str | None:
    """Where a listener puts a message of this queue that is to come again; `None`: nowhere, a host may not write the
    queue that it reads.

    If hosts may write the queue, it is another one, which they may not write. There the message says from which host it
    came: the broker vouches for the listener only.
    """
    if queue.startswith(_HOST_USER):
        return None
    return f"{queue}{_PUT_OFF}" if queue in _WRITTEN_BY_HOSTS else queue


def is_put_off(queue: str) -> bool:
    """Whether it is such a queue."""
    return queue.removesuffix(_PUT_OFF) in _WRITTEN_BY_HOSTS and queue.endswith(_PUT_OFF)


def _topics(sender: str) -> dict[str, str]:
    """The routing key by which a host reaches each queue that it may reach, but for reply queues: these are bound by
    their names."""
    word = word_of(sender)
    return {cell.REPORTS: f"report.{word}", DEAD_LETTERS: f"letter.{word}"}


def word_of(name: str) -> str:
    """The name of a host as one word of a topic: a dot ends a word there, and `*` and `#` stand for others."""
    return urllib.parse.quote(name, safe="").replace(".", "%2E").replace("~", "%7E")
