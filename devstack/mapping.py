"""Schemas and cells of a stack, made with `cellctl` as an operator would."""

import contextlib
import io
import json

import cellctl.main
from core import errors
from devstack import broker_users
from devstack.configure import Addresses
from devstack.layout import State

CELL0 = "cell0"


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
            transport = level.users[broker_users.api_of(name)]
            where = ["--database-connection", level.database, "--transport-url", transport]
            if name not in present:
                self._run("cell", "create", name, *where)
            elif (present[name]["database_connection"], present[name]["transport_url"]) != (level.database, transport):
                self._run("cell", "update", name, *where)
        self._run("db", "sync", "--all")

    def _run(self, *arguments: str) -> str:
        # In this process: each start of a Python with its libraries would cost a second or more.
        output, remarks = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(remarks):
            code = cellctl.main.main(["--config-file", str(self._settings), *arguments])
        if code != 0:
            raise errors.Broken(
                f"cellctl {arguments[0]} {arguments[1]} ended with {code}: {remarks.getvalue()[-2000:]}"
            )
        return output.getvalue()
