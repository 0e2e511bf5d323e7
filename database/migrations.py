"""Moving a schema to the newest revision, through Alembic; only `cellctl` and tests do that."""

import pathlib
import tempfile

import alembic.command
import alembic.config
import alembic.script
import sqlalchemy as sa

import core.errors
from database.engine import Database
from database.schema import Schema
from database.types import Enumeration, Json, LongText, Str, Timestamp


def sync(schema: Schema, database: Database) -> None:
    """Brings the database to the newest revision; on the newest it does nothing.

    On SQLite all or nothing; MariaDB commits every change of a table by itself.

    Raises:
        Broken: the first sync was cut off: there are tables, but no revision says which.
    """
    config = settings(schema)
    if schema.current(database) is None:
        with database.reading() as connection:
            tables = set(sa.inspect(connection).get_table_names()) - {"alembic_version"}
        if tables:
            raise core.errors.Broken(
                f"the {schema.name} database has no revision but holds tables ({', '.join(sorted(tables)[:3])} …): "
                "its first sync was cut off; empty the database and sync again"
            )
    with database.transaction() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")


def revise(schema: Schema, message: str) -> pathlib.Path:
    """Writes the next script: from the newest revision to what the schema's tables say now. To be read before it is
    used.

    (docs/checklists/add-a-column.md.)
    """
    config = settings(schema)
    with tempfile.TemporaryDirectory() as scratch:
        database = Database(f"sqlite:///{scratch}/newest.sqlite")
        sync(schema, database)
        with database.engine.connect() as connection:
            config.attributes["connection"] = connection
            made = alembic.command.revision(
                config, message, autogenerate=True, rev_id=f"{int(head(schema) or 0) + 1:04d}"
            )
        database.close()
    if not isinstance(made, alembic.script.Script):
        raise core.errors.Broken(f"Alembic wrote no script for the {schema.name} schema")
    return pathlib.Path(made.path)


def head(schema: Schema) -> str | None:
    """The newest revision among the schema's scripts: what `Schema.newest` has to say."""
    return alembic.script.ScriptDirectory.from_config(settings(schema)).get_current_head()


def settings(schema: Schema) -> alembic.config.Config:
    """Alembic's settings for the schema's folder of scripts."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(schema.migrations))
    return config


def render_type(kind: str, item: object, _: object) -> str | bool:
    """How a migration script writes a column type of ours; false: as Alembic does (its `render_item` hook)."""
    if kind != "type":
        return False
    if item is Timestamp or item is LongText:
        return "Timestamp" if item is Timestamp else "LongText"
    if isinstance(item, Str):
        return f"{type(item).__name__}({item.length})"
    if isinstance(item, Json):
        return "Json"
    if isinstance(item, Enumeration):
        return f"sa.{item.impl!r}"
    return False
