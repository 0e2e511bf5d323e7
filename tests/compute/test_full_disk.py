"""A disk that takes nothing more: the host refuses builds within seconds, says so, and returns by itself.

It stayed up and enabled, and its builds waited for it, ten minutes each.
"""

import contextlib
import errno
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator

import pytest

import compute.records
from compute.disk import MAX_TRIES, MAX_TROUBLE_S, Disk
from compute.records import DiskFailed, Records
from devstack.waiting import wait_until
from messaging.verbs import cell
from tests.compute.conftest import DEADLINE_S, HOST, Bench, new_uuid
from tests.compute.test_records import again, intent

SMALL_KIB = 128


class FullDisk:
    """The directory of the agent's records. `fill` leaves no room in it, `free` gives it back."""

    def __init__(self, fill: Callable[[], None], free: Callable[[], None]) -> None:
        self.fill = fill
        self.free = free


@contextlib.contextmanager
def _tmpfs(directory: pathlib.Path) -> Iterator[FullDisk]:
    """A real one, small."""
    directory.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_KIB}k", "tmpfs", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    ballast = directory / "ballast"

    def fill() -> None:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(512))

    try:
        yield FullDisk(fill, ballast.unlink)
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=False)


@contextlib.contextmanager
def _read_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[FullDisk]:
    """One that does not even take an empty file: no fence lasts."""
    is_full = [False]
    write, touch = compute.records._write, pathlib.Path.touch

    def failing_write(path: pathlib.Path, content: bytes, *, sync: bool = True) -> None:
        if is_full[0]:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        write(path, content, sync=sync)

    def failing_touch(path: pathlib.Path, mode: int = 0o666, exist_ok: bool = True) -> None:
        if is_full[0]:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        touch(path, mode, exist_ok)

    monkeypatch.setattr(compute.records, "_write", failing_write)
    monkeypatch.setattr(pathlib.Path, "touch", failing_touch)
    yield FullDisk(lambda: is_full.__setitem__(0, True), lambda: is_full.__setitem__(0, False))


@pytest.fixture(params=["full", "read only"])
def disk(request: pytest.FixtureRequest, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[FullDisk]:
    with _tmpfs(bench.agent_directory) if request.param == "full" else _read_only(monkeypatch) as made:
        yield made
        made.free() if request.param == "read only" else None
        for agent in bench.agents:
            agent.stop(2.0)


def test_a_host_whose_disk_takes_nothing_refuses_builds_and_says_so(bench: Bench, disk: FullDisk) -> None:
    started(bench)
    server, later = new_uuid(), new_uuid()
    disk.fill()

    bench.cell.build((server, 1))

    refusal = bench.cell.hear(cell.REFUSED)
    assert (refusal.uuid, refusal.attempt) == (server, 1) and "directory" in refusal.reason
    assert "directory" in bench.cell.hear(cell.HEARTBEAT, lambda beat: beat.refuses is not None).refuses
    bench.cell.build((later, 1))
    assert bench.cell.hear(cell.REFUSED, lambda row: row.uuid == later).attempt == 1
    assert bench.intents() == []
    assert bench.guests() == {}

    bench.cell.forget()
    disk.free()
    bench.cell.hear(cell.HEARTBEAT, lambda beat: beat.refuses is None)
    third = new_uuid()
    bench.cell.build((third, 1))
    bench.cell.hear(cell.ACTIVE, lambda row: row.uuid == third)


def test_what_was_refused_is_not_built_when_the_order_comes_again(bench: Bench, disk: FullDisk) -> None:
    started(bench)
    server = new_uuid()
    disk.fill()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.REFUSED)
    bench.cell.forget()
    disk.free()
    bench.cell.hear(cell.HEARTBEAT, lambda beat: beat.refuses is None)

    bench.cell.build((server, 1))

    bench.cell.hear(cell.REFUSED, lambda row: row.uuid == server)
    assert bench.guests() == {}
    # Where the fence could not be noted down the cell has the host answer once more; that notes it down.
    bench.cell.destroy((server, 1))
    bench.cell.hear_of([server], cell.GONE)
    assert bench.fences() == [f"{server}.1"]


def test_a_build_that_fails_while_the_disk_is_full_is_refused_as_well(bench: Bench, disk: FullDisk) -> None:
    """Its undoing could not be noted down, and was tried again until the deadline."""
    bench.faults(spawn_s=60.0)
    started(bench, compute__build_deadline_s=1.0)
    server = new_uuid()
    bench.cell.build((server, 1))
    wait_until(bench.is_spawning, what="a guest under way", deadline_s=DEADLINE_S)
    disk.fill()

    refusal = bench.cell.hear(cell.REFUSED)

    assert (refusal.uuid, refusal.attempt) == (server, 1)
    disk.free()
    bench.cell.destroy((server, 1))
    bench.cell.hear_of([server], cell.GONE)
    assert (bench.intents(), bench.fences()) == ([], [f"{server}.1"])


def started(bench: Bench, **settings: float) -> None:
    """An agent that has said hello: what it writes when it first runs is written."""
    bench.start(**settings)
    bench.cell.hear(cell.HEARTBEAT)


def test_one_failure_is_not_yet_trouble() -> None:
    clock = [0.0]
    disk = Disk(now=lambda: clock[0])

    assert [disk.failed("full") for _ in range(MAX_TRIES - 1)] == [False] * (MAX_TRIES - 1)
    disk.succeeded()
    assert not disk.failed("full") and disk.refuses is None
    clock[0] = MAX_TROUBLE_S
    assert disk.failed("full") and disk.refuses == "full"
    disk.succeeded()
    assert disk.refuses is None


def test_of_orders_that_came_together_all_are_written_or_none(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next agent would build what this one refused."""
    records = Records(tmp_path)
    records.open()
    write, left = compute.records._write, [1]

    def failing(path: pathlib.Path, content: bytes, *, sync: bool = True) -> None:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        write(path, content, sync=sync)

    monkeypatch.setattr(compute.records, "_write", failing)
    with pytest.raises(DiskFailed):
        records.accept([intent(new_uuid(), 1), intent(new_uuid(), 1)])

    assert again(records).intents() == []


def test_a_disk_that_fills_while_it_is_written_leaves_no_half_a_file(tmp_path: pathlib.Path) -> None:
    with _tmpfs(tmp_path / HOST) as disk:
        records = Records(tmp_path / HOST)
        records.open()
        disk.fill()

        with pytest.raises(DiskFailed):
            records.accept([intent(new_uuid(), 1)])

        assert list((records.directory / "intents").iterdir()) == []
        records.close()
