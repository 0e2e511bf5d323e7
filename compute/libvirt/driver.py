"""libvirt behind the interface of all drivers."""

import contextlib
import dataclasses
import functools
import pathlib
import threading
from collections.abc import Callable, Iterator

from oslo_config import cfg

import core.errors
import core.log
from compute.actions.uuids import checked_uuid
from compute.deadline import Deadline
from compute.devices import DiskToAttach, NicToAttach
from compute.hypervisor import Capacity, ConsoleAddress
from compute.libvirt import commands, hotplug
from compute.libvirt.calls import Calls
from compute.libvirt.connection import Libvirt, Seen
from compute.libvirt.diagnostics import diagnostics_of
from compute.libvirt.domain import domain_name
from compute.libvirt.domain_xml_edits import (
    attached_disk,
    attached_nic,
    consoles_of,
    machine_of,
    rescued_xml,
    with_attached,
)
from compute.libvirt.graceful import reboot, shut_down
from compute.libvirt.guest_plan import Plan, make, plan_of
from compute.libvirt.host_facts import HostFacts
from compute.libvirt.instance_dirs import InstanceDirectories, InstanceDirectory
from compute.libvirt.reservations import Reservations
from compute.libvirt.snapshots import drop_leftovers, live_snapshot
from core.log import about
from lifecycle import states
from objects.build import BuildSpec, Guest
from objects.diagnostics import Diagnostics

LOG = core.log.get(__name__)

_SETTLE_S = 10.0
_PROGRAMS = ("qemu-img", "genisoimage", "mkfs.ext4", "mkswap")


def libvirt_hypervisor(conf: cfg.ConfigOpts) -> "LibvirtHypervisor":
    """The driver as the settings describe it."""
    path = pathlib.Path(conf.libvirt.instances_path or pathlib.Path(conf.state_path) / "instances")
    return LibvirtHypervisor(conf.libvirt, path.absolute())


class LibvirtHypervisor:
    """One host's guests.

    Args:
        settings: the group `libvirt`.
        instances: directory of the guests' files.

    Raises:
        Invalid: the settings contradict each other.
    """

    wants_image_files = True

    def __init__(self, settings: cfg.ConfigOpts, instances: pathlib.Path) -> None:
        self._settings = settings
        self._directories = InstanceDirectories(instances)
        self._opened: Libvirt | None = None
        self._reservations = Reservations(settings)
        self._host = HostFacts(settings, self._directories, self._reservations.cpus)
        self._sweeping = threading.Lock()
        self._begun: set[InstanceDirectory] = set()
        self._is_swept = False

    @property
    def _libvirt(self) -> Libvirt:
        if self._opened is None:
            raise core.errors.Unavailable("The connection to libvirt is not opened")
        return self._opened

    def open(self, changed: Callable[[], None]) -> None:
        commands.require(_PROGRAMS)
        self._directories.prepare()
        self._reservations.prepare()
        self._opened = Libvirt(self._settings.uri, calls=Calls(self._settings.calls), deadline_s=self._settings.call_deadline_s, changed=changed)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def capacity(self) -> Capacity:
        return self._host.capacity(self._libvirt)

    def guests(self) -> list[Guest]:
        found = self._libvirt.all()
        if not self._is_swept:
            self._sweep(found)
        with _disk_errors():
            for seen in found:
                self._directory(seen).bound_console()
        return [_as_guest(seen) for seen in found if not self._is_building(seen)]

    def guest(self, uuid: str) -> Guest | None:
        seen = self._libvirt.find(checked_uuid(uuid))
        return None if seen is None or self._is_building(seen) else _as_guest(seen)

    def images_in_use(self) -> set[pathlib.Path]:
        with _disk_errors():
            return {image for directory in self._directories.all() for image in directory.images()}

    def spawn(self, spec: BuildSpec, attempt: int, *, image: pathlib.Path | None, deadline: Deadline) -> Guest:
        uuid = checked_uuid(spec.uuid)
        known = self._libvirt.find(uuid, deadline)
        if known is not None and known.identity.attempt != attempt:
            raise core.errors.Conflict(f"A guest of attempt {known.identity.attempt} is here", server=uuid)
        if known is not None and not self._is_building(known):
            return _as_guest(known)
        if known is not None:
            self._take_away(uuid, deadline)
        plan = self._plan(spec, image)
        directory = self._directories.of(uuid, attempt)
        with self._reservations.taken(uuid, plan.hardware, spec.flavor.vcpus, lambda: self._libvirt.documents(but=uuid)) as reservation:
            with _disk_errors():
                self._begin(directory)
                document = make(plan, directory, reservation, deadline)
            self._libvirt.define(uuid, document, deadline)
        self._libvirt.create(uuid, deadline)
        directory.end()
        return self._as_it_is(uuid, deadline)

    def destroy(self, uuid: str, up_to_attempt: int, *, deadline: Deadline) -> None:
        known = self._libvirt.find(checked_uuid(uuid), deadline)
        if known is not None and known.identity.attempt <= up_to_attempt:
            self._take_away(uuid, deadline)
        # What an earlier call left behind may still define or start the guest.
        if not self._libvirt.has_settled(uuid, min(_SETTLE_S, deadline.left_s())):
            raise core.errors.Unavailable("The hypervisor still works on the guest", server=uuid)
        known = self._libvirt.find(uuid, deadline)
        if known is not None and known.identity.attempt <= up_to_attempt:
            self._take_away(uuid, deadline)
        with _disk_errors():
            for directory in self._directories.all(uuid):
                if directory.attempt <= up_to_attempt:
                    directory.clear()
            if known is None or known.identity.attempt <= up_to_attempt:
                self._reservations.clear(uuid)
                self._remove_logs(uuid)

    def start(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._known(uuid, deadline)
        if seen.power_state == states.POWER_PAUSED:
            self._libvirt.unpause(uuid, deadline)
        elif seen.power_state != states.RUNNING:
            self._boot(seen, deadline)
        return self._as_it_is(uuid, deadline)

    def stop(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._known(uuid, deadline)
        if seen.saved:
            self._libvirt.drop_saved(uuid, deadline)
        if seen.power_state == states.POWER_PAUSED:
            # Frozen it cannot hear the button.
            self._libvirt.unpause(uuid, deadline)
        if seen.has_process and not shut_down(self._libvirt, uuid, deadline, patience_s=self._settings.shutdown_timeout_s):
            LOG.warning("a guest did not shut down and is powered off %s", deadline.about(uuid))
            self._libvirt.cut_off(uuid, deadline)
        return self._as_it_is(uuid, deadline)

    def reboot(self, uuid: str, *, hard: bool, deadline: Deadline) -> Guest:
        seen = self._known(uuid, deadline)
        if not hard and seen.power_state != states.RUNNING:
            raise _wrong_state(seen, "be rebooted softly")
        if not hard and reboot(self._libvirt, uuid, deadline, patience_s=self._settings.shutdown_timeout_s):
            return self._as_it_is(uuid, deadline)
        off = self._switched_off(seen, deadline)
        self._own_disks_again(self._directory(seen), uuid, deadline)
        self._boot(off, deadline)
        return self._as_it_is(uuid, deadline)

    def pause(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._known(uuid, deadline)
        if seen.power_state == states.POWER_PAUSED:
            return _as_guest(seen)
        if seen.power_state != states.RUNNING:
            raise _wrong_state(seen, "be paused")
        self._libvirt.pause(uuid, deadline)
        return self._as_it_is(uuid, deadline)

    def unpause(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._known(uuid, deadline)
        if seen.power_state == states.RUNNING:
            return _as_guest(seen)
        if seen.power_state != states.POWER_PAUSED:
            raise _wrong_state(seen, "be unpaused")
        self._libvirt.unpause(uuid, deadline)
        return self._as_it_is(uuid, deadline)

    def suspend(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._known(uuid, deadline)
        if seen.saved:
            return _as_guest(seen)
        if not seen.has_process:
            raise _wrong_state(seen, "be suspended")
        self._libvirt.save(uuid, deadline)
        return self._as_it_is(uuid, deadline)

    def resume(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._known(uuid, deadline)
        if seen.power_state == states.RUNNING:
            return _as_guest(seen)
        if not seen.saved:
            raise _wrong_state(seen, "be resumed")
        self._libvirt.create(uuid, deadline)
        return self._as_it_is(uuid, deadline)

    def rebuild(self, spec: BuildSpec, *, image: pathlib.Path | None, deadline: Deadline) -> Guest:
        seen = self._known(spec.uuid, deadline)
        before = self._libvirt.document(spec.uuid)
        plan = self._plan(spec, image, machine=seen.identity.machine or machine_of(before))
        directory = self._directory(seen)
        documents = functools.partial(self._libvirt.documents, but=spec.uuid)
        with self._reservations.taken(spec.uuid, plan.hardware, spec.flavor.vcpus, documents, before=before) as reservation:
            off = self._switched_off(seen, deadline)
            with _disk_errors():
                directory.drop_disks()
                document = make(plan, directory, reservation, deadline)
            self._libvirt.define(spec.uuid, with_attached(document, before), deadline)
        self._boot(off, deadline)
        return self._as_it_is(spec.uuid, deadline)

    def rescue(self, uuid: str, *, image: pathlib.Path | None, disk_format: str, deadline: Deadline) -> Guest:
        seen = self._known(uuid, deadline)
        directory = self._directory(seen)
        if image is None:
            raise core.errors.Invalid("A server cannot be rescued without an image", field="rescue_image_ref", server=uuid)
        facts = directory.rescue_facts(image, disk_format)
        document = self._libvirt.document(uuid)
        is_rescued = str(directory.rescue_path) in document
        if is_rescued and seen.power_state == states.RUNNING:
            return _as_guest(seen)
        off = self._switched_off(seen, deadline)
        with _disk_errors():
            if not is_rescued:
                directory.keep_document(document)
            directory.rescue_disk(image, facts, deadline)
        self._libvirt.define(uuid, rescued_xml(directory.own_document.read_text(), directory.rescue_path), deadline)
        self._boot(off, deadline)
        return self._as_it_is(uuid, deadline)

    def unrescue(self, uuid: str, *, deadline: Deadline) -> Guest:
        seen = self._known(uuid, deadline)
        directory = self._directory(seen)
        if directory.own_document.exists():
            self._switched_off(seen, deadline)
            self._own_disks_again(directory, uuid, deadline)
        return self.start(uuid, deadline=deadline)

    def snapshot(self, uuid: str, *, target: pathlib.Path, deadline: Deadline) -> None:
        seen = self._known(uuid, deadline)
        directory = self._directory(seen)
        with _disk_errors():
            if seen.has_process:
                live_snapshot(self._libvirt, directory, target=target, deadline=deadline)
            else:
                directory.drop_snapshot()
                directory.copy_root_disk(target, deadline)

    def attach_disk(self, uuid: str, disk: DiskToAttach, *, deadline: Deadline) -> str:
        seen = self._changeable(uuid, deadline)
        return hotplug.attach_disk(self._libvirt, seen, disk, deadline, is_live=seen.has_process)

    def detach_disk(self, uuid: str, volume_id: str, *, deadline: Deadline) -> None:
        self._detach(uuid, lambda document: attached_disk(document, volume_id), deadline)

    def attach_nic(self, uuid: str, nic: NicToAttach, *, deadline: Deadline) -> None:
        seen = self._changeable(uuid, deadline)
        hotplug.attach_nic(self._libvirt, seen, nic, deadline, is_live=seen.has_process)

    def detach_nic(self, uuid: str, mac: str, *, deadline: Deadline) -> None:
        self._detach(uuid, lambda document: attached_nic(document, mac), deadline)

    def set_password(self, uuid: str, *, user: str, password: str, deadline: Deadline) -> None:
        seen = self._known(uuid, deadline)
        if seen.power_state != states.RUNNING:
            raise _wrong_state(seen, "be given a password")
        if not self._libvirt.set_password(uuid, user, password, deadline):
            raise core.errors.Conflict("The guest's agent does not answer", server=uuid)

    def inject_nmi(self, uuid: str, *, deadline: Deadline) -> None:
        seen = self._known(uuid, deadline)
        if seen.power_state != states.RUNNING:
            raise _wrong_state(seen, "be interrupted")
        self._libvirt.inject_nmi(uuid, deadline)

    def console_addresses(self, uuid: str) -> list[ConsoleAddress]:
        self._with_process(uuid, "show a console")
        return consoles_of(self._libvirt.document(uuid, live=True))

    def diagnostics(self, uuid: str) -> Diagnostics:
        seen = self._with_process(uuid, "be diagnosed")
        return diagnostics_of(seen, self._host.virt_type, self._libvirt.stats(uuid), self._libvirt.document(uuid))

    def console_log(self, uuid: str) -> str:
        # The file tells as much while libvirt is away.
        directories = self._directories.all(checked_uuid(uuid))
        if not directories:
            raise core.errors.NotFound(f"There is no guest of server {uuid} on this host", server=uuid)
        with _disk_errors():
            return directories[-1].read_console()

    # ---- the guest's state -----------------------------------------------------------------------------------------------------

    def _known(self, uuid: str, deadline: Deadline | None = None) -> Seen:
        return self._libvirt.known(checked_uuid(uuid), deadline)

    def _with_process(self, uuid: str, what: str) -> Seen:
        seen = self._known(uuid)
        if not seen.has_process:
            raise _wrong_state(seen, what)
        return seen

    def _directory(self, seen: Seen) -> InstanceDirectory:
        return self._directories.of(seen.uuid, seen.identity.attempt)

    def _switched_off(self, seen: Seen, deadline: Deadline) -> Seen:
        if seen.saved:
            self._libvirt.drop_saved(seen.uuid, deadline)
        self._libvirt.cut_off(seen.uuid, deadline)
        return dataclasses.replace(seen, saved=False)

    def _boot(self, seen: Seen, deadline: Deadline) -> None:
        """Starts a guest that is off."""
        if not seen.saved:
            mended = self._reservations.mended(seen.uuid, self._libvirt.document(seen.uuid), lambda: self._libvirt.documents(but=seen.uuid))
            if mended is not None:
                self._libvirt.define(seen.uuid, mended, deadline)
        self._libvirt.create(seen.uuid, deadline)

    def _changeable(self, uuid: str, deadline: Deadline) -> Seen:
        """The guest, if devices can be attached to it and detached."""
        seen = self._known(uuid, deadline)
        if seen.saved:
            raise core.errors.WrongState("The devices of a guest whose state is saved cannot change", server=uuid)
        if self._directory(seen).own_document.exists():
            raise core.errors.WrongState("The devices of a rescued guest cannot change", server=uuid)
        return seen

    def _detach(self, uuid: str, find: hotplug.Find, deadline: Deadline) -> None:
        seen = self._changeable(uuid, deadline)
        hotplug.detach(self._libvirt, seen, find, deadline, is_live=seen.has_process, patience_s=self._settings.detach_timeout_s)

    def _own_disks_again(self, directory: InstanceDirectory, uuid: str, deadline: Deadline) -> None:
        """A guest that is off is not rescued any more."""
        if directory.own_document.exists():
            self._libvirt.define(uuid, directory.own_document.read_text(), deadline)
            with _disk_errors():
                directory.unrescued()

    def _as_it_is(self, uuid: str, deadline: Deadline) -> Guest:
        return _as_guest(self._known(uuid, deadline))

    def _is_building(self, seen: Seen) -> bool:
        return self._directories.of(seen.uuid, seen.identity.attempt).is_building

    def _take_away(self, uuid: str, deadline: Deadline) -> None:
        try:
            self._libvirt.cut_off(uuid, deadline)
            self._libvirt.undefine(uuid, deadline)
        except core.errors.NotFound:
            return

    # ---- the host --------------------------------------------------------------------------------------------------------------

    def _plan(self, spec: BuildSpec, image: pathlib.Path | None, machine: str | None = None) -> Plan:
        abilities = functools.partial(self._host.abilities, self._libvirt)
        return plan_of(spec, image, self._settings, virt_type=self._host.virt_type, abilities=abilities, machine=machine)

    def _begin(self, directory: InstanceDirectory) -> None:
        with self._sweeping:
            self._begun.add(directory)
        directory.begin()

    def _sweep(self, guests: list[Seen]) -> None:
        """Removes what an agent that crashed had begun: guests never given to libvirt, snapshots."""
        uuids = {seen.uuid for seen in guests}
        with self._sweeping, _disk_errors():
            for directory in self._directories.all():
                if directory.is_building and directory.uuid not in uuids and directory not in self._begun:
                    LOG.info("a leftover is removed %s", about(server=directory.uuid, attempt=directory.attempt))
                    directory.clear()
            for directory in map(self._directory, guests):
                self._end_snapshot(directory)
            self._is_swept = True
            self._begun.clear()

    def _end_snapshot(self, directory: InstanceDirectory) -> None:
        deadline = Deadline(attempt=directory.attempt, deadline_s=self._settings.call_deadline_s)
        try:
            drop_leftovers(self._libvirt, directory, deadline)
        except core.errors.CellplaneError as error:
            # One guest that does not answer must not make the host fall silent; the next snapshot tries again.
            LOG.warning("files of a snapshot are not removed yet %s why=%s", deadline.about(directory.uuid), error)

    def _remove_logs(self, uuid: str) -> None:
        for path in pathlib.Path(self._settings.log_path).glob(f"{domain_name(uuid)}.log*"):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """What the host's own disk refuses inside the `with`, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise core.errors.Unavailable(f"Disk error on the host: {error.strerror or error}") from error


def _as_guest(seen: Seen) -> Guest:
    identity = seen.identity
    return Guest(
        uuid=seen.uuid,
        attempt=identity.attempt,
        power_state=seen.power_state,
        vcpus=identity.vcpus,
        memory_mib=identity.memory_mib,
        disk_gib=identity.disk_gib,
    )


def _wrong_state(seen: Seen, what: str) -> core.errors.WrongState:
    return core.errors.WrongState(f"The guest cannot {what}: its power state is {seen.power_state}", server=seen.uuid)
