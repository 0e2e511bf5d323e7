"""The action `injectNetworkInfo`: accepted, and nothing done, as Nova does with libvirt."""

from api.http.call import Call
from api.resources.servers.access import refuse_early, server_of
from api.resources.servers.action_rows import route_of, rules_of
from lifecycle.actions import INJECT_NETWORK_INFO

POLICIES = rules_of(INJECT_NETWORK_INFO)


async def inject_network_info(call: Call) -> None:
    """Returns if it may be asked for."""
    refuse_early(call, await server_of(call, INJECT_NETWORK_INFO.rule.name), INJECT_NETWORK_INFO)


ROUTES = [route_of(INJECT_NETWORK_INFO, inject_network_info)]
