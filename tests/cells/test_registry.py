"""Which cells there are: one mapping that nobody can use costs its own cell, and no other."""

import pathlib
import shutil
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

import api_db.cells
import api_db.schema
import api_db.tables
import cell_db.schema
import core.config
from cells.gate.answers import Answer, Silence
from cells.gate.registry import Cells, api_gate
from database import migrations
from database.engine import Database, probe

UNUSABLE = [
    {"database_connection": "nonsense"},
    {"database_connection": "mysql://u:hush@db/x?connect_timeout=abc"},
    {"database_connection": "mysql://u:hush@db:99999/x"},
    {"transport_url": "kafka://u:hush@broker"},
    {"transport_url": ""},
]


@pytest.fixture
def database(tmp_path: pathlib.Path) -> Iterator[Database]:
    """An API database that maps the cells east and west, and theirs."""
    for schema, name in ((api_db.schema.SCHEMA, "api"), (cell_db.schema.SCHEMA, "east")):
        made = Database(f"sqlite:///{tmp_path}/{name}.sqlite")
        migrations.sync(schema, made)
        made.close()
    shutil.copy(tmp_path / "east.sqlite", tmp_path / "west.sqlite")
    one = Database(f"sqlite:///{tmp_path}/api.sqlite")
    with one.transaction() as connection:
        for name in ("east", "west"):
            api_db.cells.create(
                connection,
                name=name,
                database_connection=f"sqlite:///{tmp_path}/{name}.sqlite",
                transport_url=f"inproc://{name}",
            )
    yield one
    one.close()


def cells_of(tmp_path: pathlib.Path) -> Cells:
    file = tmp_path / "api.conf"
    file.write_text(f"[api_database]\nconnection = sqlite:///{tmp_path}/api.sqlite\n")
    conf = core.config.load(
        "api", ["--config-file", str(file)], [core.config.PROCESS, core.config.API_DATABASE, core.config.CELLS]
    )
    return Cells(conf, api_gate(conf))


def spoil(database: Database, values: dict[str, str]) -> None:
    """Writes what the bulkhead would have refused, as an older release or a hand could have."""
    mapping = api_db.tables.cell_mappings
    with database.transaction() as connection:
        connection.execute(sa.update(mapping).where(mapping.c.name == "east").values(**values))


@pytest.mark.parametrize("values", UNUSABLE)
@pytest.mark.parametrize("late", [False, True], ids=["from the start", "later"])
def test_a_mapping_that_cannot_be_used_is_one_cell_that_is_away(
    database: Database, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, values: dict[str, str], late: bool
) -> None:
    cells = cells_of(tmp_path)
    if late:
        cells.refresh()
    spoil(database, values)

    cells.refresh()
    cells.refresh()

    east, west = cells.by_name("east"), cells.by_name("west")
    assert isinstance(west.read_now(probe), Answer)
    assert isinstance(east.read_now(probe), Silence)
    told = [
        record.getMessage() for record in caplog.records if "cell east is away: in its mapping" in record.getMessage()
    ]
    assert len(told) == 1 and "hush" not in told[0]
    cells.stop()
