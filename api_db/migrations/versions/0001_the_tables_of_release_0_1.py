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
        "aggregates",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", Ascii(36), nullable=False),
        sa.Column("name", Str(255), nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", name=op.f("uq_aggregates_name")),
        sa.UniqueConstraint("uuid", name=op.f("uq_aggregates_uuid")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "cell_mappings",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", Ascii(36), nullable=False),
        sa.Column("name", Str(255), nullable=False),
        sa.Column("transport_url", LongText, nullable=False),
        sa.Column("database_connection", LongText, nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", name=op.f("uq_cell_mappings_name")),
        sa.UniqueConstraint("uuid", name=op.f("uq_cell_mappings_uuid")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
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
        "flavors",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("flavor_id", Str(255), nullable=False),
        sa.Column("name", Str(255), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("root_gib", sa.Integer(), nullable=False),
        sa.Column("ephemeral_gib", sa.Integer(), nullable=False),
        sa.Column("swap_mib", sa.Integer(), nullable=False),
        sa.Column("rxtx_factor", sa.Float(), nullable=False),
        sa.Column("vcpu_weight", sa.Integer(), nullable=True),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("is_public", sa.Boolean(), nullable=False),
        sa.Column("description", LongText, nullable=True),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("flavor_id", name=op.f("uq_flavors_flavor_id")),
        sa.UniqueConstraint("name", name=op.f("uq_flavors_name")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "key_pairs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("user_id", Str(255), nullable=False),
        sa.Column("name", Str(255), nullable=False),
        sa.Column("type", sa.Enum("ssh", "x509", name="key_pair_type"), nullable=False),
        sa.Column("fingerprint", Ascii(255), nullable=False),
        sa.Column("public_key", LongText, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("user_id", "name", name="uq_key_pairs_user_name"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "project_locks",
        sa.Column("project_id", Str(255), nullable=False),
        sa.PrimaryKeyConstraint("project_id"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "project_user_quotas",
        sa.Column("project_id", Str(255), nullable=False),
        sa.Column("user_id", Str(255), nullable=False),
        sa.Column("resource", Ascii(64), nullable=False),
        sa.Column("hard_limit", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "user_id", "resource"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "quota_classes",
        sa.Column("class_name", Str(255), nullable=False),
        sa.Column("resource", Ascii(64), nullable=False),
        sa.Column("hard_limit", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("class_name", "resource"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "quotas",
        sa.Column("project_id", Str(255), nullable=False),
        sa.Column("resource", Ascii(64), nullable=False),
        sa.Column("hard_limit", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "resource"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "request_specs",
        sa.Column("uuid", Ascii(36), nullable=False),
        sa.Column("spec", Json, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("uuid"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "server_groups",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", Ascii(36), nullable=False),
        sa.Column("project_id", Str(255), nullable=False),
        sa.Column("user_id", Str(255), nullable=False),
        sa.Column("name", Str(255), nullable=False),
        sa.Column(
            "policy",
            sa.Enum("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity", name="server_group_policy"),
            nullable=False,
        ),
        sa.Column("rules", Json, nullable=True),
        sa.Column("token", Ascii(36), nullable=True),
        sa.Column("held_until", Timestamp, nullable=True),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uuid", name=op.f("uq_server_groups_uuid")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("server_groups", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_server_groups_project_id"), ["project_id"], unique=False)

    op.create_table(
        "services",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", Ascii(36), nullable=False),
        sa.Column("host", Str(255), nullable=False),
        sa.Column("binary", Ascii(64), nullable=False),
        sa.Column("version", Ascii(32), nullable=False),
        sa.Column("started_at", Timestamp, nullable=False),
        sa.Column("last_seen_at", Timestamp, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("host", "binary", name="uq_services_host_binary"),
        sa.UniqueConstraint("uuid", name=op.f("uq_services_uuid")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "aggregate_hosts",
        sa.Column("aggregate_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("host", Str(255), nullable=False),
        sa.ForeignKeyConstraint(
            ["aggregate_id"], ["aggregates.id"], name=op.f("fk_aggregate_hosts_aggregate_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("aggregate_id", "host"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("aggregate_hosts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_aggregate_hosts_host"), ["host"], unique=False)

    op.create_table(
        "aggregate_metadata",
        sa.Column("aggregate_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("key", Str(255), nullable=False),
        sa.Column("value", Str(255), nullable=False),
        sa.ForeignKeyConstraint(
            ["aggregate_id"], ["aggregates.id"], name=op.f("fk_aggregate_metadata_aggregate_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("aggregate_id", "key"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("aggregate_metadata", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_aggregate_metadata_key"), ["key"], unique=False)

    op.create_table(
        "build_requests",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", Ascii(36), nullable=False),
        sa.Column("request_uuid", Ascii(36), nullable=False),
        sa.Column("project_id", Str(255), nullable=False),
        sa.Column("phase", sa.Enum("new", "assigned", name="journal_phase"), nullable=False),
        sa.Column("target", Ascii(36), nullable=True),
        sa.Column("host", Str(255), nullable=True),
        sa.Column("alternates", Json, nullable=True),
        sa.Column("deleting", sa.Boolean(), nullable=False),
        sa.Column("fault", Json, nullable=True),
        sa.Column("token", Ascii(36), nullable=True),
        sa.Column("lease_until", Timestamp, nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("not_after", Timestamp, nullable=False),
        sa.Column("instance", Json, nullable=True),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=True),
        sa.ForeignKeyConstraint(["target"], ["cell_mappings.uuid"], name=op.f("fk_build_requests_target")),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uuid", name=op.f("uq_build_requests_uuid")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("build_requests", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_build_requests_lease_until"), ["lease_until"], unique=False)
        batch_op.create_index("ix_build_requests_project", ["project_id", "created_at", "uuid"], unique=False)
        batch_op.create_index(batch_op.f("ix_build_requests_request_uuid"), ["request_uuid"], unique=False)

    op.create_table(
        "flavor_extra_specs",
        sa.Column("flavor_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("key", Str(255), nullable=False),
        sa.Column("value", Str(255), nullable=False),
        sa.ForeignKeyConstraint(
            ["flavor_pk"], ["flavors.id"], name=op.f("fk_flavor_extra_specs_flavor_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("flavor_pk", "key"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "flavor_projects",
        sa.Column("flavor_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("project_id", Str(255), nullable=False),
        sa.ForeignKeyConstraint(
            ["flavor_pk"], ["flavors.id"], name=op.f("fk_flavor_projects_flavor_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("flavor_pk", "project_id"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "host_mappings",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("host", Str(255), nullable=False),
        sa.Column("cell_uuid", Ascii(36), nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=True),
        sa.ForeignKeyConstraint(["cell_uuid"], ["cell_mappings.uuid"], name=op.f("fk_host_mappings_cell_uuid")),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("host", name=op.f("uq_host_mappings_host")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("host_mappings", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_host_mappings_cell_uuid"), ["cell_uuid"], unique=False)

    op.create_table(
        "instance_mappings",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", Ascii(36), nullable=False),
        sa.Column("project_id", Str(255), nullable=False),
        sa.Column("user_id", Str(255), nullable=False),
        sa.Column("cell_uuid", Ascii(36), nullable=True),
        sa.Column("request_uuid", Ascii(36), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("locked", sa.Boolean(), nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=True),
        sa.ForeignKeyConstraint(["cell_uuid"], ["cell_mappings.uuid"], name=op.f("fk_instance_mappings_cell_uuid")),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uuid", name=op.f("uq_instance_mappings_uuid")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("instance_mappings", schema=None) as batch_op:
        batch_op.create_index("ix_instance_mappings_cell", ["cell_uuid", "deleted"], unique=False)
        batch_op.create_index(
            "ix_instance_mappings_order", ["deleted", "created_at", "uuid", "cell_uuid"], unique=False
        )
        batch_op.create_index(
            "ix_instance_mappings_project_order",
            ["project_id", "deleted", "created_at", "uuid", "cell_uuid"],
            unique=False,
        )
        batch_op.create_index(
            "ix_instance_mappings_quota", ["project_id", "deleted", "user_id", "vcpus", "memory_mib"], unique=False
        )

    op.create_table(
        "project_cells",
        sa.Column("project_id", Str(255), nullable=False),
        sa.Column("cell_uuid", Ascii(36), nullable=False),
        sa.ForeignKeyConstraint(["cell_uuid"], ["cell_mappings.uuid"], name=op.f("fk_project_cells_cell_uuid")),
        sa.PrimaryKeyConstraint("project_id", "cell_uuid"),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "server_group_members",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("group_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("instance_uuid", Ascii(36), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["server_groups.id"], name=op.f("fk_server_group_members_group_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("instance_uuid", name=op.f("uq_server_group_members_instance_uuid")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    with op.batch_alter_table("server_group_members", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_server_group_members_group_id"), ["group_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("server_group_members", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_server_group_members_group_id"))

    op.drop_table("server_group_members")
    op.drop_table("project_cells")
    with op.batch_alter_table("instance_mappings", schema=None) as batch_op:
        batch_op.drop_index("ix_instance_mappings_quota")
        batch_op.drop_index("ix_instance_mappings_project_order")
        batch_op.drop_index("ix_instance_mappings_order")
        batch_op.drop_index("ix_instance_mappings_cell")

    op.drop_table("instance_mappings")
    with op.batch_alter_table("host_mappings", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_host_mappings_cell_uuid"))

    op.drop_table("host_mappings")
    op.drop_table("flavor_projects")
    op.drop_table("flavor_extra_specs")
    with op.batch_alter_table("build_requests", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_build_requests_request_uuid"))
        batch_op.drop_index("ix_build_requests_project")
        batch_op.drop_index(batch_op.f("ix_build_requests_lease_until"))

    op.drop_table("build_requests")
    with op.batch_alter_table("aggregate_metadata", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_aggregate_metadata_key"))

    op.drop_table("aggregate_metadata")
    with op.batch_alter_table("aggregate_hosts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_aggregate_hosts_host"))

    op.drop_table("aggregate_hosts")
    op.drop_table("services")
    with op.batch_alter_table("server_groups", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_server_groups_project_id"))

    op.drop_table("server_groups")
    op.drop_table("request_specs")
    op.drop_table("quotas")
    op.drop_table("quota_classes")
    op.drop_table("project_user_quotas")
    op.drop_table("project_locks")
    op.drop_table("key_pairs")
    op.drop_table("flavors")
    op.drop_table("dead_letters")
    op.drop_table("cell_mappings")
    op.drop_table("aggregates")
