"""The consoles of simulated guests: a log only."""

from compute.hypervisor.consoles import MAX_CONSOLE_BYTES, ConsoleAddress
from compute.simulated.console import console_log
from compute.simulated.driver.context import SimulatedContext


class SimulatedConsoles:
    """See `compute.hypervisor.consoles`."""

    def __init__(self, context: SimulatedContext) -> None:
        self._context = context

    def addresses(self, uuid: str) -> list[ConsoleAddress]:
        self._context.running(uuid, "show a console")
        return []

    def log(self, uuid: str) -> str:
        self._context.setting(uuid)
        return console_log(self._context.known(uuid))[-MAX_CONSOLE_BYTES:]
