"""What processes use: CPU seconds, memory and threads, as Linux counts them in /proc.

A process of a stack starts a session of its own, so its children (API workers, gunicorn's worker, Erlang's port
programs) are found by the session's number, and those that ended count with whoever waited for them.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat behind the command's closing bracket; proc(5) counts them from 1 and the command as the
# second.
SESSION = 6 - 3
USER, SYSTEM, USER_OF_CHILDREN, SYSTEM_OF_CHILDREN = (number - 3 for number in (14, 15, 16, 17))
THREADS = 20 - 3


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of one name use; `cpu_s` counts from their start."""

    cpu_s: float = 0.0
    threads: int = 0
    pss_mib: float = 0.0


def cpu_s(leaders: Mapping[str, int]) -> dict[str, float]:
    """Name -> CPU seconds since its start, of processes given by the pid of their session's leader."""
    return {name: usage.cpu_s for name, usage in _usages(leaders, with_memory=False).items()}


def usages(leaders: Mapping[str, int]) -> dict[str, Usage]:
    """Name -> all that its processes use. Reading memory costs the kernel milliseconds per process: not inside a
    measurement."""
    return _usages(leaders, with_memory=True)


def total(usages: Iterable[Usage]) -> Usage:
    """The sum."""
    listed = list(usages)
    return Usage(
        cpu_s=sum(usage.cpu_s for usage in listed),
        threads=sum(usage.threads for usage in listed),
        pss_mib=sum(usage.pss_mib for usage in listed),
    )


def _usages(leaders: Mapping[str, int], *, with_memory: bool) -> dict[str, Usage]:
    names = {pid: name for name, pid in leaders.items()}
    usages: dict[str, list[Usage]] = {name: [] for name in leaders}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            name = names.get(int(fields[SESSION]))
            if name is not None:
                usages[name].append(_usage(entry, fields, with_memory=with_memory))
    return {name: total(each) for name, each in usages.items()}


def _usage(entry: Path, fields: list[str], *, with_memory: bool) -> Usage:
    ticks = sum(int(fields[number]) for number in (USER, SYSTEM, USER_OF_CHILDREN, SYSTEM_OF_CHILDREN))
    return Usage(
        cpu_s=ticks / TICKS_PER_S, threads=int(fields[THREADS]), pss_mib=_pss_mib(entry) if with_memory else 0.0
    )


def _pss_mib(entry: Path) -> float:
    for line in (entry / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0
