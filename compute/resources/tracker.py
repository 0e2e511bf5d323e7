"""What the host's guests and the builds under way use, and whether one more fits."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator

import core.errors
from objects.build import BuildSpec, Guest
from objects.host import Inventory, Usage


@dataclasses.dataclass(frozen=True)
class Need:
    """What one server takes of a host; MiB and GiB."""

    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0

    def __add__(self, other: "Need") -> "Need":
        return Need(self.vcpus + other.vcpus, self.memory_mib + other.memory_mib, self.disk_gib + other.disk_gib)


def need_of(spec: BuildSpec) -> Need:
    """What the server will take; swap counts in whole GiB, as it is claimed in Placement."""
    flavor = spec.flavor
    return Need(flavor.vcpus, flavor.memory_mib, flavor.root_gib + flavor.ephemeral_gib + -(-flavor.swap_mib // 1024))


def usage(guests: Iterable[Guest], intended: Iterable[BuildSpec]) -> Usage:
    """What guests and accepted builds use together; a server that is both counts once."""
    needs = {spec.uuid: need_of(spec) for spec in intended}
    needs.update((guest.uuid, _need_of_guest(guest)) for guest in guests)
    total = sum(needs.values(), Need())
    return Usage(vcpus=total.vcpus, memory_mib=total.memory_mib, disk_gib=total.disk_gib, guests=len(needs))


class Tracker:
    """Lets builds in only as far as they fit: the host's own word after Placement's.

    Placement decides with what was reported; the host knows better when a superseded guest is still here, or memory
    went.
    """

    def __init__(self, inventory: Callable[[], Inventory], guests: Callable[[], list[Guest]]) -> None:
        self._inventory = inventory
        self._guests = guests
        self._lock = threading.Lock()
        self._claims: dict[str, Need] = {}

    @contextlib.contextmanager
    def claim(self, spec: BuildSpec) -> Iterator[None]:
        """Room for the server is kept inside the `with`; afterwards its guest takes it, or nothing does.

        Raises:
            Conflict: it does not fit; the message says what is short.
        """
        self._claim(spec)
        try:
            yield
        finally:
            with self._lock:
                self._claims.pop(spec.uuid, None)

    def _claim(self, spec: BuildSpec) -> None:
        need = need_of(spec)
        inventory = self._inventory()
        with self._lock:
            # The guests are read under the lock: a claim becomes a guest before it is let go, so nothing is missed
            # between the two.
            used = {guest.uuid: _need_of_guest(guest) for guest in self._guests()}
            used.update(self._claims)
            used.pop(spec.uuid, None)
            short = _short_of(inventory, sum(used.values(), Need()), need)
            if short:
                raise core.errors.Conflict(f"Not enough resources on the host: {', '.join(short)}")
            self._claims[spec.uuid] = need


def _need_of_guest(guest: Guest) -> Need:
    return Need(guest.vcpus, guest.memory_mib, guest.disk_gib)


def _short_of(inventory: Inventory, used: Need, need: Need) -> list[str]:
    """Capacity as Placement counts it: (total - reserved) * ratio."""
    rooms = (
        (
            "vcpus",
            (inventory.vcpus - inventory.reserved_vcpus) * inventory.cpu_allocation_ratio,
            used.vcpus,
            need.vcpus,
        ),
        (
            "memory_mib",
            (inventory.memory_mib - inventory.reserved_memory_mib) * inventory.ram_allocation_ratio,
            used.memory_mib,
            need.memory_mib,
        ),
        (
            "disk_gib",
            (inventory.disk_gib - inventory.reserved_disk_gib) * inventory.disk_allocation_ratio,
            used.disk_gib,
            need.disk_gib,
        ),
    )
    return [
        f"{name} (wanted {wanted}, free {max(0, int(capacity - taken))})"
        for name, capacity, taken, wanted in rooms
        if taken + wanted > capacity
    ]
