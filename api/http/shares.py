"""How much of a worker one project may have at once: the event loop serves whatever is ready, and knows no projects."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import core.errors

Waiting: TypeAlias = Callable[[float], contextlib.AbstractAsyncContextManager[object]]
"""What a wait of so many seconds ends with: the time at least."""


@dataclasses.dataclass(slots=True)
class _Share:
    """Of one project; `requests` are those under way and those that wait."""

    slots: asyncio.Semaphore
    requests: int = 0


class Shares:
    """Lets some requests of a project be worked on at once and some more wait for their turn, in order; for one event
    loop.

    Args:
        at_once: requests of one project that are worked on at the same time.
        waiting: requests of one project that may wait.
        wait_s: seconds after which one that waits is refused.
    """

    def __init__(self, *, at_once: int, waiting: int, wait_s: float) -> None:
        self._at_once = at_once
        self._most = at_once + waiting
        self._wait_s = wait_s
        self._shares: dict[str, _Share] = {}

    @contextlib.asynccontextmanager
    async def one_of(self, project_id: str, waiting: Waiting = asyncio.timeout) -> AsyncIterator[None]:
        """Runs the block, which is work alone and waits for no client, when it is its turn.

        Raises:
            OverShare: too many requests of the project wait, or this one waited for too long.
            Exception: what else `waiting` raised; the place is free then.
        """
        share = self._shares.setdefault(project_id, _Share(asyncio.Semaphore(self._at_once)))
        if share.requests >= self._most:
            raise _over(project_id)
        share.requests += 1
        try:
            await self._turn(share, project_id, waiting)
            try:
                yield
            finally:
                share.slots.release()
        finally:
            share.requests -= 1
            if not share.requests:
                del self._shares[project_id]

    async def _turn(self, share: _Share, project_id: str, waiting: Waiting) -> None:
        if not share.slots.locked():
            await share.slots.acquire()
            return
        try:
            async with waiting(self._wait_s):
                await share.slots.acquire()
        except TimeoutError:
            raise _over(project_id) from None


def _over(project_id: str) -> core.errors.OverShare:
    return core.errors.OverShare(f"Too many requests of project {project_id} are under way.")
