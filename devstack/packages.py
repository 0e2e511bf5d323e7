"""Debian's packages that the full profile needs: installed as root, else named.

`python -m devstack.packages` makes sure of them, with the argument `libvirt` of what real guests need, too, with `ha`
of what a cluster of databases needs; exit code 1 and their names when they are missing and can't be installed.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from core import errors
from devstack.services import libvirt, mariadb, rabbitmq

NEEDED: dict[str, Callable[[], bool]] = {
    "mariadb-server-core": mariadb.is_installed,
    "mariadb-client-core": mariadb.is_installed,
    "rabbitmq-server": rabbitmq.is_installed,
}
NEEDED_FOR_HA: dict[str, Callable[[], bool]] = {"galera-4": mariadb.has_galera}
HA = "ha"
POLICY = Path("/usr/sbin/policy-rc.d")
INSTALL_DEADLINE_S = 900.0
LOCK_TIMEOUT_S = 120


def missing(needed: Mapping[str, Callable[[], bool]] | None = None) -> list[str]:
    """The packages of which something is not there."""
    return [package for package, is_installed in (needed or NEEDED).items() if not is_installed()]


def ensure(say: Callable[[str], None], needed: Mapping[str, Callable[[], bool]] | None = None) -> None:
    """Installs what is missing, by default for the full profile; the system's own services stay as they are.

    Raises:
        Unavailable: something is missing and this user can't install it, or the installation failed.
    """
    wanted = missing(needed)
    if not wanted:
        return
    if os.geteuid() != 0:
        wanting = "the full profile" if needed is None else "this stack"
        names = " ".join(wanted)
        raise errors.Unavailable(
            f"{wanting} needs Debian's packages {', '.join(wanted)}; as root: apt-get install --no-install-recommends "
            f"{names}"
        )
    say(f"installing Debian's packages {', '.join(wanted)} …")
    started = time.monotonic()
    with _no_service_starts():
        _apt("update")
        _apt("install", "--yes", "--no-install-recommends", *wanted)
    if still := missing(needed):
        raise errors.Unavailable(
            f"Debian's packages {', '.join(still)} were installed, but their programs are not where they are expected"
        )
    say(f"installed in {time.monotonic() - started:.0f} s")


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Lets packages install without starting a service (invoke-rc.d(8) asks this file); a policy that is there
    stays."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def _apt(*arguments: str) -> None:
    result = subprocess.run(
        ["apt-get", "-q", "-o", f"DPkg::Lock::Timeout={LOCK_TIMEOUT_S}", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_DEADLINE_S,
        check=False,
    )
    # `update` fails as a whole when one of several sources does; what matters is whether the packages can then be
    # installed.
    if result.returncode != 0 and arguments[0] != "update":
        raise errors.Unavailable(
            f"apt-get {' '.join(arguments)} ended with {result.returncode}: "
            f"{result.stderr[-2000:] or result.stdout[-2000:]}"
        )


def main(arguments: Sequence[str]) -> int:
    """Makes sure of all of them."""
    try:
        ensure(print)
        if libvirt.DRIVER in arguments:
            ensure(print, libvirt.needed())
            libvirt.install_library()
        if HA in arguments:
            ensure(print, NEEDED_FOR_HA)
    except errors.CellplaneError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
