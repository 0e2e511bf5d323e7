"""How busy the host's CPUs are, for schedulers that weigh it."""

import pathlib

CPU_MONITOR = "cpu.virt_driver"
"""Nova's name of the monitor, in `[compute] compute_monitors`."""
STEP = 10
_IDLE = (3, 4)  # idle, iowait: fields of the line, as proc(5) has them


class CpuLoad:
    """Percent of the time between two looks in which CPUs were busy, in steps: each other value is news to everybody.

    None: it is not known, at the first look and where the kernel does not say.
    """

    def __init__(self, stat: pathlib.Path = pathlib.Path("/proc/stat")) -> None:
        self._stat = stat
        self._before: tuple[int, int] | None = None

    def percent(self) -> int | None:
        """Since the look before."""
        now, before = self._read(), self._before
        self._before = now
        if now is None or before is None or now[1] <= before[1]:
            return None
        busy = (now[0] - before[0]) / (now[1] - before[1])
        return min(100, max(0, round(busy * 100 / STEP) * STEP))

    def _read(self) -> tuple[int, int] | None:
        """Busy and all time, in the kernel's ticks."""
        try:
            line = self._stat.read_text().partition("\n")[0]
            ticks = [int(word) for word in line.split()[1:9]]
        except (OSError, ValueError):
            return None
        if len(ticks) <= max(_IDLE):
            return None
        return sum(ticks) - sum(ticks[number] for number in _IDLE), sum(ticks)
