"""The rows of `lifecycle.actions` as the API's policy rules and routes: what users may ask of a server, and who may."""

from typing import Any

from api.http import policy
from api.http.policy import Rule
from api.http.routes import ActionRoute, Handler, Route
from lifecycle.actions import Action, Role

_DEFAULTS = {Role.ADMIN: policy.ADMIN, Role.MEMBER: policy.MEMBER}


def rules_of(*rows: Action) -> list[Rule]:
    """Their policy rules; one that several share is there once."""
    return [
        Rule(rule.name, _DEFAULTS[rule.default], rule.description) for rule in dict.fromkeys(row.rule for row in rows)
    ]


def route_of(action: Action, handler: Handler, **details: Any) -> Route | ActionRoute:
    """The route by which the action is asked for.

    `details`: what else a route says (body, view, status), and `since` or `until` for a part of the row's
    microversions.
    """
    request = action.request
    details = {"policy": action.rule.name, "since": request.since, "until": request.until, **details}
    if request.key:
        return ActionRoute(request.path, request.key, handler, **details)
    return Route(request.method, request.path, handler, **details)
