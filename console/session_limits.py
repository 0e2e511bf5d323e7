"""How many consoles may be open: of all, with one token, of one server; and how many tokens may be judged at a time."""

import collections
import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass


class NoRoom(Exception):
    """There is no place left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionNumbers:
    """``judged`` are those whose token is still to be judged: they take no place from those who may come in."""

    sessions: int
    per_token: int
    per_server: int
    judged: int


class SessionLimits:
    """For one event loop."""

    def __init__(self, room: SessionNumbers) -> None:
        self._room = room
        self._judged = 0
        self._taken = 0
        self._by: collections.Counter[bytes | str] = collections.Counter()

    @contextlib.contextmanager
    def validating(self) -> Iterator[None]:
        """While a token is judged.

        Raises:
            NoRoom: too many are.
        """
        if self._judged >= self._room.judged:
            raise NoRoom
        self._judged += 1
        try:
            yield
        finally:
            self._judged -= 1

    @contextlib.contextmanager
    def taken(self, token: str, server: str) -> Iterator[None]:
        """While a console is open.

        Raises:
            NoRoom: too many are.
        """
        digest = hashlib.sha256(token.encode()).digest()
        room = self._room
        if self._taken >= room.sessions or self._by[digest] >= room.per_token or self._by[server] >= room.per_server:
            raise NoRoom
        self._taken += 1
        self._by.update((digest, server))
        try:
            yield
        finally:
            self._taken -= 1
            self._by.subtract((digest, server))
            # Those that nobody has are forgotten.
            self._by += collections.Counter()
