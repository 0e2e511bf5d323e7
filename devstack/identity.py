"""Which process is meant: a pid is used again after its process, a pid with its start time is not."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

STATE_FIELD = 0
START_TIME_FIELD = 19
"""Positions in /proc/PID/stat after the command's closing bracket; proc(5) counts them 3 and 22."""

ORPHANS_END_S = 5.0
TAG = "CELLPLANE_STACK"
TAG_NAME = "CELLPLANE_STACK_PROCESS"


@dataclass(frozen=True)
class Process:
    """One process of this machine, now or in the past."""

    pid: int
    started: str


def process_of(pid: int) -> Process | None:
    """The process that has this pid now; None when there is none or only its zombie is left."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[STATE_FIELD] in ("Z", "X"):
        return None
    return Process(pid=pid, started=f"{_boot_id()} {fields[START_TIME_FIELD]}")


def is_running(process: Process | None) -> bool:
    """Whether this very process still runs (a newer one with its pid does not count)."""
    return process is not None and process_of(process.pid) == process


def record(path: Path, process: Process) -> None:
    """Writes a pid file: the pid alone on the first line, the start time on the second."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text(f"{process.pid}\n{process.started}\n")
    fresh.replace(path)


def recorded(path: Path) -> Process | None:
    """The process a pid file names, running or not; None without a readable file."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        pid, started = path.read_text().splitlines()[:2]
        return Process(pid=int(pid), started=started)
    return None


def running(path: Path) -> Process | None:
    """The process a pid file names, if that very process still runs."""
    process = recorded(path)
    return process if is_running(process) else None


def send(process: Process, number: signal.Signals) -> bool:
    """Signals exactly this process; False when it is gone."""
    with _handle(process) as handle:
        if handle is None:
            return False
        signal.pidfd_send_signal(handle, number)
        return True


def tagged(tag: str) -> dict[str, Process]:
    """Leaders of process groups whose environment bears this tag, by the name they were given.

    What was started but not yet recorded when its starter was killed is found this way.
    """
    return {name: process for name, process, leader in _bearers(tag) if process.pid == leader}


def end_orphans(tag: str) -> None:
    """Kills the tagged members of groups whose leader is gone: workers that a killed parent left behind."""
    orphans = [process for _, process, leader in _bearers(tag) if process_of(leader) is None]
    for orphan in orphans:
        send(orphan, signal.SIGKILL)
    deadline = time.monotonic() + ORPHANS_END_S
    while any(is_running(orphan) for orphan in orphans) and time.monotonic() < deadline:
        time.sleep(0.02)


def tag_environment(tag: str, name: str) -> dict[str, str]:
    """The environment by which `tagged()` finds a process again."""
    return {TAG: tag, TAG_NAME: name}


def stop(process: Process, *, grace_s: float) -> None:
    """Ends a process: asks (SIGTERM, after waking it), waits, then insists; and ends what is left of its group."""
    stop_all([process], grace_s=grace_s)


def stop_all(processes: Iterable[Process], *, grace_s: float) -> None:
    """Ends several processes at once within one grace period."""
    chosen = list(processes)
    for process in chosen:
        send(process, signal.SIGTERM)
        send(process, signal.SIGCONT)
    deadline = time.monotonic() + grace_s
    while any(is_running(process) for process in chosen) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in chosen:
        send(process, signal.SIGKILL)
        end_group(process)


def end_group(leader: Process) -> None:
    """Ends what a dead group leader left behind; a pid is not used again while a group bears it."""
    if process_of(leader.pid) not in (None, leader):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader.pid, signal.SIGKILL)


@contextlib.contextmanager
def _handle(process: Process) -> Iterator[int | None]:
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # The comparison comes after the open: from here on the handle can't come to mean another process.
        yield handle if is_running(process) else None
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def _bearers(tag: str) -> Iterator[tuple[str, Process, int]]:
    """All processes with this tag: the name they were given, the process, and the pid of its group's leader."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        # A process may end while it is looked at; those of other users can't be.
        with contextlib.suppress(OSError):
            pairs = dict(
                pair.split("=", 1)
                for pair in (entry / "environ").read_text(errors="replace").split("\0")
                if "=" in pair
            )
            process = process_of(int(entry.name))
            if pairs.get(TAG) == tag and TAG_NAME in pairs and process is not None:
                yield pairs[TAG_NAME], process, os.getpgid(process.pid)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
