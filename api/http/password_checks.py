"""Who waits for whom while passwords are checked, which takes a tenth of a second or more, by design.

Guesses keep nobody out: credentials that were good lately have a lane with a thread of its own, which no guess can
enter. All others share the other lane: two checks under way for one name and for one address, a bounded number waiting
for them, and a pause that grows with each wrong password for the same name from the same address.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cachetools import TTLCache

from core import errors
from core.bounded_pool import BoundedPool
from core.clock import Clock

T = TypeVar("T")

MAX_UNDER_WAY = 2
_MAX_WAITING = 256
_MAX_WAITING_ALIKE = 32
_MAX_WAITING_KNOWN = 64
_PATIENCE_S = 10.0
_CHECK_S = 30.0
"""A check of the highest cost takes seconds, and others may stand before it."""
_FREE_GUESSES = 3
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_MAX_REMEMBERED = 4096
_REMEMBERED_S = 600.0


@dataclass(slots=True)
class _Queue:
    """Of the checks for one name, or from one address."""

    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_UNDER_WAY))
    length: int = 0


class PasswordChecks(Generic[T]):
    """Runs checks in threads; for one event loop."""

    def __init__(self, check: Callable[[str, bytes], T | None], clock: Clock) -> None:
        """``check`` gives what a name and its password stand for, None where they don't fit."""
        self._check = check
        self._clock = clock
        self._queues: TTLCache[tuple[str, str], _Queue] = TTLCache(
            _MAX_REMEMBERED, _REMEMBERED_S, timer=clock.monotonic
        )
        self._wrong: TTLCache[tuple[str, str], int] = TTLCache(_MAX_REMEMBERED, _REMEMBERED_S, timer=clock.monotonic)
        self._known_lane = BoundedPool("the check of known passwords", threads=1, waiting=_MAX_WAITING_KNOWN)
        self._lane = BoundedPool("the check of passwords", threads=1, waiting=_MAX_WAITING)
        self._waiting = 0

    async def judge(self, name: str, password: bytes, address: str) -> T | None:
        """What they stand for.

        Raises:
            Unavailable: too many are being checked, of all or of this name or address.
        """
        async with self._admitted(name, address):
            identity = await self._lane.run(self._check, _CHECK_S, name, password)
        if identity is None:
            self._wrong[name, address] = self._wrong.get((name, address), 0) + 1
        else:
            self._wrong.pop((name, address), None)
        return identity

    async def judge_known(self, name: str, password: bytes) -> T | None:
        """The same of what was good lately.

        Raises:
            Unavailable: too many are being checked.
        """
        return await self._known_lane.run(self._check, _CHECK_S, name, password)

    def close(self) -> None:
        """Lets go of the threads."""
        for lane in (self._known_lane, self._lane):
            lane.close()

    @contextlib.asynccontextmanager
    async def _admitted(self, name: str, address: str) -> AsyncIterator[None]:
        """The pause is over, and there is a place for this name and for this address."""
        queues = [self._queues.setdefault(kind, _Queue()) for kind in (("name", name), ("address", address))]
        with self._waits(queues):
            async with contextlib.AsyncExitStack() as slots:
                try:
                    async with asyncio.timeout(_PATIENCE_S):
                        await asyncio.sleep(self._pause_s(name, address))
                        for queue in queues:
                            await slots.enter_async_context(queue.slots)
                except TimeoutError:
                    raise _too_many() from None
                yield

    @contextlib.contextmanager
    def _waits(self, queues: list[_Queue]) -> Iterator[None]:
        if self._waiting >= _MAX_WAITING or any(queue.length >= _MAX_WAITING_ALIKE for queue in queues):
            raise _too_many()
        self._waiting += 1
        for queue in queues:
            queue.length += 1
        try:
            yield
        finally:
            self._waiting -= 1
            for queue in queues:
                queue.length -= 1

    def _pause_s(self, name: str, address: str) -> float:
        beyond = self._wrong.get((name, address), 0) - _FREE_GUESSES
        return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(beyond, 16)) if beyond > 0 else 0.0


def _too_many() -> errors.Unavailable:
    return errors.Unavailable("Too many passwords are being checked at once")
