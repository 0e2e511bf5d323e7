"""What each guest was last known to do, and which of them did something else by themselves."""

import itertools
import threading
from collections.abc import Callable, Iterable

from lifecycle import states
from messaging.verbs.cell import Built
from objects.build import Guest


class KnownPowerStates:
    """Written by every action that changes a guest; compared with what the hypervisor says now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = itertools.count(1)
        self._now = 0
        self._known: dict[str, tuple[int, Guest | None]] = {}

    def note(self, guest: Guest) -> None:
        """By order, this is what the guest does now."""
        self._set(guest.uuid, guest)

    def forget(self, uuid: str) -> None:
        """By order, the guest is no more."""
        self._set(uuid, None)

    def moment(self) -> int:
        """To be asked before the guests are listed."""
        with self._lock:
            return self._now

    def changes(self, guests: Iterable[Guest], *, since: int, is_busy: Callable[[str], bool]) -> list[Built]:
        """The guests that differ from what is known; afterwards that is what is known.

        Left out are those that are being worked on, and those that an order changed since the moment `since`: the list
        may be older. After the agent's start nothing is known and all guests are named once: what happened meanwhile is
        news to the cell.
        """
        listed = {guest.uuid: guest for guest in guests}
        with self._lock:
            changed = []
            for uuid in {**self._known, **listed}:
                stamp, known = self._known.get(uuid, (0, None))
                guest = listed.get(uuid)
                if stamp > since or is_busy(uuid) or _as_built(guest) == _as_built(known):
                    continue
                built = _as_built(guest) or _vanished(known)
                if built is not None:
                    changed.append(built)
                self._known[uuid] = (stamp, guest)
            self._drop_forgotten(since)
            return changed

    def _set(self, uuid: str, guest: Guest | None) -> None:
        with self._lock:
            self._now = next(self._count)
            self._known[uuid] = (self._now, guest)

    def _drop_forgotten(self, since: int) -> None:
        for uuid in [uuid for uuid, (stamp, guest) in self._known.items() if guest is None and stamp <= since]:
            del self._known[uuid]


def _as_built(guest: Guest | None) -> Built | None:
    return None if guest is None else Built(guest.uuid, guest.attempt, guest.power_state)


def _vanished(guest: Guest | None) -> Built | None:
    return None if guest is None else Built(guest.uuid, guest.attempt, states.NO_STATE)
