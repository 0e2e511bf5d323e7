"""Who asks, by Keystone's tokens."""

import asyncio
import hashlib
from collections.abc import Mapping

from cachetools import TLRUCache, TTLCache
from oslo_config import cfg

import core.config
from api.http.caller import Identity
from api.http.errors import HttpError
from cells.gate.breaker import Breaker
from clients.keystone import Credentials, Keystone, Token
from core import errors, log
from core.bounded_pool import BoundedPool
from core.clock import Clock, SystemClock

LOG = log.get(__name__)

_SECTION = "keystone_authtoken"
_MAX_REMEMBERED = 4096
_REFUSED_S = 10.0
_THREADS = 8
_MAX_WAITING = 256
# While Keystone is away one request a second asks it all the same, and waits no longer than a moment; its answer counts
# even if it comes later.
_PROBE_S = 1.0
_PROBE_PATIENCE_S = 0.3


def strategy_of(conf: cfg.ConfigOpts) -> "Tokens":
    """The strategy of these settings; nobody is asked yet.

    Raises:
        Invalid: something that it needs is not set.
    """
    section = conf[_SECTION]
    auth_url = core.config.required(conf, _SECTION, "auth_url")
    credentials = Credentials(
        username=core.config.required(conf, _SECTION, "username"),
        password=core.config.required(conf, _SECTION, "password"),
        project_name=core.config.required(conf, _SECTION, "project_name"),
        user_domain=_domain(section.user_domain_name, section.user_domain_id),
        project_domain=_domain(section.project_domain_name, section.project_domain_id),
    )
    return Tokens(
        Keystone(auth_url, credentials, timeout_s=section.timeout_s, ca_file=section.cafile),
        shown_uri=section.www_authenticate_uri or auth_url,
        remember_s=max(0.0, section.token_cache_time),
        deadline_s=section.timeout_s,
        clock=SystemClock(),
    )


def _domain(name: str | None, domain_id: str) -> dict[str, str]:
    return {"name": name} if name else {"id": domain_id}


class Tokens:
    """Tokens, each remembered for a short time and never for longer than it lives; for one event loop.

    While Keystone is away what is remembered goes on working, and everybody else is told so at once: a breaker stands
    before it.
    """

    discovery_needs_credentials = False

    def __init__(
        self, keystone: Keystone, *, shown_uri: str, remember_s: float, deadline_s: float, clock: Clock
    ) -> None:
        """
        Args:
            shown_uri: what a 401 names.
            deadline_s: how long a request waits for Keystone.
        """
        self._keystone = keystone
        self._shown_uri = shown_uri
        self._remember_s = remember_s
        self._deadline_s = deadline_s
        self._clock = clock
        self._breaker = Breaker(clock, probe_s=_PROBE_S)
        self._valid: TLRUCache[bytes, Token, float] = TLRUCache(_MAX_REMEMBERED, self._forget_at, timer=clock.monotonic)
        # In a cache of their own, so that guesses don't crowd out the tokens that are good.
        self._refused: TTLCache[bytes, bool, float] = TTLCache(
            _MAX_REMEMBERED, min(remember_s, _REFUSED_S), timer=clock.monotonic
        )
        self._asking: dict[bytes, asyncio.Future[Token | None]] = {}
        self._threads = BoundedPool("keystone", threads=_THREADS, waiting=_MAX_WAITING - _THREADS)

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        user = await self._owner(headers.get("X-Auth-Token", ""))
        service_token = headers.get("X-Service-Token")
        return _identity(user, None if service_token is None else await self._owner(service_token))

    def close(self) -> None:
        """Lets go of threads and connections; a thread that hangs ends by its own deadline."""
        self._threads.close()
        self._keystone.close()

    async def _owner(self, token: str) -> Token:
        """What is known of the token, or what Keystone says of it."""
        if not _could_be_a_token(token):
            raise self._challenge()
        digest = hashlib.sha256(token.encode()).digest()
        try:
            return self._valid[digest]
        except KeyError:
            owner = None if digest in self._refused else await self._ask(digest, token)
        if owner is None:
            raise self._challenge()
        return owner

    async def _ask(self, digest: bytes, token: str) -> Token | None:
        """Asks Keystone in a thread, once for all requests that come with this token meanwhile."""
        deadline_s = self._deadline_s
        if self._breaker.is_open:
            if len(self._asking) >= _THREADS or not self._breaker.may_probe():
                raise errors.Unavailable(f"Keystone does not answer: {self._breaker.why}")
            deadline_s = min(deadline_s, _PROBE_PATIENCE_S)
        running = self._asking.get(digest) or self._start(digest, token)
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.shield(running)
        except TimeoutError:
            raise errors.Unavailable(f"Keystone did not answer within {deadline_s:g} s") from None

    def _start(self, digest: bytes, token: str) -> "asyncio.Future[Token | None]":
        running = asyncio.wrap_future(self._threads.submit(lambda: self._validate(token)))
        self._asking[digest] = running
        running.add_done_callback(lambda done: self._remember(digest, done))
        return running

    def _validate(self, token: str) -> Token | None:
        """Runs in a thread; tells the breaker how Keystone did."""
        try:
            owner = self._keystone.validate(token)
        except errors.Unavailable as error:
            if self._breaker.failed(error.message):
                LOG.warning("keystone unreachable why=%s", error.message)
            raise
        if self._breaker.succeeded():
            LOG.info("keystone reachable again")
        return owner

    def _remember(self, digest: bytes, done: "asyncio.Future[Token | None]") -> None:
        self._asking.pop(digest, None)
        if done.cancelled() or done.exception() is not None:
            return
        owner = done.result()
        if owner is None:
            self._refused[digest] = True
        else:
            self._valid[digest] = owner

    def _forget_at(self, _digest: bytes, token: Token, now: float) -> float:
        lives_s = (token.expires_at - self._clock.now()).total_seconds()
        return now + min(self._remember_s, lives_s)

    def _challenge(self) -> HttpError:
        message = "The request you have made requires authentication."
        return HttpError(401, message, [("WWW-Authenticate", f'Keystone uri="{self._shown_uri}"')])


def _could_be_a_token(token: str) -> bool:
    """Whether it may stand in a header of ours; what may not is nobody's token."""
    return bool(token) and token.isascii() and token.isprintable()


def _identity(user: Token, service: Token | None) -> Identity:
    return Identity(
        user_id=user.user_id,
        project_id=user.project_id,
        roles=user.roles,
        user_domain_id=user.user_domain_id,
        project_domain_id=user.project_domain_id,
        domain_id=user.domain_id,
        system_scope=user.system_scope,
        is_admin_project=user.is_admin_project,
        service_user_id=service.user_id if service else None,
        service_roles=service.roles if service else (),
    )
