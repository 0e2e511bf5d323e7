"""The tables of a cell's database. Rows never leave this package as rows: each module gives values of its own noun."""

import sqlalchemy as sa
from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, Table, UniqueConstraint

from database.types import Ascii, Enumeration, Json, LongText, Str, Timestamp
from lifecycle import states

SCHEMA = "cell"
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
BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _table(name: str, *columns: sa.schema.SchemaItem) -> Table:
    return Table(name, metadata, *columns, **_MYSQL)


def _id() -> Column[int]:
    return Column("id", BigId, primary_key=True, autoincrement=True)


# ---- servers ---------------------------------------------------------------------------------------------------------

instances = _table(
    "instances",
    _id(),
    Column("uuid", Uuid, nullable=False, unique=True),
    Column("project_id", Str(255), nullable=False),
    Column("user_id", Str(255), nullable=False),
    # the build protocol's own columns (docs/build-protocol.md)
    Column("state", Enumeration(*states.PROTOCOL_STATES, name="instance_state"), nullable=False),
    Column("attempt", Integer, nullable=False, default=1),
    Column("host", Str(255)),
    Column("node_uuid", Uuid),
    Column("alternates", Json),
    Column("resources", Json),
    Column("deadline", Timestamp),
    Column("not_after", Timestamp),
    Column("token", Uuid),
    Column("lease_until", Timestamp),
    # the operation under way on a living server: power actions today
    Column("operation_id", Uuid),
    Column("operation", Ascii(64)),
    Column("operation_arguments", Json),
    Column("operation_deadline", Timestamp),
    # what users see
    Column("vm_state", Ascii(32), nullable=False),
    Column("task_state", Ascii(64)),
    Column("power_state", Integer, nullable=False, default=states.NO_STATE),
    Column("display_name", Str(255)),
    Column("display_description", Str(255)),
    Column("hostname", Str(255)),
    Column("availability_zone", Str(255)),
    Column("hypervisor_hostname", Str(255)),
    Column("image_ref", Ascii(255)),
    Column("flavor_id", Str(255)),
    Column("flavor", Json, nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("memory_mib", Integer, nullable=False),
    Column("root_gib", Integer, nullable=False),
    Column("ephemeral_gib", Integer, nullable=False, default=0),
    Column("key_name", Str(255)),
    Column("config_drive", Boolean, nullable=False, default=False),
    Column("access_ip_v4", Ascii(39)),
    Column("access_ip_v6", Ascii(39)),
    Column("auto_disk_config", Boolean, nullable=False, default=False),
    Column("root_device_name", Ascii(255)),
    Column("launch_index", Integer, nullable=False, default=0),
    Column("reservation_id", Ascii(255)),
    Column("progress", Integer, nullable=False, default=0),
    Column("locked_by", Enumeration("owner", "admin", name="locker")),
    Column("locked_reason", Str(255)),
    # read with the row, so that a list is one query; the tables below serve the filters
    Column("metadata", Json),
    Column("tags", Json),
    Column("fault", Json),
    Column("extra", Json),
    Column("user_data", LongText),
    Column("spec", Json),
    # why it is where it is: the last few choices of a host (objects.explanation)
    Column("explanations", Json),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("launched_at", Timestamp),
    Column("terminated_at", Timestamp),
    Column("deleted_at", Timestamp),
    Column("deleted", Boolean, nullable=False, default=False),
    # the last soft delete or restore that was done here, by the number in its mapping
    Column("mark", Integer, nullable=False, server_default="0"),
    Index("ix_instances_order", "deleted", "created_at", "uuid"),
    Index("ix_instances_project_order", "project_id", "deleted", "created_at", "uuid"),
    Index("ix_instances_name", "deleted", "display_name", "uuid"),
    Index("ix_instances_project_name", "project_id", "deleted", "display_name", "uuid"),
    Index("ix_instances_project_terminated", "project_id", "deleted", "terminated_at", "uuid"),
    Index("ix_instances_state", "state", "lease_until"),
    Index("ix_instances_operation", "operation_id", "lease_until"),
    Index("ix_instances_host", "host", "deleted"),
    Index("ix_instances_updated", "updated_at"),
    Index("ix_instances_reservation", "reservation_id"),
)

cleanups = _table(
    "cleanups",
    _id(),
    Column("uuid", Uuid, nullable=False),
    Column("host", Str(255), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("sent_at", Timestamp),
    UniqueConstraint("uuid", "host", "attempt", name="uq_cleanups_uuid_host_attempt"),
    Index("ix_cleanups_host", "host"),
)

instance_metadata = _table(
    "instance_metadata",
    Column("uuid", Uuid, ForeignKey("instances.uuid", ondelete="CASCADE"), primary_key=True),
    Column("key", Str(255), primary_key=True),
    Column("value", Str(255), nullable=False),
)

instance_tags = _table(
    "instance_tags",
    Column("uuid", Uuid, ForeignKey("instances.uuid", ondelete="CASCADE"), primary_key=True),
    Column("tag", Str(80), primary_key=True, index=True),
)

# ---- what happened to them -------------------------------------------------------------------------------------------

instance_actions = _table(
    "instance_actions",
    _id(),
    Column("uuid", Uuid, nullable=False),
    Column("action", Ascii(64), nullable=False),
    Column("request_id", Ascii(64), nullable=False),
    Column("user_id", Str(255)),
    Column("project_id", Str(255)),
    Column("message", Str(255)),
    Column("start_time", Timestamp, nullable=False),
    Column("finish_time", Timestamp),
    Column("updated_at", Timestamp, nullable=False),
    UniqueConstraint("uuid", "request_id", name="uq_instance_actions_uuid_request"),
)

instance_action_events = _table(
    "instance_action_events",
    _id(),
    Column("action_id", BigId, ForeignKey("instance_actions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("event", Ascii(64), nullable=False),
    Column("host", Str(255)),
    Column("start_time", Timestamp, nullable=False),
    Column("finish_time", Timestamp),
    Column("result", Ascii(32)),
    Column("details", LongText),
    Column("traceback", LongText),
)

instance_faults = _table(
    "instance_faults",
    _id(),
    Column("uuid", Uuid, nullable=False),
    Column("code", Integer, nullable=False),
    Column("message", Str(255), nullable=False),
    Column("details", LongText),
    Column("host", Str(255)),
    Column("created_at", Timestamp, nullable=False),
    Index("ix_instance_faults_uuid", "uuid", "created_at"),
)

# ---- hosts -----------------------------------------------------------------------------------------------------------

services = _table(
    "services",
    _id(),
    Column("uuid", Uuid, nullable=False, unique=True),
    Column("host", Str(255), nullable=False),
    Column("binary", Ascii(64), nullable=False),
    Column("version", Ascii(32), nullable=False),
    Column("boot_id", Uuid),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("disabled_reason", Str(255)),
    Column("forced_down", Boolean, nullable=False, default=False),
    Column("started_at", Timestamp, nullable=False),
    Column("last_seen_at", Timestamp),
    Column("left", Boolean, nullable=False, default=False),
    # a conductor that cannot hear its hosts, or could not until lately: their silence proves nothing
    Column("deaf", Boolean, nullable=False, default=False),
    Column("intents", Json),
    # what the host's agent alone can open: secrets for it are sealed to this key
    Column("sealing_key", Ascii(64)),
    # a console proxy: where it is reached (objects.console.Proxy)
    Column("console", Json),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False, index=True),
    UniqueConstraint("host", "binary", name="uq_services_host_binary"),
)

compute_nodes = _table(
    "compute_nodes",
    _id(),
    Column("uuid", Uuid, nullable=False, unique=True),
    Column("host", Str(255), nullable=False, unique=True),
    Column("hypervisor_hostname", Str(255), nullable=False),
    Column("hypervisor_type", Ascii(64), nullable=False),
    Column("hypervisor_version", Integer, nullable=False),
    Column("inventory", Json, nullable=False),
    # the inventory that Placement was last told of; differs from `inventory`: the conductor tells it
    Column("placed", Json),
    Column("placed_at", Timestamp),
    # a copy of what the API level says: the host is one of this cell's, and may be used. Placement is told of no other
    Column("accepted", Boolean, nullable=False, server_default=sa.false()),
    # why the host itself takes no builds at the moment
    Column("refuses", Str(255)),
    Column("vcpus_used", Integer, nullable=False, default=0),
    Column("memory_mib_used", Integer, nullable=False, default=0),
    Column("disk_gib_used", Integer, nullable=False, default=0),
    Column("guests", Integer, nullable=False, default=0),
    # how busy its CPUs are; NULL: it does not say
    Column("cpu_percent", Integer),
    Column("failed_builds", Integer, nullable=False, default=0),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False, index=True),
)

# ---- consoles --------------------------------------------------------------------------------------------------------

console_auth_tokens = _table(
    "console_auth_tokens",
    _id(),
    # SHA-256; the token itself is in no table
    Column("token_hash", Ascii(64), nullable=False, unique=True),
    Column("instance_uuid", Uuid, nullable=False, index=True),
    Column("instance_host", Str(255), nullable=False),
    Column("kind", Ascii(16), nullable=False),
    # an address and port, or a UNIX socket
    Column("host", Str(255)),
    Column("port", Integer),
    Column("path", Str(255)),
    Column("expires_at", Timestamp, nullable=False, index=True),
    Column("created_at", Timestamp, nullable=False),
)

# ---- images that are being made of servers ---------------------------------------------------------------------------

# no foreign key: the row outlives the server's
image_tasks = _table(
    "image_tasks",
    Column("image_id", Uuid, primary_key=True),
    Column("instance_uuid", Uuid, nullable=False, index=True),
    Column("operation_id", Uuid, nullable=False, unique=True),
    # what the image service is told
    Column("record", Json, nullable=False),
    # of a backup: how many of its type are kept
    Column("rotation", Integer),
    # where it stands in which workflow (workflows/definitions/create_image.py); NULL: of a release that knew no backups
    Column("workflow", Ascii(64)),
    Column("step", Ascii(64), nullable=False),
    Column("heading", Ascii(16), nullable=False),
    Column("reports", Json, nullable=False),
    Column("fault", LongText),
    Column("token", Uuid),
    Column("lease_until", Timestamp, index=True),
    Column("created_at", Timestamp, nullable=False),
    # how often it was taken since it last went on
    Column("tries", Integer, nullable=False, server_default="0"),
)

# ---- messages that nobody could handle -------------------------------------------------------------------------------

dead_letters = _table(
    "dead_letters",
    _id(),
    Column("verb", Ascii(64), nullable=False),
    Column("queue", Str(255), nullable=False),
    # whose message it was, or who gave it up; NULL: no host's
    Column("host", Str(255), index=True),
    Column("arguments", Json),
    Column("why", LongText, nullable=False),
    Column("request_id", Ascii(64)),
    Column("created_at", Timestamp, nullable=False),
)
