"""What servers used, of those that have ended"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("instances", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_instances_project_terminated"),
            ["project_id", "deleted", "terminated_at", "uuid"],
            unique=False,
        )
