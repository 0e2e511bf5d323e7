"""What only the host of a server knows of it, asked through its cell."""

from typing import Any

import core.errors
import core.log
from api.http.call import Call
from api.resources.servers.access import refuse_early
from cells.gate.answers import value_of
from cells.gate.gate import Gate
from cells.route import LocatedServer
from core.log import about
from lifecycle import refusals
from lifecycle.actions import Action
from messaging.verbs import Verb, cell

LOG = core.log.get(__name__)
DEADLINE_S = 10.0


async def ask_host(call: Call, located: LocatedServer, action: Action, verb: Verb) -> Any:
    """The host's reply to a verb of `messaging.verbs.cell` that takes a `HostServer`, which is asked for the action.

    Raises:
        Locked, WrongState: the server's state does not allow it, it has no host, or its guest does not run; the message
            names the state.
        NotFound: the host has no guest for it.
        Unavailable: cell or host do not answer, or not with what was asked for.
    """
    gate, host = way_to_host(call, located, action)
    return await reply_of_host(call, gate, verb, cell.ServerOnHost(uuid=located.server.uuid, host=host))


def way_to_host(call: Call, located: LocatedServer, action: Action) -> tuple[Gate, str]:
    """The gate of the server's cell, and the host that may be asked for the action.

    Raises:
        Locked, WrongState: the server's state does not allow it, or it has no host.
    """
    gate, server = refuse_early(call, located, action), located.server
    if server.host is None:
        raise refusals.no_host(action, server.uuid, vm_state=server.vm_state)
    return gate, server.host


async def reply_of_host(call: Call, gate: Gate, verb: Verb, wanted: cell.ServerOnHost | cell.ConsoleLogOnHost) -> Any:
    """The reply of the host that `wanted` names. What a host says is a claim: an answer that makes no sense is as good
    as none.

    Raises:
        WrongState, NotFound: the host says so of the guest.
        Unavailable: cell or host do not answer, or not with what was asked for.
    """
    try:
        return value_of(await gate.call(cell.QUEUE, verb, wanted, call.context, DEADLINE_S))
    except (core.errors.NotFound, core.errors.Conflict, core.errors.Unavailable):
        raise
    except core.errors.CellplaneError as error:
        said = about(server=wanted.uuid, host=wanted.host, request_id=call.context.request_id)
        LOG.error("host gave an invalid answer %s verb=%s why=%s", said, verb.name, error.message)
        raise core.errors.Unavailable(f"Host {wanted.host} gave an invalid answer.", server=wanted.uuid) from error
