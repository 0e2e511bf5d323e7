"""Soft deletes: which servers can be restored, and what their cells do not know of yet

New columns are at the end of their tables, and `deleted` keeps its width: MariaDB changes them at once, however many
rows there are. Programs of the earlier release take a soft-deleted server for a deleted one.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from database.types import Ascii, Timestamp

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SMALL = sa.SmallInteger().with_variant(mysql.TINYINT(1), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("instance_mappings", sa.Column("mark", sa.Integer(), server_default="0", nullable=False))
    op.add_column("instance_mappings", sa.Column("soft_deleted_at", Timestamp, nullable=True))
    op.create_index("ix_instance_mappings_soft_deleted", "instance_mappings", ["deleted", "soft_deleted_at"])
    op.add_column("build_requests", sa.Column("kind", Ascii(16), nullable=True))
    op.add_column("build_requests", sa.Column("mark", sa.Integer(), nullable=True))
    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table("instance_mappings") as batch_op:
            batch_op.alter_column("deleted", existing_type=sa.Boolean(), type_=SMALL, existing_nullable=False)


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table("instance_mappings") as batch_op:
            batch_op.alter_column("deleted", existing_type=SMALL, type_=sa.Boolean(), existing_nullable=False)
    op.drop_column("build_requests", "mark")
    op.drop_column("build_requests", "kind")
    op.drop_index("ix_instance_mappings_soft_deleted", "instance_mappings")
    op.drop_column("instance_mappings", "soft_deleted_at")
    op.drop_column("instance_mappings", "mark")
