"""A database that is far away: what its clients send waits before it arrives."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

MAX_BYTES = 2**16
BACKLOG = 1000


@contextlib.contextmanager
def delayed(port: int, delay_s: float) -> Iterator[int]:
    """The port of a door to `port` of this machine, while it stands open.

    Every packet from a client waits for `delay_s`, each by itself: one query takes so much longer, and so do eighty
    that are asked at once. Answers pass without delay. A thread of its own moves the bytes.
    """
    proxy = _Proxy(port, delay_s)
    thread = threading.Thread(target=lambda: asyncio.run(proxy.stand_open()), name="delay", daemon=True)
    thread.start()
    try:
        yield proxy.opened()
    finally:
        proxy.close()
        thread.join()


class _Proxy:
    def __init__(self, port: int, delay_s: float) -> None:
        self._port = port
        self._delay_s = delay_s
        self._own_port = 0
        self._is_open = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None

    async def stand_open(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0, backlog=BACKLOG)
        self._own_port = server.sockets[0].getsockname()[1]
        self._is_open.set()
        await self._closing.wait()
        server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for each in connections:
            each.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def opened(self) -> int:
        """Its own port, once somebody listens there."""
        self._is_open.wait()
        return self._own_port

    def close(self) -> None:
        if self._loop is not None and self._closing is not None:
            self._loop.call_soon_threadsafe(self._closing.set)

    async def _pass(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        with contextlib.suppress(ConnectionError):
            try:
                await asyncio.gather(self._later(client, to_server), _at_once(server, to_client))
            finally:
                for writer in (to_server, to_client):
                    writer.close()
                    await writer.wait_closed()

    async def _later(self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while packet := await client.read(MAX_BYTES):
            loop.call_later(self._delay_s, to_server.write, packet)
        loop.call_later(self._delay_s, to_server.close)


async def _at_once(server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
    while packet := await server.read(MAX_BYTES):
        to_client.write(packet)
    to_client.close()
