"""A steady load of creates, lists, shows and deletes, and what became of every request."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

from core import errors
from tests.stack.cloud import Cloud
from tests.stack.servers import Servers

CALLERS = 3
PACE_S = 0.05
KEPT = 8
"""Servers that one caller has before it deletes its oldest."""
STOP_DEADLINE_S = 60.0


class Load:
    """Several callers, each with one request at a time, each request on a connection of its own, as the command line
    client does.

    No request is tried again: what fails is a failure.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._servers = Servers(cloud)
        self._numbers = itertools.count()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self.alive: set[str] = set()
        self.deleted: set[str] = set()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(STOP_DEADLINE_S)

    def count(self) -> int:
        """Requests answered so far, well or not."""
        return sum(self.answered.values()) + len(self.failures)

    def _call(self) -> None:
        mine: list[str] = []
        while not self._ended.wait(PACE_S):
            created = self._try("create", self._create)
            if created:
                mine.append(created)
            self._try("list", lambda: self._cloud.api("demo").get("/servers/detail", limit="20"))
            if mine:
                self._try("show", lambda: self._cloud.api("demo").get(f"/servers/{mine[-1]}"))
            if len(mine) > KEPT:
                self._try("delete", lambda: self._delete(mine.pop(0)))

    def _create(self) -> str:
        body = self._servers.body(f"load-{next(self._numbers)}")
        server = str(self._cloud.api("demo").post("/servers", body)["server"]["id"])
        with self._lock:
            self.alive.add(server)
        return server

    def _delete(self, server: str) -> None:
        self._cloud.api("demo").delete(f"/servers/{server}")
        with self._lock:
            self.alive.remove(server)
            self.deleted.add(server)

    def _try(self, what: str, work: Callable[[], Any]) -> Any:
        started = time.monotonic()
        try:
            result = work()
        except errors.CellplaneError as error:
            with self._lock:
                self.failures.append(
                    f"{time.strftime('%H:%M:%S')} {what} after {time.monotonic() - started:.2f} s: {error.message}"
                )
            return None
        with self._lock:
            self.answered[what] += 1
        return result
