"""An app behind the server that the program uses, and clients that are mere sockets."""

import asyncio
import contextlib
import pathlib
import socket
import threading
import time
from collections.abc import Callable, Sequence

from api.http.app import App, Limits
from api.http.policy import Policy, Rule
from api.http.routes import ActionRoute, Route
from core.clock import SystemClock
from core.http_server import HttpServer
from core.listener import ConnectionLimits
from tests.api.http.harness import Trusting, settings

WITHIN_S = 10.0


class Served:
    """The app in a thread of its own."""

    def __init__(
        self,
        folder: pathlib.Path,
        table: Sequence[Route | ActionRoute],
        limits: Limits,
        *,
        rules: Sequence[Rule] = (),
        head_timeout_s: float = 30.0,
    ) -> None:
        app = self.app = App(
            cloud=None,  # type: ignore[arg-type]
            tables=[table],
            policy=Policy(settings(folder), rules),
            strategy=Trusting(),
            limits=limits,
            clock=SystemClock(),
        )
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.loop = asyncio.new_event_loop()
        self.server = HttpServer(
            app.serve,
            self._listening,
            ConnectionLimits(head_timeout_s=head_timeout_s),
            refuse=app.refuse,
            stop_timeout_s=1.0,
            max_body_bytes=limits.max_body_bytes,
        )
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.server.start(), self.loop).result(WITHIN_S)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.close(), self.loop).result(WITHIN_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WITHIN_S)
        self.loop.close()
        self._listening.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(self._listening.getsockname(), timeout=WITHIN_S)


def answer(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers by their names in small letters, and body."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += client.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
    while len(body) < int(headers["content-length"]):
        body += client.recv(65536)
    return int(first.split()[1]), headers, body


def until_closed(client: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):
        while client.recv(65536):
            pass


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
