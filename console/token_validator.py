"""Who is let in where: the cell's database knows what a token stands for, the host whether its guest is still served
there.

What the host says is a claim: `console.targets` judges it.
"""

import dataclasses
import time

import cell_db.console_tokens
import cell_db.inventories
import core.errors
import messaging.verbs.cell as cell_verbs
from cell_db.console_tokens import ConsoleAccess
from console.targets import Target, Targets
from core.at_once import AtOnce
from core.bounded_pool import BoundedPool, result_within
from core.context import service_context
from database.engine import Database
from messaging.caller import Caller, Sent, forget
from objects.console import Address

_NO_LONGER = "This console is not there any more; ask for a new address."
_MAX_OF_HOST = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Admission:
    """Who is let in, and where to."""

    access: ConsoleAccess
    target: Target


class TokenValidator:
    """For one event loop. Only database and broker are asked in threads; for a host's answer none waits: it may be
    frozen."""

    def __init__(
        self, database: Database, caller: Caller, threads: BoundedPool, targets: Targets, *, host_timeout_s: float
    ) -> None:
        self._database = database
        self._caller = caller
        self._threads = threads
        self._targets = targets
        self._host_timeout_s = host_timeout_s
        self._asking = AtOnce(_MAX_OF_HOST)

    async def admit(self, token: str) -> Admission:
        """The console that the token opens now.

        A port that one guest has left may serve another's guest a moment later: the host is asked each time.

        Raises:
            Forbidden: the token is unknown or too old, or its server was deleted or has moved, or the console is where
                none may be.
            WrongState: the guest is off, or its console has another address by now.
            Unavailable: database, broker or host do not answer.
        """
        access = await self._threads.run(self._ticket, self._host_timeout_s, token)
        if access is None:
            raise core.errors.Forbidden("The token of this address is unknown or has expired; ask for a new one.")
        address = _address_of(access)
        if not await self._is_served(access, address):
            raise core.errors.WrongState(_NO_LONGER, server=access.instance_uuid)
        target = await self._threads.run(self._target, self._host_timeout_s, access, address)
        return Admission(access, target)

    def _ticket(self, token: str) -> ConsoleAccess | None:
        with self._database.reading() as connection:
            return cell_db.console_tokens.resolve(connection, token)

    def _target(self, access: ConsoleAccess, address: Address) -> Target:
        return self._targets.find(address, host=access.instance_host, owners_of=self._owners_of)

    def _owners_of(self, address: str) -> list[str]:
        with self._database.reading() as connection:
            return cell_db.inventories.hosts_at(connection, address)

    async def _is_served(self, access: ConsoleAccess, address: Address) -> bool:
        ends_at = time.monotonic() + self._host_timeout_s
        with self._asking.one_of(access.instance_host):
            sending = self._threads.submit(lambda: self._send(access))
            try:
                sent = await result_within(sending, self._host_timeout_s, "the broker")
                answer = await sent.answer(ends_at)
            except (core.errors.NotFound, core.errors.WrongState):
                return False
            finally:
                sending.add_done_callback(forget)
        return address in answer.addresses

    def _send(self, access: ConsoleAccess) -> Sent:
        # The conductor passes it on: a proxy's user on the broker may not write to hosts.
        asked = cell_verbs.ServerOnHost(access.instance_uuid, access.instance_host)
        return self._caller.send(
            cell_verbs.QUEUE, cell_verbs.CONSOLE_ADDRESSES, asked, context=service_context(),
            deadline_s=self._host_timeout_s, send_within_s=self._host_timeout_s,
        )  # fmt: skip


def _address_of(access: ConsoleAccess) -> Address:
    try:
        return access.address
    except ValueError as error:
        raise core.errors.WrongState(_NO_LONGER, server=access.instance_uuid) from error
