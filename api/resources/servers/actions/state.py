"""The action `os-resetState`."""


import cell_db.instances
from api.http.call import Call
from api.http.schema import Body, Property, choice
from api.resources.servers.access import server_of
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.write import write
from lifecycle.actions import (
    RESET_STATE,
)

POLICIES = rules_of(RESET_STATE)


async def reset_state(call: Call) -> None:
    """Sets the record's state by an operator's word, whatever the guest does."""
    located = await server_of(call, RESET_STATE.rule.name)
    await write(call, located, RESET_STATE, cell_db.instances.reset_state, vm_state=call.body["state"])


_STATE = Property("state", choice("active", "error"), required=True)

ROUTES = [route_of(RESET_STATE, reset_state, body=Body(RESET_STATE.request.key, _STATE))]
