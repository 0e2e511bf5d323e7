"""The MariaDB servers of a test run: one that all suites share, and servers of their own for tests that freeze, kill or
change theirs."""

import contextlib
import functools
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.counters import administrator, ask
from devstack.services import mariadb
from tests.once import one_at_a_time

_ACCOUNTS = "accounts.json"


@contextlib.contextmanager
def running_mariadb(directory: pathlib.Path) -> Iterator[mariadb.MariaDB]:
    """Inside the `with` a server of the caller's own runs, with its data below the directory. The test is skipped where
    its programs are missing."""
    server = mariadb.MariaDB(directory)
    _start(server)
    yield server
    server.stop()


def shared_mariadb(directory: pathlib.Path) -> mariadb.MariaDB:
    """The one server of the run, started by whoever asks first; it ends with the run. It must not be frozen, ended or
    changed.

    The directory holds what the caller alone knows: the accounts of its schemas. Two suites give their schemas
    different names.
    """
    with one_at_a_time("mariadb") as folder:
        noted = folder / "port"
        if not noted.exists():
            noted.write_text(str(_started_for_all(folder).port))
        shutil.copy(folder / _ACCOUNTS, directory)
    return mariadb.MariaDB(directory, int(noted.read_text()))


@functools.cache  # Kept, for an object that is forgotten while its process runs complains.
def _started_for_all(folder: pathlib.Path) -> mariadb.MariaDB:
    server = mariadb.MariaDB(folder)
    _start(server)
    return server


def _start(server: mariadb.MariaDB) -> None:
    """Its files are copied from some that are made once in a run: making them takes longer than most tests do."""
    if not mariadb.is_installed():
        pytest.skip("MariaDB is not installed: apt-get install mariadb-server-core mariadb-client-core")
    with one_at_a_time("mariadb-new") as folder:
        new = mariadb.MariaDB(folder)
        new.initialise()
    server.initialise(like=new)
    server.start()


def as_admin(server: mariadb.MariaDB, *statements: str) -> list[tuple[Any, ...]]:
    """Says these as the server's administrator; the rows of the last one."""
    rows: list[tuple[Any, ...]] = []
    with contextlib.closing(administrator(server)) as connection:
        for statement in statements:
            rows = ask(connection, statement)
    return rows
