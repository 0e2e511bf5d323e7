"""How busy a host says that it is."""

import pathlib

import pytest

from compute.resources.cpu_load import CpuLoad


def looks(folder: pathlib.Path, *lines: str) -> list[int | None]:
    stat = folder / "stat"
    load = CpuLoad(stat)
    found = []
    for line in lines:
        stat.write_text(line + "\ncpu0 1 1 1 1 1 1 1 1\n")
        found.append(load.percent())
    return found


def test_it_is_the_time_between_two_looks_in_steps(tmp_path: pathlib.Path) -> None:
    idle, half, full = "cpu  100 0 0 900 0 0 0 0 0 0", "cpu  153 0 0 947 0 0 0 0 0 0", "cpu  253 0 0 947 0 0 0 0 0 0"
    waiting = "cpu  253 0 0 947 100 0 0 0 0 0"

    assert looks(tmp_path, idle, half, full, waiting) == [None, 50, 100, 0]


@pytest.mark.parametrize("line", ["", "cpu", "cpu 1 2", "cpu a b c d e f g h", "cpu  1 0 0 9 0 0 0 0"])
def test_what_the_kernel_does_not_say_is_not_known(tmp_path: pathlib.Path, line: str) -> None:
    assert looks(tmp_path, "cpu  1 0 0 9 0 0 0 0", line) == [None, None]
    assert CpuLoad(tmp_path / "none").percent() is None
