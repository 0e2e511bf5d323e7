"""What a supervisor keeps running: a list of programs, kept in a file."""

import contextlib
import dataclasses
import json
from pathlib import Path

from devstack.accounts import write_private


@dataclasses.dataclass(frozen=True)
class Program:
    """One process that has to run.

    A program of stage n starts when those of lower stages are ready; they end in the opposite order.
    """

    name: str
    command: list[str]
    env: dict[str, str]
    cwd: str
    output: str
    """File that takes what it prints; kept short by the supervisor."""
    stage: int
    ready_port: int | None = None
    """It is ready when it takes connections here; None: as soon as it runs."""
    listen_port: int | None = None
    """The supervisor listens here for it, and hands it the socket at each start: whoever connects while it restarts
    waits, and is not refused."""
    ready_deadline_s: float = 60.0
    """After this the next stage starts all the same."""
    grace_s: float = 15.0
    """From the request to end until it is killed."""
    version: str = ""
    """Changes when it has to be started anew: a digest of the files it reads at its start."""


def write(path: Path, programs: list[Program]) -> None:
    """Writes the plan; environments may hold secrets, so it is its owner's only."""
    write_private(path, json.dumps([dataclasses.asdict(program) for program in programs], indent=1) + "\n")


def read(path: Path) -> list[Program]:
    """The plan in a file, by stage; empty without a file."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(
            (Program(**program) for program in json.loads(path.read_text())), key=lambda program: program.stage
        )
    return []
