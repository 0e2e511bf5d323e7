"""Runs cellctl as an operator does, on SQLite files; and writes what the processes of a cloud would have written."""

import contextlib
import json
import logging
import pathlib
import socket
import uuid as uuids
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

import api_db.services
import api_db.tables
import cell_db.console_proxies
import cell_db.heartbeats
import cell_db.tables
from api_db.instances import SOFT_DELETED
from cellctl.main import main
from core.clock import utcnow
from database.engine import Database
from lifecycle import states
from objects.console import Proxy
from objects.host import API, COMPUTE, CONDUCTOR, Heartbeat, Inventory, Usage, node_uuid

CELLS = ("east", "west")
STARTED_AT = 1_700_000_000.0  # 2023-11-14T22:13:20Z


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Terminal:
    def __init__(self, folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.config = folder / "cellctl.conf"
        self._capsys = capsys
        self._databases: dict[str, Database] = {}
        self._sockets: list[socket.socket] = []
        self.configure()

    def configure(self, **sections: dict[str, object]) -> None:
        """Writes the settings: the given sections over those of a cloud on SQLite."""
        all_sections: dict[str, dict[str, object]] = {
            "DEFAULT": {"transport_url": "inproc://api"},
            "api_database": {"connection": self.database("api")},
            "cells": {"deadline_s": 3.0},
            **sections,
        }
        lines = [
            line
            for name, section in all_sections.items()
            for line in (f"[{name}]", *(f"{key} = {value}" for key, value in section.items()))
        ]
        self.config.write_text("\n".join(lines) + "\n")

    # ---- at the terminal ---------------------------------------------------------------------------------------------

    def runs(self, *arguments: str) -> Ended:
        """Runs the command and gives how it ended."""
        self._capsys.readouterr()
        code = main(["--config-file", str(self.config), *arguments])
        out, err = self._capsys.readouterr()
        return Ended(code, out, err)

    def does(self, *arguments: str) -> Ended:
        """Runs a command that has to succeed."""
        ended = self.runs(*arguments)
        assert ended.code == 0, ended
        return ended

    def gets(self, *arguments: str) -> Any:
        """What a command that has to succeed shows as JSON."""
        return self.does(*arguments, "-f", "json").json

    # ---- addresses ---------------------------------------------------------------------------------------------------

    def database(self, name: str) -> str:
        return f"sqlite:///{self.folder}/{name}.sqlite"

    def gone(self, cell: str) -> None:
        """Makes the cell's database one that nobody can open."""
        self._update_cell(cell, database_connection=f"sqlite:///{self.folder}/no-such-folder/{cell}.sqlite")

    def unusable(self, cell: str) -> None:
        """Makes the cell's mapping one that `cell create` would refuse."""
        self._update_cell(
            cell, database_connection="mysql://u:hush@db/x?connect_timeout=abc", transport_url="kafka://u:hush@broker"
        )

    def frozen(self, cell: str) -> None:
        """Makes the cell's database and broker a server that takes connections and never says a word."""
        deaf = socket.create_server(("127.0.0.1", 0))
        self._sockets.append(deaf)
        port = deaf.getsockname()[1]
        self._update_cell(
            cell,
            database_connection=f"mysql+pymysql://cellplane:hush@127.0.0.1:{port}/{cell}",
            transport_url=f"amqp://cellplane:hush@127.0.0.1:{port}/{cell}",
        )

    def frozen_broker(self, cell: str) -> None:
        """Makes the cell's broker, and only that, a server that takes connections and never says a word."""
        deaf = socket.create_server(("127.0.0.1", 0))
        self._sockets.append(deaf)
        self._update_cell(cell, transport_url=f"amqp://cellplane:hush@127.0.0.1:{deaf.getsockname()[1]}/{cell}")

    def uuid_of(self, cell: str) -> str:
        with self.opened("api").reading() as connection:
            mapping = api_db.tables.cell_mappings
            return str(connection.execute(sa.select(mapping.c.uuid).where(mapping.c.name == cell)).scalar_one())

    def _update_cell(self, cell: str, **values: str) -> None:
        with self.opened("api").transaction() as connection:
            mapping = api_db.tables.cell_mappings
            connection.execute(sa.update(mapping).where(mapping.c.name == cell).values(**values))

    def opened(self, name: str) -> Database:
        if name not in self._databases:
            self._databases[name] = Database(self.database(name))
        return self._databases[name]

    # ---- what the processes of a cloud write -------------------------------------------------------------------------

    def host(self, host: str, cell: str, *, leaving: bool = False) -> None:
        """The agent of the host reported to its cell's conductor just now."""
        inventory = Inventory(
            node_uuid=node_uuid(host), hypervisor_hostname=host, hypervisor_type="simulated", hypervisor_version=1,
            vcpus=8, memory_mib=16384, disk_gib=100,
        )  # fmt: skip
        heartbeat = Heartbeat(
            host=host, boot_id=str(uuids.uuid4()), version="0.1.0", started_at=STARTED_AT, inventory=inventory,
            usage=Usage(), leaving=leaving,
        )  # fmt: skip
        with self.opened(cell).transaction() as connection:
            cell_db.heartbeats.beat(connection, heartbeat)
            cell_db.heartbeats.placed(connection, inventory)

    def conductor(self, cell: str) -> None:
        """The cell's conductor reported just now."""
        with self.opened(cell).transaction() as connection:
            cell_db.heartbeats.conductor_beat(
                connection, host=f"{cell}-conductor", version="0.1.0", started_at=utcnow()
            )

    def api_level(self) -> None:
        """The API and the super-conductor reported just now."""
        with self.opened("api").transaction() as connection:
            for host, binary in (("api-1", API), ("super-1", CONDUCTOR)):
                api_db.services.beat(connection, host=host, binary=binary, version="0.1.0", started_at=utcnow())

    def everything_up(self) -> None:
        """All processes of the cloud reported just now."""
        self.api_level()
        for cell in CELLS:
            self.conductor(cell)
            self.host(f"{cell}-1", cell)
        self.does("host", "discover")

    def silent(self, host: str, cell: str) -> None:
        """The process has not been heard of for an hour."""
        services = cell_db.tables.services
        with self.opened(cell).transaction() as connection:
            connection.execute(
                sa.update(services)
                .where(services.c.host == host)
                .values(last_seen_at=sa.text("datetime('now', '-1 hour')"))
            )

    def console_proxy(self, cell: str) -> None:
        """The cell's console proxy reported just now."""
        said = Proxy(public_url="http://proxy.example", token_ttl_s=600.0)
        with self.opened(cell).transaction() as connection:
            cell_db.console_proxies.beat(
                connection, host=f"{cell}-proxy", version="0.1.0", started_at=utcnow(), proxy=said
            )

    def leaves(self, host: str, cell: str, *, binary: str) -> None:
        """The process ended in good order; an agent says so with its last report."""
        if binary == COMPUTE:
            self.host(host, cell, leaving=True)
            return
        with self.opened(cell).transaction() as connection:
            cell_db.heartbeats.leave(connection, host=host, binary=binary)

    def forced_down(self, host: str, cell: str) -> None:
        """An operator said that the host is down."""
        services = cell_db.tables.services
        with self.opened(cell).transaction() as connection:
            connection.execute(sa.update(services).where(services.c.host == host).values(forced_down=True))

    def disabled(self, host: str, cell: str, *, reason: str) -> None:
        """An operator disabled the host."""
        services = cell_db.tables.services
        with self.opened(cell).transaction() as connection:
            connection.execute(
                sa.update(services).where(services.c.host == host).values(disabled=True, disabled_reason=reason)
            )

    def server(
        self, cell: str, *, host: str | None = None, state: str = states.BUILD_ACTIVE, deleted: bool = False
    ) -> str:
        """A server: its mapping and its row in the cell."""
        uuid = str(uuids.uuid4())
        self.mapping(cell, uuid=uuid, deleted=deleted)
        row = {
            "uuid": uuid, "project_id": "demo", "user_id": "alice", "state": state, "attempt": 1, "host": host,
            "vm_state": states.ACTIVE, "power_state": 1, "flavor": {}, "vcpus": 1, "memory_mib": 512, "root_gib": 1,
            "created_at": utcnow(), "updated_at": utcnow(), "deleted": deleted,
        }  # fmt: skip
        with self.opened(cell).transaction() as connection:
            connection.execute(sa.insert(cell_db.tables.instances).values(**row))
        return uuid

    def mapping(self, cell: str, *, uuid: str | None = None, deleted: bool = False) -> None:
        row = {
            "uuid": uuid or str(uuids.uuid4()), "project_id": "demo", "user_id": "alice",
            "cell_uuid": self.uuid_of(cell), "request_uuid": str(uuids.uuid4()), "vcpus": 1, "memory_mib": 512,
            "deleted": deleted, "created_at": utcnow(),
        }  # fmt: skip
        with self.opened("api").transaction() as connection:
            connection.execute(sa.insert(api_db.tables.instance_mappings).values(**row))

    def soft_deleted(self, cell: str) -> str:
        """A server that can be restored; its cell has heard of it."""
        uuid = self.server(cell)
        mappings, rows = api_db.tables.instance_mappings, cell_db.tables.instances
        soft = {"deleted": SOFT_DELETED, "mark": 1, "soft_deleted_at": utcnow()}
        with self.opened("api").transaction() as connection:
            connection.execute(sa.update(mappings).where(mappings.c.uuid == uuid).values(**soft))
        with self.opened(cell).transaction() as connection:
            connection.execute(sa.update(rows).where(rows.c.uuid == uuid).values(vm_state=states.SOFT_DELETED, mark=1))
        return uuid

    def order(self, cell: str | None, *, uuid: str | None = None, kind: str | None = None) -> None:
        """An order in the journal, assigned to the cell, or new; or what the cell is to hear of a server."""
        row = {
            "uuid": uuid or str(uuids.uuid4()), "kind": kind, "request_uuid": str(uuids.uuid4()), "project_id": "demo",
            "phase": "assigned" if cell else "new", "target": self.uuid_of(cell) if cell else None, "deleting": False,
            "tries": 0, "lease_until": utcnow(), "not_after": utcnow(), "created_at": utcnow(),
        }  # fmt: skip
        with self.opened("api").transaction() as connection:
            connection.execute(sa.insert(api_db.tables.build_requests).values(**row))

    # ---- the end -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def logging_left_alone(self) -> Iterator[None]:
        """cellctl is a program: it sets up logging for itself, and the next test's is not its affair."""
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        root.handlers[:] = []
        yield
        root.handlers[:] = handlers
        root.setLevel(level)

    def close(self) -> None:
        for database in self._databases.values():
            database.close()
        for deaf in self._sockets:
            deaf.close()
