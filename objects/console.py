"""Consoles of servers: their kinds, and the addresses under which a cell's console proxy serves them."""

import urllib.parse

import msgspec

from objects.console_rules import Allowed

VNC = "vnc"
SERIAL = "serial"
TOKEN = "token"
PAGE = "vnc_lite.html"
"""noVNC's page for one console; it takes the address of the WebSocket from its own."""

MAX_NAME = 253
MAX_PATH = 255
MAX_PORT = 65535

_WEBSOCKET = {"http": "ws", "https": "wss"}


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where one console of a guest is served, without any protection of its own: a TCP port, or a UNIX socket of its
    host by `path`.

    `kind` is VNC or SERIAL. A path makes sense to those alone who see the host's files. One that is neither of the two
    does not come to be.
    """

    kind: str
    host: str | None = None
    port: int | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in (VNC, SERIAL):
            raise ValueError(f"there is no console of kind {self.kind[:16]!r}")
        if not (self._is_port() if self.path is None else self._is_path(self.path)):
            raise ValueError("a console is at an address and port, or at a path")

    def _is_port(self) -> bool:
        name = self.host or ""
        return (
            0 < len(name) <= MAX_NAME
            and name.isascii()
            and name.isprintable()
            and " " not in name
            and 0 < (self.port or 0) <= MAX_PORT
        )

    def _is_path(self, path: str) -> bool:
        return (
            self.host is None
            and self.port is None
            and path.startswith("/")
            and len(path) <= MAX_PATH
            and path.isprintable()
        )


class Proxy(msgspec.Struct, frozen=True):
    """What a console proxy says of itself: where users reach it (http or https), for how long it honours a token, where
    it would connect.

    `allowed` None: it is of a release that does not say so.
    """

    public_url: str
    token_ttl_s: float
    allowed: Allowed | None = None


def url_of(public_url: str, kind: str, token: str) -> str:
    """What a user opens: of the screen a page for a browser, of the serial port a WebSocket."""
    base = urllib.parse.urlsplit(public_url.rstrip("/"))
    question = urllib.parse.urlencode({TOKEN: token})
    if kind == VNC:
        path = urllib.parse.urlencode({"path": f"{base.path.strip('/')}/?{question}".removeprefix("/")})
        return urllib.parse.urlunsplit((base.scheme, base.netloc, f"{base.path}/{PAGE}", path, ""))
    return urllib.parse.urlunsplit((_WEBSOCKET[base.scheme], base.netloc, f"{base.path}/", question, ""))
