"""Starts a Python module of ours as a process that outlives its starter."""

import os
import subprocess
import sys
from pathlib import Path

from core import errors
from devstack import identity
from devstack.identity import Process
from devstack.layout import State

REPOSITORY = Path(__file__).parent.parent


def spawn(state: State, name: str, module: str, *arguments: str) -> Process:
    """Starts `python -m module --state DIR …` in a session of its own and writes its pid file.

    Raises:
        Broken: it ended at once.
    """
    with state.output(name).open("wb") as output:
        popen = subprocess.Popen(
            # Deaf to SIGHUP until it has its own handler: a request to read its plan again may come before that.
            [
                "/bin/sh",
                "-c",
                "trap '' HUP; exec \"$@\"",
                name,
                sys.executable,
                "-m",
                module,
                "--state",
                str(state.path),
                *arguments,
            ],
            cwd=REPOSITORY,
            env={**os.environ, **identity.tag_environment(str(state.path), name)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    process = identity.process_of(popen.pid)
    # It outlives this process on purpose; without a code the object would warn that it was forgotten.
    popen.returncode = 0
    if process is None:
        raise errors.Broken(f"{name} ended at once; see {state.output(name)}")
    identity.record(state.pid_file(name), process)
    return process


def adopted(state: State, name: str) -> Process | None:
    """The running process of this name, even if its starter was killed before it wrote the pid file."""
    process = identity.running(state.pid_file(name)) or identity.tagged(str(state.path)).get(name)
    if process is not None:
        identity.record(state.pid_file(name), process)
    return process
