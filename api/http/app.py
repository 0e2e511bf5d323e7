"""The way of a request: its route, who asks, which microversion, may they, what it holds; then the handler and its
view."""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

import orjson
from aiohttp import web

from api.cloud import Cloud
from api.http import versions
from api.http.bodies import Bodies, document_of
from api.http.call import Arguments, Call, Raw
from api.http.caller import AddressedStrategy, Identity, Strategy
from api.http.errors import MALFORMED, NOT_FOUND, RETRY_AFTER_S, Fault, HttpError, fault_of, unexpected
from api.http.paging import Page
from api.http.policy import Policy
from api.http.routes import COMPUTE, LEGACY, Access, ActionRoute, Bound, Endpoint, Match, Route, Router
from api.http.shares import Shares
from api.http.versions import Microversion
from api.http.view import Render
from core import errors, log
from core.clock import Clock
from core.context import Context, asks_for, new_request_id
from core.http_server import NAME, require_client, waiting, write
from core.listener import deliver
from core.monitoring import Monitors

LOG = log.get(__name__)

JSON = "application/json"
_REQUEST_ID = re.compile(r"req-[0-9a-fA-F-]{36}")
_HOST = re.compile(r"[A-Za-z0-9._\-:\[\]]{1,255}")
_SECRET_NAME = re.compile(r"pass|token|secret|credential", re.IGNORECASE)
_SENT_AT_ONCE_BYTES = 64 * 1024
_MAX_PARAMETERS = 1000
_YES = "True"
_MAX_SHOWN = 1024
PIECE_ITEMS = 50
"""Items of a page that are rendered at once."""
_LAST_WORD = b'{"computeFault":{"code":500,"message":"Unexpected API error."}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may use, and all together; ``link_prefix`` is the public address where it is not the request's
    own.

    An answer must be sent within ``send_timeout_s``, and some of it within every ``send_progress_timeout_s``;
    ``max_unsent_bytes`` are those of all answers that are being sent; a page of a list ends at about
    ``max_page_bytes``. Of one project ``project_at_once`` requests are worked on at the same time and
    ``project_waiting`` more wait, for ``project_wait_s``. Bodies that are being received are ``bodies_at_once``, of one
    project as many as it may have requests. Metrics and names of cells are for ``monitors``.
    """

    max_limit: int
    max_body_bytes: int
    read_timeout_s: float
    link_prefix: str | None
    send_timeout_s: float = 60.0
    send_progress_timeout_s: float = 10.0
    max_unsent_bytes: int = 128 * 1024 * 1024
    max_page_bytes: int = 4 * 1024 * 1024
    project_at_once: int = 16
    project_waiting: int = 512
    project_wait_s: float = 30.0
    bodies_at_once: int = 1024
    monitors: Monitors = field(default_factory=Monitors)


@dataclass(slots=True)
class _Exchange:
    """One request and what is known of it so far; the access log and the response's headers tell it."""

    request: web.BaseRequest
    request_id: str
    global_request_id: str | None
    version: Microversion | None = None
    identity: Identity | None = None
    shown_parameters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    headers: Sequence[tuple[str, str]] = ()
    content_type: str = JSON


class App:
    """The tables of a program and what they need to be served; for one event loop."""

    def __init__(
        self,
        *,
        cloud: Cloud,
        tables: Iterable[Sequence[Route | ActionRoute]],
        policy: Policy,
        strategy: Strategy,
        limits: Limits,
        clock: Clock,
        observe: Callable[[str, int, float], None] | None = None,
    ) -> None:
        """``observe`` is told method, status and seconds of every request.

        Raises:
            Broken: the tables contradict themselves.
        """
        self._cloud = cloud
        self._router = Router(tables)
        self._router.check(policy)
        self._policy = policy
        self._strategy = strategy
        # Found out once: to ask a protocol at each request takes longer than to identify somebody.
        self._addressed = strategy if isinstance(strategy, AddressedStrategy) else None
        self._limits = limits
        self._clock = clock
        self._observe = observe
        self._shares = Shares(
            at_once=limits.project_at_once, waiting=limits.project_waiting, wait_s=limits.project_wait_s
        )
        self._bodies = Bodies(
            max_bytes=limits.max_body_bytes,
            within_s=limits.read_timeout_s,
            most=limits.bodies_at_once,
            most_of_project=limits.project_at_once + limits.project_waiting,
        )
        self._unsent_bytes = 0
        self._is_leaving = False

    @property
    def max_body_bytes(self) -> int:
        """The size up to which bodies are read."""
        return self._limits.max_body_bytes

    def leave(self) -> None:
        """Tells callers who keep their connection, from now on, to open another one, at another worker."""
        self._is_leaving = True

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """The response to a request, sent already; never an exception."""
        try:
            return await self._serve(request)
        except Exception:
            LOG.exception("the refusal of a request failed")
            return web.Response(status=500, body=_LAST_WORD, content_type=JSON, headers={"Server": NAME})

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        started = self._clock.monotonic()
        exchange = _exchange_of(request)
        try:
            answer = await self._answer(exchange)
            if self._unsent_bytes and self._unsent_bytes + len(answer.body) > self._limits.max_unsent_bytes:
                raise _no_room()
        except Exception as error:
            answer = _refused(error, exchange)
        response = self._told(answer, exchange, started)
        await self._send(response, request, len(answer.body))
        return response

    def refuse(self, request: web.BaseRequest, status: int) -> web.Response:
        """The response to a request that got no further than the parser."""
        exchange = _exchange_of(request)
        message = MALFORMED if status < HTTPStatus.INTERNAL_SERVER_ERROR else unexpected(exchange.request_id)
        return self._told(_refused(HttpError(status, message), exchange), exchange, self._clock.monotonic())

    def _told(self, answer: _Answer, exchange: _Exchange, started: float) -> web.Response:
        """The response, once the access log and the counters know of it."""
        seconds = self._clock.monotonic() - started
        _log_access(exchange, answer, seconds, self._router.secret_after)
        if self._observe is not None:
            self._observe(exchange.request.method, answer.status, seconds)
        response = _response(answer, exchange)
        if self._is_leaving:
            response.force_close()
            response.headers["Connection"] = "close"
        return response

    async def _send(self, response: web.Response, request: web.BaseRequest, size: int) -> None:
        """Whoever does not read his answer loses it, and the connection."""
        transport, limits = request.transport, self._limits
        self._unsent_bytes += size
        try:
            if size > _SENT_AT_ONCE_BYTES:
                writing = write(response, request)
                was_sent = await deliver(
                    writing, transport, within_s=limits.send_timeout_s, progress_s=limits.send_progress_timeout_s
                )
            else:
                was_sent = await _sent_within(limits.send_progress_timeout_s, response, request)
            if not was_sent:
                LOG.warning("an answer was not read in time bytes=%d remote=%s", size, request.remote)
        except ConnectionError:
            # Its reader has gone: aiohttp finds that out, too, and lets go of the connection.
            pass
        finally:
            self._unsent_bytes -= size

    async def _answer(self, exchange: _Exchange) -> _Answer:
        # A connection is one task: what it asked before was perhaps for another project.
        asks_for(None)
        request = exchange.request
        raw_path = request.rel_url.raw_path
        match = self._router.match(request.method, raw_path)
        if match is None:
            if raw_path.startswith((COMPUTE + "/", LEGACY + "/")):
                await self._identify(exchange, Access.AUTHENTICATED)
            raise HttpError(404, NOT_FOUND)
        endpoint = match.endpoint
        context = await self._identify(exchange, endpoint.access)
        asks_for(context.project_id)
        version = versions.MIN
        if endpoint.under == COMPUTE and not match.is_legacy:
            version = _negotiated(exchange)
        if match.project_id is not None and match.project_id != context.project_id:
            raise errors.Invalid(
                f"Malformed request URL: URL's project_id '{match.project_id}' doesn't match "
                f"Context's project_id '{context.project_id}'",
                field="project_id",
            )
        call = self._call(exchange, match, context, version)
        return await self._handled(call, endpoint, exchange)

    async def _identify(self, exchange: _Exchange, access: Access) -> Context:
        """The context of whoever asks; nobody's where the route asks for no credentials."""
        needed = access is Access.AUTHENTICATED or (
            access is Access.DISCOVERY and self._strategy.discovery_needs_credentials
        )
        if not needed:
            return Context(None, None, (), exchange.request_id, exchange.global_request_id)
        exchange.identity = await self._identity(exchange.request)
        context = exchange.identity.context(exchange.request_id, exchange.global_request_id)
        if access is Access.AUTHENTICATED:
            _require_project(context)
        return replace(context, is_admin=self._policy.is_admin(context))

    async def _identity(self, request: web.BaseRequest) -> Identity:
        if self._addressed is not None:
            return await self._addressed.identify_from(request.remote or "", request.headers)
        return await self._strategy.identify(request.headers)

    def _call(self, exchange: _Exchange, match: Match, context: Context, version: Microversion) -> Call:
        request = exchange.request
        prefix = self._limits.link_prefix or _own_address(request)
        project = "" if match.project_id is None else f"/{match.project_id}"
        return Call(
            context=context,
            path=match.path,
            version=version,
            cloud=self._cloud,
            policy=self._policy,
            url=prefix + request.rel_url.raw_path,
            base_url=prefix + (LEGACY if match.is_legacy else COMPUTE) + project,
            bookmark_url=prefix + project,
            max_limit=self._limits.max_limit,
            is_legacy=match.is_legacy,
            is_monitor=self._limits.monitors.include(request.remote, request.headers),
        )

    async def _handled(self, call: Call, endpoint: Endpoint, exchange: _Exchange) -> _Answer:
        """Runs the row's handler once everything the row demands is so.

        A project's turn is for work: what needs no body is judged, and the body is waited for, before it.
        """
        request, project_id = exchange.request, call.context.project_id
        bound = None if endpoint.actions else _present(endpoint.at(call.version, is_legacy=call.is_legacy))
        if bound is not None:
            _judge_head(bound, call, exchange)
        elif not endpoint.has_action_for(call.can):
            raise errors.Forbidden("Policy doesn't allow any of the actions to be performed.")
        body = None
        if bound is None or bound.check_body is not None:
            body = await self._bodies.receive(request, project_id)
        if project_id is None:
            return await self._worked(call, endpoint, bound, body, exchange)
        async with self._shares.one_of(project_id, partial(waiting, request)):
            return await self._worked(call, endpoint, bound, body, exchange)

    async def _worked(
        self, call: Call, endpoint: Endpoint, bound: Bound | None, body: bytes | None, exchange: _Exchange
    ) -> _Answer:
        """Judges the body and runs the handler. `bound`: the row; None: the action's, whose name stands in the body."""
        require_client(exchange.request)
        if body is not None:
            call.document = document_of(body)
        if bound is None:
            bound = _present(_action(call, endpoint))
            _judge_head(bound, call, exchange)
        if bound.check_body is not None:
            call.body, call.document = bound.check_body(call.document)
        return await _rendered(await bound.handler(call), bound, call, self._limits.max_page_bytes)


def _present(bound: Bound | None) -> Bound:
    if bound is None:
        raise HttpError(404, NOT_FOUND)
    return bound


def _judge_head(bound: Bound, call: Call, exchange: _Exchange) -> None:
    """Whether the caller may, and whether the query is as the row has it."""
    exchange.shown_parameters = bound.check_query.names
    if bound.policy is not None:
        call.enforce(bound.policy)
    raw_query = exchange.request.rel_url.raw_query_string
    if raw_query:
        call.raw_query = _parameters(raw_query)
        call.query = Arguments(bound.check_query(call.raw_query))


def _action(call: Call, endpoint: Endpoint) -> Bound | None:
    """The row of the action that the body names; as `Endpoint.at`.

    Raises:
        Invalid: it names none, or none that there is.
    """
    if len(call.document) != 1:
        raise errors.Invalid("The body must hold exactly one key, the name of an action.", field="body")
    ((action, call.body),) = call.document.items()
    return endpoint.action_at(action, call.version, is_legacy=call.is_legacy)


def _require_project(context: Context) -> None:
    """Everything here belongs to a project or is asked from within one, as in Nova, whose rules all demand a project's
    token.

    Raises:
        Forbidden: the caller's token is for something else.
    """
    if context.project_id is None:
        scope = "the whole system" if context.system_scope else "a domain" if context.domain_id else "no project"
        raise errors.Forbidden(f"This needs a token for a project; yours is for {scope}.")


def _negotiated(exchange: _Exchange) -> Microversion:
    # A refusal, too, echoes a microversion; until one is agreed on it is the lowest.
    exchange.version = versions.MIN
    exchange.version = versions.asked_for(exchange.request.headers)
    return exchange.version


def _own_address(request: web.BaseRequest) -> str:
    """Scheme and host as the client wrote them; HTTP/1.0 need not name a host, then it is where the request arrived."""
    host = request.headers.get("Host")
    if host is None and request.transport is not None:
        host = "{}:{}".format(*request.transport.get_extra_info("sockname")[:2])
    if host is None or not _HOST.fullmatch(host):
        raise errors.Invalid("Malformed Host header.", field="Host")
    return f"{request.scheme}://{host}"


def _parameters(raw: str) -> list[tuple[str, str]]:
    """Names and values. A bare name (`?all_tenants`) says yes; one whose value was left out (`?all_tenants=`) says
    nothing."""
    try:
        decoded = parse_qsl(raw, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise errors.Invalid(f"More than {_MAX_PARAMETERS} query parameters.", field="query") from None
    parts = filter(None, raw.split("&"))
    return [(name, value if "=" in part else _YES) for part, (name, value) in zip(parts, decoded, strict=True)]


async def _rendered(value: object, bound: Bound, call: Call, max_page_bytes: int) -> _Answer:
    status = bound.status if call.status is None else call.status
    if value is None:
        return _Answer(status, b"", call.headers)
    if isinstance(value, Raw):
        return _Answer(status, value.body, call.headers, value.content_type)
    if bound.render is None:
        return _Answer(status, orjson.dumps(value), call.headers)
    if isinstance(value, Page):
        return _Answer(status, await _page(value, bound.render, call, max_page_bytes), call.headers)
    return _Answer(status, orjson.dumps(bound.render(value, call)), call.headers)


async def _page(page: Page, render: Render, call: Call, most_bytes: int) -> bytes:
    """The page with as many items less as would make its body too large, if it can be cut; one item always stays."""
    body = await _in_pieces(page, render, call)
    number = len(page.items)
    while page.marker_of is not None and number > 1 and len(body) > most_bytes:
        number = max(1, min(number - 1, number * most_bytes // len(body)))
        body = await _in_pieces(page.first(number), render, call)
    return body


async def _in_pieces(page: Page, render: Render, call: Call) -> bytes:
    """The page's body. Other requests have the event loop between its pieces: a page of 1,000 servers would hold it for
    20 ms."""
    if len(page.items) <= PIECE_ITEMS:
        return orjson.dumps(render(page, call))
    lists: dict[str, list[bytes]] = {}
    for piece in page.pieces(PIECE_ITEMS):
        for name, items in render(piece, call).items():
            lists.setdefault(name, []).append(orjson.dumps(items)[1:-1])
        await asyncio.sleep(0)
    return orjson.dumps({name: orjson.Fragment(b"[" + b",".join(parts) + b"]") for name, parts in lists.items()})


def _exchange_of(request: web.BaseRequest) -> _Exchange:
    asked_id = request.headers.get("X-OpenStack-Request-ID", "")
    return _Exchange(request, new_request_id(), asked_id if _REQUEST_ID.fullmatch(asked_id) else None)


async def _sent_within(seconds: float, response: web.Response, request: web.BaseRequest) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await write(response, request)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        return False
    return True


def _no_room() -> HttpError:
    message = "Too many answers are being sent at the moment. Please try again."
    return HttpError(503, message, [("Retry-After", str(RETRY_AFTER_S))])


def _refused(error: Exception, exchange: _Exchange) -> _Answer:
    """The answer for an error, which is logged here if somebody should look at it."""
    fault: Fault = fault_of(error, exchange.request_id)
    if not fault.expected:
        LOG.error("request failed request_id=%s", exchange.request_id, exc_info=error)
    elif fault.status == 503:
        LOG.warning("request could not be served request_id=%s why=%s", exchange.request_id, error)
    return _Answer(fault.status, fault.body, fault.headers)


def _response(answer: _Answer, exchange: _Exchange) -> web.Response:
    response = web.Response(status=answer.status, body=answer.body)
    headers = response.headers
    headers["Server"] = NAME
    if answer.body or answer.status not in (202, 204):
        headers["Content-Type"] = answer.content_type
    headers["X-Compute-Request-Id"] = exchange.request_id
    headers["X-OpenStack-Request-ID"] = exchange.request_id
    if exchange.version is not None:
        headers.extend(versions.echo(exchange.version))
    for name, value in answer.headers:
        headers.add(name, value)
    return response


def _shown_path(exchange: _Exchange, secret_after: frozenset[str]) -> str:
    """The path as the log may show it: without segments that are secrets and what follows them, and of parameters that
    this route does not have, or whose names sound like a secret's, the names alone."""
    url = exchange.request.rel_url
    segments = url.raw_path.split("/")
    at = next((at for at, segment in enumerate(segments) if unquote(segment) in secret_after), None)
    path = url.raw_path if at is None or len(segments) == at + 1 else "/".join([*segments[: at + 1], "***"])
    query = "&".join(_shown_parameter(part, exchange.shown_parameters) for part in url.raw_query_string.split("&"))
    shown = f"{path}?{query}" if query else path
    return shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "..."


def _shown_parameter(raw: str, shown: frozenset[str]) -> str:
    name = raw.partition("=")[0]
    is_shown = name in shown and not _SECRET_NAME.search(name)
    return raw if is_shown or "=" not in raw else f"{name}=***"


def _log_access(exchange: _Exchange, answer: _Answer, seconds: float, secret_after: frozenset[str]) -> None:
    request, identity = exchange.request, exchange.identity
    LOG.info(
        "answered method=%s path=%s status=%d bytes=%d ms=%.1f version=%s request_id=%s global_request_id=%s "
        "user=%s project=%s remote=%s",
        request.method[:32],
        _shown_path(exchange, secret_after),
        answer.status,
        len(answer.body),
        seconds * 1000,
        exchange.version,
        exchange.request_id,
        exchange.global_request_id,
        None if identity is None else identity.user_id,
        None if identity is None else identity.project_id,
        request.remote,
    )
