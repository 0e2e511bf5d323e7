"""One connection to a broker with its one channel. It belongs to the thread that opened it; only `wake` is for
others."""

import os
import select
from collections.abc import Callable
from typing import Any, Protocol

import amqp
import kombu

from core import errors
from core.broker_url import AMQP, AMQPS, IN_PROCESS, BrokerUrl
from messaging import access
from messaging.frames import frame_handler
from messaging.in_process_transport import Connection as InProcessConnection
from messaging.in_process_transport import Transport as InProcessTransport

HEARTBEAT_S = 10.0
_LOST = (amqp.AMQPError, amqp.exceptions.MessageNacked, kombu.exceptions.KombuError, OSError)
_QUORUM = {"x-queue-type": "quorum"}
_PERSISTENT, _TRANSIENT = 2, 1
_GUEST = "guest"
"""Who logs in where a URL names nobody."""


class ChannelLost(errors.Unavailable):
    """The connection is gone or does not answer; what was asked of it may or may not have been done."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out

    @property
    def code(self) -> str:
        return "Unavailable"


class NoSuchQueue(errors.Unavailable):
    """Nobody ever declared the queue: nothing was sent."""

    @property
    def code(self) -> str:
        return "Unavailable"


class QueueFull(errors.Unavailable):
    """The queue has no room: the message was not taken. The link is still good."""

    @property
    def code(self) -> str:
        return "Unavailable"


class TooLarge(errors.Invalid):
    """The message is larger than brokers take: nothing was sent, and it need not be tried again."""

    @property
    def code(self) -> str:
        return "Invalid"


class Raw(Protocol):
    """A message as the driver gives it."""

    body: bytes
    properties: dict[str, Any]
    delivery_info: dict[str, Any]
    delivery_tag: int


class Channel:
    """A connection and its channel; see `open_channel`.

    Every method but `wake` and `drop` raises `ChannelLost` when the broker is away or does not answer within the
    timeout; the only thing to do then is to `drop` it.
    """

    def __init__(
        self, client: kombu.Connection, connection: Any, *, timeout_s: float, address: str, user: str | None
    ) -> None:
        self.address = address
        self._user = user
        self._client = client
        self._transport = client.transport
        self._connection = connection
        self._timeout_s = timeout_s
        self._unroutable = False
        self._waiting: _Waiting = (
            connection if isinstance(connection, InProcessConnection) else _SocketWaiting(connection)
        )
        self._channel = self._transport.create_channel(connection)
        self._channel.auto_decode = False  # a body is bytes, whatever its sender says of them
        self._channel.events["basic_return"].add(self._on_return)

    def publish(
        self,
        queue: str,
        body: bytes,
        *,
        expires_s: float | None,
        headers: dict[str, Any] | None,
        reply_to: str | None,
        correlation_id: str | None,
        persistent: bool,
        timeout_s: float,
        user: str | None = None,
    ) -> None:
        """Sends one message and waits until the broker has taken it.

        Args:
            user: in whose name; ours, unless we are one who may speak for others (RabbitMQ: tag `impersonator`).

        Raises:
            NoSuchQueue: there is no such queue, or no way to it yet.
            QueueFull: it has no room.
            TooLarge: it is larger than a message may be.
        """
        if len(body) > access.MAX_BYTES:
            raise TooLarge(f"a message of {len(body)} bytes to {queue} is larger than {access.MAX_BYTES}")
        properties: dict[str, Any] = {"delivery_mode": _PERSISTENT if persistent else _TRANSIENT}
        sender = user or self._user
        if sender is not None:
            properties["user_id"] = sender
        if expires_s is not None:
            properties["expiration"] = str(max(0, int(expires_s * 1000)))
        if reply_to is not None:
            properties["reply_to"] = reply_to
        if correlation_id is not None:
            properties["correlation_id"] = correlation_id
        self._unroutable = False
        message = self._channel.prepare_message(
            body, content_type="application/json", headers=headers, properties=properties
        )
        way = access.route(queue, user=sender)
        try:
            self._ask(
                self._channel.basic_publish,
                message,
                way.exchange,
                way.key,
                mandatory=True,
                timeout=timeout_s,
                confirm_timeout=timeout_s,
            )
        except ChannelLost as why:
            if isinstance(why.__cause__, amqp.exceptions.MessageNacked):
                raise QueueFull(f"queue {queue} on {self.address} has no room") from why
            if isinstance(why.__cause__, amqp.NotFound):
                self.drop()  # RabbitMQ ended the channel.
                raise NoSuchQueue(
                    f"nobody has made exchange {way.exchange} on {self.address} yet", queue=queue
                ) from why
            raise
        if self._unroutable:
            raise NoSuchQueue(f"no queue {queue} on {self.address}", queue=queue)

    def declare_work(self, queue: str) -> None:
        """Makes a durable queue (quorum on RabbitMQ) and the ways to it, if they are not there. An agent only looks
        whether it is there."""
        if access.host_of(self._user) is not None:
            self._ask(self._channel.queue_declare, queue, passive=True)
            return
        self._ask(
            self._channel.queue_declare, queue, durable=True, exclusive=False, auto_delete=False, arguments=_QUORUM
        )
        for way in access.bindings(queue):
            self._ask(
                self._channel.exchange_declare,
                way.exchange,
                access.EXCHANGES[way.exchange],
                durable=True,
                auto_delete=False,
            )
            self._ask(self._channel.queue_bind, queue, way.exchange, way.key)

    def declare_reply(self, queue: str) -> None:
        """Makes a queue that only this connection reads and that goes with it; hosts reach it by the exchange that is
        theirs.

        Raises:
            ChannelLost: also if nobody has made that exchange yet: then there is nobody either who could answer.
        """
        self._ask(self._channel.queue_declare, queue, durable=False, exclusive=True, auto_delete=True)
        for way in access.bindings(queue):
            self._ask(self._channel.queue_bind, queue, way.exchange, way.key)

    def waiting(self, queue: str) -> int | None:
        """How many messages wait in the queue; `None` if there is no such queue (the channel is lost then)."""
        if self._connection is None:
            raise self._dropped()
        try:
            return int(self._channel.queue_declare(queue, passive=True).message_count)
        except amqp.NotFound:
            return None
        except _LOST as why:
            raise self._lost(why) from why

    def purge(self, queue: str) -> None:
        """Throws away what waits in the queue."""
        self._ask(self._channel.queue_purge, queue)

    def delete(self, queue: str) -> None:
        """Removes the queue with what waits in it."""
        self._ask(self._channel.queue_delete, queue)

    def consume(self, queue: str, *, prefetch: int, no_ack: bool, callback: Callable[[Raw], None]) -> str:
        """From now on `drain` calls the callback with the queue's messages; gives the consumer's tag."""
        self._ask(self._channel.basic_qos, 0, prefetch, False)
        return str(self._ask(self._channel.basic_consume, queue, no_ack=no_ack, callback=callback))

    def cancel(self, consumer_tag: str) -> None:
        """Takes no more messages; those in hand can still be acked."""
        self._ask(self._channel.basic_cancel, consumer_tag)

    def ack(self, delivery_tag: int) -> None:
        """The message is done with."""
        self._ask(self._channel.basic_ack, delivery_tag)

    def reject(self, delivery_tag: int) -> None:
        """The message is not wanted, and not to be delivered again."""
        self._ask(self._channel.basic_reject, delivery_tag, requeue=False)

    def drain(self, timeout_s: float) -> None:
        """Handles what has come, or sleeps until something comes, `wake` is called or the time is over."""
        self._ask(self._waiting.drain, timeout_s)

    def wake(self) -> None:
        """Ends a `drain`; for any thread."""
        self._waiting.wake()

    def heartbeat(self) -> None:
        """Tells the broker that we live and notices if it does not; call it a few times per `HEARTBEAT_S`."""
        self._ask(self._transport.heartbeat_check, self._connection)

    def close(self) -> None:
        """Ends the connection politely, after all that was sent; drops it if the broker does not answer in time."""
        if self._connection is None:
            return  # It was dropped.
        try:
            self._transport.close_connection(self._connection)
        except _LOST:
            pass  # It is as gone as it was meant to be.
        finally:
            self.drop()

    def drop(self) -> None:
        """Lets the socket go without a word: a polite end hangs when the broker is frozen."""
        if self._connection is not None:
            _let_go_of_socket(self._connection)
            self._connection.collect()
            self._connection = None

    def _on_return(self, *_: object) -> None:
        self._unroutable = True

    def _ask(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._connection is None:
            raise self._dropped()
        try:
            return function(*args, **kwargs)
        except _LOST as why:
            raise self._lost(why) from why

    def _dropped(self) -> ChannelLost:
        return ChannelLost(f"broker {self.address}: connection was dropped")

    def _lost(self, why: BaseException) -> ChannelLost:
        # py-amqp turns a write that timed out into an error of its own.
        timed_out = isinstance(why, TimeoutError) or isinstance(why.__context__, TimeoutError)
        return ChannelLost(f"broker {self.address}: {str(why) or type(why).__name__}", timed_out=timed_out)


def open_channel(
    to: BrokerUrl, *, connect_timeout_s: float, timeout_s: float, heartbeats: bool, confirms: bool
) -> Channel:
    """A fresh connection.

    Args:
        timeout_s: how long any later question may wait for its answer.
        heartbeats: whether its thread will call `heartbeat` regularly.
        confirms: whether `publish` waits until the broker has taken the message.

    Raises:
        ChannelLost: nobody answers there, or not in time, or we are not let in.
    """
    client = _client(to, connect_timeout_s=connect_timeout_s, heartbeats=heartbeats, confirms=confirms)
    connection = None
    try:
        connection = client.transport.establish_connection()
        if not isinstance(connection, InProcessConnection):
            connection.transport.sock.settimeout(timeout_s)
        user = to.user if to.scheme == IN_PROCESS else to.user or _GUEST
        return Channel(client, connection, timeout_s=timeout_s, address=to.shown, user=user)
    except _LOST as why:
        if connection is not None:
            _let_go_of_socket(connection)
            connection.collect()
        raise ChannelLost(
            f"broker {to.shown}: {str(why) or type(why).__name__}", timed_out=isinstance(why, TimeoutError)
        ) from why


def _client(to: BrokerUrl, *, connect_timeout_s: float, heartbeats: bool, confirms: bool) -> kombu.Connection:
    if to.scheme == IN_PROCESS:
        return kombu.Connection(
            to.host,
            userid=to.user,
            password=to.password,
            transport=InProcessTransport,
            connect_timeout=connect_timeout_s,
        )
    return kombu.Connection(
        to.host,
        userid=to.user,
        password=to.password,
        virtual_host=to.vhost,
        port=to.port,
        transport="pyamqp" if to.scheme == AMQP else AMQPS,
        connect_timeout=connect_timeout_s,
        heartbeat=HEARTBEAT_S if heartbeats else 0,
        transport_options={
            "confirm_publish": confirms,
            "write_timeout": connect_timeout_s,
            "frame_handler": frame_handler,
        },
    )


def _let_go_of_socket(connection: Any) -> None:
    """Closes the bare socket first, so that nothing that tears the rest down can talk to the broker (TLS would, and
    wait)."""
    transport = getattr(connection, "_transport", None)
    if transport is not None and transport.sock is not None:
        transport.sock.close()
        transport.sock = None


class _Waiting(Protocol):
    def drain(self, timeout_s: float) -> None: ...

    def wake(self) -> None: ...


class _SocketWaiting:
    """Waits for a py-amqp connection's socket or for another thread, whichever comes first."""

    def __init__(self, connection: amqp.Connection) -> None:
        self._connection = connection
        self._socket = connection.transport.sock
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._rung = False
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll_both = select.poll()
        self._poll_both.register(self._socket, select.POLLIN)
        self._poll_both.register(self._bell, select.POLLIN)

    def __del__(self) -> None:
        os.close(self._bell)

    def drain(self, timeout_s: float) -> None:
        if not self._decrypted():
            ready = self._poll_both.poll(timeout_s * 1000)
            if any(descriptor == self._bell for descriptor, _ in ready):
                # In this order: who rings in between finds it rung, and what he rang for is looked at after this drain.
                os.eventfd_read(self._bell)
                self._rung = False
        try:
            # A frame at a time: drain_events would go on waiting after a heartbeat frame.
            while self._decrypted() or self._poll.poll(0):
                self._connection.blocking_read()
        except TimeoutError:
            pass  # Half a frame came. It is kept; a peer that never sends the rest also sends no heartbeats.

    def wake(self) -> None:
        if not self._rung:
            self._rung = True
            os.eventfd_write(self._bell, 1)

    def _decrypted(self) -> int:
        pending = getattr(self._socket, "pending", None)
        return pending() if pending is not None else 0
