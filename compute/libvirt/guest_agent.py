"""What the agent in a guest is asked for; it may not answer, or not be there."""

from collections.abc import Callable
from typing import Any

import core.log
from compute.deadline import Deadline
from compute.libvirt.connection import Libvirt, domain_of
from compute.libvirt.library import libvirt

LOG = core.log.get(__name__)

_AGENT_S = 5


def freeze_file_systems(host: Libvirt, uuid: str, deadline: Deadline) -> bool:
    """Asks the guest's agent; whether it did so."""
    return _asks(host, "freeze a guest's file systems", uuid, deadline, lambda domain: domain.fsFreeze())


def thaw_file_systems(host: Libvirt, uuid: str, deadline: Deadline) -> bool:
    """Ends `freeze_file_systems`."""
    return _asks(host, "thaw a guest's file systems", uuid, deadline, lambda domain: domain.fsThaw())


def set_password(host: Libvirt, uuid: str, user: str, password: str, deadline: Deadline) -> bool:
    """Has the guest's agent set it; whether it did so."""
    return _asks(host, "set a password", uuid, deadline, lambda domain: domain.setUserPassword(user, password, 0))


def _asks(host: Libvirt, what: str, uuid: str, deadline: Deadline, function: Callable[[Any], object]) -> bool:
    def ask(connection: Any) -> bool:
        domain = domain_of(connection, uuid)
        try:
            domain.agentSetResponseTimeout(_AGENT_S)
            function(domain)
        except libvirt.libvirtError as error:
            why = error.get_error_message()
            LOG.info("the guest's agent failed %s call=%s why=%s", deadline.about(uuid), what, why)
            return False
        return True

    return host.work(what, uuid, deadline, ask)
