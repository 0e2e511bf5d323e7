"""An interrupted run leaves no process and no directory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devstack import identity
from devstack.background import REPOSITORY
from devstack.waiting import wait_until

pytestmark = pytest.mark.slow

START_S = 60.0
END_S = 90.0
INTERRUPTED = 2


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_run_leaves_nothing(number: signal.Signals, workers: int, tmp_path: Path) -> None:
    told = tmp_path / "told"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CELLPLANE_TEST_SECONDS"))
    }
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "-p", "no:cacheprovider",
            "tests/running/leaves_something.py"],
        cwd=REPOSITORY, env={**environment, "LEAVES_SOMETHING_TELLS": str(told)}, stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(
            lambda: told.exists() or run.poll() is not None, what="test that can be interrupted", deadline_s=START_S
        )
        pid, *places = told.read_text().splitlines()
        left = identity.process_of(int(pid))
        assert left is not None and all(Path(place).is_dir() for place in places)

        run.send_signal(number)

        assert run.wait(END_S) == INTERRUPTED
        assert not identity.is_running(left)
        assert [place for place in places if Path(place).exists()] == []
    finally:
        run.kill()
        run.wait()
