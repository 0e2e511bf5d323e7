"""Guests are rebuilt and rescued: their disks are made anew."""

import functools
import pathlib

import core.errors
from compute.deadline import Deadline
from compute.libvirt import domains
from compute.libvirt.domain_xml_edits import machine_of, rescued_xml, with_attached
from compute.libvirt.driver.boot import boot, own_disks_again, switched_off
from compute.libvirt.driver.context import LibvirtContext, as_guest, disk_errors
from compute.libvirt.driver.power import LibvirtPower
from compute.libvirt.guest_plan import make
from lifecycle import states
from objects.build import BuildSpec, Guest


class LibvirtDisks:
    """See `compute.hypervisor.disks`."""

    def __init__(self, context: LibvirtContext, power: LibvirtPower) -> None:
        self._context = context
        self._power = power

    def images_in_use(self) -> set[pathlib.Path]:
        with disk_errors():
            return {image for directory in self._context.directories.all() for image in directory.images()}

    def rebuild(self, spec: BuildSpec, *, image: pathlib.Path | None, deadline: Deadline) -> Guest:
        seen = self._context.known(spec.uuid, deadline)
        before = domains.document(self._context.libvirt, spec.uuid)
        plan = self._context.plan(spec, image, machine=seen.identity.machine or machine_of(before))
        directory = self._context.directory(seen)
        documents = functools.partial(domains.documents, self._context.libvirt, but=spec.uuid)
        taken = self._context.reservations.taken(spec.uuid, plan.hardware, spec.flavor.vcpus, documents, before=before)
        with taken as reservation:
            off = switched_off(self._context, seen, deadline)
            with disk_errors():
                directory.drop_disks()
                document = make(plan, directory, reservation, deadline)
            domains.define(self._context.libvirt, spec.uuid, with_attached(document, before), deadline)
        boot(self._context, off, deadline)
        return self._context.as_it_is(spec.uuid, deadline)

    def rescue(self, uuid: str, *, image: pathlib.Path | None, disk_format: str, deadline: Deadline) -> Guest:
        seen = self._context.known(uuid, deadline)
        directory = self._context.directory(seen)
        if image is None:
            message = "A server cannot be rescued without an image"
            raise core.errors.Invalid(message, field="rescue_image_ref", server=uuid)
        facts = directory.rescue_facts(image, disk_format)
        document = domains.document(self._context.libvirt, uuid)
        is_rescued = str(directory.rescue_path) in document
        if is_rescued and seen.power_state == states.RUNNING:
            return as_guest(seen)
        off = switched_off(self._context, seen, deadline)
        with disk_errors():
            if not is_rescued:
                directory.keep_document(document)
            directory.rescue_disk(image, facts, deadline)
        rescued = rescued_xml(directory.own_document.read_text(), directory.rescue_path)
        domains.define(self._context.libvirt, uuid, rescued, deadline)
        boot(self._context, off, deadline)
        return self._context.as_it_is(uuid, deadline)

    def unrescue(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._context.known(uuid, deadline)
        directory = self._context.directory(seen)
        if directory.own_document.exists():
            switched_off(self._context, seen, deadline)
            own_disks_again(self._context, directory, uuid, deadline)
        return self._power.start(uuid, deadline=deadline)
