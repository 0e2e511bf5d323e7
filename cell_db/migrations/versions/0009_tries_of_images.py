"""How often an image that is being made was taken in vain

A column at the end of its table: MariaDB adds it at once, however many rows there are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("image_tasks", sa.Column("tries", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("image_tasks", "tries")
