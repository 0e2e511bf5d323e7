"""A running stack, looked at as the checks look at a world: every row, claim, guest, intent and message of it."""

import configparser
import types
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa

import api_db.tables
import cell_db.tables
import core.config
import messaging.verbs.compute
from api_db.cells import CELL0_UUID
from clients.placement import connect
from compute.simulated.guests import GuestFiles
from database.engine import Database
from devstack.layout import Shape, State
from lifecycle import states
from messaging.broker import Broker
from tests.faults import invariants
from tests.faults.world import World


class StackWorld:
    """What `tests.faults.invariants` reads of a world, from the stack's own settings."""

    def __init__(self, state: State, shape: Shape) -> None:
        self.folder = state.hosts
        self.cell_names = tuple(shape.cell_names)
        self.hosts = {cell: list(shape.hosts_of(cell)) for cell in shape.cell_names}
        api = _settings(state, "super-conductor")
        self.databases = {"api": Database(api["api_database"]["connection"])}
        self.brokers = {"api": Broker(api["DEFAULT"]["transport_url"])}
        for cell in self.cell_names:
            settings = _settings(state, f"cell-conductor-{cell}")
            self.databases[cell] = Database(settings["database"]["connection"])
            self.brokers[cell] = Broker(settings["DEFAULT"]["transport_url"])
        mappings = self.rows("api", api_db.tables.cell_mappings)
        self.databases["cell0"] = Database(next(row.database_connection for row in mappings if row.uuid == CELL0_UUID))
        self._gates = [types.SimpleNamespace(cell=row) for row in mappings]
        self.cells = types.SimpleNamespace(gates=lambda: self._gates)
        options = ["--config-file", str(state.config("super-conductor"))]
        self.placement = connect(core.config.load("chaos", options, [core.config.PROCESS, core.config.PLACEMENT]))

    def complaints(self) -> list[str]:
        """What is still under way, or wrong; empty at a good end."""
        return invariants.complaints(cast(World, self)) or [
            *(f"something half-built is left: {path}" for path in self.folder.glob("*/guests/*/guests/building/*")),
            *(
                f"the API level has a dead letter: {row.verb}: {row.why}"
                for row in self.rows("api", api_db.tables.dead_letters)
            ),
        ]

    def rows(self, where: str, table: sa.Table) -> list[sa.Row[Any]]:
        """Every row of a table of one database."""
        with self.databases[where].reading() as connection:
            return list(connection.execute(sa.select(table)))

    def instances(self) -> dict[str, tuple[str, sa.Row[Any]]]:
        """uuid -> (cell, row), of cell0 and all cells; fails if a server is in two."""
        by_uuid: dict[str, tuple[str, sa.Row[Any]]] = {}
        for cell in ("cell0", *self.cell_names):
            for row in self.rows(cell, cell_db.tables.instances):
                assert row.uuid not in by_uuid, f"{row.uuid} is in {by_uuid[row.uuid][0]} and in {cell}"
                by_uuid[row.uuid] = (cell, row)
        return by_uuid

    def guests(self) -> list[tuple[str, str, int]]:
        """(host, uuid, attempt) of every guest on every host."""
        return [
            (host, guest.uuid, guest.attempt)
            for hosts in self.hosts.values()
            for host in hosts
            for guest in _guests(self.folder / host / "guests" / host / "guests")
        ]

    def running_guests(self) -> set[str]:
        """Of every guest on every host those that are not off."""
        folders = [self.folder / host / "guests" / host / "guests" for hosts in self.hosts.values() for host in hosts]
        guests = (guest for folder in folders for guest in _guests(folder))
        return {guest.uuid for guest in guests if guest.power_state != states.SHUTDOWN}

    def claims(self) -> dict[str, str]:
        """uuid -> node of every claim in Placement; fails if a server has claims on two."""
        nodes: dict[str, str] = {}
        for provider in self.placement.providers([]):
            for uuid in self.placement.claims_on_provider(provider.uuid):
                assert uuid not in nodes, f"{uuid} has claims on two nodes"
                nodes[uuid] = provider.uuid
        return nodes

    def messages(self) -> dict[str, int]:
        """Where and which queue -> messages that wait in it; heartbeats come and go in `reports`."""
        counts = {
            f"{where} {queue}": self.brokers[where].waiting(queue)
            for where, queue in self.queues()
            if queue != "reports"
        }
        return {queue: number for queue, number in counts.items() if number}

    def queues(self) -> list[tuple[str, str]]:
        """(broker, queue) of every queue for work."""
        of_cells = [(cell, queue) for cell in self.cell_names for queue in ("conductor", "reports", "dead_letters")]
        of_hosts = [(cell, messaging.verbs.compute.queue(host)) for cell, hosts in self.hosts.items() for host in hosts]
        return [("api", "conductor"), ("api", "dead_letters"), *of_cells, *of_hosts]

    def close(self) -> None:
        """Lets go of all connections."""
        for database in self.databases.values():
            database.close()
        for broker in self.brokers.values():
            broker.close()
        self.placement.close()


def _settings(state: State, process: str) -> configparser.ConfigParser:
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(state.config(process))
    return settings


def _guests(folder: Path) -> list[Any]:
    return GuestFiles(folder).all() if folder.is_dir() else []
