"""Who is let in where: the cell's database knows what a token stands for, the host whether its guest is still served there.

What the host says is a claim: `console.targets` judges it.
"""

import dataclasses

import cell_db.console_tokens
import cell_db.hosts
import core.errors
import messaging.verbs.compute as compute_verbs
from cell_db.console_tokens import Ticket
from console.targets import Target, Targets
from core.context import service_context
from core.database import Database
from messaging.caller import Caller
from objects.console import Address

_NO_LONGER = "This console is not there any more; ask for a new address."


@dataclasses.dataclass(frozen=True, slots=True)
class Admission:
    """Who is let in, and where to."""

    ticket: Ticket
    target: Target


class Doorkeeper:
    """Blocks; may be asked by several threads."""

    def __init__(self, database: Database, caller: Caller, targets: Targets, *, host_timeout_s: float) -> None:
        self._database = database
        self._caller = caller
        self._targets = targets
        self._host_timeout_s = host_timeout_s

    def admit(self, token: str) -> Admission:
        """The console that the token opens now.

        A port that one guest has left may serve another's guest a moment later: the host is asked each time.

        Raises:
            Forbidden: the token is unknown or too old, or its server was deleted or has moved, or the console is where none may be.
            WrongState: the guest is off, or its console has another address by now.
            Unavailable: database, broker or host do not answer.
        """
        with self._database.reading() as connection:
            ticket = cell_db.console_tokens.resolve(connection, token)
        if ticket is None:
            raise core.errors.Forbidden("The token of this address is unknown or has expired; ask for a new one.")
        address = _address_of(ticket)
        if not self._is_served(ticket, address):
            raise core.errors.WrongState(_NO_LONGER, server=ticket.instance_uuid)
        target = self._targets.find(address, host=ticket.instance_host, owners_of=self._owners_of)
        return Admission(ticket, target)

    def _owners_of(self, address: str) -> list[str]:
        with self._database.reading() as connection:
            return cell_db.hosts.hosts_at(connection, address)

    def _is_served(self, ticket: Ticket, address: Address) -> bool:
        asked = compute_verbs.OneServer(ticket.instance_uuid)
        queue = compute_verbs.queue(ticket.instance_host)
        try:
            answer = self._caller.call(queue, compute_verbs.CONSOLE_ADDRESSES, asked, context=service_context(), deadline_s=self._host_timeout_s)
        except (core.errors.NotFound, core.errors.WrongState):
            return False
        return address in answer.addresses


def _address_of(ticket: Ticket) -> Address:
    try:
        return ticket.address
    except ValueError as error:
        raise core.errors.WrongState(_NO_LONGER, server=ticket.instance_uuid) from error
