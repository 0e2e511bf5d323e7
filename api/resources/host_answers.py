"""What only the host of a server knows of it, asked through its cell."""

from typing import Any

import core.errors
from api.http.call import Call
from api.resources.server_of import gate_of
from cells.answers import value_of
from cells.route import Found
from messaging.verbs import Verb, cell

DEADLINE_S = 10.0


async def ask_host(call: Call, found: Found, verb: Verb, what: str) -> Any:
    """The host's reply to a verb of `messaging.verbs.cell` that takes a `HostServer`; `what` is asked of it, for the message.

    Raises:
        WrongState: the server has no host, or its guest does not run; the message names the state.
        NotFound: the host has no guest for it.
        Unavailable: cell or host do not answer.
    """
    gate, server = gate_of(call, found, what), found.server
    if server.host is None:
        raise core.errors.WrongState(
            f"Cannot '{what}' instance {server.uuid} while it is in vm_state {server.vm_state}: it has no host",
            server=server.uuid, state=server.vm_state,
        )  # fmt: skip
    wanted = cell.HostServer(uuid=server.uuid, host=server.host)
    return value_of(await gate.call(cell.QUEUE, verb, wanted, call.context, DEADLINE_S))
