"""One open console: bytes go both ways until one end closes or nothing has moved for too long.

Neither side is read faster than the other takes: what is between them is bounded by the buffers of two sockets and one
piece each.
"""

import asyncio
import dataclasses
import time

from aiohttp import WSMsgType, web

PIECE_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 1024 * 1024

USER_ENDED = "the user closed it"
GUEST_ENDED = "the guest closed it"
IDLE = "nothing moved for too long"
LOST = "the connection was lost"


@dataclasses.dataclass
class Traffic:
    """What has moved so far, in bytes, and when something moved last."""

    to_user: int = 0
    to_guest: int = 0
    moved_at: float = dataclasses.field(default_factory=time.monotonic)

    def moved(self, *, to_user: int = 0, to_guest: int = 0) -> None:
        """Counts a piece that was delivered."""
        self.to_user += to_user
        self.to_guest += to_guest
        self.moved_at = time.monotonic()


async def relay(
    user: web.WebSocketResponse,
    from_guest: asyncio.StreamReader,
    to_guest: asyncio.StreamWriter,
    traffic: Traffic,
    *,
    idle_timeout_s: float,
) -> str:
    """Returns why it ended; both ends are still to be closed."""
    ways = [
        asyncio.create_task(_to_user(user, from_guest, traffic)),
        asyncio.create_task(_to_guest(user, to_guest, traffic)),
        asyncio.create_task(_until_idle(traffic, idle_timeout_s)),
    ]
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        ended = await asyncio.gather(*ways, return_exceptions=True)
    return next(_why(result) for way, result in zip(ways, ended, strict=True) if way in done)


def _why(result: object) -> str:
    if isinstance(result, ConnectionError | OSError):
        return LOST
    if isinstance(result, BaseException):
        raise result
    return str(result)


async def _to_user(user: web.WebSocketResponse, from_guest: asyncio.StreamReader, traffic: Traffic) -> str:
    while piece := await from_guest.read(PIECE_BYTES):
        await user.send_bytes(piece)
        traffic.moved(to_user=len(piece))
    return GUEST_ENDED


async def _to_guest(user: web.WebSocketResponse, to_guest: asyncio.StreamWriter, traffic: Traffic) -> str:
    async for message in user:
        if message.type == WSMsgType.BINARY:
            piece = message.data
        elif message.type == WSMsgType.TEXT:  # What is typed by hand into a serial console.
            piece = message.data.encode()
        else:
            return LOST
        to_guest.write(piece)
        await to_guest.drain()
        traffic.moved(to_guest=len(piece))
    return USER_ENDED


async def _until_idle(traffic: Traffic, timeout_s: float) -> str:
    while (left_s := traffic.moved_at + timeout_s - time.monotonic()) > 0:
        await asyncio.sleep(left_s)
    return IDLE
