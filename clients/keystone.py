"""Keystone (identity v3): whom a token belongs to, asked with credentials of our own."""

import dataclasses
import datetime
import threading
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

import core.errors
from clients.http import HttpClient, Reply
from core.clock import Clock, SystemClock

_V3 = "/v3"
_TOKENS = f"{_V3}/auth/tokens"
_ALMOST_OVER_S = 60.0
_JUST_FETCHED_S = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user in a project; each domain is named as the API names it: `{"id": …}` or `{"name": …}`."""

    username: str
    password: str = dataclasses.field(repr=False)
    project_name: str
    user_domain: Mapping[str, str]
    project_domain: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What Keystone says of a token that is valid.

    It is for a project, a domain, the whole system (`system_scope` "all"), or nothing: then all three are None. `roles`
    are names, the implied ones too. Without an admin project in Keystone's settings every project is one. `expires_at`
    is UTC, without a zone.
    """

    user_id: str
    user_domain_id: str
    project_id: str | None
    project_domain_id: str | None
    domain_id: str | None
    system_scope: str | None
    is_admin_project: bool
    roles: tuple[str, ...]
    expires_at: datetime.datetime


class Keystone:
    """One Keystone. Blocking, safe for many threads.

    Args:
        auth_url: where it is, with or without `/v3`.
        credentials: of a user that may validate tokens: its role `service` or `admin`.
        timeout_s: for one exchange; a validation takes one, or three when our own token has ended.
        ca_file: whom to trust with https; the system's authorities without.
    """

    def __init__(
        self,
        auth_url: str,
        credentials: Credentials,
        *,
        timeout_s: float,
        ca_file: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        root = auth_url.rstrip("/").removesuffix(_V3)
        self._own = _OwnToken(
            HttpClient(root, who="Keystone", timeout_s=timeout_s, ca_file=ca_file),
            credentials,
            timeout_s,
            clock or SystemClock(),
        )
        self._http = HttpClient(root, who="Keystone", timeout_s=timeout_s, ca_file=ca_file, headers=self._own.headers)

    def validate(self, token: str) -> Token | None:
        """Whose token it is; None if Keystone does not know it, or not any more.

        Raises:
            Unavailable: it can't be found out: Keystone is away, or refuses us.
        """
        reply = self._http.ask("GET", f"{_TOKENS}?nocatalog", headers={"X-Subject-Token": token})
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise core.errors.Unavailable(_refusal("validate a token", reply))
        return _token(reply)

    def close(self) -> None:
        """Lets go of the connections."""
        self._http.close()
        self._own.close()


class _OwnToken:
    """The token with which we ask, fetched when it is needed and again shortly before it ends."""

    def __init__(self, http: HttpClient, credentials: Credentials, timeout_s: float, clock: Clock) -> None:
        self._http = http
        self._login = _login(credentials)
        self._timeout_s = timeout_s
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._ends_at = clock.now()
        self._fetched_at = float("-inf")

    def headers(self, *, renew: bool = False) -> Mapping[str, str]:
        """
        Raises:
            Unavailable: there is no token to be had.
        """
        if not self._lock.acquire(timeout=self._timeout_s):
            raise core.errors.Unavailable("Keystone did not issue a token in time")
        try:
            if self._is_over() or (renew and not self._is_new()):
                self._fetch()
            return {"X-Auth-Token": self._token}
        finally:
            self._lock.release()

    def close(self) -> None:
        self._http.close()

    def _is_over(self) -> bool:
        return (self._ends_at - self._clock.now()).total_seconds() < _ALMOST_OVER_S

    def _is_new(self) -> bool:
        """Whether another thread has fetched it meanwhile: of many that are refused together one fetches."""
        return self._clock.monotonic() - self._fetched_at < _JUST_FETCHED_S

    def _fetch(self) -> None:
        reply = self._http.ask("POST", _TOKENS, self._login)
        token = reply.headers.get("X-Subject-Token")
        if reply.status != 201 or token is None:
            raise core.errors.Unavailable(_refusal("issue a token", reply))
        self._token, self._ends_at = token, _token(reply).expires_at
        self._fetched_at = self._clock.monotonic()


def _login(credentials: Credentials) -> dict[str, Any]:
    user = {"name": credentials.username, "domain": dict(credentials.user_domain), "password": credentials.password}
    project = {"name": credentials.project_name, "domain": dict(credentials.project_domain)}
    return {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"project": project}}}


def _refusal(what: str, reply: Reply) -> str:
    hint = "; see [keystone_authtoken]" if reply.status in (401, 403) else ""
    return f"Keystone refused to {what}: it answered {reply.status}{hint}"


# ---- the answer, as the Identity API v3 has it (only what is read) ---------------------------------------------------


class _Domain(msgspec.Struct):
    id: str


class _InDomain(msgspec.Struct):
    id: str
    domain: _Domain


class _Role(msgspec.Struct):
    name: str


class _System(msgspec.Struct):
    all: bool = False


class _Body(msgspec.Struct):
    user: _InDomain
    expires_at: Annotated[datetime.datetime, msgspec.Meta(tz=True)]
    project: _InDomain | None = None
    domain: _Domain | None = None
    system: _System | None = None
    roles: tuple[_Role, ...] = ()
    is_admin_project: bool = True


class _Answer(msgspec.Struct):
    token: _Body


def _token(reply: Reply) -> Token:
    try:
        body = msgspec.json.decode(reply.body, type=_Answer).token
    except msgspec.MsgspecError as error:
        raise core.errors.Unavailable(f"Keystone's answer is no token: {error}") from error
    return Token(
        user_id=body.user.id,
        user_domain_id=body.user.domain.id,
        project_id=body.project.id if body.project else None,
        project_domain_id=body.project.domain.id if body.project else None,
        domain_id=body.domain.id if body.domain else None,
        system_scope="all" if body.system and body.system.all else None,
        is_admin_project=body.is_admin_project,
        roles=tuple(sorted({role.name.lower() for role in body.roles})),
        expires_at=body.expires_at.astimezone(datetime.UTC).replace(tzinfo=None),
    )
