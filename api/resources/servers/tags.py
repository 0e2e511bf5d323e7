"""A server's tags (2.26 on): short words to find it by."""


import cell_db.instances
import core.errors
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import Body
from api.http.view import Value
from api.resources.servers.access import server_of
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.bodies import MAX_TAGS, TAGS
from api.resources.servers.changes import change
from database.engine import Connection
from lifecycle.actions import ADD_TAG, DELETE_TAG, DELETE_TAGS, REPLACE_TAGS
from objects.server import Server

INDEX = "os_compute_api:os-server-tags:index"
SHOW = "os_compute_api:os-server-tags:show"

POLICIES = [
    Rule(INDEX, policy.READER, "List a server's tags"),
    Rule(SHOW, policy.READER, "Check whether a server has a tag"),
    *rules_of(REPLACE_TAGS, DELETE_TAGS, ADD_TAG, DELETE_TAG),
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
    await change(call, REPLACE_TAGS, lambda connection, server: _write(connection, server, tags))
    return tags


async def delete_all(call: Call) -> None:
    """Removes all tags."""
    await change(call, DELETE_TAGS, lambda connection, server: _write(connection, server, []))


async def add(call: Call) -> None:
    """Adds a tag, unless it is there."""
    tag = call.path["tag"]
    _check_tag(tag)
    is_new = await change(call, ADD_TAG, lambda connection, server: _add(connection, server, tag))
    if is_new:
        call.set_status(201)
        call.set_header("Location", call.url)


def _add(connection: Connection, server: Server, tag: str) -> bool:
    tags = server.tags or []
    if tag in tags:
        return False
    if len(tags) >= MAX_TAGS:
        raise core.errors.Invalid(f"The number of tags exceeded the per-server limit {MAX_TAGS}", field="tag")
    _write(connection, server, [*tags, tag])
    return True


async def delete(call: Call) -> None:
    """Removes a tag."""
    tag = call.path["tag"]

    def remove(connection: Connection, server: Server) -> None:
        _require(server, tag)
        _write(connection, server, [each for each in server.tags or [] if each != tag])

    await change(call, DELETE_TAG, remove)


def _write(connection: Connection, server: Server, tags: list[str]) -> None:
    cell_db.instances.replace_tags(connection, server.uuid, tags)


def _require(server: Server, tag: str) -> None:
    if tag not in (server.tags or ()):
        raise core.errors.NotFound(f"Server {server.uuid} has no tag '{tag}'", field="tag")


def _check_tag(tag: str) -> None:
    if not 1 <= len(tag) <= LONGEST:
        raise core.errors.Invalid(
            f"Invalid input for field/attribute tag. It must have 1 to {LONGEST} characters.", field="tag"
        )
    if "/" in tag or "," in tag:
        raise core.errors.Invalid(
            "Invalid input for field/attribute tag. It must not contain a slash or a comma.", field="tag"
        )


ROUTES = [
    Route("GET", REPLACE_TAGS.request.path, index, policy=INDEX, view=Value("tags"), since=REPLACE_TAGS.request.since),
    route_of(REPLACE_TAGS, replace, body=Body.with_value("tags", TAGS), view=Value("tags")),
    route_of(DELETE_TAGS, delete_all, status=204),
    Route("GET", ADD_TAG.request.path, check, policy=SHOW, status=204, since=ADD_TAG.request.since),
    route_of(ADD_TAG, add, status=204),
    route_of(DELETE_TAG, delete, status=204),
]
