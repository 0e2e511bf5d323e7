"""The action `os-getConsoleOutput`."""

from typing import Any

from api.http.call import Call
from api.http.schema import Body, Property, fixed
from api.resources.servers.access import server_of
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.ask_host import reply_of_host, way_to_host
from lifecycle.actions import (
    CONSOLE_OUTPUT,
)
from messaging.verbs import cell

POLICIES = rules_of(CONSOLE_OUTPUT)


async def console_output(call: Call) -> dict[str, str]:
    """The tail of the guest's console log."""
    located = await server_of(call, CONSOLE_OUTPUT.rule.name)
    gate, host = way_to_host(call, located, CONSOLE_OUTPUT)
    wanted = cell.ConsoleLogOnHost(uuid=located.server.uuid, host=host, lines=call.body.get("length"))
    answer = await reply_of_host(call, gate, cell.CONSOLE, wanted)
    return {"output": answer.output}


def _lines(length: Any) -> int | None:
    """How many lines; None for all of them, which -1 says too, and in a string any negative number."""
    lines = None if length is None else int(length)
    return None if lines is None or lines < 0 else lines


_LENGTH = fixed(
    {"type": ["integer", "string", "null"], "pattern": "^-?[0-9]+$", "minimum": -1, "maxLength": 9, "maximum": 10**9},
    _lines,
)

ROUTES = [
    route_of(
        CONSOLE_OUTPUT, console_output, status=200, body=Body(CONSOLE_OUTPUT.request.key, Property("length", _LENGTH))
    )
]
