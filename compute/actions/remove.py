"""Take everything of a server's attempts off this host. The server is held by the caller."""

from compute.actions import snapshot
from compute.agent_context import AgentContext
from compute.deadline import Deadline


def remove(host: AgentContext, uuid: str, up_to_attempt: int, deadline: Deadline) -> None:
    """Afterwards no guest of these attempts is here, nor anything made for one. A guest of a later attempt stays."""
    snapshot.forget(host, uuid)
    host.hypervisor.guests.destroy(uuid, up_to_attempt, deadline=deadline)
    host.records.forget_operations(uuid, up_to_attempt)
    guest = host.hypervisor.guests.get(uuid)
    if guest is None:
        host.power.forget(uuid)
