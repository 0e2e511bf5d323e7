"""A rebuild: what the record says of the server changes in the transaction in which the operation begins."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

import cell_db.instances
import cell_db.operations
from cell_db.tables import instances
from core.context import Context
from lifecycle.actions import REBUILD
from objects.build import BuildSpec, ImageRef
from objects.server import Server, extra_of_image


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a rebuild changes beside the image. `columns`: of the server's row; `metadata`: all of it, None leaves it.

    `public_key` belongs to the column `key_name`, where that is changed.
    """

    image: ImageRef
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metadata: Mapping[str, str] | None = None
    public_key: str | None = None


def begin(connection: sa.Connection, uuid: str, changes: Changes, context: Context) -> Server:
    """Records the rebuild as under way; gives the server as it is to be.

    Raises:
        NotFound, Locked, WrongState, Busy: it may not begin.
    """
    cell_db.operations.begin_operation(connection, uuid, REBUILD, context, arguments={})
    if changes.metadata is not None:
        cell_db.instances.replace_metadata(connection, uuid, changes.metadata)
    server = cell_db.instances.update(connection, uuid, {**changes.columns, "image_ref": changes.image.image_id})
    spec = _changed(cell_db.instances.build_spec(connection, uuid), server, changes)
    extra = {**(server.extra or {}), **extra_of_image(changes.image)}
    built_from = {"spec": msgspec.to_builtins(spec), "extra": extra}
    connection.execute(sa.update(instances).where(instances.c.uuid == uuid).values(**built_from))
    return msgspec.structs.replace(server, extra=extra)


def _changed(spec: BuildSpec, server: Server, changes: Changes) -> BuildSpec:
    """The specification with what the record says now: users may have renamed the server or changed its metadata since
    it was built."""
    return msgspec.structs.replace(
        spec,
        image=changes.image,
        name=server.display_name or "",
        hostname=server.hostname or spec.hostname,
        metadata=server.metadata or {},
        tags=server.tags or [],
        user_data=server.user_data,
        key_name=server.key_name,
        public_key=changes.public_key if "key_name" in changes.columns else spec.public_key,
    )
