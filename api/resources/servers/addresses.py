"""A server's addresses. There is no network service yet, so a server has none."""

from typing import Any

import core.errors
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.http.view import Value
from api.resources.servers.access import server_of

INDEX = "os_compute_api:ips:index"
SHOW = "os_compute_api:ips:show"

POLICIES = [
    Rule(INDEX, policy.READER, "List a server's addresses"),
    Rule(SHOW, policy.READER, "List a server's addresses in one network"),
]


async def index(call: Call) -> dict[str, Any]:
    """Network label -> addresses."""
    server = (await server_of(call, INDEX, "server_id")).server
    return dict((server.extra or {}).get("addresses") or {})


async def show(call: Call) -> dict[str, Any]:
    """The addresses in one network."""
    server = (await server_of(call, SHOW, "server_id")).server
    label = call.path["label"]
    addresses = (server.extra or {}).get("addresses") or {}
    if label not in addresses:
        raise core.errors.NotFound(f"Instance {server.uuid} is not in a network {label}.", field=label)
    return {label: addresses[label]}


ROUTES = [
    Route("GET", "/servers/{server_id}/ips", index, policy=INDEX, view=Value("addresses")),
    Route("GET", "/servers/{server_id}/ips/{label}", show, policy=SHOW, view=Value(None)),
]
