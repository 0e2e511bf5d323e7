"""Who asks: the strategy that the settings name. HTTP basic and none are here; Keystone's tokens have a module of their
own."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import pathlib
import secrets
from collections.abc import Mapping
from typing import Any

import bcrypt
import yaml
from cachetools import TTLCache
from oslo_config import cfg

from api.http import tokens
from api.http.caller import Identity, Strategy
from api.http.errors import HttpError
from api.http.password_checks import PasswordChecks
from api.http.policy import with_implied
from core import errors, log
from core.clock import Clock, SystemClock

LOG = log.get(__name__)

# A checked password is remembered under a keyed digest, from its last use, but not for longer than an hour in all.
_REMEMBERED_S = 60.0
_MAX_REMEMBERED_S = 3600.0
_MAX_REMEMBERED = 4096
_KNOWN_S = 24 * 3600.0
MAX_BCRYPT_BYTES = 72
"""bcrypt looks at no more of a password."""


def strategy_of(conf: cfg.ConfigOpts) -> Strategy:
    """The strategy that the settings name.

    Raises:
        Invalid: it is not available, or can't be used as configured.
    """
    name = conf.api.auth_strategy
    if name == "none":
        return NoAuth(conf.api.listen_host)
    if name == "basic":
        return Basic(Accounts(conf.api.htpasswd_file, conf.api.users_file))
    return tokens.strategy_of(conf)


class NoAuth:
    """Everybody is the administrator: for one's own machine only."""

    discovery_needs_credentials = False

    def __init__(self, listen_host: str) -> None:
        if not _is_loopback(listen_host):
            raise errors.Invalid(
                f"[api] auth_strategy none listens on a loopback address only, not on {listen_host}",
                field="listen_host",
            )
        self._everybody = Identity("admin", "admin", with_implied(["admin"]))

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        return self._everybody

    def close(self) -> None:
        """Holds nothing."""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Basic:
    """User names and passwords from an htpasswd file; for one event loop."""

    discovery_needs_credentials = True

    def __init__(self, accounts: "Accounts", clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        self._accounts = accounts
        self._clock = clock
        self._key = secrets.token_bytes(32)
        # Who it is, and when the password was checked.
        self._valid: TTLCache[bytes, tuple[Identity, float]] = TTLCache(
            _MAX_REMEMBERED, _REMEMBERED_S, timer=clock.monotonic
        )
        # Whose password was good within a day waits behind nobody's guesses, although it is checked again.
        self._known: TTLCache[bytes, bool] = TTLCache(_MAX_REMEMBERED, _KNOWN_S, timer=clock.monotonic)
        # In a cache of their own, so that guesses don't crowd out the passwords that are good.
        self._refused: TTLCache[bytes, bool] = TTLCache(_MAX_REMEMBERED, _REMEMBERED_S, timer=clock.monotonic)
        self._checking: dict[bytes, asyncio.Task[Identity | None]] = {}
        self._checks = PasswordChecks(accounts.check, clock)

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        return await self.identify_from("", headers)

    async def identify_from(self, address: str, headers: Mapping[str, str]) -> Identity:
        header = headers.get("Authorization")
        if header is None:
            raise _challenge()
        if self._accounts.refresh():
            self._valid.clear()
            self._refused.clear()
            self._known.clear()
        digest = hmac.digest(self._key, header.encode("utf-8", "surrogateescape"), hashlib.sha256)
        identity = self._remembered(digest)
        if identity is None and digest not in self._refused:
            identity = await self._check(digest, header, address)
        if identity is None:
            raise _challenge()
        return identity

    def _remembered(self, digest: bytes) -> Identity | None:
        remembered = self._valid.get(digest)
        if remembered is None or self._clock.monotonic() - remembered[1] >= _MAX_REMEMBERED_S:
            return None
        self._valid[digest] = remembered
        return remembered[0]

    async def _check(self, digest: bytes, header: str, address: str) -> Identity | None:
        """Checks the password in a thread, once for all requests that come with it meanwhile."""
        name, password = _credentials(header)
        running = self._checking.get(digest)
        if running is None:
            checks = self._checks
            judging = (
                checks.judge_known(name, password) if digest in self._known else checks.judge(name, password, address)
            )
            running = asyncio.get_running_loop().create_task(judging)
            self._checking[digest] = running
            running.add_done_callback(lambda done: self._remember(digest, done))
        return await asyncio.shield(running)

    def _remember(self, digest: bytes, done: "asyncio.Task[Identity | None]") -> None:
        self._checking.pop(digest, None)
        if done.cancelled() or done.exception() is not None:
            return
        identity = done.result()
        if identity is None:
            self._refused[digest] = True
        else:
            self._known[digest] = True
            self._valid[digest] = (identity, self._clock.monotonic())

    def close(self) -> None:
        """Lets go of the threads."""
        self._checks.close()


def _challenge() -> HttpError:
    message = "The request you have made requires authentication."
    return HttpError(401, message, [("WWW-Authenticate", 'Basic realm="cellplane"')])


def _credentials(header: str) -> tuple[str, bytes]:
    """User name and password of an Authorization header."""
    kind, _, encoded = header.partition(" ")
    if kind.lower() != "basic":
        raise _challenge()
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        if not colon:
            raise _challenge()
        return name.decode(), password
    except (binascii.Error, UnicodeError, ValueError):
        raise _challenge() from None


class Accounts:
    """The htpasswd file and, beside it, who its users are; read again when a file has changed.

    The users file is YAML (or JSON): ``name: {user_id, project_id, project_name, roles: [member]}``.
    """

    def __init__(self, htpasswd_file: str | None, users_file: str | None) -> None:
        """
        Raises:
            Invalid: a file is not named, is missing or is not of its form.
        """
        if not htpasswd_file or not users_file:
            raise errors.Invalid(
                "[api] auth_strategy basic needs [api] htpasswd_file and users_file", field="htpasswd_file"
            )
        self._files = (htpasswd_file, users_file)
        self._stamps = self._look()
        self._hashes, self._users = self._read()

    def refresh(self) -> bool:
        """Reads the files if they have changed since; whether they had.

        Files that can't be read leave what was known: an editor may be half way through.
        """
        try:
            stamps = self._look()
            if stamps == self._stamps:
                return False
            self._hashes, self._users = self._read()
        except errors.Invalid as error:
            LOG.warning("accounts not read again: %s", error)
            return False
        self._stamps = stamps
        return True

    def check(self, name: str, password: bytes) -> Identity | None:
        """Who has this name and password.

        An unknown name takes as long as the costliest line, and nothing that is longer than what bcrypt looks at fits.
        """
        hashes, users = self._hashes, self._users
        line = hashes.get(name) or max(hashes.values(), key=_cost, default=b"")
        try:
            fits = len(password) <= MAX_BCRYPT_BYTES and bcrypt.checkpw(password, line)
        except ValueError:
            return None
        return users.get(name) if fits and name in hashes else None

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_stamp(file) for file in self._files)

    def _read(self) -> tuple[dict[str, bytes], dict[str, Identity]]:
        htpasswd_file, users_file = self._files
        return _hashes(_text(htpasswd_file)), _identities(users_file, _text(users_file))


def _cost(line: bytes) -> bytes:
    """Of a bcrypt line, ``$2b$12$…``: the two digits sort as they are."""
    return line[4:6]


def _stamp(file: str) -> tuple[int, int, int]:
    try:
        status = pathlib.Path(file).stat()
    except OSError as error:
        raise errors.Invalid(f"{file} can't be read: {error.strerror}", field="htpasswd_file") from error
    return status.st_mtime_ns, status.st_size, status.st_ino


def _text(file: str) -> str:
    try:
        return pathlib.Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise errors.Invalid(f"{file} can't be read: {error}", field="htpasswd_file") from error


def _hashes(text: str) -> dict[str, bytes]:
    """The bcrypt lines by user name; other kinds of hash are left out."""
    hashes = {}
    for line in text.splitlines():
        name, _, hashed = line.strip().partition(":")
        if hashed.startswith(("$2a$", "$2b$", "$2y$")):
            hashes[name] = hashed.encode()
        elif hashed:
            LOG.warning("htpasswd line without bcrypt is ignored user=%s", name)
    return hashes


def _identities(file: str, text: str) -> dict[str, Identity]:
    try:
        users: Any = yaml.safe_load(text) or {}
        return {
            str(name): Identity(str(user["user_id"]), str(user["project_id"]), with_implied(user.get("roles", ())))
            for name, user in users.items()
        }
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise errors.Invalid(f"{file} is no table of users: {error}", field="users_file") from error
