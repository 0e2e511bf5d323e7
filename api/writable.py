"""Whether the API database takes writes: one that is read-only, or whose disk is full, answers every read."""

import database.schema
from cells.gate.answers import Answer
from cells.gate.gate import Gate
from core.clock import Clock

_EVERY_S = 5.0


class Writable:
    """Remembers what it found: whoever asks may ask often, and needs no credentials."""

    def __init__(self, gate: Gate, clock: Clock) -> None:
        self._gate = gate
        self._clock = clock
        self._looked_at = float("-inf")
        self._is_so = True

    async def is_so(self) -> bool:
        """As it was seconds ago at most."""
        now = self._clock.monotonic()
        if now - self._looked_at >= _EVERY_S:
            self._looked_at = now
            answer = await self._gate.write(database.schema.takes_writes)
            self._is_so = isinstance(answer, Answer) and answer.value
        return self._is_so
