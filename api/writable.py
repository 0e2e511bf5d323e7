"""Whether the API database takes writes: one that is read-only, or whose disk is full, answers every read."""

import sqlalchemy as sa

from cells.answers import Answer
from cells.gate import Gate
from core.clock import Clock

_VERSION = sa.table("alembic_version", sa.column("version_num"))
_EVERY_S = 5.0


class Writable:
    """Remembers what it found: whoever asks may ask often, and needs no credentials."""

    def __init__(self, database: Gate, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._looked_at = float("-inf")
        self._is_so = True

    async def is_so(self) -> bool:
        """As it was seconds ago at most."""
        now = self._clock.monotonic()
        if now - self._looked_at >= _EVERY_S:
            self._looked_at = now
            answer = await self._database.write(_takes_writes)
            self._is_so = isinstance(answer, Answer) and answer.value
        return self._is_so


def _takes_writes(connection: sa.Connection) -> bool:
    """Writes what stands there already. A refusal is an answer, not a failure of the database."""
    try:
        connection.execute(sa.update(_VERSION).values(version_num=_VERSION.c.version_num))
    except sa.exc.DBAPIError:
        return False
    return True
