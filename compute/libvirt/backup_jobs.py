"""Backups of a domain's disks, which QEMU writes while the guest goes on."""

from typing import Any

from compute.deadline import Deadline
from compute.libvirt.connection import Libvirt, domain_of
from compute.libvirt.library import libvirt


def begin_backup(host: Libvirt, uuid: str, document: str, deadline: Deadline) -> None:
    """From this moment's disks on the backup is written, while the guest goes on."""
    host.work("begin a backup", uuid, deadline, lambda connection: _begin_backup(domain_of(connection, uuid), document))


def end_backup(host: Libvirt, uuid: str, deadline: Deadline) -> None:
    """Gives up a backup that is under way, if one is."""
    host.work("end a backup", uuid, deadline, lambda connection: _end_backup(domain_of(connection, uuid)))


def backup_state(host: Libvirt, uuid: str) -> tuple[bool, str | None]:
    """Whether a backup is under way; and if none is, why the last one failed.

    None: it did not, or nobody knows of one.
    """
    return host.ask("look at a guest's backup", lambda connection: _backup_state(domain_of(connection, uuid)))


def _begin_backup(domain: Any, document: str) -> None:
    # The outcome of an earlier job would be taken for this one's.
    domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    domain.backupBegin(document, None, 0)


def _end_backup(domain: Any) -> None:
    if domain.isActive() and domain.jobStats().get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP:
        domain.abortJob()


def _backup_state(domain: Any) -> tuple[bool, str | None]:
    now = domain.jobStats()
    if now["type"] != libvirt.VIR_DOMAIN_JOB_NONE:
        return True, None
    last = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED)
    if last["type"] == libvirt.VIR_DOMAIN_JOB_COMPLETED:
        return False, None
    return False, str(last.get("errmsg") or "the hypervisor does not know how it ended")
