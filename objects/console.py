"""Consoles of servers: their kinds, and the addresses under which a cell's console proxy serves them."""

import urllib.parse

import msgspec

VNC = "vnc"
SERIAL = "serial"
TOKEN = "token"
PAGE = "vnc_lite.html"
"""noVNC's page for one console; it takes the address of the WebSocket from its own."""

_WEBSOCKET = {"http": "ws", "https": "wss"}


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where one console of a guest is served, without any protection of its own: a TCP port, or a UNIX socket of its host by `path`.

    `kind` is VNC or SERIAL. A path makes sense to those alone who see the host's files.
    """

    kind: str
    host: str | None = None
    port: int | None = None
    path: str | None = None


class Proxy(msgspec.Struct, frozen=True):
    """What a console proxy says of itself: where users reach it (http or https), and for how long it honours a token."""

    public_url: str
    token_ttl_s: float


def url_of(public_url: str, kind: str, token: str) -> str:
    """What a user opens: of the screen a page for a browser, of the serial port a WebSocket."""
    base = urllib.parse.urlsplit(public_url.rstrip("/"))
    question = urllib.parse.urlencode({TOKEN: token})
    if kind == VNC:
        path = urllib.parse.urlencode({"path": f"{base.path.strip('/')}/?{question}".removeprefix("/")})
        return urllib.parse.urlunsplit((base.scheme, base.netloc, f"{base.path}/{PAGE}", path, ""))
    return urllib.parse.urlunsplit((_WEBSOCKET[base.scheme], base.netloc, f"{base.path}/", question, ""))
