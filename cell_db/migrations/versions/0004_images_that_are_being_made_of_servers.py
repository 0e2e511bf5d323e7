"""Images that are being made of servers"""

import sqlalchemy as sa
from alembic import op

from database.types import Ascii, Json, LongText, Timestamp

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "image_tasks",
        sa.Column("image_id", Ascii(36), nullable=False),
        sa.Column("instance_uuid", Ascii(36), nullable=False),
        sa.Column("operation_id", Ascii(36), nullable=False),
        sa.Column("record", Json, nullable=False),
        sa.Column("step", Ascii(64), nullable=False),
        sa.Column("heading", Ascii(16), nullable=False),
        sa.Column("reports", Json, nullable=False),
        sa.Column("fault", LongText, nullable=True),
        sa.Column("token", Ascii(36), nullable=True),
        sa.Column("lease_until", Timestamp, nullable=True),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("image_id"),
        sa.UniqueConstraint("operation_id", name=op.f("uq_image_tasks_operation_id")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("image_tasks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_image_tasks_instance_uuid"), ["instance_uuid"], unique=False)
        batch_op.create_index(batch_op.f("ix_image_tasks_lease_until"), ["lease_until"], unique=False)
