"""A server's tags (2.26 on): short words to find it by."""

import sqlalchemy as sa

import cell_db.instances
import core.errors
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import Body
from api.http.view import Value
from api.resources.server_bodies import MOST_TAGS, TAGS
from api.resources.server_changes import DELETE_TAGS, UPDATE_TAGS, change
from api.resources.server_of import server_of
from objects.server import Server

INDEX = "os_compute_api:os-server-tags:index"
SHOW = "os_compute_api:os-server-tags:show"
UPDATE_ALL = "os_compute_api:os-server-tags:update_all"
DELETE_ALL = "os_compute_api:os-server-tags:delete_all"
UPDATE = "os_compute_api:os-server-tags:update"
DELETE = "os_compute_api:os-server-tags:delete"

POLICIES = [
    Rule(INDEX, policy.READER, "List a server's tags"),
    Rule(SHOW, policy.READER, "Check whether a server has a tag"),
    Rule(UPDATE_ALL, policy.MEMBER, "Replace a server's tags"),
    Rule(DELETE_ALL, policy.MEMBER, "Delete all tags of a server"),
    Rule(UPDATE, policy.MEMBER, "Add a tag to a server"),
    Rule(DELETE, policy.MEMBER, "Delete a tag of a server"),
]

LONGEST = 60


async def index(call: Call) -> list[str]:
    """All tags."""
    return list((await server_of(call, INDEX, "server_id")).server.tags or [])


async def check(call: Call) -> None:
    """Returns if the server has the tag."""
    server = (await server_of(call, SHOW, "server_id")).server
    _require(server, call.path["tag"])


async def replace(call: Call) -> list[str]:
    """Sets all tags."""
    tags = sorted(call.body)
    await change(call, UPDATE_ALL, UPDATE_TAGS, lambda connection, server: _write(connection, server, tags))
    return tags


async def delete_all(call: Call) -> None:
    """Removes all tags."""
    await change(call, DELETE_ALL, DELETE_TAGS, lambda connection, server: _write(connection, server, []))


async def add(call: Call) -> None:
    """Adds a tag, unless it is there."""
    tag = call.path["tag"]
    _check_tag(tag)
    is_new = await change(call, UPDATE, UPDATE_TAGS, lambda connection, server: _add(connection, server, tag))
    if is_new:
        call.set_status(201)
        call.set_header("Location", call.url)


def _add(connection: sa.Connection, server: Server, tag: str) -> bool:
    tags = server.tags or []
    if tag in tags:
        return False
    if len(tags) >= MOST_TAGS:
        raise core.errors.Invalid(f"The number of tags exceeded the per-server limit {MOST_TAGS}", field="tag")
    _write(connection, server, [*tags, tag])
    return True


async def delete(call: Call) -> None:
    """Removes a tag."""
    tag = call.path["tag"]

    def remove(connection: sa.Connection, server: Server) -> None:
        _require(server, tag)
        _write(connection, server, [each for each in server.tags or [] if each != tag])

    await change(call, DELETE, DELETE_TAGS, remove)


def _write(connection: sa.Connection, server: Server, tags: list[str]) -> None:
    cell_db.instances.replace_tags(connection, server.uuid, tags)


def _require(server: Server, tag: str) -> None:
    if tag not in (server.tags or ()):
        raise core.errors.NotFound(f"Server {server.uuid} has no tag '{tag}'", field="tag")


def _check_tag(tag: str) -> None:
    if not 1 <= len(tag) <= LONGEST:
        raise core.errors.Invalid(f"Invalid input for field/attribute tag. It must have 1 to {LONGEST} characters.", field="tag")
    if "/" in tag or "," in tag:
        raise core.errors.Invalid("Invalid input for field/attribute tag. It must not contain a slash or a comma.", field="tag")


_PATH = "/servers/{server_id}/tags"
_ITEM = "/servers/{server_id}/tags/{tag}"

ROUTES = [
    Route("GET", _PATH, index, policy=INDEX, view=Value("tags"), since="2.26"),
    Route("PUT", _PATH, replace, policy=UPDATE_ALL, body=Body.holding("tags", TAGS), view=Value("tags"), since="2.26"),
    Route("DELETE", _PATH, delete_all, policy=DELETE_ALL, status=204, since="2.26"),
    Route("GET", _ITEM, check, policy=SHOW, status=204, since="2.26"),
    Route("PUT", _ITEM, add, policy=UPDATE, status=204, since="2.26"),
    Route("DELETE", _ITEM, delete, policy=DELETE, status=204, since="2.26"),
]
