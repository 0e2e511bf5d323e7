"""The domains that a host has: looking at them, making them known and unknown."""

import dataclasses
from typing import Any

import core.errors
from compute.deadline import Deadline
from compute.libvirt.connection import Libvirt, domain_of
from compute.libvirt.domain import NAMESPACE, Identity, domain_name, identity_of, is_ours
from compute.libvirt.library import libvirt
from lifecycle import states


@dataclasses.dataclass(frozen=True)
class Seen:
    """A domain of ours as libvirt tells of it. `saved`: its memory lies on disk, to be gone on from."""

    uuid: str
    identity: Identity
    power_state: int
    saved: bool

    @property
    def has_process(self) -> bool:
        """Whether there is a QEMU of it, running or held."""
        return self.power_state in (states.RUNNING, states.POWER_PAUSED, states.POWER_SUSPENDED)


def list_all(host: Libvirt) -> list[Seen]:
    """Every domain of ours."""
    return host.ask("list guests", _list)


def find(host: Libvirt, uuid: str, deadline: Deadline | None = None) -> Seen | None:
    """One domain of ours, or None."""
    return host.ask("look at a guest", lambda connection: _find(connection, uuid), deadline=deadline)


def known(host: Libvirt, uuid: str, deadline: Deadline | None = None) -> Seen:
    """One domain of ours.

    Raises:
        NotFound: there is none of this uuid.
    """
    seen = find(host, uuid, deadline)
    if seen is None:
        raise core.errors.NotFound(f"There is no guest of server {uuid} on this host", server=uuid)
    return seen


def document(host: Libvirt, uuid: str, *, live: bool = False) -> str:
    """The domain's document: as it starts next time, or as it runs now."""
    flag = 0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    return str(host.ask("describe a guest", lambda connection: domain_of(connection, uuid).XMLDesc(flag)))


def documents(host: Libvirt, *, but: str) -> list[str]:
    """The documents of all domains of ours but this server's, as they start next time."""
    return host.ask("describe all guests", lambda connection: _documents(connection, domain_name(but)))


def stats(host: Libvirt, uuid: str) -> dict[str, Any]:
    """libvirt's figures of the domain, by libvirt's own names."""
    return host.ask("measure a guest", lambda connection: _stats(connection, domain_of(connection, uuid)))


def define(host: Libvirt, uuid: str, document: str, deadline: Deadline) -> None:
    """Makes the domain known; it does not run."""
    flag = libvirt.VIR_DOMAIN_DEFINE_VALIDATE
    host.work("define a guest", uuid, deadline, lambda connection: connection.defineXMLFlags(document, flag))


def undefine(host: Libvirt, uuid: str, deadline: Deadline) -> None:
    """Makes the domain unknown, with all that libvirt keeps of it."""
    host.work("undefine a guest", uuid, deadline, lambda connection: _undefine(domain_of(connection, uuid)))
    host.forget(uuid)


def _list(connection: Any) -> list[Seen]:
    domains = (_seen(domain) for domain in connection.listAllDomains() if is_ours(domain.name()))
    return [seen for seen in domains if seen is not None]


def _find(connection: Any, uuid: str) -> Seen | None:
    try:
        return _seen(domain_of(connection, uuid))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _seen(domain: Any) -> Seen | None:
    """None: it went meanwhile, or is none of ours."""
    try:
        identity = identity_of(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE))
        state, reason = domain.state()
        saved = bool(domain.hasManagedSaveImage())
    except ValueError:
        return None
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_DOMAIN_METADATA):
            return None
        raise
    return Seen(domain.UUIDString(), identity, _power_state(state, reason), saved)


def _documents(connection: Any, but: str) -> list[str]:
    documents = []
    for domain in connection.listAllDomains():
        if is_ours(domain.name()) and domain.name() != but:
            try:
                documents.append(str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
    return documents


def _stats(connection: Any, domain: Any) -> dict[str, Any]:
    names = ("CPU_TOTAL", "BALLOON", "VCPU", "BLOCK", "INTERFACE")
    kinds = sum(getattr(libvirt, f"VIR_DOMAIN_STATS_{name}") for name in names)
    ((_, stats),) = connection.domainListGetStats([domain], kinds)
    return dict(stats)


def _power_state(state: int, reason: int) -> int:
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        return states.CRASHED if reason == libvirt.VIR_DOMAIN_SHUTOFF_CRASHED else states.SHUTDOWN
    return {
        libvirt.VIR_DOMAIN_RUNNING: states.RUNNING,
        libvirt.VIR_DOMAIN_BLOCKED: states.RUNNING,
        libvirt.VIR_DOMAIN_SHUTDOWN: states.RUNNING,  # On its way down; it still has its process.
        libvirt.VIR_DOMAIN_PAUSED: states.POWER_PAUSED,
        libvirt.VIR_DOMAIN_CRASHED: states.CRASHED,
        libvirt.VIR_DOMAIN_PMSUSPENDED: states.POWER_SUSPENDED,
    }.get(state, states.NO_STATE)


def _undefine(domain: Any) -> None:
    domain.undefineFlags(
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    )
