"""A server's metadata: the user's own keys and values."""

from collections.abc import Callable

import sqlalchemy as sa

import cell_db.instances
import core.errors
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import METADATA, Body
from api.http.view import Value
from api.prepare.metadata import most_items, refuse_too_many
from api.resources.server_changes import DELETE_METADATA, UPDATE_METADATA, change
from api.resources.server_of import server_of
from objects.server import Server

INDEX = "os_compute_api:server-metadata:index"
SHOW = "os_compute_api:server-metadata:show"
CREATE = "os_compute_api:server-metadata:create"
UPDATE_ALL = "os_compute_api:server-metadata:update_all"
UPDATE = "os_compute_api:server-metadata:update"
DELETE = "os_compute_api:server-metadata:delete"

POLICIES = [
    Rule(INDEX, policy.READER, "List a server's metadata"),
    Rule(SHOW, policy.READER, "Show one item of a server's metadata"),
    Rule(CREATE, policy.MEMBER, "Add items to a server's metadata"),
    Rule(UPDATE_ALL, policy.MEMBER, "Replace a server's metadata"),
    Rule(UPDATE, policy.MEMBER, "Set one item of a server's metadata"),
    Rule(DELETE, policy.MEMBER, "Delete one item of a server's metadata"),
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
    return await _set(call, CREATE, lambda old: {**old, **call.body})


async def replace(call: Call) -> Metadata:
    """Sets all items."""
    return await _set(call, UPDATE_ALL, lambda old: dict(call.body))


async def set_one(call: Call) -> Metadata:
    """Sets one item."""
    key = call.path["key"]
    if list(call.body) != [key]:
        raise core.errors.Invalid(f"Request body and URI mismatch: the body must hold the item {key} alone.", field="meta")
    await _set(call, UPDATE, lambda old: {**old, **call.body})
    return dict(call.body)


async def delete_one(call: Call) -> None:
    """Removes one item."""
    key = call.path["key"]

    def remove(connection: sa.Connection, server: Server) -> None:
        kept = dict(server.metadata or {})
        _item(kept, key)
        del kept[key]
        cell_db.instances.replace_metadata(connection, server.uuid, kept)

    await change(call, DELETE, DELETE_METADATA, remove)


async def _set(call: Call, rule: str, new: Callable[[Metadata], Metadata]) -> Metadata:
    """Writes what `new` makes of the old items, if there are not too many."""
    most = await most_items(call)

    def write(connection: sa.Connection, server: Server) -> Metadata:
        metadata = new(dict(server.metadata or {}))
        refuse_too_many(metadata, most)
        cell_db.instances.replace_metadata(connection, server.uuid, metadata)
        return metadata

    return await change(call, rule, UPDATE_METADATA, write)


def _item(metadata: Metadata, key: str) -> str:
    if key not in metadata:
        raise core.errors.NotFound(f"Metadata item {key} was not found.", field=key)
    return metadata[key]


_ALL = Body.holding("metadata", METADATA)
_ONE = Body.holding("meta", METADATA)
_PATH = "/servers/{server_id}/metadata"
_ITEM = "/servers/{server_id}/metadata/{key}"

ROUTES = [
    Route("GET", _PATH, index, policy=INDEX, view=Value("metadata")),
    Route("POST", _PATH, merge, policy=CREATE, body=_ALL, view=Value("metadata")),
    Route("PUT", _PATH, replace, policy=UPDATE_ALL, body=_ALL, view=Value("metadata")),
    Route("GET", _ITEM, show, policy=SHOW, view=Value("meta")),
    Route("PUT", _ITEM, set_one, policy=UPDATE, body=_ONE, view=Value("meta")),
    Route("DELETE", _ITEM, delete_one, policy=DELETE, status=204),
]
