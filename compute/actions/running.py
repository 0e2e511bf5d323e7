"""One operation in hand."""

from collections.abc import Callable, Mapping

import core.errors
from compute.agent_context import AgentContext
from compute.deadline import Deadline
from core.log import about
from lifecycle.actions import OPERATIONS
from messaging.verbs import cell
from messaging.verbs.compute import Act
from objects.build import Guest


class Job:
    """What the work of an operation is given, and what it says of itself meanwhile."""

    def __init__(self, host: AgentContext, act: Act, deadline: Deadline) -> None:
        self.host = host
        self.act = act
        self.deadline = deadline
        self.has_begun = False

    @property
    def uuid(self) -> str:
        return self.act.uuid

    def begins(self) -> None:
        """From here on the guest is not what it was. Raises as the deadline does."""
        self.deadline.check()
        self.has_begun = True

    def stage(self, step: str) -> None:
        """Tells users how far it is, if the action's row has such a step."""
        if step not in OPERATIONS[self.act.action].steps:
            return
        stage = cell.Stage(self.act.uuid, self.act.operation_id, step, self.act.request_id)
        self.host.reporter.report(cell.STAGES, (self.act.uuid, self.act.operation_id), stage)

    def guest(self) -> Guest:
        """The guest as it is now.

        Raises:
            NotFound: there is none any more.
        """
        guest = self.host.hypervisor.guests.get(self.act.uuid)
        if guest is None:
            raise core.errors.NotFound("The server has no guest on this host")
        return guest


Work = Callable[[Job], Guest]


def about_act(host: AgentContext, act: Act) -> str:
    """The fields of a line about it in the log."""
    return about(server=act.uuid, attempt=act.attempt, host=host.name, request_id=act.request_id)


def text_of(arguments: Mapping[str, object], name: str) -> str:
    """An argument of an operation that is text.

    Raises:
        Invalid: the order lacks it.
    """
    value = arguments.get(name)
    if not isinstance(value, str):
        raise core.errors.Invalid(f"The order lacks {name}", field=name)
    return value
