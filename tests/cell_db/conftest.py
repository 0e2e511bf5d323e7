"""A cell's database of each kind, empty."""

import pathlib
import uuid
from collections.abc import Iterator

import pytest

import cell_db.tables
from database.engine import Database


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def database(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Database]:
    """A cell's database."""
    url = f"sqlite:///{tmp_path}/cell.sqlite"
    if request.param == "mariadb":
        url = request.getfixturevalue("mariadb_server").create_schema(f"cell_{uuid.uuid4().hex[:8]}")
    database = Database(url)
    cell_db.tables.metadata.create_all(database.engine)
    yield database
    database.close()
