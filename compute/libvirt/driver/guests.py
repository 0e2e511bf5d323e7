"""Guests come and go, with their directory, their reservations and their domain."""

import functools
import pathlib

import core.errors
from compute.actions.uuids import checked_uuid
from compute.deadline import Deadline
from compute.libvirt import domain_power, domains
from compute.libvirt.diagnostics import diagnostics_of
from compute.libvirt.domain import domain_name
from compute.libvirt.driver.context import LibvirtContext, as_guest, disk_errors
from compute.libvirt.driver.leftovers import Leftovers
from compute.libvirt.guest_plan import make
from objects.build import BuildSpec, Guest
from objects.diagnostics import Diagnostics

_SETTLE_S = 10.0


class LibvirtGuests:
    """See `compute.hypervisor.guests`."""

    def __init__(self, context: LibvirtContext) -> None:
        self._context = context
        self._leftovers = Leftovers(context)

    def all(self) -> list[Guest]:
        listed = domains.list_all(self._context.libvirt)
        if not self._leftovers.is_swept:
            self._leftovers.sweep(listed)
        with disk_errors():
            for seen in listed:
                self._context.directory(seen).bound_console()
        return [as_guest(seen) for seen in listed if not self._context.is_building(seen)]

    def get(self, uuid: str) -> Guest | None:
        seen = domains.find(self._context.libvirt, checked_uuid(uuid))
        return None if seen is None or self._context.is_building(seen) else as_guest(seen)

    def spawn(self, spec: BuildSpec, attempt: int, *, image: pathlib.Path | None, deadline: Deadline) -> Guest:
        uuid = checked_uuid(spec.uuid)
        known = domains.find(self._context.libvirt, uuid, deadline)
        if known is not None and known.identity.attempt != attempt:
            raise core.errors.Conflict(f"A guest of attempt {known.identity.attempt} is here", server=uuid)
        if known is not None and not self._context.is_building(known):
            return as_guest(known)
        if known is not None:
            self._take_away(uuid, deadline)
        plan = self._context.plan(spec, image)
        directory = self._context.directories.of(uuid, attempt)
        documents = functools.partial(domains.documents, self._context.libvirt, but=uuid)
        with self._context.reservations.taken(uuid, plan.hardware, spec.flavor.vcpus, documents) as reservation:
            with disk_errors():
                self._leftovers.begin(directory)
                document = make(plan, directory, reservation, deadline)
            domains.define(self._context.libvirt, uuid, document, deadline)
        domain_power.create(self._context.libvirt, uuid, deadline)
        directory.end()
        return self._context.as_it_is(uuid, deadline)

    def destroy(self, uuid: str, up_to_attempt: int, *, deadline: Deadline) -> None:
        known = domains.find(self._context.libvirt, checked_uuid(uuid), deadline)
        if known is not None and known.identity.attempt <= up_to_attempt:
            self._take_away(uuid, deadline)
        # What an earlier call left behind may still define or start the guest.
        if not self._context.libvirt.has_settled(uuid, min(_SETTLE_S, deadline.left_s())):
            raise core.errors.Unavailable("The hypervisor still works on the guest", server=uuid)
        known = domains.find(self._context.libvirt, uuid, deadline)
        if known is not None and known.identity.attempt <= up_to_attempt:
            self._take_away(uuid, deadline)
        with disk_errors():
            for directory in self._context.directories.all(uuid):
                if directory.attempt <= up_to_attempt:
                    directory.clear()
            if known is None or known.identity.attempt <= up_to_attempt:
                self._context.reservations.clear(uuid)
                self._remove_logs(uuid)

    def diagnostics(self, uuid: str) -> Diagnostics:
        seen = self._context.with_process(uuid, "be diagnosed")
        stats, document = domains.stats(self._context.libvirt, uuid), domains.document(self._context.libvirt, uuid)
        return diagnostics_of(seen, self._context.facts.virt_type, stats, document)

    def _take_away(self, uuid: str, deadline: Deadline) -> None:
        try:
            domain_power.cut_off(self._context.libvirt, uuid, deadline)
            domains.undefine(self._context.libvirt, uuid, deadline)
        except core.errors.NotFound:
            return

    def _remove_logs(self, uuid: str) -> None:
        for path in pathlib.Path(self._context.settings.log_path).glob(f"{domain_name(uuid)}.log*"):
            path.unlink(missing_ok=True)
