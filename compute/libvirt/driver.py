"""libvirt behind the interface of all drivers."""

import contextlib
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from oslo_config import cfg

import core.errors
import core.log
from compute.actions.names import checked_uuid
from compute.hypervisor import Capacity, ConsoleAddress, Diagnostics
from compute.libvirt import programs
from compute.libvirt.calls import Calls
from compute.libvirt.capabilities import cpu_of, memory_mib_of, traits_of, virt_type_of
from compute.libvirt.connection import Libvirt, Seen
from compute.libvirt.diagnostics import diagnostics_of
from compute.libvirt.domain import domain_name, rescued_xml, vnc_of
from compute.libvirt.homes import Home, Homes
from compute.libvirt.image_format import inspect
from compute.libvirt.making import make, plan_of
from compute.permit import Permit
from lifecycle import states
from objects.build import BuildSpec, Guest

LOG = core.log.get(__name__)

_LOOK_S = 0.5
_PRESS_AGAIN_S = 5.0
_SETTLE_S = 10.0
# Of the permit, this part is kept for cutting the guest off.
_KEPT_FOR_FORCE = 0.5
_RELEASE_S = 30.0
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
    """

    wants_image_files = True

    def __init__(self, settings: cfg.ConfigOpts, instances: pathlib.Path) -> None:
        self._settings = settings
        self._homes = Homes(instances)
        self._virt_type = settings.virt_type or virt_type_of(pathlib.Path("/proc/cpuinfo").read_text())
        self._opened: Libvirt | None = None
        self._machine: tuple[dict[str, Any], int] | None = None
        self._sweeping = threading.Lock()
        self._begun: set[Home] = set()
        self._is_swept = False

    @property
    def _libvirt(self) -> Libvirt:
        if self._opened is None:
            raise core.errors.Unavailable("The connection to libvirt is not opened")
        return self._opened

    def open(self, changed: Callable[[], None]) -> None:
        programs.require(_PROGRAMS)
        self._homes.prepare()
        self._opened = Libvirt(self._settings.uri, calls=Calls(self._settings.calls), deadline_s=self._settings.call_deadline_s, changed=changed)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def capacity(self) -> Capacity:
        settings = self._settings
        cpu, version = self._machine or self._ask_machine()
        return Capacity(
            hypervisor_type="KVM" if self._virt_type == "kvm" else "QEMU",
            hypervisor_version=version,
            vcpus=settings.vcpus or os.cpu_count() or 1,
            memory_mib=settings.memory_mib or memory_mib_of(pathlib.Path("/proc/meminfo").read_text()),
            disk_gib=self._homes.disk_gib() if settings.disk_gib is None else settings.disk_gib,
            cpu_info=cpu,
            traits=traits_of(cpu, virt_type=self._virt_type),
        )

    def guests(self) -> list[Guest]:
        found = self._libvirt.all()
        if not self._is_swept:
            self._sweep({seen.uuid for seen in found})
        with _disk_errors():
            for seen in found:
                self._home(seen).bound_console()
        return [_as_guest(seen) for seen in found if not self._is_building(seen)]

    def guest(self, uuid: str) -> Guest | None:
        seen = self._libvirt.find(checked_uuid(uuid))
        return None if seen is None or self._is_building(seen) else _as_guest(seen)

    def spawn(self, spec: BuildSpec, attempt: int, *, image: pathlib.Path | None, permit: Permit) -> Guest:
        uuid = checked_uuid(spec.uuid)
        known = self._libvirt.find(uuid, permit)
        if known is not None and known.identity.attempt != attempt:
            raise core.errors.Conflict(f"A guest of attempt {known.identity.attempt} is here", server=uuid)
        if known is not None and not self._is_building(known):
            return _as_guest(known)
        if known is not None:
            self._take_away(uuid, permit)
        plan = plan_of(spec, image, self._settings, self._virt_type)
        home = self._homes.of(uuid, attempt)
        with _disk_errors():
            self._begin(home)
            document = make(plan, home, permit)
        self._libvirt.define(uuid, document, permit)
        self._libvirt.create(uuid, permit)
        home.end()
        return self._as_it_is(uuid, permit)

    def destroy(self, uuid: str, up_to_attempt: int, *, permit: Permit) -> None:
        known = self._libvirt.find(checked_uuid(uuid), permit)
        if known is not None and known.identity.attempt <= up_to_attempt:
            self._take_away(uuid, permit)
        # What an earlier call left behind may still define or start the guest.
        if not self._libvirt.has_settled(uuid, min(_SETTLE_S, permit.left_s())):
            raise core.errors.Unavailable("The hypervisor still works on the guest", server=uuid)
        known = self._libvirt.find(uuid, permit)
        if known is not None and known.identity.attempt <= up_to_attempt:
            self._take_away(uuid, permit)
        with _disk_errors():
            for home in self._homes.all(uuid):
                if home.attempt <= up_to_attempt:
                    home.clear()
            if known is None or known.identity.attempt <= up_to_attempt:
                self._remove_logs(uuid)

    def start(self, uuid: str, *, permit: Permit) -> Guest:
        seen = self._known(uuid, permit)
        if seen.power_state == states.POWER_PAUSED:
            self._libvirt.unpause(uuid, permit)
        elif seen.power_state != states.RUNNING:
            self._libvirt.create(uuid, permit)
        return self._as_it_is(uuid, permit)

    def stop(self, uuid: str, *, permit: Permit) -> Guest:
        seen = self._known(uuid, permit)
        if seen.saved:
            self._libvirt.drop_saved(uuid, permit)
        if seen.power_state == states.POWER_PAUSED:
            # Frozen it cannot hear the button.
            self._libvirt.unpause(uuid, permit)
        if _has_process(seen) and not self._shuts_down(uuid, permit):
            LOG.warning("a guest did not shut itself down and is cut off server=%s", uuid)
            self._libvirt.cut_off(uuid, permit)
        return self._as_it_is(uuid, permit)

    def reboot(self, uuid: str, *, hard: bool, permit: Permit) -> Guest:
        seen = self._known(uuid, permit)
        if not hard and seen.power_state != states.RUNNING:
            raise _wrong_state(seen, "be rebooted softly")
        if not hard and self._starts_anew(uuid, permit):
            return self._as_it_is(uuid, permit)
        self._switch_off(seen, permit)
        self._libvirt.create(uuid, permit)
        return self._as_it_is(uuid, permit)

    def pause(self, uuid: str, *, permit: Permit) -> Guest:
        seen = self._known(uuid, permit)
        if seen.power_state == states.POWER_PAUSED:
            return _as_guest(seen)
        if seen.power_state != states.RUNNING:
            raise _wrong_state(seen, "be paused")
        self._libvirt.pause(uuid, permit)
        return self._as_it_is(uuid, permit)

    def unpause(self, uuid: str, *, permit: Permit) -> Guest:
        seen = self._known(uuid, permit)
        if seen.power_state == states.RUNNING:
            return _as_guest(seen)
        if seen.power_state != states.POWER_PAUSED:
            raise _wrong_state(seen, "be unpaused")
        self._libvirt.unpause(uuid, permit)
        return self._as_it_is(uuid, permit)

    def suspend(self, uuid: str, *, permit: Permit) -> Guest:
        seen = self._known(uuid, permit)
        if seen.saved:
            return _as_guest(seen)
        if not _has_process(seen):
            raise _wrong_state(seen, "be suspended")
        self._libvirt.save(uuid, permit)
        return self._as_it_is(uuid, permit)

    def resume(self, uuid: str, *, permit: Permit) -> Guest:
        seen = self._known(uuid, permit)
        if seen.power_state == states.RUNNING:
            return _as_guest(seen)
        if not seen.saved:
            raise _wrong_state(seen, "be resumed")
        self._libvirt.create(uuid, permit)
        return self._as_it_is(uuid, permit)

    def rebuild(self, spec: BuildSpec, *, image: pathlib.Path | None, permit: Permit) -> Guest:
        seen = self._known(spec.uuid, permit)
        plan = plan_of(spec, image, self._settings, self._virt_type)
        home = self._home(seen)
        self._switch_off(seen, permit)
        with _disk_errors():
            home.drop_disks()
            document = make(plan, home, permit)
        self._libvirt.define(spec.uuid, document, permit)
        self._libvirt.create(spec.uuid, permit)
        return self._as_it_is(spec.uuid, permit)

    def rescue(self, uuid: str, *, image: pathlib.Path | None, disk_format: str, permit: Permit) -> Guest:
        seen = self._known(uuid, permit)
        home = self._home(seen)
        if image is None:
            raise core.errors.Invalid("A server cannot be rescued without an image", field="rescue_image_ref", server=uuid)
        facts = inspect(image, said=disk_format)
        document = self._libvirt.document(uuid)
        is_rescued = str(home.rescue_path) in document
        if is_rescued and seen.power_state == states.RUNNING:
            return _as_guest(seen)
        self._switch_off(seen, permit)
        with _disk_errors():
            if not is_rescued:
                home.keep_document(document)
            home.rescue_disk(image, facts, permit)
        self._libvirt.define(uuid, rescued_xml(home.own_document.read_text(), home.rescue_path), permit)
        self._libvirt.create(uuid, permit)
        return self._as_it_is(uuid, permit)

    def unrescue(self, uuid: str, *, permit: Permit) -> Guest:
        seen = self._known(uuid, permit)
        home = self._home(seen)
        if home.own_document.exists():
            self._switch_off(seen, permit)
            self._libvirt.define(uuid, home.own_document.read_text(), permit)
            with _disk_errors():
                home.unrescued()
        return self.start(uuid, permit=permit)

    def snapshot(self, uuid: str, *, target: pathlib.Path, permit: Permit) -> None:
        seen = self._known(uuid, permit)
        with self._held_still(seen, permit), _disk_errors():
            self._home(seen).copy_root_disk(target, permit)

    def set_password(self, uuid: str, *, user: str, password: str, permit: Permit) -> None:
        seen = self._known(uuid, permit)
        if seen.power_state != states.RUNNING:
            raise _wrong_state(seen, "be given a password")
        if not self._libvirt.set_password(uuid, user, password, permit):
            raise core.errors.Conflict("No agent answers in the guest", server=uuid)

    def inject_nmi(self, uuid: str, *, permit: Permit) -> None:
        seen = self._known(uuid, permit)
        if seen.power_state != states.RUNNING:
            raise _wrong_state(seen, "be interrupted")
        self._libvirt.inject_nmi(uuid, permit)

    def console_addresses(self, uuid: str) -> list[ConsoleAddress]:
        self._with_process(uuid, "show a console")
        vnc = vnc_of(self._libvirt.document(uuid, live=True))
        return [] if vnc is None else [ConsoleAddress(kind="vnc", host=vnc[0], port=vnc[1])]

    def diagnostics(self, uuid: str) -> Diagnostics:
        seen = self._with_process(uuid, "be diagnosed")
        return diagnostics_of(seen, self._virt_type, self._libvirt.stats(uuid), self._libvirt.document(uuid))

    def console_log(self, uuid: str) -> str:
        # The file tells as much while libvirt is away.
        homes = self._homes.all(checked_uuid(uuid))
        if not homes:
            raise core.errors.NotFound(f"There is no guest of server {uuid} on this host", server=uuid)
        with _disk_errors():
            return homes[-1].read_console()

    # ---- the guest's state -----------------------------------------------------------------------------------------------------

    def _known(self, uuid: str, permit: Permit) -> Seen:
        seen = self._libvirt.find(checked_uuid(uuid), permit)
        if seen is None:
            raise core.errors.NotFound(f"There is no guest of server {uuid} on this host", server=uuid)
        return seen

    def _with_process(self, uuid: str, what: str) -> Seen:
        seen = self._libvirt.find(checked_uuid(uuid))
        if seen is None:
            raise core.errors.NotFound(f"There is no guest of server {uuid} on this host", server=uuid)
        if not _has_process(seen):
            raise _wrong_state(seen, what)
        return seen

    def _home(self, seen: Seen) -> Home:
        return self._homes.of(seen.uuid, seen.identity.attempt)

    def _switch_off(self, seen: Seen, permit: Permit) -> None:
        if seen.saved:
            self._libvirt.drop_saved(seen.uuid, permit)
        self._libvirt.cut_off(seen.uuid, permit)

    @contextlib.contextmanager
    def _held_still(self, seen: Seen, permit: Permit) -> Iterator[None]:
        """Inside the `with` the guest writes nothing to its disks: QEMU has written all it held when it is frozen.

        An agent that dies meanwhile leaves it paused, for its user to let it go on.
        """
        if seen.power_state != states.RUNNING:
            yield
            return
        is_quiet = self._libvirt.freeze_file_systems(seen.uuid, permit)
        self._libvirt.pause(seen.uuid, permit)
        # Let go of whatever becomes of the work: with a permit of its own.
        release = Permit(attempt=permit.attempt, deadline_s=_RELEASE_S)
        try:
            yield
        finally:
            self._libvirt.unpause(seen.uuid, release)
            if is_quiet:
                self._libvirt.thaw_file_systems(seen.uuid, release)

    def _as_it_is(self, uuid: str, permit: Permit) -> Guest:
        return _as_guest(self._known(uuid, permit))

    def _shuts_down(self, uuid: str, permit: Permit) -> bool:
        """Whether the guest reacts to its power button in time. A guest that still boots does not hear it: it is pressed again."""
        return self._reacts(
            permit,
            press=lambda: self._libvirt.press_power_button(uuid, permit),
            has_reacted=lambda: not _has_process(self._known(uuid, permit)),
        )

    def _starts_anew(self, uuid: str, permit: Permit) -> bool:
        before = self._libvirt.reboots(uuid)
        has_reacted = self._reacts(
            permit,
            press=lambda: self._libvirt.ask_to_reboot(uuid, permit),
            has_reacted=lambda: self._libvirt.reboots(uuid) > before or not _has_process(self._known(uuid, permit)),
        )
        # A guest whose process ended instead of starting anew has to be started.
        return has_reacted and _has_process(self._known(uuid, permit))

    def _reacts(self, permit: Permit, *, press: Callable[[], None], has_reacted: Callable[[], bool]) -> bool:
        patience_s = min(self._settings.shutdown_timeout_s, permit.left_s() * _KEPT_FOR_FORCE)
        patience = Permit(attempt=permit.attempt, deadline_s=patience_s)
        pressed_at_s = float("inf")
        while patience.left_s() > 0:
            news = self._libvirt.news_count()
            if has_reacted():
                return True
            if pressed_at_s - patience.left_s() >= _PRESS_AGAIN_S:
                pressed_at_s = patience.left_s()
                try:
                    press()
                except core.errors.WrongState:
                    continue  # It went off at this moment.
            permit.check()
            self._libvirt.wait_for_news(news, min(_LOOK_S, patience.left_s()))
        return has_reacted()

    def _is_building(self, seen: Seen) -> bool:
        return self._homes.of(seen.uuid, seen.identity.attempt).is_building

    def _take_away(self, uuid: str, permit: Permit) -> None:
        try:
            self._libvirt.cut_off(uuid, permit)
            self._libvirt.undefine(uuid, permit)
        except core.errors.NotFound:
            return

    # ---- the host --------------------------------------------------------------------------------------------------------------

    def _ask_machine(self) -> tuple[dict[str, Any], int]:
        # Asked once: it is the same as long as the agent lives, and takes libvirt as long as twenty other calls.
        self._machine = cpu_of(self._libvirt.capabilities()), self._libvirt.version()
        return self._machine

    def _begin(self, home: Home) -> None:
        with self._sweeping:
            self._begun.add(home)
        home.begin()

    def _sweep(self, uuids: set[str]) -> None:
        """Removes what an agent that crashed had begun and never gave to libvirt."""
        with self._sweeping, _disk_errors():
            for home in self._homes.all():
                if home.is_building and home.uuid not in uuids and home not in self._begun:
                    LOG.info("a leftover is removed server=%s attempt=%d", home.uuid, home.attempt)
                    home.clear()
            self._is_swept = True
            self._begun.clear()

    def _remove_logs(self, uuid: str) -> None:
        for path in pathlib.Path(self._settings.log_path).glob(f"{domain_name(uuid)}.log*"):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """What the host's own disk refuses inside the `with`, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise core.errors.Unavailable(f"The host's disk does not let us: {error.strerror or error}") from error


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


def _has_process(seen: Seen) -> bool:
    return seen.power_state in (states.RUNNING, states.POWER_PAUSED, states.POWER_SUSPENDED)


def _wrong_state(seen: Seen, what: str) -> core.errors.WrongState:
    return core.errors.WrongState(f"The guest cannot {what}: its power state is {seen.power_state}", server=seen.uuid)
