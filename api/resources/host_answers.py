"""What only the host of a server knows of it, asked through its cell."""

from typing import Any

import core.errors
import core.log
from api.http.call import Call
from api.resources.server_of import gate_of
from cells.answers import value_of
from cells.gate import Gate
from cells.route import Found
from core.log import about
from messaging.verbs import Verb, cell

LOG = core.log.get(__name__)
DEADLINE_S = 10.0


async def ask_host(call: Call, found: Found, verb: Verb, what: str) -> Any:
    """The host's reply to a verb of `messaging.verbs.cell` that takes a `HostServer`; `what` is asked of it, for the message.

    Raises:
        WrongState: the server has no host, or its guest does not run; the message names the state.
        NotFound: the host has no guest for it.
        Unavailable: cell or host do not answer, or not with what was asked for.
    """
    gate, server = gate_of(call, found, what), found.server
    if server.host is None:
        raise core.errors.WrongState(
            f"Cannot '{what}' instance {server.uuid} while it is in vm_state {server.vm_state}: it has no host",
            server=server.uuid, state=server.vm_state,
        )  # fmt: skip
    return await reply_of_host(call, gate, verb, cell.HostServer(uuid=server.uuid, host=server.host))


async def reply_of_host(call: Call, gate: Gate, verb: Verb, wanted: cell.HostServer | cell.HostConsole) -> Any:
    """The reply of the host that `wanted` names. What a host says is a claim: an answer that makes no sense is as good as none.

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
        LOG.error("host answered with nonsense %s verb=%s why=%s", said, verb.name, error.message)
        raise core.errors.Unavailable(f"Host {wanted.host} did not answer with what it was asked for.", server=wanted.uuid) from error
