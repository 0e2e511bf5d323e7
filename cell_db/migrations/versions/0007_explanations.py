"""Why servers are where they are, and how busy hosts are

Columns at the end of their tables: MariaDB adds them at once, however many rows there are.
"""

import sqlalchemy as sa
from alembic import op

from database.types import Json

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("compute_nodes", sa.Column("cpu_percent", sa.Integer(), nullable=True))
    op.add_column("instances", sa.Column("explanations", Json, nullable=True))


def downgrade() -> None:
    op.drop_column("instances", "explanations")
    op.drop_column("compute_nodes", "cpu_percent")
