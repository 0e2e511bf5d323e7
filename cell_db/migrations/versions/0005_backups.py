"""Backups of servers, which are images that are rotated"""

import sqlalchemy as sa
from alembic import op

from database.types import Ascii

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("image_tasks", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rotation", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("workflow", Ascii(64), nullable=True))
