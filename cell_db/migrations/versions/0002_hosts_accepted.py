"""Hosts are accepted, and say what they refuse"""

import sqlalchemy as sa
from alembic import op

from database.types import Str, Timestamp

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("compute_nodes", schema=None) as batch_op:
        batch_op.add_column(sa.Column("placed_at", Timestamp, nullable=True))
        batch_op.add_column(sa.Column("accepted", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("refuses", Str(255), nullable=True))
    # What Placement knows already was accepted by the release before. The super-conductor looks at every host again
    # within a second.
    nodes = sa.table("compute_nodes", sa.column("accepted", sa.Boolean), sa.column("placed"))
    op.execute(sa.update(nodes).where(nodes.c.placed.is_not(None)).values(accepted=sa.true()))
