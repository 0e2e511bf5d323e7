"""Asks `cellctl`, as an operator would."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from core import errors
from devstack.configure import Addresses
from devstack.layout import State

DEADLINE_S = 180.0


class Cellctl:
    """The command of a stack."""

    def __init__(self, state: State) -> None:
        self._settings = state.cellctl

    def sync_databases(self, addresses: Addresses) -> None:
        """Schemas of the API level, cell0 and the cells; and the cells themselves, at the addresses they have now."""
        self._run("db", "sync", "--api")
        present = {cell["name"]: cell for cell in self.cells()}
        levels = {"cell0": addresses.cell0, **addresses.cells}
        for name, level in levels.items():
            where = ["--database", level.database, *([] if name == "cell0" else ["--transport", level.transport])]
            if name not in present:
                self._run("cell", "create", name, *where)
        self._run("db", "sync", "--all")

    def cells(self) -> list[dict[str, Any]]:
        """The cells that are mapped."""
        cells: list[dict[str, Any]] = json.loads(self._run("cell", "list", "-f", "json"))
        return cells

    def hosts(self) -> list[dict[str, Any]]:
        """The hosts that are mapped, each with its cell."""
        hosts: list[dict[str, Any]] = json.loads(self._run("host", "list", "-f", "json"))
        return hosts

    def _run(self, *arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "cellctl"), "--config-file", str(self._settings), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL, check=False)
        if result.returncode != 0:
            raise errors.Broken(f"cellctl {arguments[0]} {arguments[1]} ended with {result.returncode}: {result.stderr[-2000:]}")
        return result.stdout
