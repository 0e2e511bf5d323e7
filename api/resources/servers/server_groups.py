"""`/os-server-groups`: servers that their owner wants on one host, or each on another."""

import api_db.server_groups
from api.http import policy
from api.http.call import Call
from api.http.paging import LIMIT
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import (
    BOOLEAN,
    MAX_BIGINT,
    NAME,
    POSITIVE_INT,
    Body,
    Param,
    Property,
    Query,
    choice,
    list_of,
    structure,
    whole_number,
)
from api.http.view import Field, ListView, View
from api.resources.servers.access import target_of
from api_db.server_groups import ServerGroup
from core import errors
from objects.ids import as_kept

INDEX = "os_compute_api:os-server-groups:index"
ALL_PROJECTS = "os_compute_api:os-server-groups:index:all_projects"
SHOW = "os_compute_api:os-server-groups:show"
CREATE = "os_compute_api:os-server-groups:create"
DELETE = "os_compute_api:os-server-groups:delete"
POLICIES = [
    Rule(INDEX, policy.READER, "List server groups"),
    Rule(ALL_PROJECTS, policy.ADMIN, "List the server groups of all projects"),
    Rule(SHOW, policy.READER, "Show a server group"),
    Rule(CREATE, policy.MEMBER, "Create a server group"),
    Rule(DELETE, policy.MEMBER, "Delete a server group"),
]

HARD = ("affinity", "anti-affinity")
RULE = api_db.server_groups.MAX_PER_HOST

GROUP = View(
    "server_group",
    Field("id", "uuid"),
    Field("name"),
    Field("policies", lambda group: [group.policy], until="2.63"),
    Field("policy", since="2.64"),
    Field("rules", since="2.64"),
    Field("members", lambda group: list(group.members)),
    Field("metadata", lambda group: {}, until="2.63"),
    Field("project_id", since="2.13"),
    Field("user_id", since="2.13"),
)
LIST_QUERY = Query(
    Param("all_projects", BOOLEAN), LIMIT, Param("offset", whole_number(0, MAX_BIGINT)), strict_since="2.75"
)
CREATE_BODY = Body(
    "server_group",
    Property("name", NAME, required=True),
    Property("policies", list_of(choice(*HARD), minimum=1, maximum=1), required=True, until="2.14"),
    Property(
        "policies",
        list_of(choice(*api_db.server_groups.POLICIES), minimum=1, maximum=1),
        required=True,
        since="2.15",
        until="2.63",
    ),
    Property("policy", choice(*api_db.server_groups.POLICIES), required=True, since="2.64"),
    Property("rules", structure(Property(RULE, POSITIVE_INT)), since="2.64"),
)


async def index(call: Call) -> list[ServerGroup]:
    """The project's groups, or with `all_projects` everybody's."""
    project_id = call.context.project_id
    if call.query.get("all_projects"):
        call.enforce(ALL_PROJECTS)
        project_id = None
    limit, offset = call.query.get("limit"), call.query.get("offset") or 0
    most = call.cloud.conf.api.max_limit
    return await call.cloud.api_read(
        api_db.server_groups.list_all,
        project_id=project_id,
        limit=most if not limit else min(limit, most),
        offset=offset,
    )


async def show(call: Call) -> ServerGroup:
    group = await _group(call)
    call.enforce(SHOW, target_of(group))
    return group


async def create(call: Call) -> ServerGroup:
    body = call.body
    kind, rules = body.get("policy") or body["policies"][0], body.get("rules") or {}
    if rules and kind != "anti-affinity":
        raise errors.Invalid(f"Only anti-affinity policy supports rules, not {kind} (rules).", field="rules")
    group = api_db.server_groups.new(
        project_id=str(call.context.project_id),
        user_id=str(call.context.user_id),
        name=body["name"],
        policy=kind,
        rules=rules,
    )
    return await call.cloud.api_write(api_db.server_groups.insert, group, quota_defaults=call.cloud.quota_defaults)


async def delete(call: Call) -> None:
    group = await _group(call)
    call.enforce(DELETE, target_of(group))
    await call.cloud.api_write(api_db.server_groups.delete, group.uuid)


async def _group(call: Call) -> ServerGroup:
    project_id = None if call.context.is_admin else call.context.project_id
    return await call.cloud.api_read(api_db.server_groups.get, as_kept(call.path["id"]), project_id=project_id)


ROUTES = [
    Route("GET", "/os-server-groups", index, policy=INDEX, query=LIST_QUERY, view=ListView("server_groups", GROUP)),
    Route("POST", "/os-server-groups", create, policy=CREATE, body=CREATE_BODY, view=GROUP, status=200),
    Route("GET", "/os-server-groups/{id}", show, view=GROUP),
    Route("DELETE", "/os-server-groups/{id}", delete, status=204),
]
