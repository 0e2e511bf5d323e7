"""Take everything of a server's attempts off this host. The server is held by the caller."""

from compute.operation import Host
from compute.permit import Permit


def remove(host: Host, uuid: str, up_to_attempt: int, permit: Permit) -> None:
    """Afterwards no guest of these attempts is here, nor anything made for one. A guest of a later attempt stays."""
    host.hypervisor.destroy(uuid, up_to_attempt, permit=permit)
    host.records.forget_operations(uuid, up_to_attempt)
    guest = host.hypervisor.guest(uuid)
    if guest is None:
        host.power.forget(uuid)
