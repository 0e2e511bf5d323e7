"""A recorded pid is trusted only with its start time."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack import identity
from devstack.identity import Process
from devstack.waiting import wait_until


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    popen = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield popen
    popen.kill()
    popen.wait()


def test_a_running_process_is_known_by_its_pid_file(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    process = identity.process_of(sleeper.pid)
    assert process is not None

    identity.record(tmp_path / "sleeper.pid", process)

    assert (tmp_path / "sleeper.pid").read_text().splitlines()[0] == str(sleeper.pid)
    assert identity.running(tmp_path / "sleeper.pid") == process


def test_a_pid_that_was_used_again_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    earlier = Process(pid=sleeper.pid, started="another-boot 1")

    assert not identity.is_running(earlier)
    assert not identity.send(earlier, signal.SIGKILL)
    identity.stop(earlier, grace_s=1.0)

    assert sleeper.poll() is None


def test_a_zombie_does_not_run(sleeper: subprocess.Popen[bytes]) -> None:
    process = identity.process_of(sleeper.pid)

    os.kill(sleeper.pid, signal.SIGKILL)

    wait_until(lambda: not identity.is_running(process), what="end of the process", deadline_s=5.0)


def test_a_frozen_process_is_stopped_too(sleeper: subprocess.Popen[bytes]) -> None:
    process = identity.process_of(sleeper.pid)
    assert process is not None
    identity.send(process, signal.SIGSTOP)

    identity.stop(process, grace_s=5.0)

    assert not identity.is_running(process)


def test_a_process_that_ignores_the_request_is_killed() -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE, start_new_session=True) as popen:
        assert popen.stdout is not None
        popen.stdout.readline()
        process = identity.process_of(popen.pid)
        assert process is not None

        identity.stop(process, grace_s=0.2)

        assert popen.wait(5.0) == -signal.SIGKILL


def test_a_tagged_process_is_found_without_its_pid_file(tmp_path: Path) -> None:
    environment = {**os.environ, **identity.tag_environment(str(tmp_path), "sleeper")}
    with subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True) as popen:
        wait_until(
            lambda: identity.tagged(str(tmp_path)) == {"sleeper": identity.process_of(popen.pid)},
            what="tag",
            deadline_s=5.0,
        )
        popen.kill()


@pytest.mark.parametrize("text", ["", "no number\n", "12\n"])
def test_a_broken_pid_file_names_nobody(text: str, tmp_path: Path) -> None:
    (tmp_path / "broken.pid").write_text(text)

    assert identity.recorded(tmp_path / "broken.pid") is None


def test_workers_of_a_killed_parent_are_ended(tmp_path: Path) -> None:
    environment = {**os.environ, **identity.tag_environment(str(tmp_path), "parent")}
    with subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"], env=environment, stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        worker = identity.process_of(int(parent.stdout.readline()))
        identity.end_orphans(str(tmp_path))
        assert identity.is_running(worker)

        parent.kill()
        parent.wait()
        identity.end_orphans(str(tmp_path))

        wait_until(lambda: not identity.is_running(worker), what="end of the worker", deadline_s=5.0)
