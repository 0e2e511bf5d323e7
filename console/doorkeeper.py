"""Who is let in where: the cell's database knows what a token stands for, the host whether its guest is still served there."""

import cell_db.console_tokens
import core.errors
import messaging.verbs.compute as compute_verbs
from cell_db.console_tokens import Ticket
from core.context import service_context
from core.database import Database
from messaging.caller import Caller

_NO_LONGER = "This console is not there any more; ask for a new address."


class Doorkeeper:
    """Blocks; may be asked by several threads."""

    def __init__(self, database: Database, caller: Caller, *, host_timeout_s: float) -> None:
        self._database = database
        self._caller = caller
        self._host_timeout_s = host_timeout_s

    def admit(self, token: str) -> Ticket:
        """The console that the token opens now.

        A port that one guest has left may serve another's guest a moment later: the host is asked each time.

        Raises:
            Forbidden: the token is unknown or too old, or its server was deleted or has moved.
            WrongState: the guest is off, or its console has another address by now.
            Unavailable: database, broker or host do not answer.
        """
        with self._database.reading() as connection:
            ticket = cell_db.console_tokens.resolve(connection, token)
        if ticket is None:
            raise core.errors.Forbidden("The token of this address is unknown or has expired; ask for a new one.")
        if not self._is_served(ticket):
            raise core.errors.WrongState(_NO_LONGER, server=ticket.instance_uuid)
        return ticket

    def _is_served(self, ticket: Ticket) -> bool:
        asked = compute_verbs.OneServer(ticket.instance_uuid)
        queue = compute_verbs.queue(ticket.instance_host)
        try:
            answer = self._caller.call(queue, compute_verbs.CONSOLE_ADDRESSES, asked, context=service_context(), deadline_s=self._host_timeout_s)
        except (core.errors.NotFound, core.errors.WrongState):
            return False
        return ticket.address in answer.addresses
