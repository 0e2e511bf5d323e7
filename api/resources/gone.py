"""Routes and actions that the Compute API had once: whoever asks for them is told that they are gone, at every
microversion.

Source: OpenStack Nova, whose controllers of these answer 410.
"""

from typing import NoReturn

from api.http.call import Call
from api.http.errors import HttpError
from api.http.routes import ActionRoute, Route
from lifecycle.actions import ACTION_PATH

POLICIES = ()

_ROUTES = {
    "/os-agents": "GET POST",
    "/os-agents/{id}": "PUT DELETE",
    "/os-cells": "GET POST",
    "/os-cells/capacities": "GET",
    "/os-cells/detail": "GET",
    "/os-cells/info": "GET",
    "/os-cells/sync_instances": "POST",
    "/os-cells/{id}": "GET PUT DELETE",
    "/os-cells/{id}/capacities": "GET",
    "/os-certificates": "POST",
    "/os-certificates/{id}": "GET",
    "/os-cloudpipe": "GET POST",
    "/os-cloudpipe/{id}": "PUT",
    "/os-fixed-ips/{id}": "GET",
    "/os-floating-ip-dns": "GET",
    "/os-floating-ip-dns/{id}": "PUT DELETE",
    "/os-floating-ip-dns/{domain_id}/entries/{id}": "GET PUT DELETE",
    "/os-floating-ips-bulk": "GET POST",
    "/os-floating-ips-bulk/{id}": "GET PUT",
    "/os-fping": "GET",
    "/os-fping/{id}": "GET",
    "/os-networks": "POST",
    "/os-networks/add": "POST",
    "/os-networks/{id}": "DELETE",
    "/os-security-group-default-rules": "GET POST",
    "/os-security-group-default-rules/{id}": "GET DELETE",
    "/os-tenant-networks": "POST",
    "/os-tenant-networks/{id}": "DELETE",
    "/servers/{server_id}/consoles": "GET POST",
    "/servers/{server_id}/consoles/{id}": "GET DELETE",
    "/servers/{server_id}/os-virtual-interfaces": "GET",
}
_ACTIONS = {
    "/os-fixed-ips/{id}/action": "reserve unreserve",
    "/os-networks/{id}/action": "disassociate disassociate_host disassociate_project associate_host",
    ACTION_PATH: "resetNetwork os-getRDPConsole",
}


async def gone(call: Call) -> NoReturn:
    """
    Raises:
        HttpError: always.
    """
    raise HttpError(410, "This is no longer part of the Compute API. No other address is known.")


ROUTES = [
    *(Route(method, path, gone, status=410) for path, methods in _ROUTES.items() for method in methods.split()),
    *(ActionRoute(path, action, gone, status=410) for path, actions in _ACTIONS.items() for action in actions.split()),
]
