"""Latencies and faults of one simulated host, dialled while it runs: `dial.json` in the host's directory, read again
when it changes.

A test writes it with `turn`, which may run in another process:

    turn(directory, spawn_s=2.0)
    turn(directory, refuse={"probability": 0.3, "reason": "no luck"}, servers={"slow-*": {"hang": True}})
    turn(directory)          # everything back to normal

A key of `servers` is a pattern (`*`, `?`) of a server's uuid or name; what it sets goes before what is set for all.
"""

import fnmatch
import os
import pathlib
import random
import threading
from typing import Any

import msgspec

from compute import private

FILE = "dial.json"


class Chance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fault that strikes sometimes."""

    probability: float
    reason: str


class Setting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is dialled; None: as ever.

    Attributes:
        spawn_s, act_s, destroy_s: how long that takes.
        refuse: a spawn fails with this reason before it begins.
        spawn_error: a spawn fails with this reason at its very end, its half-built guest left behind.
        act_error, destroy_error: that fails with this reason.
        hang: a spawn does not end as long as this is set, unless its deadline is taken back.
        deaf: hanging, it does not even notice its deadline.
        keeps_devices: a guest that runs does not let go of disks and network cards.
        away: every call fails, as if the hypervisor's daemon were gone.
    """

    spawn_s: float | None = None
    act_s: float | None = None
    destroy_s: float | None = None
    refuse: str | Chance | None = None
    spawn_error: str | Chance | None = None
    act_error: str | Chance | None = None
    destroy_error: str | Chance | None = None
    hang: bool | None = None
    ignores_deadline: bool | None = None
    keeps_devices: bool | None = None
    away: bool | None = None


class _File(Setting, frozen=True, forbid_unknown_fields=True):
    servers: dict[str, Setting] = {}


NORMAL = Setting()


def turn(directory: pathlib.Path, **settings: Any) -> None:
    """Dials these settings, and no others, for the simulated host of this directory.

    Raises:
        msgspec.ValidationError: there is no such setting.
    """
    content = msgspec.json.encode(msgspec.convert(settings, type=_File))
    private.make_directory(directory)
    fresh = directory / f"{FILE}.{os.getpid()}.{threading.get_ident()}"
    private.write(fresh, content)
    fresh.replace(directory / FILE)


class Faults:
    """What is dialled now."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._path = directory / FILE
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._file = _File()

    def now(self, uuid: str = "", name: str = "") -> Setting:
        """What holds for the server; without one, for the host."""
        file = self._read()
        if not file.servers:
            return file
        merged = {field: getattr(file, field) for field in Setting.__struct_fields__}
        for pattern, setting in file.servers.items():
            if uuid and (fnmatch.fnmatchcase(uuid, pattern) or fnmatch.fnmatchcase(name, pattern)):
                merged.update(
                    (field, value)
                    for field in Setting.__struct_fields__
                    if (value := getattr(setting, field)) is not None
                )
        return Setting(**merged)

    def _read(self) -> _File:
        with self._lock:
            try:
                status = self._path.stat()
            except FileNotFoundError:
                self._seen, self._file = None, _File()
                return self._file
            seen = (status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                self._file = msgspec.json.decode(self._path.read_bytes(), type=_File)
                self._seen = seen
            return self._file


def strikes(fault: str | Chance | None) -> str | None:
    """The reason, if the fault strikes this time."""
    if isinstance(fault, Chance):
        return fault.reason if random.random() < fault.probability else None
    return fault
