"""Asks `cellctl`, as an operator would."""

import json
import subprocess
import sys
from pathlib import Path

from core import errors
from devstack.configure import Addresses
from devstack.layout import State

CELL0 = "cell0"
DEADLINE_S = 180.0


class Cellctl:
    """The command of a stack."""

    def __init__(self, state: State) -> None:
        self._settings = state.cellctl

    def sync_databases(self, addresses: Addresses) -> None:
        """Schemas of the API level, cell0 and the cells; and the cells themselves, at the addresses they have now."""
        self._run("db", "sync", "--api")
        present = {cell["name"]: cell for cell in json.loads(self._run("cell", "list", "--show-secrets", "-f", "json"))}
        if CELL0 not in present:
            self._run("cell", "create", "--cell0", "--database-connection", addresses.cell0.database)
        elif present[CELL0]["database_connection"] != addresses.cell0.database:
            self._run("cell", "update", CELL0, "--database-connection", addresses.cell0.database)
        for name, level in addresses.cells.items():
            where = ["--database-connection", level.database, "--transport-url", level.transport]
            if name not in present:
                self._run("cell", "create", name, *where)
            elif (present[name]["database_connection"], present[name]["transport_url"]) != (level.database, level.transport):
                self._run("cell", "update", name, *where)
        self._run("db", "sync", "--all")

    def _run(self, *arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "cellctl"), "--config-file", str(self._settings), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL, check=False)
        if result.returncode != 0:
            raise errors.Broken(f"cellctl {arguments[0]} {arguments[1]} ended with {result.returncode}: {result.stderr[-2000:]}")
        return result.stdout
