"""Files and directories of the agent: what they hold is their owner's alone to read, whatever the umask the agent was
started with.

Everything that the agent writes is made here, or by a program of the host under this umask.
"""

import os
import pathlib
from typing import BinaryIO

UMASK = 0o077
FILE = 0o600
DIRECTORY = 0o700
PASSABLE = 0o711
"""For a directory that a guest's own process has to pass: it may open what it knows the name of, and list nothing."""


def make_directory(path: pathlib.Path, *, mode: int = DIRECTORY) -> None:
    """The directory is there; if it was not, it and those above it that were missing get this mode."""
    if path.is_dir():
        return
    make_directory(path.parent, mode=mode)
    path.mkdir(exist_ok=True, mode=DIRECTORY)
    # mkdir takes the umask off.
    path.chmod(mode)


def opened(path: pathlib.Path) -> BinaryIO:
    """The file, new or emptied, to be written."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE)
    os.fchmod(handle, FILE)
    return os.fdopen(handle, "wb")


def write(path: pathlib.Path, content: bytes) -> None:
    """The file holds this."""
    with opened(path) as file:
        file.write(content)


def mark(path: pathlib.Path) -> None:
    """The file is there, and was made or touched now."""
    path.touch(mode=FILE)
