"""Moving a schema to the newest revision, through Alembic; only `cellctl` and tests do that."""

import alembic.command
import alembic.config
import alembic.script
import sqlalchemy as sa

from core.database import Database, Json, LongText, Str, Timestamp
from core.schema import Schema


def sync(schema: Schema, database: Database) -> None:
    """Brings the database to the newest revision; on the newest it does nothing."""
    config = settings(schema)
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")
        connection.commit()


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
        return f"Str({item.length})"
    if isinstance(item, Json):
        return "Json"
    if isinstance(item, sa.String) and item._variant_mapping and item.length:
        return f"Ascii({item.length})"
    return False
