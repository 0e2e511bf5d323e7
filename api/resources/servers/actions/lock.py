"""The actions `lock` and `unlock`."""


import api_db.instances
import cell_db.instances
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.schema import ANY, STRING_1_255, Body, Property, nullable, structure
from api.resources.servers.access import gate_of, server_of
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.write import write
from cells.route import LocatedServer
from lifecycle.actions import LOCK, UNLOCK

UNLOCK_OVERRIDE = "os_compute_api:os-lock-server:unlock:unlock_override"

POLICIES = [*rules_of(LOCK, UNLOCK), Rule(UNLOCK_OVERRIDE, policy.ADMIN, "Unlock a server that an admin locked")]


async def lock(call: Call) -> None:
    """Locks the server for its owner; what an admin locked stays the admin's."""
    located = await server_of(call, LOCK.rule.name)
    reason = (call.body or {}).get("locked_reason") if isinstance(call.body, dict) else None
    gate_of(call, located, LOCK)
    await call.cloud.api_write(api_db.instances.set_locked, located.server.uuid, True)
    await write(call, located, LOCK, cell_db.instances.lock, by=_locker(call, located), reason=reason)


async def unlock(call: Call) -> None:
    """Unlocks the server; what an admin locked only for those who may override it."""
    located = await server_of(call, UNLOCK.rule.name)
    await write(call, located, UNLOCK, cell_db.instances.unlock, may_override=call.can(UNLOCK_OVERRIDE))
    await call.cloud.api_write(api_db.instances.set_locked, located.server.uuid, False)


def _locker(call: Call, located: LocatedServer) -> str:
    return "owner" if located.server.project_id == call.context.project_id else "admin"


_REASON = nullable(structure(Property("locked_reason", STRING_1_255)))

ROUTES = [
    route_of(LOCK, lock, body=Body.with_value(LOCK.request.key, ANY), until="2.72"),
    route_of(LOCK, lock, body=Body.with_value(LOCK.request.key, _REASON), since="2.73"),
    route_of(UNLOCK, unlock),
]
