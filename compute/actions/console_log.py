"""The tail of a guest's console log."""

from compute.actions.uuids import checked_uuid
from compute.agent_context import AgentContext
from core.context import Context
from messaging.verbs.compute import ConsoleLogRequest, ConsoleOutput


def show_console(host: AgentContext, _: Context, asked: ConsoleLogRequest) -> ConsoleOutput:
    """The last lines, or all there is.

    Raises:
        NotFound: the server has no guest on this host.
    """
    log = host.hypervisor.consoles.log(checked_uuid(asked.uuid))
    return ConsoleOutput(_tail(log, asked.lines))


def _tail(log: str, lines: int | None) -> str:
    """What follows the last line break counts as a line, though it is usually empty: clients count so, too."""
    if lines is None or lines < 0:
        return log
    return "\n".join(log.split("\n")[-lines:]) if lines else ""
