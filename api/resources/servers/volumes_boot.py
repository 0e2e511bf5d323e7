"""`/os-volumes_boot`: another name of `/servers`, until 2.102."""

import dataclasses

from api.http.routes import ActionRoute, Route
from api.http.versions import Span
from api.resources.servers import listing, record
from api.resources.servers.actions import create_image, power, rebuild
from lifecycle.actions import ACTION_PATH, CREATE_IMAGE, REBOOT_HARD, REBUILD, START, STOP, TRIGGER_CRASH_DUMP

POLICIES = ()

_NAME = "/os-volumes_boot"
_LAST = "2.102"
# Of the actions only those that the reference names.
_ACTIONS = {action.request.key for action in (REBOOT_HARD, REBUILD, CREATE_IMAGE, START, STOP, TRIGGER_CRASH_DUMP)}


def _is_named_here(row: Route | ActionRoute) -> bool:
    if not Span.between(row.since, row.until).overlaps(Span.between("2.1", _LAST)):
        return False
    if isinstance(row, ActionRoute):
        return row.path == ACTION_PATH and row.action in _ACTIONS
    return row.path in ("/servers", "/servers/detail", "/servers/{id}")


def _alias(row: Route | ActionRoute) -> Route | ActionRoute:
    ends = row.until is not None and not Span.between("2.1", row.until).overlaps(Span.between(_LAST, None))
    return dataclasses.replace(row, path=row.path.replace("/servers", _NAME, 1), until=row.until if ends else _LAST)


ROUTES = [
    _alias(row)
    for module in (record, listing, power, rebuild, create_image)
    for row in module.ROUTES
    if _is_named_here(row)
]
