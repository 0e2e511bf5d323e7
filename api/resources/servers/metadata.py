"""A server's metadata: the user's own keys and values."""

from collections.abc import Callable

import cell_db.instances
import core.errors
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import METADATA, Body
from api.http.view import Value
from api.prepare.metadata import most_items, refuse_too_many
from api.resources.servers.access import server_of
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.changes import change
from database.engine import Connection
from lifecycle.actions import DELETE_METADATA_ITEM, MERGE_METADATA, REPLACE_METADATA, SET_METADATA_ITEM, Action
from objects.server import Server

INDEX = "os_compute_api:server-metadata:index"
SHOW = "os_compute_api:server-metadata:show"

POLICIES = [
    Rule(INDEX, policy.READER, "List a server's metadata"),
    Rule(SHOW, policy.READER, "Show one item of a server's metadata"),
    *rules_of(MERGE_METADATA, REPLACE_METADATA, SET_METADATA_ITEM, DELETE_METADATA_ITEM),
]

Metadata = dict[str, str]


async def index(call: Call) -> Metadata:
    """All items."""
    return dict((await server_of(call, INDEX, "server_id")).server.metadata or {})


async def show(call: Call) -> Metadata:
    """One item."""
    metadata = (await server_of(call, SHOW, "server_id")).server.metadata or {}
    return {call.path["key"]: _item(metadata, call.path["key"])}


async def merge(call: Call) -> Metadata:
    """Adds items, in place of those of the same keys."""
    return await _set(call, MERGE_METADATA, lambda old: {**old, **call.body})


async def replace(call: Call) -> Metadata:
    """Sets all items."""
    return await _set(call, REPLACE_METADATA, lambda old: dict(call.body))


async def set_one(call: Call) -> Metadata:
    """Sets one item."""
    key = call.path["key"]
    if list(call.body) != [key]:
        raise core.errors.Invalid(
            f"Request body and URI mismatch: the body must have only the item {key}.", field="meta"
        )
    await _set(call, SET_METADATA_ITEM, lambda old: {**old, **call.body})
    return dict(call.body)


async def delete_one(call: Call) -> None:
    """Removes one item."""
    key = call.path["key"]

    def remove(connection: Connection, server: Server) -> None:
        kept = dict(server.metadata or {})
        _item(kept, key)
        del kept[key]
        cell_db.instances.replace_metadata(connection, server.uuid, kept)

    await change(call, DELETE_METADATA_ITEM, remove)


async def _set(call: Call, action: Action, new: Callable[[Metadata], Metadata]) -> Metadata:
    """Writes what `new` makes of the old items, if there are not too many."""
    most = await most_items(call)

    def write(connection: Connection, server: Server) -> Metadata:
        metadata = new(dict(server.metadata or {}))
        refuse_too_many(metadata, most)
        cell_db.instances.replace_metadata(connection, server.uuid, metadata)
        return metadata

    return await change(call, action, write)


def _item(metadata: Metadata, key: str) -> str:
    if key not in metadata:
        raise core.errors.NotFound(f"Metadata item {key} was not found.", field=key)
    return metadata[key]


_ALL = Body.with_value("metadata", METADATA)
_ONE = Body.with_value("meta", METADATA)

ROUTES = [
    Route("GET", REPLACE_METADATA.request.path, index, policy=INDEX, view=Value("metadata")),
    route_of(MERGE_METADATA, merge, body=_ALL, view=Value("metadata")),
    route_of(REPLACE_METADATA, replace, body=_ALL, view=Value("metadata")),
    Route("GET", SET_METADATA_ITEM.request.path, show, policy=SHOW, view=Value("meta")),
    route_of(SET_METADATA_ITEM, set_one, body=_ONE, view=Value("meta")),
    route_of(DELETE_METADATA_ITEM, delete_one, status=204),
]
