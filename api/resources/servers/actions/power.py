"""The actions that a host does at once: start, stop, pause, suspend, reboot, crash dump."""


from api.http.call import Call
from api.http.routes import Handler
from api.http.schema import NULL, Body, Property, choice
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.operations import operate
from lifecycle.actions import (
    PAUSE,
    REBOOT_HARD,
    REBOOT_SOFT,
    RESUME,
    START,
    STOP,
    SUSPEND,
    TRIGGER_CRASH_DUMP,
    UNPAUSE,
    Action,
)

_POWER = (START, STOP, PAUSE, UNPAUSE, SUSPEND, RESUME)
_REBOOTS = {action.request.type: action for action in (REBOOT_SOFT, REBOOT_HARD)}

POLICIES = rules_of(*_POWER, *_REBOOTS.values(), TRIGGER_CRASH_DUMP)


def _operates(action: Action) -> Handler:
    """The handler that begins one operation."""

    async def handler(call: Call) -> None:
        await operate(call, action)

    return handler


async def reboot(call: Call) -> None:
    """Begins a reboot of the kind that was asked for."""
    await operate(call, _REBOOTS[call.body["type"].upper()])


_TYPE = choice("HARD", "Hard", "hard", "SOFT", "Soft", "soft")

ROUTES = [
    *(route_of(action, _operates(action)) for action in _POWER),
    route_of(REBOOT_HARD, reboot, body=Body(REBOOT_HARD.request.key, Property("type", _TYPE, required=True))),
    route_of(
        TRIGGER_CRASH_DUMP, _operates(TRIGGER_CRASH_DUMP), body=Body.with_value(TRIGGER_CRASH_DUMP.request.key, NULL)
    ),
]
