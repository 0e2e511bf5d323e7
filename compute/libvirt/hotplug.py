"""Disks and network cards that come to a guest and go: first in the guest that runs, then for its next start.

Each step looks first at what is there, so a call that was cut short is completed by the next one.
"""

import time
import xml.etree.ElementTree as ET
from collections.abc import Callable

import core.errors
from compute.deadline import Deadline
from compute.hypervisor.devices import DiskToAttach, NicToAttach
from compute.libvirt import domain_devices, domains
from compute.libvirt.connection import Libvirt
from compute.libvirt.devices import disk_xml, nic_xml
from compute.libvirt.domain_xml_edits import attached_disk, attached_nic, disk_name, free_disk_name, has_scsi
from compute.libvirt.domains import Seen
from compute.libvirt.limits import nic_limits_in

_LOOK_S = 0.5
_ASK_AGAIN_S = 5.0

Find = Callable[[str], ET.Element | None]


def attach_disk(libvirt: Libvirt, seen: Seen, disk: DiskToAttach, deadline: Deadline, *, is_live: bool) -> str:
    """The guest has the disk; the name under which it is offered."""
    documents = _documents(libvirt, seen.uuid, is_live=is_live)
    known = [element for document in documents if (element := attached_disk(document, disk.volume_id)) is not None]
    if disk.bus == "scsi" and not has_scsi(documents[0]):
        raise core.errors.Invalid("The guest has no SCSI bus", field="bus", server=seen.uuid)
    name = disk_name(known[0]) if known else free_disk_name(documents, disk.bus)
    _attach(
        libvirt,
        seen.uuid,
        disk_xml(disk, name),
        lambda document: attached_disk(document, disk.volume_id),
        deadline,
        is_live=is_live,
    )
    return name


def attach_nic(libvirt: Libvirt, seen: Seen, nic: NicToAttach, deadline: Deadline, *, is_live: bool) -> None:
    """The guest has the card."""
    xml = nic_xml(nic, model=seen.identity.vif_model, may_take=nic_limits_in(seen.identity.vif_limits))
    _attach(libvirt, seen.uuid, xml, lambda document: attached_nic(document, nic.mac), deadline, is_live=is_live)


def detach(libvirt: Libvirt, seen: Seen, find: Find, deadline: Deadline, *, is_live: bool, patience_s: float) -> None:
    """The guest has no device that `find` finds in its document.

    Raises:
        Conflict: it did not let go within its patience.
    """
    if is_live:
        _wait_until_let_go(libvirt, seen.uuid, find, deadline, patience_s)
    element = find(domains.document(libvirt, seen.uuid))
    if element is not None:
        domain_devices.detach_device(libvirt, seen.uuid, _text(element), deadline, live=False)


def _documents(libvirt: Libvirt, uuid: str, *, is_live: bool) -> list[str]:
    return [domains.document(libvirt, uuid), *([domains.document(libvirt, uuid, live=True)] if is_live else [])]


def _attach(libvirt: Libvirt, uuid: str, xml: str, find: Find, deadline: Deadline, *, is_live: bool) -> None:
    # The guest that runs first: what cannot be had shows there, and nothing has to be taken back.
    if is_live and find(domains.document(libvirt, uuid, live=True)) is None:
        domain_devices.attach_device(libvirt, uuid, xml, deadline, live=True)
    if find(domains.document(libvirt, uuid)) is None:
        domain_devices.attach_device(libvirt, uuid, xml, deadline, live=False)


def _wait_until_let_go(libvirt: Libvirt, uuid: str, find: Find, deadline: Deadline, patience_s: float) -> None:
    """A guest is asked again and again: one that boots does not hear it."""
    ends = time.monotonic() + min(patience_s, deadline.left_s())
    asked_at = float("-inf")
    while True:
        news = libvirt.news_count()
        element = find(domains.document(libvirt, uuid, live=True))
        if element is None:
            return
        if time.monotonic() >= ends:
            raise core.errors.Conflict("The guest does not release the device", server=uuid)
        if time.monotonic() - asked_at >= _ASK_AGAIN_S:
            # This itself takes seconds when the guest does not answer.
            if not _ask(libvirt, uuid, element, deadline):
                return
            asked_at = time.monotonic()
            continue
        deadline.check()
        libvirt.wait_for_news(news, min(_LOOK_S, max(0.0, ends - time.monotonic())))


def _ask(libvirt: Libvirt, uuid: str, element: ET.Element, deadline: Deadline) -> bool:
    """False: the guest does not run any more."""
    try:
        domain_devices.detach_device(libvirt, uuid, _text(element), deadline, live=True)
    except core.errors.WrongState:
        return False
    except (core.errors.Broken, core.errors.Invalid):
        # It is being let go of already, or was meanwhile: its document will tell.
        return True
    return True


def _text(element: ET.Element) -> str:
    return ET.tostring(element, encoding="unicode")
