"""A service as a child of this process: for tests that start, freeze and kill it themselves."""

import os
import signal
import subprocess
from pathlib import Path

from core import errors
from devstack import identity


class Child:
    """One program and its process, if it runs."""

    def __init__(self, command: list[str], *, env: dict[str, str], log: Path, cwd: Path) -> None:
        self._command = command
        self._env = env
        self._log = log
        self._cwd = cwd
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its pid.

        Raises:
            Unavailable: it was not started or has ended.
        """
        if self._popen is None or self._popen.poll() is not None:
            raise errors.Unavailable(f"{self._command[0]} does not run; its log is {self._log}")
        return self._popen.pid

    def is_running(self) -> bool:
        """Whether its process lives, frozen or not."""
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """Starts it, in a session of its own; nothing happens when it runs already."""
        if self.is_running():
            return
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                self._command,
                env={**os.environ, **self._env},
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self, *, grace_s: float) -> None:
        """Ends it: SIGTERM, then SIGKILL after the grace period."""
        if self._popen is None:
            return
        process = identity.process_of(self._popen.pid)
        if process is not None:
            identity.stop(process, grace_s=grace_s)
        self._popen.wait(timeout=grace_s)

    def kill(self) -> None:
        """Ends it as a crash would: SIGKILL, no grace."""
        os.kill(self.pid, signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait(timeout=10.0)

    def freeze(self) -> None:
        """Stops it in its tracks: connections stay open, nothing is answered. When this returns, none of its threads
        runs any more."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Lets a frozen one go on."""
        os.kill(self.pid, signal.SIGCONT)
