"""What locks count, and who asked for a delete that its cell does not know of yet

Both are columns at the end of their tables: MariaDB adds them at once, however many rows there are.
"""

import sqlalchemy as sa
from alembic import op

from database.types import Json

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

LOCKED = ("project_locks", "host_mappings", "flavors", "aggregates", "server_groups")


def upgrade() -> None:
    for table in LOCKED:
        number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
        op.add_column(table, sa.Column("lock_count", number, server_default="0", nullable=False))
    op.add_column("build_requests", sa.Column("delete_context", Json, nullable=True))


def downgrade() -> None:
    op.drop_column("build_requests", "delete_context")
    for table in LOCKED:
        op.drop_column(table, "lock_count")
