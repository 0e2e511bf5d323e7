"""A MariaDB of the test run's own."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.counters import administrator, ask
from devstack.services import mariadb


@contextlib.contextmanager
def running_mariadb(directory: pathlib.Path) -> Iterator[mariadb.MariaDB]:
    """Inside the `with` it runs, with its data below the directory; the test is skipped where its programs are missing."""
    if not mariadb.is_installed():
        pytest.skip("MariaDB is not installed: apt-get install mariadb-server-core mariadb-client-core")
    server = mariadb.MariaDB(directory)
    server.start()
    yield server
    server.stop()


def as_admin(server: mariadb.MariaDB, *statements: str) -> list[tuple[Any, ...]]:
    """Says these as the server's administrator; the rows of the last one."""
    rows: list[tuple[Any, ...]] = []
    with contextlib.closing(administrator(server)) as connection:
        for statement in statements:
            rows = ask(connection, statement)
    return rows
