"""Exact counts of what a cloud's backing services were asked to do: the database server, the broker, Placement.

All of them count anyway; nobody is slowed down by being looked at, except the broker, whose command line takes about a
second of CPU of its own (outside the node's processes).
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pymysql

from devstack.accounts import Accounts
from devstack.services.mariadb import ADMIN, MariaDB
from devstack.services.rabbitmq import RabbitMQ

STATEMENTS = (
    "Com_commit",
    "Com_rollback",
    "Com_select",
    "Com_insert",
    "Com_update",
    "Com_delete",
    "Queries",
    "Rows_sent",
    "Rows_read",
)
WRITING_COMMITS = "trx_rw_commits"
"""InnoDB's own count of transactions that wrote: what costs a log write. COMMIT statements are more, many end
nothing."""

RECEIVED = re.compile(r"messages_received_total => (\d+)")
DELIVERED = re.compile(r"messages_delivered_total => (\d+)")
REQUEST = re.compile(r'requestlog .*"([A-Z]+) ([^" ?]*)')
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


class DatabaseCounters:
    """The counters of the database servers, summed."""

    def __init__(self, servers: Iterable[MariaDB]) -> None:
        self._connections = [administrator(server) for server in servers]
        for connection in self._connections:
            ask(connection, f"SET GLOBAL innodb_monitor_enable = '{WRITING_COMMITS}'")

    def read(self) -> Counter[str]:
        """Counter -> its value since the servers started, under MariaDB's names, and `trx_rw_commits`."""
        counts: Counter[str] = Counter()
        for connection in self._connections:
            wanted = ", ".join(f"'{name}'" for name in STATEMENTS)
            status = ask(connection, f"SHOW GLOBAL STATUS WHERE Variable_name IN ({wanted})")
            status += ask(
                connection, "SELECT name, count FROM information_schema.innodb_metrics WHERE name = %s", WRITING_COMMITS
            )
            counts.update({name: int(value) for name, value in status})
        return counts

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


class BrokerCounters:
    """What the brokers' nodes took in and gave out, summed."""

    def __init__(self, nodes: Iterable[RabbitMQ]) -> None:
        self._nodes = list(nodes)

    def read(self) -> Counter[str]:
        """`received` and `delivered` messages since the nodes started."""
        counts: Counter[str] = Counter()
        for node in self._nodes:
            overview = node.control("eval", "rabbit_global_counters:overview().")
            counts["received"] += sum(map(int, RECEIVED.findall(overview)))
            counts["delivered"] += sum(map(int, DELIVERED.findall(overview)))
        return counts


class PlacementCounters:
    """The requests that Placement logged."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read_to = log.stat().st_size

    def read(self) -> Counter[str]:
        """`METHOD /path` -> requests since the last look; uuids and queries are left out of the path."""
        with self._log.open("rb") as file:
            file.seek(self._read_to)
            text = file.read()
        self._read_to += len(text)
        return Counter(
            f"{method} {UUID.sub('{uuid}', path)}" for method, path in REQUEST.findall(text.decode(errors="replace"))
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Counts:
    """All counters at one moment, or their differences between two."""

    database: Counter[str]
    broker: Counter[str]

    def since(self, before: "Counts") -> "Counts":
        """What was added since then."""
        return Counts(_difference(self.database, before.database), _difference(self.broker, before.broker))


def administrator(server: MariaDB) -> "pymysql.Connection[Any]":
    """A connection as the server's administrator, each statement its own transaction."""
    return pymysql.connect(
        host="127.0.0.1",
        port=server.port,
        user=ADMIN,
        password=Accounts(server.directory / "accounts.json").password(ADMIN),
        autocommit=True,
        charset="utf8mb4",
        connect_timeout=5,
        read_timeout=600,
        write_timeout=600,
        ssl_disabled=True,
    )


def ask(connection: "pymysql.Connection[Any]", statement: str, *values: object) -> list[tuple[Any, ...]]:
    """All rows of a statement."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return list(cursor.fetchall())


def _difference(after: Counter[str], before: Counter[str]) -> Counter[str]:
    return Counter({name: value - before[name] for name, value in after.items()})
