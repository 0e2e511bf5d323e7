"""The tables of the API database. Rows never leave this package as rows: each module gives values of its own noun."""

import sqlalchemy as sa
from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, Table, UniqueConstraint
from sqlalchemy.dialects import mysql

from database.types import Ascii, Enumeration, Json, LongText, Str, Timestamp

SCHEMA = "api"
metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)
_MYSQL = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}

Uuid = Ascii(36)
# As wide as a Boolean on MariaDB.
Small = sa.SmallInteger().with_variant(mysql.TINYINT(1), "mysql", "mariadb")
BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _table(name: str, *columns: sa.schema.SchemaItem) -> Table:
    return Table(name, metadata, *columns, **_MYSQL)


def _id() -> Column[int]:
    return Column("id", BigId, primary_key=True, autoincrement=True)


def _lock() -> Column[int]:
    """What `database.statements.lock` counts."""
    return Column("lock_count", BigId, nullable=False, default=0, server_default="0")


def _times() -> tuple[Column[object], Column[object]]:
    return Column("created_at", Timestamp, nullable=False), Column("updated_at", Timestamp)


# ---- which cell owns what --------------------------------------------------------------------------------------------

cell_mappings = _table(
    "cell_mappings",
    _id(),
    Column("uuid", Uuid, nullable=False, unique=True),
    Column("name", Str(255), nullable=False, unique=True),
    Column("transport_url", LongText, nullable=False),
    Column("database_connection", LongText, nullable=False),
    Column("disabled", Boolean, nullable=False, default=False),
    *_times(),
)

host_mappings = _table(
    "host_mappings",
    _id(),
    Column("host", Str(255), nullable=False, unique=True),
    Column("cell_uuid", Uuid, ForeignKey("cell_mappings.uuid"), nullable=False, index=True),
    # false: an operator has yet to say that this host may be used
    Column("accepted", Boolean, nullable=False, server_default=sa.true()),
    # the only project whose servers may be here
    Column("dedicated_to", Str(255)),
    # how much an operator likes servers here; NULL: as the host's aggregates say
    Column("weight", sa.Float),
    _lock(),
    *_times(),
)

instance_mappings = _table(
    "instance_mappings",
    _id(),
    Column("uuid", Uuid, nullable=False, unique=True),
    Column("project_id", Str(255), nullable=False),
    Column("user_id", Str(255), nullable=False),
    Column("cell_uuid", Uuid, ForeignKey("cell_mappings.uuid")),
    Column("request_uuid", Uuid, nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("memory_mib", Integer, nullable=False),
    # 0: it lives; 1: deleted for good; 2: soft-deleted (api_db.instances)
    Column("deleted", Small, nullable=False, default=0),
    Column("locked", Boolean, nullable=False, default=False),
    *_times(),
    # grows with each soft delete and each restore
    Column("mark", Integer, nullable=False, server_default="0"),
    Column("soft_deleted_at", Timestamp),
    # The keys of a page in the default order are one index read; quota is one covering-index sum.
    Index("ix_instance_mappings_order", "deleted", "created_at", "uuid", "cell_uuid"),
    Index("ix_instance_mappings_project_order", "project_id", "deleted", "created_at", "uuid", "cell_uuid"),
    Index("ix_instance_mappings_quota", "project_id", "deleted", "user_id", "vcpus", "memory_mib"),
    Index("ix_instance_mappings_cell", "cell_uuid", "deleted"),
    Index("ix_instance_mappings_soft_deleted", "deleted", "soft_deleted_at"),
)

project_cells = _table(
    "project_cells",
    Column("project_id", Str(255), primary_key=True),
    Column("cell_uuid", Uuid, ForeignKey("cell_mappings.uuid"), primary_key=True),
)

# ---- orders that no cell owns yet ------------------------------------------------------------------------------------

build_requests = _table(
    "build_requests",
    _id(),
    Column("uuid", Uuid, nullable=False, unique=True),
    Column("request_uuid", Uuid, nullable=False, index=True),
    Column("project_id", Str(255), nullable=False),
    Column("phase", Enumeration("new", "assigned", name="journal_phase"), nullable=False),
    Column("target", Uuid, ForeignKey("cell_mappings.uuid")),
    Column("host", Str(255)),
    Column("alternates", Json),
    Column("deleting", Boolean, nullable=False, default=False),
    # who asked for the delete or the restore that their cell does not know of yet (core.context.Context)
    Column("delete_context", Json),
    Column("fault", Json),
    Column("token", Uuid),
    Column("lease_until", Timestamp, nullable=False, index=True),
    Column("tries", Integer, nullable=False, default=0),
    Column("not_after", Timestamp, nullable=False),
    Column("instance", Json),
    # why it goes where it goes, or nowhere: goes along into the cell's row (objects.explanation)
    Column("explanations", Json),
    *_times(),
    # what the cell has to hear of: soft-delete, restore; null: the build or, with `deleting`, the delete
    Column("kind", Ascii(16)),
    Column("mark", Integer),
    Index("ix_build_requests_project", "project_id", "created_at", "uuid"),
)

request_specs = _table(
    "request_specs",
    Column("uuid", Uuid, primary_key=True),
    Column("spec", Json, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)

# ---- quota -----------------------------------------------------------------------------------------------------------

project_locks = _table("project_locks", Column("project_id", Str(255), primary_key=True), _lock())

quotas = _table(
    "quotas",
    Column("project_id", Str(255), primary_key=True),
    Column("resource", Ascii(64), primary_key=True),
    Column("hard_limit", Integer, nullable=False),
)

project_user_quotas = _table(
    "project_user_quotas",
    Column("project_id", Str(255), primary_key=True),
    Column("user_id", Str(255), primary_key=True),
    Column("resource", Ascii(64), primary_key=True),
    Column("hard_limit", Integer, nullable=False),
)

quota_classes = _table(
    "quota_classes",
    Column("class_name", Str(255), primary_key=True),
    Column("resource", Ascii(64), primary_key=True),
    Column("hard_limit", Integer, nullable=False),
)

# ---- what is global --------------------------------------------------------------------------------------------------

flavors = _table(
    "flavors",
    _id(),
    Column("flavor_id", Str(255), nullable=False, unique=True),
    Column("name", Str(255), nullable=False, unique=True),
    Column("memory_mib", Integer, nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("root_gib", Integer, nullable=False, default=0),
    Column("ephemeral_gib", Integer, nullable=False, default=0),
    Column("swap_mib", Integer, nullable=False, default=0),
    Column("rxtx_factor", sa.Float, nullable=False, default=1.0),
    Column("vcpu_weight", Integer),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("is_public", Boolean, nullable=False, default=True),
    Column("description", LongText),
    _lock(),
    *_times(),
)

flavor_extra_specs = _table(
    "flavor_extra_specs",
    Column("flavor_pk", BigId, ForeignKey("flavors.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Str(255), primary_key=True),
    Column("value", Str(255), nullable=False),
)

flavor_projects = _table(
    "flavor_projects",
    Column("flavor_pk", BigId, ForeignKey("flavors.id", ondelete="CASCADE"), primary_key=True),
    Column("project_id", Str(255), primary_key=True),
)

key_pairs = _table(
    "key_pairs",
    _id(),
    Column("user_id", Str(255), nullable=False),
    Column("name", Str(255), nullable=False),
    Column("type", Enumeration("ssh", "x509", name="key_pair_type"), nullable=False),
    Column("fingerprint", Ascii(255), nullable=False),
    Column("public_key", LongText, nullable=False),
    *_times(),
    UniqueConstraint("user_id", "name", name="uq_key_pairs_user_name"),
)

aggregates = _table(
    "aggregates",
    _id(),
    Column("uuid", Uuid, nullable=False, unique=True),
    Column("name", Str(255), nullable=False, unique=True),
    _lock(),
    *_times(),
)

aggregate_hosts = _table(
    "aggregate_hosts",
    Column("aggregate_id", BigId, ForeignKey("aggregates.id", ondelete="CASCADE"), primary_key=True),
    Column("host", Str(255), primary_key=True, index=True),
)

aggregate_metadata = _table(
    "aggregate_metadata",
    Column("aggregate_id", BigId, ForeignKey("aggregates.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Str(255), primary_key=True, index=True),
    Column("value", Str(255), nullable=False),
)

server_groups = _table(
    "server_groups",
    _id(),
    Column("uuid", Uuid, nullable=False, unique=True),
    Column("project_id", Str(255), nullable=False, index=True),
    Column("user_id", Str(255), nullable=False),
    Column("name", Str(255), nullable=False),
    Column(
        "policy",
        Enumeration("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity", name="server_group_policy"),
        nullable=False,
    ),
    Column("rules", Json),
    # whoever chooses hosts for its members: nobody else does meanwhile
    Column("token", Uuid),
    Column("held_until", Timestamp),
    _lock(),
    *_times(),
)

server_group_members = _table(
    "server_group_members",
    _id(),
    Column("group_id", BigId, ForeignKey("server_groups.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("instance_uuid", Uuid, nullable=False, unique=True),
)

# ---- the API level's own processes -----------------------------------------------------------------------------------

services = _table(
    "services",
    _id(),
    Column("uuid", Uuid, nullable=False, unique=True),
    Column("host", Str(255), nullable=False),
    Column("binary", Ascii(64), nullable=False),
    Column("version", Ascii(32), nullable=False),
    Column("started_at", Timestamp, nullable=False),
    Column("last_seen_at", Timestamp, nullable=False),
    *_times(),
    UniqueConstraint("host", "binary", name="uq_services_host_binary"),
)

# ---- messages that nobody could handle -------------------------------------------------------------------------------

dead_letters = _table(
    "dead_letters",
    _id(),
    Column("verb", Ascii(64), nullable=False),
    Column("queue", Str(255), nullable=False),
    Column("arguments", Json),
    Column("why", LongText, nullable=False),
    Column("request_id", Ascii(64)),
    Column("created_at", Timestamp, nullable=False),
)
