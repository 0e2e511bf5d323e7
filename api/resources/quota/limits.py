"""`/limits`: what a project may use and what it uses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import api_db.limits
import api_db.quota
import api_db.server_groups
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import STRING_1_255, Param, Query
from api.http.view import Field, View
from database.engine import Connection

LIMITS = "os_compute_api:limits"
OTHER_PROJECT = "os_compute_api:limits:other_project"
POLICIES = [
    Rule(LIMITS, policy.ANYBODY, "See one's own project's limits"),
    Rule(OTHER_PROJECT, policy.ADMIN, "See another project's limits"),
]


@dataclass(frozen=True, slots=True)
class Standing:
    """A project's limits and usage by resource."""

    limits: Mapping[str, int]
    used: Mapping[str, int]


def _limit(resource: str) -> Callable[[Standing], int]:
    return lambda standing: standing.limits[resource]


def _used(resource: str) -> Callable[[Standing], int]:
    return lambda standing: standing.used[resource]


ABSOLUTE = View(
    None,
    Field("maxServerMeta", _limit("metadata_items")),
    Field("maxImageMeta", _limit("metadata_items"), until="2.38"),
    Field("maxPersonality", _limit("injected_files"), until="2.56"),
    Field("maxPersonalitySize", _limit("injected_file_content_bytes"), until="2.56"),
    Field("maxTotalInstances", _limit("instances")),
    Field("maxTotalCores", _limit("cores")),
    Field("maxTotalRAMSize", _limit("ram")),
    Field("maxTotalKeypairs", _limit("key_pairs")),
    Field("maxServerGroups", _limit("server_groups")),
    Field("maxServerGroupMembers", _limit("server_group_members")),
    Field("totalInstancesUsed", _used("instances")),
    Field("totalCoresUsed", _used("cores")),
    Field("totalRAMUsed", _used("ram")),
    Field("totalServerGroupsUsed", _used("server_groups")),
    # The network service counts these.
    Field("maxSecurityGroups", _limit("security_groups"), until="2.35"),
    Field("maxSecurityGroupRules", _limit("security_group_rules"), until="2.35"),
    Field("maxTotalFloatingIps", _limit("floating_ips"), until="2.35"),
    Field("totalSecurityGroupsUsed", lambda standing: 0, until="2.35"),
    Field("totalFloatingIpsUsed", lambda standing: 0, until="2.35"),
)
# No request is counted per minute or hour; the list is there because clients read it.
VIEW = View("limits", Field("absolute", lambda standing: standing, view=ABSOLUTE), Field("rate", lambda standing: []))


async def show(call: Call) -> Standing:
    project_id = call.query.get("tenant_id") or call.context.project_id or ""
    if project_id != call.context.project_id:
        call.enforce(OTHER_PROJECT)
    return await call.cloud.api_read(_standing, project_id, call.cloud.quota_defaults)


def _standing(conn: Connection, project_id: str, defaults: Mapping[str, int]) -> Standing:
    used = api_db.quota.usage(conn, project_id) | {"server_groups": api_db.server_groups.count(conn, project_id)}
    return Standing(api_db.limits.read(conn, project_id, None, defaults).project, used)


ROUTES = [
    Route(
        "GET",
        "/limits",
        show,
        policy=LIMITS,
        query=Query(Param("tenant_id", STRING_1_255, once=True), strict_since="2.75"),
        view=VIEW,
    )
]
