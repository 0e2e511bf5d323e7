"""The tables of release 0.1"""

import sqlalchemy as sa
from alembic import op

from database.types import Ascii, Json, LongText, Str, Timestamp

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cleanups",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", Ascii(36), nullable=False),
        sa.Column("host", Str(255), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("sent_at", Timestamp, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uuid", "host", "attempt", name="uq_cleanups_uuid_host_attempt"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("cleanups", schema=None) as batch_op:
        batch_op.create_index("ix_cleanups_host", ["host"], unique=False)

    op.create_table(
        "compute_nodes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", Ascii(36), nullable=False),
        sa.Column("host", Str(255), nullable=False),
        sa.Column("hypervisor_hostname", Str(255), nullable=False),
        sa.Column("hypervisor_type", Ascii(64), nullable=False),
        sa.Column("hypervisor_version", sa.Integer(), nullable=False),
        sa.Column("inventory", Json, nullable=False),
        sa.Column("placed", Json, nullable=True),
        sa.Column("vcpus_used", sa.Integer(), nullable=False),
        sa.Column("memory_mib_used", sa.Integer(), nullable=False),
        sa.Column("disk_gib_used", sa.Integer(), nullable=False),
        sa.Column("guests", sa.Integer(), nullable=False),
        sa.Column("failed_builds", sa.Integer(), nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("host", name=op.f("uq_compute_nodes_host")),
        sa.UniqueConstraint("uuid", name=op.f("uq_compute_nodes_uuid")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("compute_nodes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_compute_nodes_updated_at"), ["updated_at"], unique=False)

    op.create_table(
        "console_auth_tokens",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("token_hash", Ascii(64), nullable=False),
        sa.Column("instance_uuid", Ascii(36), nullable=False),
        sa.Column("instance_host", Str(255), nullable=False),
        sa.Column("kind", Ascii(16), nullable=False),
        sa.Column("host", Str(255), nullable=True),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("path", Str(255), nullable=True),
        sa.Column("expires_at", Timestamp, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_hash", name=op.f("uq_console_auth_tokens_token_hash")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("console_auth_tokens", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_console_auth_tokens_expires_at"), ["expires_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_console_auth_tokens_instance_uuid"), ["instance_uuid"], unique=False)

    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("verb", Ascii(64), nullable=False),
        sa.Column("queue", Str(255), nullable=False),
        sa.Column("arguments", Json, nullable=True),
        sa.Column("why", LongText, nullable=False),
        sa.Column("request_id", Ascii(64), nullable=True),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "instance_actions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", Ascii(36), nullable=False),
        sa.Column("action", Ascii(64), nullable=False),
        sa.Column("request_id", Ascii(64), nullable=False),
        sa.Column("user_id", Str(255), nullable=True),
        sa.Column("project_id", Str(255), nullable=True),
        sa.Column("message", Str(255), nullable=True),
        sa.Column("start_time", Timestamp, nullable=False),
        sa.Column("finish_time", Timestamp, nullable=True),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uuid", "request_id", name="uq_instance_actions_uuid_request"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "instance_faults",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", Ascii(36), nullable=False),
        sa.Column("code", sa.Integer(), nullable=False),
        sa.Column("message", Str(255), nullable=False),
        sa.Column("details", LongText, nullable=True),
        sa.Column("host", Str(255), nullable=True),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("instance_faults", schema=None) as batch_op:
        batch_op.create_index("ix_instance_faults_uuid", ["uuid", "created_at"], unique=False)

    op.create_table(
        "instances",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", Ascii(36), nullable=False),
        sa.Column("project_id", Str(255), nullable=False),
        sa.Column("user_id", Str(255), nullable=False),
        sa.Column(
            "state", sa.Enum("BUILD", "ACTIVE", "ERROR", "DELETING", "DELETED", name="instance_state"), nullable=False
        ),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("host", Str(255), nullable=True),
        sa.Column("node_uuid", Ascii(36), nullable=True),
        sa.Column("alternates", Json, nullable=True),
        sa.Column("resources", Json, nullable=True),
        sa.Column("deadline", Timestamp, nullable=True),
        sa.Column("not_after", Timestamp, nullable=True),
        sa.Column("token", Ascii(36), nullable=True),
        sa.Column("lease_until", Timestamp, nullable=True),
        sa.Column("operation_id", Ascii(36), nullable=True),
        sa.Column("operation", Ascii(64), nullable=True),
        sa.Column("operation_arguments", Json, nullable=True),
        sa.Column("operation_deadline", Timestamp, nullable=True),
        sa.Column("vm_state", Ascii(32), nullable=False),
        sa.Column("task_state", Ascii(64), nullable=True),
        sa.Column("power_state", sa.Integer(), nullable=False),
        sa.Column("display_name", Str(255), nullable=True),
        sa.Column("display_description", Str(255), nullable=True),
        sa.Column("hostname", Str(255), nullable=True),
        sa.Column("availability_zone", Str(255), nullable=True),
        sa.Column("hypervisor_hostname", Str(255), nullable=True),
        sa.Column("image_ref", Ascii(255), nullable=True),
        sa.Column("flavor_id", Str(255), nullable=True),
        sa.Column("flavor", Json, nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("root_gib", sa.Integer(), nullable=False),
        sa.Column("ephemeral_gib", sa.Integer(), nullable=False),
        sa.Column("key_name", Str(255), nullable=True),
        sa.Column("config_drive", sa.Boolean(), nullable=False),
        sa.Column("access_ip_v4", Ascii(39), nullable=True),
        sa.Column("access_ip_v6", Ascii(39), nullable=True),
        sa.Column("auto_disk_config", sa.Boolean(), nullable=False),
        sa.Column("root_device_name", Ascii(255), nullable=True),
        sa.Column("launch_index", sa.Integer(), nullable=False),
        sa.Column("reservation_id", Ascii(255), nullable=True),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("locked_by", sa.Enum("owner", "admin", name="locker"), nullable=True),
        sa.Column("locked_reason", Str(255), nullable=True),
        sa.Column("metadata", Json, nullable=True),
        sa.Column("tags", Json, nullable=True),
        sa.Column("fault", Json, nullable=True),
        sa.Column("extra", Json, nullable=True),
        sa.Column("user_data", LongText, nullable=True),
        sa.Column("spec", Json, nullable=True),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.Column("launched_at", Timestamp, nullable=True),
        sa.Column("terminated_at", Timestamp, nullable=True),
        sa.Column("deleted_at", Timestamp, nullable=True),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uuid", name=op.f("uq_instances_uuid")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("instances", schema=None) as batch_op:
        batch_op.create_index("ix_instances_host", ["host", "deleted"], unique=False)
        batch_op.create_index("ix_instances_name", ["deleted", "display_name", "uuid"], unique=False)
        batch_op.create_index("ix_instances_operation", ["operation_id", "lease_until"], unique=False)
        batch_op.create_index("ix_instances_order", ["deleted", "created_at", "uuid"], unique=False)
        batch_op.create_index(
            "ix_instances_project_name", ["project_id", "deleted", "display_name", "uuid"], unique=False
        )
        batch_op.create_index(
            "ix_instances_project_order", ["project_id", "deleted", "created_at", "uuid"], unique=False
        )
        batch_op.create_index("ix_instances_reservation", ["reservation_id"], unique=False)
        batch_op.create_index("ix_instances_state", ["state", "lease_until"], unique=False)
        batch_op.create_index("ix_instances_updated", ["updated_at"], unique=False)

    op.create_table(
        "services",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", Ascii(36), nullable=False),
        sa.Column("host", Str(255), nullable=False),
        sa.Column("binary", Ascii(64), nullable=False),
        sa.Column("version", Ascii(32), nullable=False),
        sa.Column("boot_id", Ascii(36), nullable=True),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", Str(255), nullable=True),
        sa.Column("forced_down", sa.Boolean(), nullable=False),
        sa.Column("started_at", Timestamp, nullable=False),
        sa.Column("last_seen_at", Timestamp, nullable=True),
        sa.Column("left", sa.Boolean(), nullable=False),
        sa.Column("deaf", sa.Boolean(), nullable=False),
        sa.Column("intents", Json, nullable=True),
        sa.Column("sealing_key", Ascii(64), nullable=True),
        sa.Column("console", Json, nullable=True),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("host", "binary", name="uq_services_host_binary"),
        sa.UniqueConstraint("uuid", name=op.f("uq_services_uuid")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("services", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_services_updated_at"), ["updated_at"], unique=False)

    op.create_table(
        "instance_action_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("action_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("event", Ascii(64), nullable=False),
        sa.Column("host", Str(255), nullable=True),
        sa.Column("start_time", Timestamp, nullable=False),
        sa.Column("finish_time", Timestamp, nullable=True),
        sa.Column("result", Ascii(32), nullable=True),
        sa.Column("details", LongText, nullable=True),
        sa.Column("traceback", LongText, nullable=True),
        sa.ForeignKeyConstraint(
            ["action_id"], ["instance_actions.id"], name=op.f("fk_instance_action_events_action_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("instance_action_events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_instance_action_events_action_id"), ["action_id"], unique=False)

    op.create_table(
        "instance_metadata",
        sa.Column("uuid", Ascii(36), nullable=False),
        sa.Column("key", Str(255), nullable=False),
        sa.Column("value", Str(255), nullable=False),
        sa.ForeignKeyConstraint(
            ["uuid"], ["instances.uuid"], name=op.f("fk_instance_metadata_uuid"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("uuid", "key"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "instance_tags",
        sa.Column("uuid", Ascii(36), nullable=False),
        sa.Column("tag", Str(80), nullable=False),
        sa.ForeignKeyConstraint(["uuid"], ["instances.uuid"], name=op.f("fk_instance_tags_uuid"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("uuid", "tag"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("instance_tags", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_instance_tags_tag"), ["tag"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("instance_tags", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_instance_tags_tag"))

    op.drop_table("instance_tags")
    op.drop_table("instance_metadata")
    with op.batch_alter_table("instance_action_events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_instance_action_events_action_id"))

    op.drop_table("instance_action_events")
    with op.batch_alter_table("services", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_services_updated_at"))

    op.drop_table("services")
    with op.batch_alter_table("instances", schema=None) as batch_op:
        batch_op.drop_index("ix_instances_updated")
        batch_op.drop_index("ix_instances_state")
        batch_op.drop_index("ix_instances_reservation")
        batch_op.drop_index("ix_instances_project_order")
        batch_op.drop_index("ix_instances_project_name")
        batch_op.drop_index("ix_instances_order")
        batch_op.drop_index("ix_instances_operation")
        batch_op.drop_index("ix_instances_name")
        batch_op.drop_index("ix_instances_host")

    op.drop_table("instances")
    with op.batch_alter_table("instance_faults", schema=None) as batch_op:
        batch_op.drop_index("ix_instance_faults_uuid")

    op.drop_table("instance_faults")
    op.drop_table("instance_actions")
    op.drop_table("dead_letters")
    with op.batch_alter_table("console_auth_tokens", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_console_auth_tokens_instance_uuid"))
        batch_op.drop_index(batch_op.f("ix_console_auth_tokens_expires_at"))

    op.drop_table("console_auth_tokens")
    with op.batch_alter_table("compute_nodes", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_compute_nodes_updated_at"))

    op.drop_table("compute_nodes")
    with op.batch_alter_table("cleanups", schema=None) as batch_op:
        batch_op.drop_index("ix_cleanups_host")

    op.drop_table("cleanups")
