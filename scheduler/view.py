"""The hosts of all cells as one process sees them, kept up to date by small changes."""

import dataclasses
import random
import threading
from collections.abc import Iterable, Mapping

from core.clock import Clock, SystemClock
from scheduler.hosts import HostState

_SETTLE_S = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Placed:
    """A server that we placed and that its host may not have counted yet."""

    resources: Mapping[str, int]
    at_s: float
    report: object
    """`reported_at` of the host at that moment; a report with the same is no newer."""


class HostView:
    """Safe for many threads.

    What we place is counted at once and until the host's own report is newer: one with another `reported_at` that
    arrives at least `settle_s` after, for a report made while the order was on its way does not count the server yet.
    Placement remains the judge; this only keeps a burst from piling up on the host that looked emptiest.
    """

    def __init__(self, *, clock: Clock | None = None, settle_s: float = _SETTLE_S) -> None:
        self._clock = clock or SystemClock()
        self._settle_s = settle_s
        self._lock = threading.Lock()
        self._reported: dict[str, HostState] = {}
        self._placed: dict[str, dict[str, _Placed]] = {}
        self._where: dict[str, str] = {}
        self._effective: dict[str, HostState] = {}
        self._snapshot: tuple[HostState, ...] | None = None
        self._names: dict[str, list[str]] | None = None
        """Cell -> its hosts; None: some came, left or moved."""
        self._stale: dict[str, set[str]] = {}

    def update(self, cell_uuid: str, changed: Iterable[HostState]) -> None:
        """Takes the newest states of hosts of a cell; hosts not among them stay as they are."""
        with self._lock:
            for state in changed:
                known = self._reported.get(state.host)
                if known is None or known.cell_uuid != state.cell_uuid:
                    self._names = None
                self._reported[state.host] = state
                self._stale.get(cell_uuid, set()).discard(state.host)
                self._settle(state)
                self._count(state.host)

    def remove(self, host: str) -> None:
        """The host is no more."""
        with self._lock:
            for uuid in self._placed.pop(host, {}):
                del self._where[uuid]
            self._reported.pop(host, None)
            self._effective.pop(host, None)
            for hosts in self._stale.values():
                hosts.discard(host)
            self._snapshot = self._names = None

    def settle(self) -> None:
        """Hosts whose reports are new enough by now count what we placed there themselves."""
        with self._lock:
            for host in list(self._placed):
                placed = len(self._placed[host])
                self._settle(self._reported[host])
                if len(self._placed.get(host, ())) != placed:
                    self._count(host)

    def keep_only(self, cell_uuid: str, hosts: Iterable[str]) -> None:
        """Removes those of the cell's hosts that are not among these: they were deleted or moved."""
        with self._lock:
            gone = set(self._by_cell().get(cell_uuid, ())) - set(hosts)
        for host in gone:
            self.remove(host)

    def consume(self, host: str, uuid: str, resources: Mapping[str, int]) -> None:
        """Counts a server that we placed on the host; a server is on one host at a time."""
        with self._lock:
            self._forget(uuid)
            state = self._reported.get(host)
            if state is None:
                return
            self._where[uuid] = host
            self._placed.setdefault(host, {})[uuid] = _Placed(resources, self._clock.monotonic(), state.reported_at)
            self._effective[host] = self._effective[host].with_server(resources)
            self._snapshot = None

    def forget(self, uuid: str) -> None:
        """The server did not go where `consume` said, or is gone again."""
        with self._lock:
            self._forget(uuid)

    def refresh_needed(self, host: str) -> None:
        """Placement refused what looked fine here: the host is to be read again before its turn."""
        with self._lock:
            state = self._reported.get(host)
            if state is not None:
                self._stale.setdefault(state.cell_uuid, set()).add(host)

    def stale(self, cell_uuid: str) -> frozenset[str]:
        """Hosts of the cell that are to be read again; `update` ends it."""
        with self._lock:
            return frozenset(self._stale.get(cell_uuid, ()))

    def __len__(self) -> int:
        """How many hosts there are."""
        return len(self._reported)

    def snapshot(self) -> tuple[HostState, ...]:
        """All hosts as of now, with what we placed on them."""
        with self._lock:
            if self._snapshot is None:
                self._snapshot = tuple(self._effective.values())
            return self._snapshot

    def some(self, cells: int, hosts: int, *, rng: random.Random) -> tuple[HostState, ...] | None:
        """So many hosts of each of so many cells, picked by chance (larger cells more often), with what we placed on
        them.

        None: there are hardly more than these, look at all of them. A choice among a few hundred is as good as one
        among thousands, for whoever is best in one sample is close to the best there is, and it costs the same however
        large the cloud.
        """
        with self._lock:
            if len(self._effective) <= cells * hosts:
                return None
            by_cell = self._by_cell()
            names = list(by_cell)
            sizes = [len(by_cell[cell]) for cell in names]
            picked = dict.fromkeys(rng.choices(names, sizes, k=cells))
            chosen = [host for cell in picked for host in _at_most(by_cell[cell], hosts, rng)]
            return tuple(self._effective[host] for host in chosen)

    def _by_cell(self) -> dict[str, list[str]]:
        if self._names is None:
            self._names = {}
            for host, state in self._reported.items():
                self._names.setdefault(state.cell_uuid, []).append(host)
        return self._names

    def reported(self) -> tuple[HostState, ...]:
        """All hosts as they reported themselves: to try before giving up, since our own count may count a server
        twice."""
        with self._lock:
            return tuple(self._reported.values())

    def _settle(self, state: HostState) -> None:
        before = self._clock.monotonic() - self._settle_s
        placed = self._placed.get(state.host, {})
        for uuid in [uuid for uuid, one in placed.items() if one.report != state.reported_at and one.at_s <= before]:
            self._drop(uuid, state.host)

    def _forget(self, uuid: str) -> None:
        host = self._where.get(uuid)
        if host is not None:
            self._drop(uuid, host)
            self._count(host)

    def _drop(self, uuid: str, host: str) -> None:
        del self._where[uuid]
        del self._placed[host][uuid]
        if not self._placed[host]:
            del self._placed[host]

    def _count(self, host: str) -> None:
        state = self._reported[host]
        for placed in self._placed.get(host, {}).values():
            state = state.with_server(placed.resources)
        self._effective[host] = state
        self._snapshot = None


def _at_most(names: list[str], most: int, rng: random.Random) -> list[str]:
    return names if len(names) <= most else rng.sample(names, most)
