"""The mark of the last soft delete or restore of a server

A column at the end of its table: MariaDB adds it at once, however many rows there are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instances", sa.Column("mark", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("instances", "mark")
