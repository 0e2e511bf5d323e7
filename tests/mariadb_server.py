"""A MariaDB of the test run's own."""

import contextlib
import pathlib
from collections.abc import Iterator

import pytest

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
