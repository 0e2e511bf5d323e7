"""The HTTP server: a WebSocket with a token is a console, any other GET a page."""

import asyncio
import itertools
import os
import time
import urllib.parse
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import prometheus_client
from aiohttp import WSCloseCode, web

import core.errors
import core.log
from cell_db.console_tokens import ConsoleAccess
from console.pages import Pages
from console.session import IDLE, MAX_MESSAGE_BYTES, Traffic, relay
from console.session_limits import NoRoom, SessionLimits, SessionNumbers
from console.targets import Port, Target
from console.token_validator import Admission, TokenValidator
from core.bounded_pool import BoundedPool
from core.http_server import NAME, Handler
from core.monitoring import Monitors
from objects.console import TOKEN

LOG = core.log.get(__name__)

UNDER = "/cellplane"
PROTOCOL = "binary"
"""The subprotocol that older noVNCs ask for; newer ones ask for none."""
CLOSE_S = 2.0
PROXY_STOPS = "the console proxy stops"
LONGEST_TOKEN = 255
_METHODS = frozenset({"GET", "HEAD"})

_STATUS = ((core.errors.Forbidden, 403), (core.errors.WrongState, 409), (core.errors.Unavailable, 503))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many consoles at the same time, and for how long each may wait for what; seconds."""

    room: SessionNumbers
    threads: int
    admit_timeout_s: float
    connect_timeout_s: float
    idle_timeout_s: float
    ping_s: float


class Metrics:
    """What `/cellplane/metrics` shows."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self.sessions = prometheus_client.Gauge(
            "cellplane_console_sessions", "Consoles that are open", registry=self.registry
        )
        self.asked = prometheus_client.Counter(
            "cellplane_console_asked", "Consoles asked for", ("outcome",), registry=self.registry
        )
        self.bytes = prometheus_client.Counter(
            "cellplane_console_bytes", "Bytes passed on", ("to",), registry=self.registry
        )


class Refused(Exception):
    """No console for this request; the message is for its user."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Proxy:
    """For one event loop. `origins`: web pages of these (scheme://host:port) may open consoles, beside those of the
    address asked."""

    def __init__(
        self, validator: TokenValidator, pages: Pages, threads: BoundedPool, *, origins: Collection[str],
        limits: Limits, why_not_ready: Callable[[], str | None], monitors: Monitors,
    ) -> None:  # fmt: skip
        self._monitors = monitors
        self._validator = validator
        self._pages = pages
        self._origins = frozenset(origins)
        self._limits = limits
        self._why_not_ready = why_not_ready
        self._threads = threads
        self._numbers = itertools.count(1)
        self._sessions = SessionLimits(limits.room)
        self._open: set[web.WebSocketResponse] = set()
        self._is_leaving = False
        self.metrics = Metrics()
        self._about: Mapping[str, Handler] = {
            f"{UNDER}/health/live": self._live, f"{UNDER}/health": self._health, f"{UNDER}/metrics": self._show_metrics,
        }  # fmt: skip

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """A page, a console, or what is to be known of the proxy itself."""
        if request.method not in _METHODS:
            raise web.HTTPMethodNotAllowed(request.method, _METHODS)
        handler = self._about.get(request.path, self._page_or_console)
        return await handler(request)

    async def leave(self) -> None:
        """Opens no more consoles and closes those that are open; their users are told that it is the proxy that
        goes."""
        self._is_leaving = True
        closing = [user.close(code=WSCloseCode.GOING_AWAY, message=PROXY_STOPS.encode()) for user in self._open]
        await asyncio.gather(*closing, return_exceptions=True)
        self._threads.close()

    # ---- pages -------------------------------------------------------------------------------------------------------

    async def _live(self, _: web.BaseRequest) -> web.Response:
        return web.json_response({"live": True})

    async def _health(self, request: web.BaseRequest) -> web.Response:
        try:
            why = await self._threads.run(self._why_not_ready, self._limits.admit_timeout_s)
        except core.errors.Unavailable as error:
            why = error.message
        if not self._monitors.include(request.remote, request.headers):
            return web.json_response({"live": True, "ready": why is None}, status=200 if why is None else 503)
        state = {
            "live": True,
            "ready": why is None,
            "database": why or "up",
            "sessions": len(self._open),
            "novnc": self._pages.are_there,
        }
        return web.json_response(state, status=200 if why is None else 503)

    async def _show_metrics(self, request: web.BaseRequest) -> web.Response:
        if not self._monitors.include(request.remote, request.headers):
            return web.Response(
                status=403, text="Metrics are for the addresses that [console] monitoring_networks names.\n"
            )
        text = prometheus_client.generate_latest(self.metrics.registry)
        return web.Response(body=text, headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST})

    async def _page_or_console(self, request: web.BaseRequest) -> web.StreamResponse:
        if not self._socket().can_prepare(request).ok:
            return self._pages.answer(request.rel_url.raw_path)
        try:
            return await self._console(request)
        except Refused as refusal:
            self.metrics.asked.labels(str(refusal.status)).inc()
            LOG.info("no console remote=%s status=%d why=%s", request.remote, refusal.status, refusal.message)
            return web.Response(status=refusal.status, text=refusal.message + "\n")

    # ---- consoles ----------------------------------------------------------------------------------------------------

    async def _console(self, request: web.BaseRequest) -> web.StreamResponse:
        self._refuse_strangers(request)
        token = _token_of(request)
        try:
            if self._is_leaving:
                raise NoRoom
            with self._sessions.validating():
                admission = await self._admit(token)
            with self._sessions.taken(token, admission.access.instance_uuid):
                return await self._open_console(request, admission)
        except NoRoom:
            raise Refused(503, "This console proxy has too many open consoles at the moment.") from None

    async def _open_console(self, request: web.BaseRequest, admission: Admission) -> web.StreamResponse:
        from_guest, to_guest = await self._connect(admission)
        try:
            return await self._converse(request, admission.access, from_guest, to_guest)
        finally:
            await _end(to_guest)

    async def _converse(
        self,
        request: web.BaseRequest,
        access: ConsoleAccess,
        from_guest: asyncio.StreamReader,
        to_guest: asyncio.StreamWriter,
    ) -> web.StreamResponse:
        user, traffic, number = self._socket(), Traffic(), next(self._numbers)
        began, why = traffic.moved_at, PROXY_STOPS
        await user.prepare(request)
        self.metrics.asked.labels("opened").inc()
        LOG.info(
            "a console opens session=%d server=%s kind=%s remote=%s",
            number,
            access.instance_uuid,
            access.kind,
            request.remote,
        )
        self._open.add(user)
        self.metrics.sessions.set(len(self._open))
        try:
            ended = await relay(user, from_guest, to_guest, traffic, idle_timeout_s=self._limits.idle_timeout_s)
            why = PROXY_STOPS if self._is_leaving else ended
            await user.close(code=WSCloseCode.GOING_AWAY if why == IDLE else WSCloseCode.OK, message=why.encode())
        finally:
            self._open.discard(user)
            self.metrics.sessions.set(len(self._open))
            self.metrics.bytes.labels("user").inc(traffic.to_user)
            self.metrics.bytes.labels("guest").inc(traffic.to_guest)
            LOG.info(
                "a console ends session=%d server=%s why=%s to_user=%d to_guest=%d after_s=%.1f",
                number, access.instance_uuid, why, traffic.to_user, traffic.to_guest, time.monotonic() - began,
            )  # fmt: skip
        return user

    def _socket(self) -> web.WebSocketResponse:
        user = web.WebSocketResponse(
            protocols=(PROTOCOL,),
            heartbeat=self._limits.ping_s,
            max_msg_size=MAX_MESSAGE_BYTES,
            compress=False,
            timeout=CLOSE_S,
        )
        user.headers["Server"] = NAME
        return user

    def _refuse_strangers(self, request: web.BaseRequest) -> None:
        """A page of somebody else's site must not open a console with what its visitor's browser knows. Only browsers
        name an origin."""
        origin = request.headers.get("Origin")
        if origin is None or origin in self._origins or _netloc(origin) == request.headers.get("Host"):
            return
        raise Refused(403, "Pages of this origin may not open consoles here.")

    async def _admit(self, token: str) -> Admission:
        try:
            async with asyncio.timeout(self._limits.admit_timeout_s):
                return await self._validator.admit(token)
        except core.errors.CellplaneError as error:
            status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
            if status in (500, 503):
                LOG.warning("a token could not be checked: %s", error.message)
                raise Refused(503, "The cell does not answer at the moment. Please try again.") from error
            raise Refused(status, error.message) from error
        except TimeoutError as error:
            raise Refused(503, "The cell does not answer at the moment. Please try again.") from error

    async def _connect(self, admission: Admission) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                return await _connected(admission.target)
        except (OSError, TimeoutError) as error:
            LOG.warning(
                "console unreachable server=%s target=%s: %s", admission.access.instance_uuid, admission.target, error
            )
            raise Refused(502, "The guest's console does not answer.") from error


async def _connected(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To what was judged, and to nothing that has its name by now."""
    if isinstance(target, Port):
        return await asyncio.open_connection(target.address, target.port)
    descriptor = target.open()
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


async def _end(to_guest: asyncio.StreamWriter) -> None:
    """Closes the connection once the last bytes are out, or without them where the guest does not take them."""
    to_guest.close()
    try:
        async with asyncio.timeout(CLOSE_S):
            await to_guest.wait_closed()
    except (OSError, TimeoutError):
        to_guest.transport.abort()


def _netloc(origin: str) -> str | None:
    try:
        return urllib.parse.urlsplit(origin).netloc
    except ValueError:
        return None  # No page has an address like this.


def _token_of(request: web.BaseRequest) -> str:
    """From the query; or from a `path` in it, which is how a page passes on what it was opened with."""
    token = request.query.get(TOKEN)
    if token is None:
        token = dict(urllib.parse.parse_qsl(request.query.get("path", "").rpartition("?")[2])).get(TOKEN)
    if not token or len(token) > LONGEST_TOKEN:
        raise Refused(403, "This needs the token of a console.")
    return token
