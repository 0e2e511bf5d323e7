"""A server's NUMA topology. No host gives its guests NUMA nodes yet, so a server has none."""

from typing import Any

from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.http.view import Value
from api.resources.servers.access import server_of

SHOW = "compute:server:topology:index"
POLICIES = [Rule(SHOW, policy.READER, "Show the NUMA topology of a server")]


async def show(call: Call) -> dict[str, Any]:
    """The nodes, and the size of their pages."""
    await server_of(call, SHOW, "server_id")
    return {"nodes": [], "pagesize_kb": None}


ROUTES = [Route("GET", "/servers/{server_id}/topology", show, policy=SHOW, view=Value(None), since="2.78")]
