"""Connections from outside: how many at a time, and how long each may stand without asking for anything.

A listener accepts for an asyncio protocol and closes, with no word, who is too slow to ask. It knows a connection as
*busy* between the moment its program has a whole request and the moment the answer is sent; what happens then has
deadlines of its own.
"""

import asyncio
import collections
import contextlib
import errno
import resource
import socket
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from oslo_config import cfg

from core import log

LOG = log.get(__name__)

_ACCEPTED_AT_ONCE = 64
_LOOK_EVERY_S = 1.0
_ACCEPT_AGAIN_S = 0.1
_COMPLAIN_EVERY_S = 1.0
_DESCRIPTORS_KEPT = 256
"""For databases, brokers, logs: connections from outside never take these."""
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


OPTIONS = (
    cfg.IntOpt(
        "max_connections",
        default=4096,
        min=1,
        help="Connections to a process at the same time; fewer if its limit of file descriptors is lower. Beyond it "
        "the oldest idle connection is closed.",
    ),
    cfg.IntOpt(
        "max_connections_per_address",
        default=1024,
        min=1,
        help="Connections from one address at the same time. A proxy in front of this process is one address.",
    ),
    cfg.FloatOpt(
        "head_timeout_s", default=30.0, min=0.1, help="Seconds within which the head of a request must arrive."
    ),
    cfg.FloatOpt(
        "keep_alive_timeout_s", default=75.0, min=0.1, help="Seconds after which an idle connection is closed."
    ),
)
"""Settings of every program that takes connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """
    Args:
        most: at the same time; fewer where the process may not have as many descriptors.
        most_per_address: of them from one address.
        head_timeout_s: from the first byte of a request, or from accepting, until its head is whole.
        idle_timeout_s: of a connection that has been answered and asks for nothing more.
    """

    most: int = 4096
    most_per_address: int = 1024
    head_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0


def limits_of(section: Any) -> ConnectionLimits:
    """What the section of a program says."""
    return ConnectionLimits(
        most=section.max_connections,
        most_per_address=section.max_connections_per_address,
        head_timeout_s=section.head_timeout_s,
        idle_timeout_s=section.keep_alive_timeout_s,
    )


def raise_descriptor_limit() -> None:
    """Lets this process have as many descriptors as it is allowed to let itself have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Listener:
    """Accepts on a socket that listens already; for one event loop."""

    def __init__(
        self, listening: socket.socket, make_protocol: Callable[[], asyncio.Protocol], limits: ConnectionLimits
    ) -> None:
        self._listening = listening
        self._make_protocol = make_protocol
        self._limits = limits
        self._most = min(limits.most, _descriptors_for_connections())
        # In the order in which they were accepted or answered last.
        self._open: dict[_Connection, None] = {}
        self._from: collections.Counter[str] = collections.Counter()
        self._connecting: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._complained_at = float("-inf")
        self._complaints = 0

    def __len__(self) -> int:
        """Connections that are open."""
        return len(self._open)

    def start(self) -> None:
        """Accepts from now on, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening, self._accept)
        self._close_late()

    def stop(self) -> None:
        """Accepts no more; what is open stays so. May be called again."""
        if self._loop is not None:
            self._loop.remove_reader(self._listening)
        if self._looking is not None:
            self._looking.cancel()
        self._loop = None

    @contextlib.contextmanager
    def busy(self, transport: asyncio.Transport | None) -> Iterator[None]:
        """While a request of this connection is answered: it is not closed meanwhile, whoever else wants its place."""
        connection = None if transport is None else transport.get_protocol()
        if not isinstance(connection, _Connection):
            yield
            return
        connection.is_busy = True
        try:
            yield
        finally:
            connection.is_busy = False
            connection.wait_for_a_request(self._limits.idle_timeout_s)
            if connection in self._open:
                del self._open[connection]
                self._open[connection] = None

    # ---- accepting -------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, peer = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            address = str(peer[0])
            if self._has_room(address):
                self._begin(accepted, address)
            else:
                accepted.close()

    def _begin(self, accepted: socket.socket, address: str) -> None:
        assert self._loop is not None
        connection = _Connection(self._make_protocol(), address, self._loop, self._limits.head_timeout_s, self._forget)
        # It takes its place now, not when the loop comes round to it.
        self._open[connection] = None
        self._from[address] += 1
        connecting = self._loop.create_task(self._connect(connection, accepted))
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: "_Connection", accepted: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, accepted)
        except OSError as error:
            LOG.debug("a connection was lost while it was accepted: %s", error)
            accepted.close()
            self._forget(connection)

    def _forget(self, connection: "_Connection") -> None:
        if connection in self._open:
            del self._open[connection]
            self._from[connection.address] -= 1
            if not self._from[connection.address]:
                del self._from[connection.address]

    def _pause(self, error: OSError) -> None:
        """Nothing can be accepted: makes room if that is what lacks, and tries again a moment later."""
        self._complain(f"connections can't be accepted: {error.strerror}")
        if error.errno in _OUT_OF_RESOURCES:
            self._close_oldest_idle(None)
        if self._loop is not None:
            self._loop.remove_reader(self._listening)
            self._loop.call_later(_ACCEPT_AGAIN_S, self._accept_again)

    def _accept_again(self) -> None:
        if self._loop is not None:
            self._loop.add_reader(self._listening, self._accept)

    # ---- limits ------------------------------------------------------------------------------------------------------

    def _has_room(self, address: str) -> bool:
        """Whether one more may come. For it the one goes that has waited longest for nothing."""
        if self._from[address] >= self._limits.most_per_address:
            self._complain(f"there are too many connections from {address}")
            return self._close_oldest_idle(address)
        if len(self._open) >= self._most:
            self._complain("there are too many connections")
            return self._close_oldest_idle(None)
        return True

    def _close_oldest_idle(self, address: str | None) -> bool:
        """Of this address, None: of any; false: there is none."""
        oldest = next((each for each in self._open if each.is_idle and address in (None, each.address)), None)
        if oldest is not None:
            oldest.close()
        return oldest is not None

    def _close_late(self) -> None:
        """Closes whoever has not asked in time."""
        assert self._loop is not None
        now = self._loop.time()
        for connection in [each for each in self._open if each.is_idle and each.closes_at <= now]:
            connection.close()
        every_s = min(_LOOK_EVERY_S, self._limits.head_timeout_s / 4, self._limits.idle_timeout_s / 4)
        self._looking = self._loop.call_later(every_s, self._close_late)

    def _complain(self, what: str) -> None:
        """Says it at most once a second, and how often something was said to be so since."""
        self._complaints += 1
        now = asyncio.get_running_loop().time()
        if now - self._complained_at >= _COMPLAIN_EVERY_S:
            LOG.warning("%s open=%d times=%d", what, len(self._open), self._complaints)
            self._complained_at, self._complaints = now, 0


def _descriptors_for_connections() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 20
    return max(1, soft - min(_DESCRIPTORS_KEPT, soft // 2))


async def deliver(
    writing: Coroutine[Any, Any, None],
    transport: asyncio.Transport | None,
    *,
    within_s: float = 60.0,
    progress_s: float = 10.0,
) -> bool:
    """Awaits an answer's being written; false: its reader was too slow, and the connection is closed.

    Args:
        within_s: for all of it.
        progress_s: within which some of it must have gone.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + within_s
    task = loop.create_task(writing)
    try:
        # Once round, so that it has begun and what is left can be compared.
        await asyncio.sleep(0)
        left = _left(transport)
        while not task.done() and loop.time() < ends_at:
            await asyncio.wait((task,), timeout=min(progress_s, max(0.0, ends_at - loop.time())))
            was_left, left = left, _left(transport)
            if left and left == was_left:
                break
    finally:
        if not task.done():
            task.cancel()
            if transport is not None:
                transport.abort()
    if task.done():
        task.result()
        return True
    return False


def _left(transport: asyncio.Transport | None) -> int:
    """Bytes that the kernel has not taken yet."""
    return 0 if transport is None else transport.get_write_buffer_size()


class _Connection(asyncio.Protocol):
    """Stands between a transport and the program's own protocol, and knows until when a request must have come."""

    def __init__(
        self,
        inner: asyncio.Protocol,
        address: str,
        loop: asyncio.AbstractEventLoop,
        head_timeout_s: float,
        on_close: Callable[["_Connection"], None],
    ) -> None:
        self._inner = inner
        self._loop = loop
        self._head_timeout_s = head_timeout_s
        self._on_close = on_close
        self._transport: asyncio.Transport | None = None
        self._has_begun = True
        self.address = address
        self.is_busy = False
        self.closes_at = loop.time() + head_timeout_s

    @property
    def is_idle(self) -> bool:
        """Whether it can be closed without breaking off an answer."""
        return self._transport is not None and not self.is_busy

    def wait_for_a_request(self, within_s: float) -> None:
        """Of which nothing has come yet."""
        self._has_begun = False
        self.closes_at = self._loop.time() + within_s

    def close(self) -> None:
        """At once; what is not sent yet is lost."""
        self._on_close(self)
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._has_begun and not self.is_busy:
            self._has_begun = True
            self.closes_at = self._loop.time() + self._head_timeout_s
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_close(self)
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
