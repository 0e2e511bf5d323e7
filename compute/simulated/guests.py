"""The guests of one simulated host: a JSON file each, written in one step; the directory is the hypervisor's memory."""

import os
import pathlib
import threading
import time

import msgspec

from compute import private
from compute.resources.tracker import need_of
from lifecycle import states
from objects.build import BuildSpec, Guest

_MAX_EVENTS = 64
_UNSETTLED_NS = 50_000_000


class SimulatedGuest(msgspec.Struct, frozen=True):
    """One guest.

    `disks` and `nics` were attached: by volume, and by address. `events`: (seconds since 1970, boot | shutdown | reset
    | save | restore | pause | unpause | nmi …), oldest first.
    """

    uuid: str
    attempt: int
    name: str
    hostname: str
    power_state: int
    vcpus: int
    memory_mib: int
    disk_gib: int
    saved: bool = False
    rescued: bool = False
    disks: tuple[str, ...] = ()
    nics: tuple[str, ...] = ()
    events: tuple[tuple[float, str], ...] = ()

    def as_guest(self) -> Guest:
        """What the agent sees of it."""
        return Guest(
            uuid=self.uuid,
            attempt=self.attempt,
            power_state=self.power_state,
            vcpus=self.vcpus,
            memory_mib=self.memory_mib,
            disk_gib=self.disk_gib,
        )


def new_guest(spec: BuildSpec, attempt: int) -> SimulatedGuest:
    """A guest that was just made and runs."""
    need = need_of(spec)
    return SimulatedGuest(
        uuid=spec.uuid,
        attempt=attempt,
        name=spec.name,
        hostname=spec.hostname,
        power_state=states.RUNNING,
        vcpus=need.vcpus,
        memory_mib=need.memory_mib,
        disk_gib=need.disk_gib,
        events=((time.time(), "boot"),),
    )


def with_event(guest: SimulatedGuest, event: str) -> SimulatedGuest:
    """The guest, to which this happened now."""
    return msgspec.structs.replace(guest, events=(*guest.events, (time.time(), event))[-_MAX_EVENTS:])


class GuestFiles:
    """The files `<uuid>.json` (guests) and `building/<uuid>.<attempt>` (guests being made) below one directory."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._building = directory / "building"
        self._lock = threading.Lock()
        self._listed_ns = 0
        self._listed: dict[str, tuple[int, int, SimulatedGuest]] = {}

    def prepare(self) -> None:
        """Makes the directory."""
        private.make_directory(self._building)

    def all(self) -> list[SimulatedGuest]:
        """Every guest. Files that did not change since the last call are not read again: an idle host costs one
        `stat`."""
        with self._lock:
            now_ns = (
                time.time_ns()
            )  # Before the list is made: that may take a while, and what changes in it must not pass for seen.
            changed_ns = self._directory.stat().st_mtime_ns
            if changed_ns != self._listed_ns:
                self._listed = self._list()
                # A change within the same tick of the file system's clock would go unseen: so soon after one, look
                # again next time.
                self._listed_ns = changed_ns if now_ns - changed_ns > _UNSETTLED_NS else 0
            return [guest for _, _, guest in self._listed.values()]

    def get(self, uuid: str) -> SimulatedGuest | None:
        """One guest."""
        try:
            return msgspec.json.decode((self._directory / f"{uuid}.json").read_bytes(), type=SimulatedGuest)
        except FileNotFoundError:
            return None

    def put(self, guest: SimulatedGuest) -> None:
        """The guest is now so."""
        fresh = self._directory / f"{guest.uuid}.new"
        private.write(fresh, msgspec.json.encode(guest))
        fresh.replace(self._directory / f"{guest.uuid}.json")

    def drop(self, uuid: str) -> None:
        """The guest is no more."""
        (self._directory / f"{uuid}.json").unlink(missing_ok=True)

    def begin(self, uuid: str, attempt: int) -> None:
        """A guest of this attempt is being made."""
        private.mark(self._building / f"{uuid}.{attempt}")

    def end(self, uuid: str, attempt: int) -> None:
        """It is made."""
        (self._building / f"{uuid}.{attempt}").unlink(missing_ok=True)

    def half_built(self, uuid: str) -> list[int]:
        """The attempts of which something half-built is here."""
        names = (path.name.rpartition(".") for path in self._building.iterdir())
        return sorted(int(attempt) for whose, _, attempt in names if whose == uuid)

    def _list(self) -> dict[str, tuple[int, int, SimulatedGuest]]:
        guests = {}
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if not entry.name.endswith(".json"):
                    continue
                try:
                    status = entry.stat()
                    known = self._listed.get(entry.name)
                    if known is None or known[:2] != (status.st_mtime_ns, status.st_ino):
                        guest = msgspec.json.decode(pathlib.Path(entry.path).read_bytes(), type=SimulatedGuest)
                        known = (status.st_mtime_ns, status.st_ino, guest)
                except FileNotFoundError:
                    continue
                guests[entry.name] = known
        return guests
