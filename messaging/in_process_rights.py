"""What one connection may ask of the in-process broker: the same questions in the same places as RabbitMQ asks them."""

import re

import amqp

from messaging import access

_DEFAULT_NAME = "amq.default"
"""As RabbitMQ calls the default exchange in expressions."""


class Rights:
    """The rights of a connection; `user` is `None` on a broker that was told of no users: then it may do everything.

    Every method raises `AccessRefused` if the user may not do it.
    """

    def __init__(self, user: access.User | None, name: str | None) -> None:
        self._user = user
        self._name = name

    @property
    def most_channels(self) -> int | None:
        """How many channels it may have; `None` for any number."""
        return self._user.most_channels if self._user else None

    def configure(self, resource: str) -> None:
        """To make or remove a queue or an exchange."""
        if self._user is not None:
            self._require(self._user.configure, resource, "configure")

    def read(self, queue: str) -> None:
        """To consume from a queue, or to purge it."""
        if self._user is not None:
            self._require(self._user.read, queue, "read")

    def publish(self, exchange: str, key: str) -> None:
        """To send to an exchange with this routing key."""
        if self._user is None:
            return
        self._require(self._user.write, exchange or _DEFAULT_NAME, "write")
        if exchange in self._user.topics:
            self._require(self._user.topics[exchange][0], key, f"publish to {exchange} with")

    def bind(self, queue: str, exchange: str, key: str) -> None:
        """To have an exchange send to a queue what has this key."""
        if self._user is None:
            return
        self._require(self._user.write, queue, "write")
        self._require(self._user.read, exchange or _DEFAULT_NAME, "read")
        if exchange in self._user.topics:
            self._require(self._user.topics[exchange][1], key, f"bind to {exchange} with")

    def check_message(self, body: bytes, properties: dict[str, object]) -> None:
        """Raises `PreconditionFailed` for what no broker takes: another user's name, too much, a time to live that is
        none."""
        if properties.get("user_id") not in (None, self._name) and not (
            self._user and "impersonator" in self._user.tags
        ):
            raise amqp.PreconditionFailed(f"user_id is not {self._name}")
        if len(body) > access.MAX_BYTES:
            raise amqp.PreconditionFailed(f"message of {len(body)} bytes is larger than {access.MAX_BYTES}")
        if not re.fullmatch(r"[0-9]{1,10}", str(properties.get("expiration", "0"))):
            raise amqp.PreconditionFailed("expiration is no number of milliseconds")

    def _require(self, expression: str, name: str, right: str) -> None:
        if not re.search(expression, name):
            raise amqp.AccessRefused(f"user {self._name} may not {right} {name}")
