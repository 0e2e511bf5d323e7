"""What the agent keeps on its host's disk: open intents, fences, operations. The truth; the copy in memory follows it.

Layout below the agent's directory (`<state_path>/compute/<host>`), one file per server so that nothing is rewritten but
what changed:

- `intents/<uuid>.json`: the attempt that was accepted, with its order, until the report of it is confirmed.
- `fences/<uuid>.<attempt>`: an empty file; no attempt up to this one will ever be built here. Its time is that of the
  giving up.
- `operations/<uuid>.json`: operations accepted, the last one's outcome, outcomes not yet reported.
- `sealing.key`: opens the secrets that are sealed for this host.

A write is durable when the method returns: the file is synced, renamed over the old one, and the directory synced. What
may be repeated without harm (an intent cleared after its report, an outcome marked as reported) is not synced: a
machine that loses power then reports twice.
"""

import contextlib
import fcntl
import os
import pathlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

import core.errors
import core.log
from compute import private
from core.sealed import Opener
from messaging.verbs.cell import Outcome
from messaging.verbs.compute import Act, BuildAttempt

LOG = core.log.get(__name__)

_MAX_ENDED = 16
_PROBE_BYTES = 64 * 1024
"""As large as the largest orders are: a disk that takes a few bytes more is full all the same."""
_Kind = TypeVar("_Kind", bound=msgspec.Struct)


class DiskFailed(core.errors.Unavailable):
    """The agent's disk does not take what must be remembered: it is full, read-only or broken."""


class Intent(msgspec.Struct, frozen=True):
    """An attempt that this host has accepted. `request_id` is that of the order."""

    order: BuildAttempt
    request_id: str = ""

    @property
    def uuid(self) -> str:
        return self.order.spec.uuid

    @property
    def attempt(self) -> int:
        return self.order.attempt


class Waiting(msgspec.Struct, frozen=True):
    """An operation accepted and not yet done; `accepted_at` in seconds since 1970."""

    act: Act
    request_id: str = ""
    accepted_at: float = 0.0


class Operations(msgspec.Struct, frozen=True):
    """One guest's operations, oldest first; `last` is the newest that ended, `ended` the ids of the newest that did, it
    among them."""

    uuid: str
    attempt: int
    waiting: tuple[Waiting, ...] = ()
    last: Outcome | None = None
    unreported: tuple[Outcome, ...] = ()
    ended: tuple[str, ...] = ()

    def is_known(self, operation_id: str) -> bool:
        """Whether this operation is accepted, or was not long ago: it is not begun (once more)."""
        return operation_id in self.ended or any(waiting.act.operation_id == operation_id for waiting in self.waiting)

    def outcome(self, operation_id: str) -> Outcome | None:
        """How this operation ended, if that is still known."""
        known = (*self.unreported, self.last)
        return next(
            (outcome for outcome in known if outcome is not None and outcome.operation_id == operation_id), None
        )


class Records:
    """All of it, read once by `open`. Safe to call from any thread."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.opener = Opener(directory / "sealing.key")
        self._lock = threading.Lock()
        self._flock: int | None = None
        self._intents: dict[str, Intent] = {}
        self._operations: dict[str, Operations] = {}
        self._fences: dict[str, int] = {}
        self._fences_in_memory: dict[str, int] = {}
        self._built: dict[str, int] = {}

    def open(self) -> None:
        """Takes the directory for this agent and reads what is there.

        Raises:
            Conflict: another agent works in this directory.
            Unavailable: the disk does not let us.
        """
        with _disk_errors():
            # Guests' own processes pass it on the way to their images.
            private.make_directory(self.directory, mode=private.PASSABLE)
            for name in ("intents", "fences", "operations"):
                private.make_directory(self.directory / name)
            self._flock = _locked(self.directory)
            self._intents = {intent.uuid: intent for intent in _read_all(self.directory / "intents", Intent)}
            self._operations = {entry.uuid: entry for entry in _read_all(self.directory / "operations", Operations)}
            self._fences = _read_fences(self.directory / "fences")
        for uuid, intent in list(self._intents.items()):
            if intent.attempt <= self.fence(uuid):
                self.clear_intent(uuid, intent.attempt)

    def close(self) -> None:
        """Lets another agent in."""
        if self._flock is not None:
            os.close(self._flock)
            self._flock = None

    # Intents.

    def intent(self, uuid: str) -> Intent | None:
        """The open intent of the server, or None."""
        return self._intents.get(uuid)

    def intents(self) -> list[Intent]:
        """All open intents."""
        with self._lock:
            return list(self._intents.values())

    def accept(self, intents: Iterable[Intent]) -> list[Intent]:
        """Writes those that are neither fenced off nor older than an open one; gives back those written.

        An intent of an older attempt of the same server is replaced: that attempt was given up. All are written, or
        none.
        """
        with self._lock, _disk_errors():
            wanted = [intent for intent in intents if self._is_news(intent)]
            try:
                for intent in wanted:
                    _write(self._path("intents", intent.uuid), msgspec.json.encode(intent))
                if wanted:
                    _sync(self.directory / "intents")
            except OSError:
                # The next agent would take up what nobody was told of.
                for intent in wanted:
                    self._path("intents", intent.uuid).unlink(missing_ok=True)
                raise
            self._intents.update((intent.uuid, intent) for intent in wanted)
            return wanted

    def clear_intent(self, uuid: str, attempt: int) -> None:
        """The intent up to this attempt is done with. Not synced: after a loss of power it is reported again."""
        with self._lock, _disk_errors():
            self._clear_intent(uuid, attempt)

    def note_built(self, uuid: str, attempt: int) -> None:
        """The guest of the intent stands, and only its report is not confirmed yet. Kept in memory: the next agent
        finds the guest."""
        with self._lock:
            if uuid in self._intents:
                self._built[uuid] = attempt

    def is_under_build(self, uuid: str) -> bool:
        """Whether an attempt is accepted and its guest does not stand yet."""
        with self._lock:
            intent = self._intents.get(uuid)
            return intent is not None and self._built.get(uuid) != intent.attempt

    # Fences.

    def fence(self, uuid: str) -> int:
        """The highest attempt given up here; 0: none."""
        return max(self._fences.get(uuid, 0), self._fences_in_memory.get(uuid, 0))

    def give_up_in_memory(self, uuid: str, attempt: int) -> None:
        """Fences the attempt off until this agent ends: all that can be done while the disk takes nothing."""
        with self._lock:
            self._fences_in_memory[uuid] = max(attempt, self._fences_in_memory.get(uuid, 0))

    def give_up(self, attempts: dict[str, int]) -> None:
        """Fences the servers' attempts off, up to the given ones, and forgets their intents up to them."""
        with self._lock, _disk_errors():
            higher = {uuid: attempt for uuid, attempt in attempts.items() if attempt > self._fences.get(uuid, 0)}
            for uuid, attempt in higher.items():
                private.mark(self.directory / "fences" / f"{uuid}.{attempt}")
            if higher:
                _sync(self.directory / "fences")
            older = {uuid: self._fences.get(uuid, 0) for uuid in higher}
            self._fences.update(higher)
            for uuid, attempt in older.items():
                (self.directory / "fences" / f"{uuid}.{attempt}").unlink(missing_ok=True)
            for uuid, attempt in attempts.items():
                self._clear_intent(uuid, attempt)
                if self._fences_in_memory.get(uuid, 0) <= attempt:
                    self._fences_in_memory.pop(uuid, None)

    def probe(self) -> None:
        """Writes something and removes it.

        Raises:
            DiskFailed: the disk still takes nothing.
        """
        with self._lock, _disk_errors():
            _write(self.directory / "probe", bytes(_PROBE_BYTES))
            (self.directory / "probe").unlink()

    # Operations.

    def operations(self, uuid: str) -> Operations | None:
        """The guest's operations, or None if there never was one."""
        return self._operations.get(uuid)

    def all_operations(self) -> list[Operations]:
        """Those of every guest."""
        with self._lock:
            return list(self._operations.values())

    def accept_operation(self, waiting: Waiting) -> bool:
        """Remembers the operation as the guest's newest, those of an older attempt are forgotten; False if its id is
        known."""
        act = waiting.act
        with self._lock, _disk_errors():
            entry = self._operations_of(act.uuid, act.attempt)
            if entry.is_known(act.operation_id) or entry.outcome(act.operation_id):
                return False
            self._keep(msgspec.structs.replace(entry, waiting=(*entry.waiting, waiting)), sync=True)
            return True

    def operation_ended(self, uuid: str, attempt: int, outcome: Outcome) -> None:
        """Remembers how an operation ended; it is to be reported."""
        with self._lock, _disk_errors():
            entry = self._operations_of(uuid, attempt)
            left = tuple(waiting for waiting in entry.waiting if waiting.act.operation_id != outcome.operation_id)
            ended = (*entry.ended, outcome.operation_id)[-_MAX_ENDED:]
            unreported = (*entry.unreported, outcome)
            self._keep(
                msgspec.structs.replace(entry, waiting=left, last=outcome, unreported=unreported, ended=ended),
                sync=True,
            )

    def operation_reported(self, uuid: str, operation_id: str) -> None:
        """The report of the operation is confirmed. Not synced: after a loss of power it is reported again."""
        with self._lock, _disk_errors():
            entry = self._operations.get(uuid)
            if entry is not None and any(outcome.operation_id == operation_id for outcome in entry.unreported):
                left = tuple(outcome for outcome in entry.unreported if outcome.operation_id != operation_id)
                self._keep(msgspec.structs.replace(entry, unreported=left), sync=False)

    def forget_operations(self, uuid: str, up_to_attempt: int) -> None:
        """The guest of these attempts is gone, and what was done to it does not matter any more."""
        with self._lock, _disk_errors():
            entry = self._operations.get(uuid)
            if entry is not None and entry.attempt <= up_to_attempt:
                self._path("operations", uuid).unlink(missing_ok=True)
                del self._operations[uuid]

    # Age.

    def purge(self, *, older_than_s: float, guests: set[str]) -> int:
        """Forgets fences, and operations of guests that are not there, of that age; how many."""
        before = time.time() - older_than_s
        with self._lock, _disk_errors():
            fences = [path for path in (self.directory / "fences").iterdir() if _written(path) < before]
            operations = [
                path
                for path in (self.directory / "operations").glob("*.json")
                if path.stem not in guests and _written(path) < before
            ]
            for path in (*fences, *operations):
                path.unlink(missing_ok=True)
            for path in operations:
                self._operations.pop(path.stem, None)
            self._fences = _read_fences(self.directory / "fences")
            return len(fences) + len(operations)

    def _is_news(self, intent: Intent) -> bool:
        known = self._intents.get(intent.uuid)
        return intent.attempt > self.fence(intent.uuid) and (known is None or known.attempt < intent.attempt)

    def _clear_intent(self, uuid: str, attempt: int) -> None:
        known = self._intents.get(uuid)
        if known is not None and known.attempt <= attempt:
            self._path("intents", uuid).unlink(missing_ok=True)
            del self._intents[uuid]
            self._built.pop(uuid, None)

    def _operations_of(self, uuid: str, attempt: int) -> Operations:
        entry = self._operations.get(uuid)
        return entry if entry is not None and entry.attempt >= attempt else Operations(uuid=uuid, attempt=attempt)

    def _keep(self, entry: Operations, *, sync: bool) -> None:
        _write(self._path("operations", entry.uuid), msgspec.json.encode(entry), sync=sync)
        if sync:
            _sync(self.directory / "operations")
        self._operations[entry.uuid] = entry

    def _path(self, folder: str, uuid: str) -> pathlib.Path:
        return self.directory / folder / f"{uuid}.json"


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """A disk that fails or is full is `Unavailable`: the message comes again, the sweep repeats."""
    try:
        yield
    except OSError as error:
        raise DiskFailed(f"The agent's directory: {error.strerror or error}") from error


def _locked(directory: pathlib.Path) -> int:
    lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise core.errors.Conflict(f"Another agent works in {directory}: a host has one") from error
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def _write(path: pathlib.Path, content: bytes, *, sync: bool = True) -> None:
    """Puts the content in the file's place in one step; the name is durable only after the directory is synced."""
    fresh = path.with_suffix(".new")
    try:
        # For our eyes only: an order may hold the user's secrets (user data).
        with private.opened(fresh) as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        fresh.rename(path)
    except OSError:
        fresh.unlink(missing_ok=True)  # Half a file keeps room that the next one needs.
        raise


def _sync(directory: pathlib.Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_all(directory: pathlib.Path, kind: type[_Kind]) -> list[_Kind]:
    records = []
    for path in directory.glob("*.json"):
        try:
            records.append(msgspec.json.decode(path.read_bytes(), type=kind))
        except msgspec.MsgspecError as error:
            # Our writes are whole or not there: this is a disk's or a person's doing. The row sends the order again.
            LOG.error("a record cannot be read and is put aside path=%s why=%s", path, error)
            path.rename(path.with_suffix(".unreadable"))
    return records


def _read_fences(directory: pathlib.Path) -> dict[str, int]:
    fences: dict[str, int] = {}
    for path in directory.iterdir():
        uuid, _, attempt = path.name.rpartition(".")
        if uuid and attempt.isdigit():
            fences[uuid] = max(fences.get(uuid, 0), int(attempt))
    return fences


def _written(path: pathlib.Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
