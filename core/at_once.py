"""At most so many at once, for each of many."""

import collections
import contextlib
import threading
from collections.abc import Iterator

import core.errors


class AtOnce:
    """Counts what is under way for each key; nothing waits."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._under_way: collections.Counter[str] = collections.Counter()

    @contextlib.contextmanager
    def one_of(self, key: str) -> Iterator[None]:
        """Counts as one of the key's as long as the block runs.

        Raises:
            Unavailable: so many are under way already.
        """
        with self._lock:
            if self._under_way[key] >= self._most:
                raise core.errors.Unavailable(f"{self._most} requests to {key} are under way and have no answer yet")
            self._under_way[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way[key] -= 1
                if not self._under_way[key]:
                    del self._under_way[key]
