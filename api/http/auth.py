"""Who asks: the strategy that the settings name. HTTP basic and none are here; Keystone's tokens have a module of their own."""

import asyncio
import base64
import binascii
import concurrent.futures
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
from api.http.policy import with_implied
from core import errors, log

LOG = log.get(__name__)

# A checked password is remembered under a keyed digest: bcrypt takes a tenth of a second or more, by design.
_REMEMBERED_S = 60.0
_REMEMBERED_MOST = 4096
_BCRYPT_THREADS = 2
_BCRYPT_WAITING_MOST = 64
_BCRYPT_BYTES_MOST = 72


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

    def __init__(self, accounts: "Accounts") -> None:
        self._accounts = accounts
        self._key = secrets.token_bytes(32)
        self._checked: TTLCache[bytes, Identity | None] = TTLCache(_REMEMBERED_MOST, _REMEMBERED_S)
        self._checking: dict[bytes, asyncio.Future[Identity | None]] = {}
        self._threads = concurrent.futures.ThreadPoolExecutor(_BCRYPT_THREADS, "bcrypt")

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        header = headers.get("Authorization")
        if header is None:
            raise _challenge()
        if self._accounts.refresh():
            self._checked.clear()
        digest = hmac.digest(self._key, header.encode("utf-8", "surrogateescape"), hashlib.sha256)
        try:
            identity = self._checked[digest]
        except KeyError:
            identity = await self._check(digest, header)
        if identity is None:
            raise _challenge()
        return identity

    async def _check(self, digest: bytes, header: str) -> Identity | None:
        """Checks the password in a thread, once for all requests that come with it meanwhile."""
        name, password = _credentials(header)
        running = self._checking.get(digest)
        if running is None:
            if len(self._checking) >= _BCRYPT_WAITING_MOST:
                raise errors.Unavailable("Too many passwords are being checked at once")
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._threads, self._accounts.check, name, password)
            self._checking[digest] = running
            running.add_done_callback(lambda done: self._remember(digest, done))
        return await asyncio.shield(running)

    def _remember(self, digest: bytes, done: "asyncio.Future[Identity | None]") -> None:
        self._checking.pop(digest, None)
        if not done.cancelled() and done.exception() is None:
            self._checked[digest] = done.result()

    def close(self) -> None:
        """Lets go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


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
        """Who has this name and password; takes as long for an unknown name as for a known one."""
        hashes, users = self._hashes, self._users
        line = hashes.get(name) or next(iter(hashes.values()), b"")
        try:
            fits = bcrypt.checkpw(password[:_BCRYPT_BYTES_MOST], line)
        except ValueError:
            return None
        return users.get(name) if fits and name in hashes else None

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_stamp(file) for file in self._files)

    def _read(self) -> tuple[dict[str, bytes], dict[str, Identity]]:
        htpasswd_file, users_file = self._files
        return _hashes(_text(htpasswd_file)), _identities(users_file, _text(users_file))


def _stamp(file: str) -> tuple[int, int, int]:
    try:
        found = pathlib.Path(file).stat()
    except OSError as error:
        raise errors.Invalid(f"{file} can't be read: {error.strerror}", field="htpasswd_file") from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _text(file: str) -> str:
    try:
        return pathlib.Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise errors.Invalid(f"{file} can't be read: {error}", field="htpasswd_file") from error


def _hashes(text: str) -> dict[str, bytes]:
    """The bcrypt lines by user name; other kinds of hash are left out."""
    found = {}
    for line in text.splitlines():
        name, _, hashed = line.strip().partition(":")
        if hashed.startswith(("$2a$", "$2b$", "$2y$")):
            found[name] = hashed.encode()
        elif hashed:
            LOG.warning("htpasswd line without bcrypt is ignored user=%s", name)
    return found


def _identities(file: str, text: str) -> dict[str, Identity]:
    try:
        users: Any = yaml.safe_load(text) or {}
        return {
            str(name): Identity(str(user["user_id"]), str(user["project_id"]), with_implied(user.get("roles", ())))
            for name, user in users.items()
        }
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise errors.Invalid(f"{file} is no table of users: {error}", field="users_file") from error
