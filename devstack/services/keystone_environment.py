"""Keystone's programs in a virtual environment of their own, in the user's cache: made once, for whoever asks for it.

Keystone brings some ninety libraries, eventlet among them; Cellplane's own environment stays as it is.
`python -m devstack.services.keystone_environment` makes sure of it.
"""

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

# What devstack.renew_pins pins in constraints.txt.
REQUIREMENTS = ("keystone ~= 30.0", "gunicorn >= 23.0", "PyMySQL >= 1.1.1")
INSTALL_DEADLINE_S = 600.0
RETRIES = 2
"""pip's own five take minutes on a machine that reaches no index."""


def path() -> Path:
    """Where it is; other pins, or another Python, make another one."""
    digest = hashlib.sha256(repr((pins.section("build"), pins.section("keystone"), sys.version_info[:2], sys.base_prefix)).encode()).hexdigest()[:16]
    return guest_image.cache() / f"keystone-{digest}"


def is_installed() -> bool:
    """Whether a whole one is there."""
    return (path() / "installed").is_file()


def program(name: str) -> str:
    """The full path of one of its programs.

    Raises:
        Unavailable: it is not installed.
    """
    if not is_installed():
        raise errors.Unavailable("Keystone is not installed: python -m devstack.services.keystone_environment")
    return str(path() / "bin" / name)


def ensure(say: Callable[[str], None]) -> None:
    """Installs it if it is not there.

    Raises:
        Unavailable: pip could not.
    """
    if is_installed():
        return
    path().parent.mkdir(parents=True, exist_ok=True)
    with path().with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_installed():
            started = time.monotonic()
            say(f"installing Keystone into {path()} …")
            _install()
            say(f"installed in {time.monotonic() - started:.0f} s")


def _install() -> None:
    # Not made elsewhere and moved: the scripts of an environment name its path.
    shutil.rmtree(path(), ignore_errors=True)
    python = path() / "bin" / "python"
    make = [sys.executable, "-m", "venv", str(path())]
    _run(lambda: subprocess.run(make, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S, check=False))
    options = (*pins.WHEELS_ONLY, f"--retries={RETRIES}")
    _run(lambda: pins.install(python, ("build", "keystone"), deadline_s=INSTALL_DEADLINE_S, options=options))
    (path() / "installed").touch()


def _run(step: Callable[[], subprocess.CompletedProcess[str]]) -> None:
    try:
        result = step()
    except subprocess.TimeoutExpired as error:
        raise errors.Unavailable(f"Keystone could not be installed within {INSTALL_DEADLINE_S:.0f} s") from error
    if result.returncode != 0:
        complaint = (result.stderr or result.stdout).strip().splitlines()[-1:]
        raise errors.Unavailable(f"Keystone could not be installed from PyPI: {' '.join(complaint)}")


def main() -> int:
    """Makes sure of it."""
    try:
        ensure(functools.partial(print, flush=True))
    except errors.CellplaneError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
