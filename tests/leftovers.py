"""What a test run leaves behind when it is interrupted, and the end of that.

Every process that a run starts, by however many others and in whatever session, bears the run's mark in its environment
or names one of the run's directories in its command line. The process that heads the run ends them, and removes the
directories that nobody will read.
"""

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from devstack import identity

MARK = "CELLPLANE_TEST_RUN"
END_S = 10.0
ROUND_S = 0.05
OTHERS_MAY_PASS = 0o711


class Head:
    """The plugin of the process that heads a run: of its workers, or of none.

    Attributes:
        results: pytest's own directory for this run. It stays, as those of the last runs do, for whoever looks into a
            failure.
        scratch: the run's directory for all other temporary files. Its name is short, for sockets, and users other than
            root may enter it.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._is_interrupted = False
        self.results: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        own = secrets.token_hex(4)
        os.environ[MARK] = os.environ.get(MARK, "") + own  # A run inside a run is the outer one's, too.
        self.scratch = Path(tempfile.gettempdir()) / f"cp-{own}"
        self.scratch.mkdir(OTHERS_MAY_PASS)
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.scratch)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Called for Ctrl-C and SIGTERM, and for what ends a run at its first failure."""
        self._is_interrupted = excinfo.type is KeyboardInterrupt

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """The workers have ended, or had their time to."""
        end_processes(os.environ[MARK], [self.scratch, self.results])
        for directory in (self.scratch, self.results) if self._is_interrupted else (self.scratch,):
            shutil.rmtree(directory, ignore_errors=True)


def tear_down_on_signals() -> None:
    """From now on fixtures are torn down when this process is asked to end. A shell's background jobs begin with SIGINT
    ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def end_processes(mark: str, directories: Sequence[Path]) -> None:
    """Kills every other process of the run. None is left when this returns, unless the kernel keeps it for `END_S`."""
    deadline = time.monotonic() + END_S
    while (processes := list(_processes(mark, directories))) and time.monotonic() < deadline:
        # In rounds: one may have started another before it was killed.
        for process in processes:
            with contextlib.suppress(PermissionError):
                identity.send(process, signal.SIGKILL)
        time.sleep(ROUND_S)


def _processes(mark: str, directories: Sequence[Path]) -> Iterator[identity.Process]:
    marked, below = f"\0{MARK}={mark}", [f"{directory}/" for directory in directories]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # A process may end while it is looked at; those of other users can't be.
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_text(errors="replace")
            bears_mark = marked in f"\0{(entry / 'environ').read_text(errors='replace')}"
            process = identity.process_of(int(entry.name))
            if process is not None and (bears_mark or any(directory in command for directory in below)):
                yield process
