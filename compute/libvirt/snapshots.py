"""An image of a guest's root disk, taken while the guest runs.

QEMU itself writes the disk as it was at one moment into a file beside it; the guest goes on, whatever becomes of the
agent. What an agent that was killed left behind (a job of QEMU's, file systems that are frozen, files) is cleaned up by
the next snapshot, or the next agent.
"""

import pathlib
import xml.etree.ElementTree as ET

import core.errors
import core.log
from compute import private
from compute.deadline import Deadline
from compute.libvirt import backup_jobs, domains, guest_agent
from compute.libvirt.connection import Libvirt
from compute.libvirt.domain_xml_edits import disk_names
from compute.libvirt.instance_dirs import InstanceDirectory

LOG = core.log.get(__name__)

_LOOK_S = 0.5
_RELEASE_S = 30.0


def backup_xml(disks: list[str], target: pathlib.Path) -> str:
    """The document for `virDomainBackupBegin`: the first of the disks into the target, the others not at all."""
    root = ET.Element("domainbackup", mode="push")
    elements = ET.SubElement(root, "disks")
    own = ET.SubElement(elements, "disk", name=disks[0], backup="yes", type="file")
    ET.SubElement(own, "driver", type="qcow2")
    ET.SubElement(own, "target", file=str(target))
    for name in disks[1:]:
        ET.SubElement(elements, "disk", name=name, backup="no")
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def live_snapshot(libvirt: Libvirt, directory: InstanceDirectory, *, target: pathlib.Path, deadline: Deadline) -> None:
    """`target` is an image of the guest's root disk as it was at the begin of the call."""
    drop_leftovers(libvirt, directory, deadline)
    # Let go of whatever becomes of the work: with a deadline of its own.
    release = Deadline(
        attempt=deadline.attempt, deadline_s=deadline.left_s() + _RELEASE_S, request_id=deadline.request_id
    )
    try:
        _begin(libvirt, directory, deadline, release)
        _finish(libvirt, directory.uuid, deadline)
        directory.copy_snapshot(target, deadline)
    finally:
        drop_leftovers(libvirt, directory, release)


def drop_leftovers(libvirt: Libvirt, directory: InstanceDirectory, deadline: Deadline) -> None:
    """Nothing of a snapshot is under way, and the guest's file systems are not frozen by one."""
    if not directory.snapshot_mark.exists():
        return
    try:
        backup_jobs.end_backup(libvirt, directory.uuid, deadline)
        if directory.frozen_mark.exists():
            guest_agent.thaw_file_systems(libvirt, directory.uuid, deadline)
    except core.errors.NotFound:
        LOG.info("a guest ended during its snapshot %s", deadline.about(directory.uuid))
    directory.drop_snapshot()


def _begin(libvirt: Libvirt, directory: InstanceDirectory, deadline: Deadline, release: Deadline) -> None:
    document = backup_xml(disk_names(domains.document(libvirt, directory.uuid, live=True)), directory.snapshot_disk)
    private.mark(directory.snapshot_mark)
    private.mark(directory.frozen_mark)
    is_quiet = guest_agent.freeze_file_systems(libvirt, directory.uuid, deadline)
    try:
        backup_jobs.begin_backup(libvirt, directory.uuid, document, deadline)
    finally:
        if is_quiet:
            guest_agent.thaw_file_systems(libvirt, directory.uuid, release)
        directory.frozen_mark.unlink()


def _finish(libvirt: Libvirt, uuid: str, deadline: Deadline) -> None:
    while True:
        news = libvirt.news_count()
        is_under_way, failure = backup_jobs.backup_state(libvirt, uuid)
        if not is_under_way:
            break
        deadline.check()
        libvirt.wait_for_news(news, min(_LOOK_S, deadline.left_s()))
    if failure is not None:
        LOG.warning("a snapshot failed %s why=%s", deadline.about(uuid), failure)
        if "No space left" in failure:
            raise core.errors.Unavailable("The host's disk is full (snapshot)", server=uuid)
        raise core.errors.Broken("The hypervisor failed to save the guest's disk", server=uuid)
