"""Programs of the host that make disks: run without a shell, bounded in time, ended when their permit is taken back."""

import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence

import core.errors
from compute import private
from compute.deadline import Deadline

_LOOK_S = 0.05
_MAX_MESSAGE = 300


def require(names: Iterable[str]) -> None:
    """Returns when all of these are installed.

    Raises:
        Invalid: one is not.
    """
    missing = [name for name in names if _path_of(name) is None]
    if missing:
        raise core.errors.Invalid(f"Not installed on this host: {', '.join(missing)}", field="driver")


def run(arguments: Sequence[str | pathlib.Path], deadline: Deadline) -> None:
    """Runs the program to its good end.

    Raises:
        Invalid: it is not installed.
        Broken: it ended with an error.
        Unavailable: the disk is full; or the deadline is over.
        Conflict: the deadline was taken back.
    """
    deadline.check()
    name = str(arguments[0])
    # The complaint goes to a file: nobody has to read a pipe meanwhile.
    with tempfile.TemporaryFile() as complaint:
        try:
            command = [_path_of(name) or name, *(str(part) for part in arguments[1:])]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=complaint, umask=private.UMASK
            )
        except FileNotFoundError as error:
            raise core.errors.Invalid(f"The program {name} is not installed on this host") from error
        with process:
            try:
                _wait(process, deadline)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            complaint.seek(0)
            raise _error(name, process.returncode, complaint.read().decode(errors="replace"))


def _wait(process: subprocess.Popen[bytes], deadline: Deadline) -> None:
    while True:
        try:
            process.wait(_LOOK_S)
            return
        except subprocess.TimeoutExpired:
            deadline.check()


def _error(name: str, code: int, complaint: str) -> core.errors.CellplaneError:
    text = " ".join(complaint.split())[-_MAX_MESSAGE:]
    if "No space left on device" in text:
        return core.errors.Unavailable(f"The host's disk is full ({name})")
    return core.errors.Broken(f"{name} ended with {code}: {text}")


def _path_of(name: str) -> str | None:
    # Some lie where an ordinary user's PATH does not lead.
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
