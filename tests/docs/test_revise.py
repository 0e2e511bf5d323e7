"""The command of docs/checklists/add-a-column.md."""

import dataclasses
import pathlib
import shutil

import pytest

import api_db.schema
import cell_db.schema
import database.migrations
from database.schema import Schema


@pytest.mark.parametrize("schema", [api_db.schema.SCHEMA, cell_db.schema.SCHEMA], ids=lambda schema: schema.name)
def test_the_next_script_is_empty_while_tables_and_scripts_agree(schema: Schema, tmp_path: pathlib.Path) -> None:
    shutil.copytree(schema.migrations, tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    copied = dataclasses.replace(schema, migrations=tmp_path / "migrations")

    made = database.migrations.revise(copied, "what has changed")

    assert made == tmp_path / "migrations" / "versions" / f"{int(schema.newest) + 1:04d}_what_has_changed.py"
    commands = [
        line.strip()
        for line in made.read_text().partition("def upgrade")[2].splitlines()[1:]
        if line.startswith("    ")
    ]
    assert [command for command in commands if not command.startswith("#")] == ["pass", "pass"]
    assert database.migrations.head(copied) == f"{int(schema.newest) + 1:04d}"
