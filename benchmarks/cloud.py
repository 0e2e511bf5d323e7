"""The cloud that is measured: one that runs already, or one brought up for the measurement and removed after it."""

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from core import errors
from devstack import identity, ports
from devstack.accounts import Accounts
from devstack.background import REPOSITORY
from devstack.backing_services import Full
from devstack.layout import FULL, Shape, State
from devstack.services import mariadb

START_DEADLINE_S = 600.0
STOP_DEADLINE_S = 300.0
OUTSIDE = ("mariadb", "rabbitmq", "epmd")
"""Databases and brokers, which count for CPU and not for memory: their caches are as large as they are configured."""
VERSIONED = ("aiohttp", "kombu", "PyMySQL", "SQLAlchemy", "msgspec", "orjson", "openstack-placement", "gunicorn")


class Cloud:
    """A stack of the full profile, as those who measure it see it.

    Raises:
        Invalid: the directory holds no such stack.
    """

    def __init__(self, state: State) -> None:
        shape = state.shape()
        if shape is None or shape.profile != FULL:
            raise errors.Invalid(f"{state.path} holds no stack of the full profile", field="state")
        self.state = state
        self.shape: Shape = shape
        self.backing = Full(state, shape)
        self.addresses = self.backing.addresses()
        self.admin = ("admin", Accounts(state.accounts).password("admin"))

    def leaders(self) -> dict[str, int]:
        """Name -> pid of every process that runs, the supervisor (which only watches) left out."""
        processes = {
            path.stem: identity.running(path) for path in self.state.run.glob("*.pid") if path.stem != "supervisor"
        }
        return {name: process.pid for name, process in sorted(processes.items()) if process is not None}


@contextlib.contextmanager
def running(directory: Path | None, *, cells: int, hosts: int) -> Iterator[Cloud]:
    """The cloud in this state directory; without one a cloud of its own, gone at the end."""
    if directory is not None:
        yield Cloud(State(directory))
        return
    own = Path(tempfile.mkdtemp(prefix="cellplane-benchmark-"))
    state = State(own / "state")
    try:
        _script(
            state,
            "devstack.stack",
            ["--profile", FULL, "--cells", str(cells), "--hosts", str(hosts), "--port", str(ports.free_port())],
            START_DEADLINE_S,
        )
        yield Cloud(state)
    finally:
        _script(state, "devstack.unstack", ["--purge"], STOP_DEADLINE_S)
        shutil.rmtree(own, ignore_errors=True)


def is_outside(name: str) -> bool:
    """Whether a process is a database or a broker."""
    return name.startswith(OUTSIDE)


def machine() -> dict[str, Any]:
    """What the measurement ran on: nothing that names the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "architecture": platform.machine(),
        "system": platform.system(),
    }


def versions() -> dict[str, str]:
    """The versions of what was measured."""
    server = subprocess.run(
        [mariadb.program("mariadbd"), "--version"], capture_output=True, text=True, timeout=30, check=False
    ).stdout
    by_name = {"Python": platform.python_version(), "MariaDB": server.partition("Ver ")[2].split(" ")[0]}
    for name in VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            by_name[name] = metadata.version(name)
    return by_name


def _script(state: State, module: str, arguments: list[str], deadline_s: float) -> None:
    environment = {**os.environ, "CELLPLANE_STATE": str(state.path)}
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
    )
    if result.returncode != 0:
        raise errors.Broken(
            f"{module} ended with {result.returncode}: {result.stderr[-2000:] or result.stdout[-2000:]}"
        )
