"""Servers that are soft-deleted: `restore`, and `forceDelete`, which deletes any server for good."""

import cells.delete_server
import cells.route
import cells.soft_delete
from api.http.call import Call
from api.resources.servers.access import admit_mapped, admitted_delete, server_of, target_of
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.ask_host import way_to_host
from api_db.instances import LIVING, SOFT_DELETED
from core.crash_points import CrashPoints
from lifecycle.actions import FORCE_DELETE, RESTORE

POLICIES = rules_of(FORCE_DELETE, RESTORE)


async def force_delete(call: Call) -> None:
    """Deletes the server for good, whatever state it is in."""
    mapping, _ = await admitted_delete(call, FORCE_DELETE)
    was = (LIVING, SOFT_DELETED)
    await cells.delete_server.delete_server(call.cloud, call.context, mapping, CrashPoints(), was=was)


async def restore(call: Call) -> None:
    """Restores the server: from now on lists have it, and it is counted; its cell hears of it at once or when it is
    back."""
    mapping, _ = await cells.route.locate(call.cloud, call.context, call.path["id"])
    call.enforce(RESTORE.rule.name, target_of(mapping))
    if mapping.is_soft_deleted:
        await admit_mapped(call, RESTORE, mapping)
    else:
        way_to_host(call, await server_of(call, RESTORE.rule.name), RESTORE)
    await cells.soft_delete.restore_server(
        call.cloud, call.context, mapping, CrashPoints(), quota_defaults=call.cloud.quota_defaults
    )


ROUTES = [route_of(FORCE_DELETE, force_delete), route_of(RESTORE, restore)]
