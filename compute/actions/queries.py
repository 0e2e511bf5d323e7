"""What a guest's host is asked about it at once: where its consoles are, how it fares."""

from collections.abc import Callable
from typing import TypeVar

import core.errors
from compute.actions.uuids import checked_uuid
from compute.agent_context import AgentContext
from core.context import Context
from lifecycle import refusals, states
from lifecycle.actions import GET_CONSOLE, GET_DIAGNOSTICS, Action
from messaging.verbs.compute import ConsoleAddresses, ServerRef
from objects.console import Address
from objects.diagnostics import Diagnostics

T = TypeVar("T")


def show_console_addresses(host: AgentContext, _: Context, asked: ServerRef) -> ConsoleAddresses:
    """Where its consoles are served now; none: the hypervisor has none for it.

    Raises:
        NotFound: the server has no guest on this host.
        WrongState: it does not run; the message names its power state.
    """
    addresses = _ask(host, GET_CONSOLE, asked.uuid, host.hypervisor.consoles.addresses)
    return ConsoleAddresses(
        [
            Address(kind=one.kind, host=one.host, port=one.port, path=None if one.path is None else str(one.path))
            for one in addresses
        ]
    )


def show_diagnostics(host: AgentContext, _: Context, asked: ServerRef) -> Diagnostics:
    """How it fares now.

    Raises:
        NotFound: the server has no guest on this host.
        WrongState: it does not run; the message names its power state.
    """
    return _ask(host, GET_DIAGNOSTICS, asked.uuid, host.hypervisor.guests.diagnostics)


def _ask(host: AgentContext, action: Action, uuid: str, ask: Callable[[str], T]) -> T:
    try:
        return ask(checked_uuid(uuid))
    except core.errors.WrongState as error:
        guest = host.hypervisor.guests.get(uuid)
        state = states.POWER_NAMES[states.NO_STATE if guest is None else guest.power_state]
        raise refusals.wrong_state(action, uuid, attribute="power_state", state=state) from error
