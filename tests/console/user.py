"""A user of consoles: a WebSocket client, asked by plain function calls."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import aiohttp
import pytest

from console.main import ConsoleProxy

DEADLINE_S = 10.0


class User:
    """Holds any number of consoles open."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._session: aiohttp.ClientSession = self._runner.run(self._new_session())
        self._opened: list[aiohttp.ClientWebSocketResponse] = []

    def open(
        self, proxy: ConsoleProxy, token: str | None, *, path: str = "/", **more: Any
    ) -> aiohttp.ClientWebSocketResponse:
        """A console that is open."""
        question = "" if token is None else f"?token={token}"
        return self.open_url(f"http://127.0.0.1:{proxy.port}{path}{question}", **more)

    def open_url(self, url: str, **more: Any) -> aiohttp.ClientWebSocketResponse:
        opened: aiohttp.ClientWebSocketResponse = self._run(self._session.ws_connect(url, **more))
        self._opened.append(opened)
        return opened

    def refused(self, proxy: ConsoleProxy, token: str | None, **more: Any) -> int:
        """The status with which it is not opened."""
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            self.open(proxy, token, **more)
        return refusal.value.status

    @contextlib.contextmanager
    def knocking(self, proxy: ConsoleProxy, tokens: Sequence[str]) -> Iterator[Callable[[], list[int]]]:
        """Asks for these consoles at the same time, and waits for none; gives what tells the statuses of those that
        were refused so far."""
        tasks = self._runner.run(self._knock(f"http://127.0.0.1:{proxy.port}/?token=", tokens))

        def refused() -> list[int]:
            errors = [task.exception() for task in tasks if task.done()]
            return [error.status for error in errors if isinstance(error, aiohttp.WSServerHandshakeError)]

        yield refused
        self._runner.run(self._end(tasks))

    async def _knock(self, url: str, tokens: Sequence[str]) -> "list[asyncio.Task[aiohttp.ClientWebSocketResponse]]":
        tasks = [asyncio.ensure_future(self._session.ws_connect(url + token)) for token in tokens]
        await asyncio.sleep(0)
        return tasks

    async def _end(self, tasks: "list[asyncio.Task[aiohttp.ClientWebSocketResponse]]") -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def read_until(
        self, console: aiohttp.ClientWebSocketResponse, wanted: bytes, deadline_s: float = DEADLINE_S
    ) -> bytes:
        """All that comes up to these bytes, and what came with them."""
        return self._runner.run(self._read_until(console, wanted, deadline_s))

    def get(self, proxy: ConsoleProxy, path: str) -> tuple[int, str, Any]:
        """Status, body and headers of a page."""
        return self._run(self._get(f"http://127.0.0.1:{proxy.port}{path}"))

    def read(self, console: aiohttp.ClientWebSocketResponse, count: int) -> bytes:
        """So many bytes."""
        return self._run(self._read(console, count))

    def write(self, console: aiohttp.ClientWebSocketResponse, piece: bytes | str) -> None:
        self._run(console.send_str(piece) if isinstance(piece, str) else console.send_bytes(piece))

    def closed(self, console: aiohttp.ClientWebSocketResponse) -> int | None:
        """The code with which the other end closes it."""
        message = self._run(console.receive())
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING), message
        return console.close_code

    def leave(self, console: aiohttp.ClientWebSocketResponse) -> None:
        self._run(console.close())

    def vanish(self, console: aiohttp.ClientWebSocketResponse) -> None:
        """The connection is gone without a word."""
        transport = console._response.connection.transport if console._response.connection else None
        assert transport is not None
        self._run(self._abort(transport))

    def close(self) -> None:
        for console in self._opened:
            self.leave(console)
        self._runner.run(self._session.close())
        self._runner.close()

    def _run(self, work: Any) -> Any:
        return self._runner.run(_within(work))

    @staticmethod
    async def _new_session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    async def _get(self, url: str) -> tuple[int, str, Any]:
        async with self._session.get(url) as response:
            return response.status, await response.text(), response.headers

    @staticmethod
    async def _read(console: aiohttp.ClientWebSocketResponse, count: int) -> bytes:
        got = b""
        while len(got) < count:
            got += await console.receive_bytes()
        return got

    @staticmethod
    async def _read_until(console: aiohttp.ClientWebSocketResponse, wanted: bytes, deadline_s: float) -> bytes:
        got = b""
        try:
            async with asyncio.timeout(deadline_s):
                while wanted not in got:
                    got += await console.receive_bytes()
        except TimeoutError:
            raise AssertionError(f"{wanted!r} did not come; this did: {got[-2000:]!r}") from None
        return got

    @staticmethod
    async def _abort(transport: asyncio.Transport) -> None:
        transport.abort()


async def _within(work: Any) -> Any:
    async with asyncio.timeout(DEADLINE_S):
        return await work
