"""The way of a request: its route, who asks, which microversion, may they, what it holds; then the handler and its view."""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from api.cloud import Cloud
from api.http import versions
from api.http.call import Arguments, Call, Raw
from api.http.caller import Identity, Strategy
from api.http.errors import NOT_FOUND, Fault, HttpError, fault_of
from api.http.policy import Policy
from api.http.routes import COMPUTE, Access, ActionRoute, Bound, Endpoint, Match, Route, Router
from api.http.versions import Microversion
from core import errors, log
from core.clock import Clock
from core.context import Context, new_request_id

LOG = log.get(__name__)

JSON = "application/json"
_READ_TYPES = frozenset({JSON, "application/vnd.openstack.compute+json"})
_REQUEST_ID = re.compile(r"req-[0-9a-fA-F-]{36}")
_HOST = re.compile(r"[A-Za-z0-9._\-:\[\]]{1,255}")
_PARAMETERS_MOST = 1000
_YES = "True"
_LEVELS_MOST = 32
"""Of lists and objects inside each other in a body: none that is served needs ten, and whoever walks a document may do so recursively."""
SECRET_SEGMENT = "token"
"""The name of a segment of a path that no log shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may use; ``link_prefix`` is the public address where it is not the request's own."""

    max_limit: int
    max_body_bytes: int
    read_timeout_s: float
    link_prefix: str | None


@dataclass(slots=True)
class _Exchange:
    """One request and what is known of it so far; the access log and the response's headers tell it."""

    request: web.Request
    request_id: str
    global_request_id: str | None
    version: Microversion | None = None
    identity: Identity | None = None
    secret: str | None = None


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
        self._limits = limits
        self._clock = clock
        self._observe = observe

    def application(self) -> web.Application:
        """The aiohttp application: one route, because ours knows projects and microversions."""
        application = web.Application(client_max_size=self._limits.max_body_bytes)
        application.router.add_route("*", "/{path:.*}", self.serve)
        return application

    async def serve(self, request: web.Request) -> web.Response:
        """The response to a request; never an exception."""
        started = self._clock.monotonic()
        asked_id = request.headers.get("X-OpenStack-Request-ID", "")
        exchange = _Exchange(request, new_request_id(), asked_id if _REQUEST_ID.fullmatch(asked_id) else None)
        try:
            answer = await self._answer(exchange)
        except Exception as error:
            answer = _refused(error, exchange)
        response = _response(answer, exchange)
        seconds = self._clock.monotonic() - started
        _log_access(exchange, answer, seconds)
        if self._observe is not None:
            self._observe(request.method, answer.status, seconds)
        return response

    async def _answer(self, exchange: _Exchange) -> _Answer:
        request = exchange.request
        raw_path = request.rel_url.raw_path
        match = self._router.match(request.method, raw_path)
        if match is None:
            if raw_path.startswith(COMPUTE + "/"):
                await self._identify(exchange, Access.AUTHENTICATED)
            raise HttpError(404, NOT_FOUND)
        exchange.secret = match.path.get(SECRET_SEGMENT)
        endpoint = match.endpoint
        context = await self._identify(exchange, endpoint.access)
        version = versions.MIN
        if endpoint.under == COMPUTE:
            version = _negotiated(exchange)
        if match.project_id is not None and match.project_id != context.project_id:
            raise errors.Invalid(
                f"Malformed request URL: URL's project_id '{match.project_id}' doesn't match "
                f"Context's project_id '{context.project_id}'",
                field="project_id",
            )
        return await self._handled(self._call(exchange, match, context, version), endpoint, request)

    async def _identify(self, exchange: _Exchange, access: Access) -> Context:
        """The context of whoever asks; nobody's where the route asks for no credentials."""
        needed = access is Access.AUTHENTICATED or (
            access is Access.DISCOVERY and self._strategy.discovery_needs_credentials
        )
        if not needed:
            return Context(None, None, (), exchange.request_id, exchange.global_request_id)
        exchange.identity = await self._strategy.identify(exchange.request.headers)
        context = exchange.identity.context(exchange.request_id, exchange.global_request_id)
        if access is Access.AUTHENTICATED:
            _require_project(context)
        return replace(context, is_admin=self._policy.is_admin(context))

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
            base_url=prefix + COMPUTE + project,
            bookmark_url=prefix + project,
            max_limit=self._limits.max_limit,
        )

    async def _handled(self, call: Call, endpoint: Endpoint, request: web.Request) -> _Answer:
        """Runs the row's handler once everything the row demands is so."""
        bound = await self._bound(call, endpoint, request)
        if bound.policy is not None:
            call.enforce(bound.policy)
        if request.rel_url.raw_query_string:
            call.raw_query = _parameters(request.rel_url.raw_query_string)
            call.query = Arguments(bound.check_query(call.raw_query))
        if bound.check_body is not None:
            if call.document is None:
                call.document = await self._document(request)
            call.body, call.document = bound.check_body(call.document)
        return _rendered(await bound.handler(call), bound, call)

    async def _bound(self, call: Call, endpoint: Endpoint, request: web.Request) -> Bound:
        """The row for the microversion; of an action, whose name stands in the body, too."""
        if endpoint.actions:
            call.document = await self._document(request)
            if len(call.document) != 1:
                raise errors.Invalid("The body must hold exactly one key, the name of an action.", field="body")
            ((action, call.body),) = call.document.items()
            bound = endpoint.action_at(action, call.version)
        else:
            bound = endpoint.at(call.version)
        if bound is None:
            raise HttpError(404, NOT_FOUND)
        return bound

    async def _document(self, request: web.Request) -> dict[str, Any]:
        """The JSON object in the request's body.

        Raises:
            Invalid: there is none.
            HttpError: of another media type, too large or too slow.
        """
        if "Content-Type" in request.headers and request.content_type not in _READ_TYPES:
            raise HttpError(415, f"Unsupported Content-Type {request.content_type}")
        try:
            async with asyncio.timeout(self._limits.read_timeout_s):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise HttpError(413, f"The body is larger than {self._limits.max_body_bytes} bytes.") from None
        except (web.RequestPayloadError, ConnectionError):
            raise errors.Invalid("Malformed request body: it can't be read.", field="body") from None
        except TimeoutError:
            raise HttpError(408, "The body did not arrive in time.") from None
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise errors.Invalid("Malformed request body: it is no JSON.", field="body") from None
        if not isinstance(document, dict):
            raise errors.Invalid("Malformed request body: it is no object.", field="body")
        _refuse_deep(document)
        return document


def _refuse_deep(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    for _ in range(_LEVELS_MOST):
        inner = (value for each in level for value in (each.values() if isinstance(each, dict) else each))
        level = [value for value in inner if isinstance(value, dict | list)]
        if not level:
            return
    raise errors.Invalid(f"Malformed request body: more than {_LEVELS_MOST} levels are nested.", field="body")


def _require_project(context: Context) -> None:
    """Everything here belongs to a project or is asked from within one, as in Nova, whose rules all demand a project's token.

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


def _own_address(request: web.Request) -> str:
    """Scheme and host as the client wrote them; HTTP/1.0 need not name a host, then it is where the request arrived."""
    host = request.headers.get("Host")
    if host is None and request.transport is not None:
        host = "{}:{}".format(*request.transport.get_extra_info("sockname")[:2])
    if host is None or not _HOST.fullmatch(host):
        raise errors.Invalid("Malformed Host header.", field="Host")
    return f"{request.scheme}://{host}"


def _parameters(raw: str) -> list[tuple[str, str]]:
    """Names and values. A bare name (`?all_tenants`) says yes; one whose value was left out (`?all_tenants=`) says nothing."""
    try:
        found = parse_qsl(raw, keep_blank_values=True, max_num_fields=_PARAMETERS_MOST)
    except ValueError:
        raise errors.Invalid(f"More than {_PARAMETERS_MOST} query parameters.", field="query") from None
    parts = filter(None, raw.split("&"))
    return [(name, value if "=" in part else _YES) for part, (name, value) in zip(parts, found, strict=True)]


def _rendered(value: object, bound: Bound, call: Call) -> _Answer:
    status = bound.status if call.status is None else call.status
    if value is None:
        return _Answer(status, b"", call.headers)
    if isinstance(value, Raw):
        return _Answer(status, value.body, call.headers, value.content_type)
    document = value if bound.render is None else bound.render(value, call)
    return _Answer(status, orjson.dumps(document), call.headers)


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
    if answer.body or answer.status not in (202, 204):
        headers["Content-Type"] = answer.content_type
    headers["X-Compute-Request-Id"] = exchange.request_id
    headers["X-OpenStack-Request-ID"] = exchange.request_id
    if exchange.version is not None:
        headers.extend(versions.echo(exchange.version))
    for name, value in answer.headers:
        headers.add(name, value)
    return response


def _shown_path(exchange: _Exchange) -> str:
    """The path as the log may show it: a segment that is a secret is the last one, and whatever follows it is left out, too."""
    path = str(exchange.request.rel_url.raw_path_qs)
    return path if exchange.secret is None else f"{exchange.request.rel_url.raw_path.rstrip('/').rpartition('/')[0]}/***"


def _log_access(exchange: _Exchange, answer: _Answer, seconds: float) -> None:
    request, identity = exchange.request, exchange.identity
    LOG.info(
        "answered method=%s path=%s status=%d bytes=%d ms=%.1f version=%s request_id=%s global_request_id=%s "
        "user=%s project=%s remote=%s",
        request.method,
        _shown_path(exchange),
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
