"""Dead letters name the host"""

import sqlalchemy as sa
from alembic import op

from database.types import Str

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("dead_letters", schema=None) as batch_op:
        batch_op.add_column(sa.Column("host", Str(255), nullable=True))
        batch_op.create_index("ix_dead_letters_host", ["host"], unique=False)
