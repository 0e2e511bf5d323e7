"""Why servers are where they are; hosts that are one project's, and how much an operator likes servers on a host

All are columns at the end of their tables: MariaDB adds them at once, however many rows there are.
"""

import sqlalchemy as sa
from alembic import op

from database.types import Json, Str

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("build_requests", sa.Column("explanations", Json, nullable=True))
    op.add_column("host_mappings", sa.Column("dedicated_to", Str(255), nullable=True))
    op.add_column("host_mappings", sa.Column("weight", sa.Float(), nullable=True))


def downgrade() -> None:
    op.drop_column("host_mappings", "weight")
    op.drop_column("host_mappings", "dedicated_to")
    op.drop_column("build_requests", "explanations")
