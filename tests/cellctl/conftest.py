"""What the tests of cellctl share."""

import pathlib
import shutil
from collections.abc import Iterator

import pytest

import api_db.cells
import api_db.schema
import cell_db.schema
from database import migrations
from database.engine import Database
from tests.cellctl.terminal import CELLS, Terminal
from tests.cellctl.under_way import Listening, UnderWay


@pytest.fixture(scope="session")
def synced(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """An API database and a cell's, both synced and empty: to be copied, which is quicker than syncing."""
    folder = tmp_path_factory.mktemp("synced")
    schemas = {"api": api_db.schema.SCHEMA, "cell": cell_db.schema.SCHEMA}
    for name, schema in schemas.items():
        database = Database(f"sqlite:///{folder}/{name}.sqlite")
        migrations.sync(schema, database)
        database.close()
    return {name: folder / f"{name}.sqlite" for name in schemas}


@pytest.fixture
def terminal(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Terminal]:
    """A terminal before a cloud whose API database is not there yet."""
    one = Terminal(tmp_path, capsys)
    with one.logging_left_alone():
        yield one
    one.close()


@pytest.fixture
def cloud(terminal: Terminal, synced: dict[str, pathlib.Path]) -> Terminal:
    """A terminal before a cloud of cell0 and the cells east and west, synced."""
    shutil.copy(synced["api"], terminal.folder / "api.sqlite")
    shutil.copy(synced["cell"], terminal.folder / "cell0.sqlite")
    with terminal.opened("api").transaction() as connection:
        add = api_db.cells.create
        add(
            connection,
            name="cell0",
            uuid=api_db.cells.CELL0_UUID,
            database_connection=terminal.database("cell0"),
            transport_url="none://",
        )
        for cell in CELLS:
            shutil.copy(synced["cell"], terminal.folder / f"{cell}.sqlite")
            add(connection, name=cell, database_connection=terminal.database(cell), transport_url=f"inproc://{cell}")
    return terminal


@pytest.fixture
def under_way(cloud: Terminal) -> UnderWay:
    """Writes what is under way in the cloud."""
    return UnderWay(cloud)


@pytest.fixture
def listening() -> Iterator[Listening]:
    """The brokers of the cloud, with the queues of its conductors."""
    queues = Listening("api", *CELLS)
    yield queues
    queues.close()
