"""Runs the migrations of the cell schema on the connection that `database.schema` hands in."""

from alembic import context

from cell_db.tables import metadata
from database.migrations import render_type

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    render_item=render_type,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
