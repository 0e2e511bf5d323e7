"""An aiohttp application behind a listener of ours: every program that takes requests is served by this.

Beside the limits on connections: whoever does not read an answer loses it, and aiohttp answers nothing in its own words.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import hdrs, web

from core import log
from core.listener import ConnectionLimits, Listener, deliver

LOG = log.get(__name__)

NAME = "cellplane"
"""What the header `Server` says: no versions."""

_CONTINUE = "100-continue"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Refuse = Callable[[web.BaseRequest, int], web.Response]
"""Gives the answer of this status to a request that reached no handler."""


class HttpServer:
    """One application on one socket that listens already; for one event loop."""

    def __init__(
        self,
        application: web.Application,
        listening: socket.socket,
        limits: ConnectionLimits,
        *,
        refuse: Refuse,
        stop_timeout_s: float,
        auto_decompress: bool = True,
    ) -> None:

        async def serve(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._serve(request, handler)

        application.middlewares.insert(0, web.middleware(serve))
        application.on_response_prepare.append(_name_us)
        self._runner = web.AppRunner(application, handle_signals=False, shutdown_timeout=stop_timeout_s)
        self._refuse = refuse
        self._auto_decompress = auto_decompress
        self._listener = Listener(listening, self._protocol, limits)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._listener)

    async def start(self) -> None:
        """Accepts from now on."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        server.request_handler = self._meeting_expectations(server.request_handler)
        self._listener.start()

    def stop_accepting(self) -> None:
        """Those who are connected are served on."""
        self._listener.stop()

    async def close(self) -> None:
        """Lets requests finish for the time that was set, and closes all connections."""
        self._listener.stop()
        await self._runner.cleanup()

    def _protocol(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        # Requests are logged by the program; how long a connection may stand is the listener's.
        return _Protocol(server, self._refuse, access_log=None, auto_decompress=self._auto_decompress)

    def _meeting_expectations(self, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> Callable[..., Awaitable[web.StreamResponse]]:
        """The same, for requests whose `Expect` is one that is met: aiohttp fails of one that is no text (RFC 9110, 10.1.1: 417)."""

        async def handler(request: web.BaseRequest) -> web.StreamResponse:
            if request.headers.get(hdrs.EXPECT, _CONTINUE).lower() != _CONTINUE:
                return self._refuse(request, HTTPStatus.EXPECTATION_FAILED)
            return await handle(request)

        return handler

    async def _serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        with self._listener.busy(request.transport):
            response = await handler(request)
            if not response.prepared:
                await deliver(write(response, request), request.transport)
            return response


async def write(response: web.StreamResponse, request: web.BaseRequest) -> None:
    """Sends all of a response."""
    await response.prepare(request)
    await response.write_eof()


async def _name_us(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = NAME


class _Protocol(web.RequestHandler):
    """aiohttp's protocol, whose own error pages say nothing that our users know, and leave no line in the program's log."""

    __slots__ = ("_refuse",)

    def __init__(self, server: web.Server, refuse: Refuse, **settings: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **settings)
        self._refuse = refuse

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that can't be parsed, or that failed where no handler of ours sees it, which is logged."""
        if isinstance(exc, ConnectionError):
            raise exc  # Whoever asked has gone; aiohttp lets go of the connection.
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            LOG.error("a request failed outside its handler method=%s", request.method[:32], exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("A part of an answer is sent already.")
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
