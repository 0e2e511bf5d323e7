"""What takes HTTP requests behind a listener of ours: every program that serves any is served by this.

Beside the limits on connections: whoever does not read an answer loses it, and aiohttp answers nothing in its own
words. aiohttp's application, with its routes and middlewares, is left out: our handlers find their way by themselves,
and it costs as much as all the rest.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import HttpVersion11, hdrs, web

from core import log
from core.listener import ConnectionLimits, Listener, deliver

LOG = log.get(__name__)

NAME = "cellplane"
"""What the header `Server` says: no versions."""
_CONTINUE = "100-continue"

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Gives the answer, sent already or not."""
Refuse = Callable[[web.BaseRequest, int], web.Response]
"""Gives the answer of this status to a request that reached no handler."""


class Gone(ConnectionResetError):
    """The client has closed its connection before it was answered."""


class HttpServer:
    """One handler on one socket that listens already; for one event loop.

    Args:
        handler: gives the answer to a request, and may have sent it already.
        refuse: gives the answer to what reaches no handler.
        stop_timeout_s: seconds that requests under way get when it closes.
        max_body_bytes: of a body that a handler reads; 0: no handler reads any.
        auto_decompress: whether a handler reads bodies unpacked.
    """

    def __init__(
        self,
        handler: Handler,
        listening: socket.socket,
        limits: ConnectionLimits,
        *,
        refuse: Refuse,
        stop_timeout_s: float,
        max_body_bytes: int = 0,
        auto_decompress: bool = True,
    ) -> None:
        self._handler = handler
        self._refuse = refuse
        self._stop_timeout_s = stop_timeout_s
        self._max_body_bytes = max_body_bytes
        self._auto_decompress = auto_decompress
        self._listener = Listener(listening, self._protocol, limits)
        self._runner: web.ServerRunner | None = None

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._listener)

    async def start(self) -> None:
        """Accepts from now on."""
        server = web.Server(self._serve, request_factory=requests_of_at_most(self._max_body_bytes))
        self._runner = web.ServerRunner(server, shutdown_timeout=self._stop_timeout_s)
        await self._runner.setup()
        self._listener.start()

    def stop_accepting(self) -> None:
        """Those who are connected are served on."""
        self._listener.stop()

    async def close(self) -> None:
        """Lets requests finish for the time that was set, and closes all connections."""
        self._listener.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    def _protocol(self) -> asyncio.Protocol:
        assert self._runner is not None
        server = self._runner.server
        assert server is not None
        # Requests are logged by the program; how long a connection may stand is the listener's.
        return _Protocol(server, self._refuse, access_log=None, auto_decompress=self._auto_decompress)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if hdrs.EXPECT in request.headers and not await _meets_expectation(request):
            return self._refuse(request, HTTPStatus.EXPECTATION_FAILED)
        with self._listener.busy(request.transport):
            response = await self._handler(request)
            if not response.prepared:
                response.headers["Server"] = NAME
                await deliver(write(response, request), request.transport)
            return response


def requests_of_at_most(max_body_bytes: int) -> Callable[..., web.BaseRequest]:
    """What makes aiohttp's requests, whose bodies are read up to this size."""

    def make(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(
            message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=max_body_bytes
        )

    return make


async def _meets_expectation(request: web.BaseRequest) -> bool:
    """Whether what the request expects is met by now (RFC 9110, 10.1.1)."""
    if request.headers[hdrs.EXPECT].lower() != _CONTINUE:
        return False
    if request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # None of it is the answer's.
    return True


async def write(response: web.StreamResponse, request: web.BaseRequest) -> None:
    """Sends all of a response."""
    await response.prepare(request)
    await response.write_eof()


@contextlib.asynccontextmanager
async def waiting(request: web.BaseRequest, within_s: float) -> AsyncIterator[None]:
    """For the part of a request's way in which it waits and nothing is done for it yet: it ends with the time, or with
    the client's connection. (aiohttp could cancel all of a handler then, and so break off a write.)

    Raises:
        TimeoutError: the time is over.
        Gone: the client has gone.
    """
    require_client(request)
    protocol = request.protocol
    try:
        async with asyncio.timeout(within_s) as limit:
            if isinstance(protocol, _Protocol):
                protocol.waits = limit
            try:
                yield
            finally:
                if isinstance(protocol, _Protocol):
                    protocol.waits = None
    except TimeoutError:
        require_client(request)
        raise


def require_client(request: web.BaseRequest) -> None:
    """
    Raises:
        Gone: nobody is there any more to read an answer.
    """
    if request.transport is None:
        raise Gone("The client has gone.")


class _Protocol(web.RequestHandler):
    """aiohttp's protocol, whose own error pages say nothing that our users know, and leave no line in the program's
    log. `waits` is the time limit of a request that only waits: it ends with the connection."""

    __slots__ = ("_refuse", "waits")

    def __init__(self, server: web.Server, refuse: Refuse, **settings: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **settings)
        self._refuse = refuse
        self.waits: asyncio.Timeout | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """As aiohttp; ends a wait."""
        super().connection_lost(exc)
        if self.waits is not None and not self.waits.expired():
            self.waits.reschedule(0.0)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that can't be parsed, or that failed where no handler of ours sees it, which is
        logged."""
        if isinstance(exc, ConnectionError):
            raise exc  # Whoever asked has gone; aiohttp lets go of the connection.
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            LOG.error("a request failed outside its handler method=%s", request.method[:32], exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("A part of the answer was sent already.")
        return self._refused(request, status)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends the answer; a page of aiohttp's own is replaced."""
        if isinstance(resp, web.HTTPException):
            resp = self._refused(request, resp.status)
        return await super().finish_response(request, resp, start_time)

    def _refused(self, request: web.BaseRequest, status: int) -> web.Response:
        response = self._refuse(request, status)
        response.headers["Server"] = NAME
        response.force_close()
        return response
