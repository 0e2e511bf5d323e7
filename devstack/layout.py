"""What a stack consists of, and where its files lie."""

import contextlib
import dataclasses
import json
import re
from pathlib import Path
from typing import Self

from core import errors
from devstack.accounts import write_private

EMBEDDED = "embedded"
FULL = "full"
BASIC, NONE, KEYSTONE = "basic", "none", "keystone"
"""How the API knows its callers: `[api] auth_strategy`."""

FIRST_CELLS = ("east", "west", "north", "south")
ONE_PROCESS = "cellplane"
"""The name of the process that is everything in the embedded profile."""
MARKER = "cellplane-stack.json"
NAME_THAT_FITS_EVERYWHERE = re.compile(r"[A-Za-z0-9._+=@,~/-]+")


def cell_names(count: int) -> tuple[str, ...]:
    """The first `count` cells: east, west, north, south, cell5, cell6 …"""
    return tuple(FIRST_CELLS[i] if i < len(FIRST_CELLS) else f"cell{i + 1}" for i in range(count))


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the user asked for."""

    profile: str = EMBEDDED
    cells: int = 2
    hosts: int = 2
    driver: str = "simulated"
    port: int = 8774
    isolate: bool = False
    auth: str = BASIC

    @property
    def cell_names(self) -> tuple[str, ...]:
        """The names of its cells, in order."""
        return cell_names(self.cells)

    def hosts_of(self, cell: str) -> tuple[str, ...]:
        """The names of a cell's hosts: `east-1`, `east-2` …"""
        return tuple(f"{cell}-{number}" for number in range(1, self.hosts + 1))

    @property
    def all_hosts(self) -> tuple[str, ...]:
        """The hosts of all cells."""
        return tuple(host for cell in self.cell_names for host in self.hosts_of(cell))

    def grown_to(self, asked: Self) -> "Shape":
        """This stack with what is asked of it now; cells and hosts are never taken away here.

        Raises:
            Conflict: it can't become what is asked.
        """
        for name in ("profile", "isolate", "auth"):
            if getattr(self, name) != getattr(asked, name):
                raise errors.Conflict(
                    f"this state directory holds a stack with {name} {getattr(self, name)}, asked is "
                    f"{getattr(asked, name)}: remove it first (devstack/unstack.sh --purge) or name another directory "
                    "in CELLPLANE_STATE",
                    field=name,
                )
        return dataclasses.replace(asked, cells=max(self.cells, asked.cells), hosts=max(self.hosts, asked.hosts))


class State:
    """The state directory of one stack, and the files in it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.etc = self.path / "etc"
        self.logs = self.path / "logs"
        self.run = self.path / "run"
        self.databases = self.path / "databases"
        self.images = self.path / "images"
        self.placement = self.path / "placement"
        self.hosts = self.path / "hosts"
        self.keystone = self.path / "keystone"

        self.marker = self.path / MARKER
        self.ports = self.path / "ports.json"
        self.accounts = self.path / "accounts.json"
        self.clouds = self.path / "clouds.yaml"
        self.cellctl = self.path / "cellctl.conf"
        self.htpasswd = self.etc / "htpasswd"
        self.users = self.etc / "users.yaml"
        self.lock = self.path / "lock"
        self.plan = self.run / "plan.json"

    def prepare(self) -> None:
        """Makes the directories, closed to other users.

        Raises:
            Invalid: the directory is there, holds files, and is not a stack's; or its name can't stand in URLs and
                settings.
        """
        if not NAME_THAT_FITS_EVERYWHERE.fullmatch(str(self.path)):
            raise errors.Invalid(
                f"{self.path} cannot be a state directory: its name stands in URLs and settings, so it may hold "
                "letters, digits and . _ - + = @ , ~ only; name another directory in CELLPLANE_STATE",
                field="CELLPLANE_STATE",
            )
        if self.path.is_dir() and not self.is_a_stack() and any(self.path.iterdir()):
            raise errors.Invalid(
                f"{self.path} holds files but no stack; name another directory in CELLPLANE_STATE",
                field="CELLPLANE_STATE",
            )
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.is_a_stack():
            self.marker.write_text("{}\n")
        for folder in (self.etc, self.logs, self.run, self.databases, self.images, self.placement, self.hosts):
            folder.mkdir(exist_ok=True, mode=0o700)

    def is_a_stack(self) -> bool:
        """Whether a stack of ours made this directory."""
        return self.marker.is_file()

    def shape(self) -> Shape | None:
        """What was asked for last time; None for a new directory."""
        with contextlib.suppress(FileNotFoundError, KeyError, ValueError):
            return Shape(**json.loads(self.marker.read_text())["shape"])
        return None

    def remember(self, shape: Shape) -> None:
        """Notes what was asked for; this file is also what marks the directory as a stack's."""
        write_private(self.marker, json.dumps({"shape": dataclasses.asdict(shape)}, indent=1) + "\n")

    def config(self, name: str) -> Path:
        """The configuration file of a process."""
        return self.etc / f"{name}.conf"

    def pid_file(self, name: str) -> Path:
        """Where the pid of a process is written."""
        return self.run / f"{name}.pid"

    def log(self, name: str) -> Path:
        """The log of a process."""
        return self.logs / f"{name}.log"

    def output(self, name: str) -> Path:
        """What a process printed beside its log."""
        return self.logs / f"{name}.out"
