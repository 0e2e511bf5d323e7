"""What goes wrong with processes: frozen, killed; found by the pid files of the stack, as an operator would."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from core import errors
from devstack import identity
from devstack.waiting import wait_until
from tests.stack.cloud import Cloud

BACK_DEADLINE_S = 60.0


@contextlib.contextmanager
def frozen(cloud: Cloud, *names: str) -> Iterator[None]:
    """Stops processes in their tracks for a while: connections stay open, nothing is answered."""
    pids = [cloud.control.pid(name) for name in names]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def processes_of_cell(cloud: Cloud, cell: str) -> list[str]:
    """Every process that is a cell's alone, database server and broker included when they are isolated."""
    names = sorted(path.stem for path in cloud.state.run.glob("*.pid"))
    return [name for name in names if name.endswith(f"-{cell}") or name.startswith(f"compute-{cell}-")]


def kill(cloud: Cloud, name: str) -> None:
    """Ends a process without grace; returns when the supervisor has started another."""
    old = identity.recorded(cloud.state.pid_file(name))
    os.kill(cloud.control.pid(name), signal.SIGKILL)
    _wait_for_another(cloud, name, old)


def kill_api_worker(cloud: Cloud) -> None:
    """Ends one of the API's workers without grace; its parent starts another."""
    parent = cloud.control.pid("api")
    before = children(parent)
    os.kill(before[0], signal.SIGKILL)
    wait_until(
        lambda: before[0] not in children(parent) and len(children(parent)) == len(before), what="new API worker",
        deadline_s=BACK_DEADLINE_S
    )  # fmt: skip


def _wait_for_another(cloud: Cloud, name: str, old: identity.Process | None) -> None:
    def is_another() -> bool:
        with contextlib.suppress(errors.Unavailable):
            return cloud.control.pid(name) > 0 and identity.recorded(cloud.state.pid_file(name)) != old
        return False

    wait_until(is_another, what=f"new {name}", deadline_s=BACK_DEADLINE_S)


def children(pid: int) -> list[int]:
    """The pids of a process's children."""
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in tasks.read_text().split()]
