"""Programs of other projects in a virtual environment of their own, in the user's cache: made once, for whoever asks
for it.

They bring some hundred libraries, eventlet among them; Cellplane's own environment stays as it is.
"""

import dataclasses
import fcntl
import functools
import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from core import errors
from devstack import guest_image, pins

INSTALL_DEADLINE_S = 600.0
RETRIES = 2
"""pip's own five take minutes on a machine that reaches no index."""


@dataclasses.dataclass(frozen=True)
class OwnEnvironment:
    """The environment of one section of constraints.txt. `module`: what makes it when it is run; `sources`: what there
    are no wheels of."""

    section: str
    title: str
    module: str
    sources: tuple[str, ...] = ()

    def path(self) -> Path:
        """Where it is; other pins, or another Python, make another one."""
        what = (pins.section("build"), pins.section(self.section), sys.version_info[:2], sys.base_prefix)
        return guest_image.cache() / f"{self.section}-{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}"

    def is_installed(self) -> bool:
        """Whether a whole one is there."""
        return (self.path() / "installed").is_file()

    def program(self, name: str) -> str:
        """The full path of one of its programs.

        Raises:
            Unavailable: it is not installed.
        """
        if not self.is_installed():
            raise errors.Unavailable(f"{self.title} is not installed: python -m {self.module}")
        return str(self.path() / "bin" / name)

    def ensure(self, say: Callable[[str], None]) -> None:
        """Installs it if it is not there.

        Raises:
            Unavailable: pip could not.
        """
        if self.is_installed():
            return
        self.path().parent.mkdir(parents=True, exist_ok=True)
        with self.path().with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.is_installed():
                started = time.monotonic()
                say(f"installing {self.title} into {self.path()} …")
                self._install()
                say(f"installed in {time.monotonic() - started:.0f} s")

    def main(self) -> int:
        """Makes sure of it, and says what stands in the way."""
        try:
            self.ensure(functools.partial(print, flush=True))
        except errors.CellplaneError as error:
            print(error.message, file=sys.stderr)
            return 1
        return 0

    def _install(self) -> None:
        # Not made elsewhere and moved: the scripts of an environment name its path.
        shutil.rmtree(self.path(), ignore_errors=True)
        make = [sys.executable, "-m", "venv", str(self.path())]
        self._run(
            lambda: subprocess.run(
                make, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S, check=False
            )
        )
        python, options = self.path() / "bin" / "python", (*pins.WHEELS_ONLY, f"--retries={RETRIES}")
        self._run(lambda: pins.install(python, ("build",), deadline_s=INSTALL_DEADLINE_S, options=options))
        built_here = [f"--no-binary={name}" for name in self.sources]
        self._run(
            lambda: pins.install(
                python,
                (self.section,),
                deadline_s=INSTALL_DEADLINE_S,
                options=(*options, *pins.BUILT_HERE, *built_here),
            )
        )
        (self.path() / "installed").touch()

    def _run(self, step: Callable[[], "subprocess.CompletedProcess[str]"]) -> None:
        try:
            result = step()
        except subprocess.TimeoutExpired as error:
            raise errors.Unavailable(
                f"{self.title} could not be installed within {INSTALL_DEADLINE_S:.0f} s"
            ) from error
        if result.returncode != 0:
            complaint = (result.stderr or result.stdout).strip().splitlines()[-1:]
            raise errors.Unavailable(f"{self.title} could not be installed from PyPI: {' '.join(complaint)}")
