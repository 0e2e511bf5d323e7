"""The simulated hypervisor behind the interface of all drivers."""

import pathlib
import string
import struct
import time
from collections.abc import Callable

import msgspec
from oslo_config import cfg

import core.errors
from compute import private
from compute.deadline import Deadline
from compute.devices import DiskToAttach, NicToAttach
from compute.hypervisor import MAX_CONSOLE_BYTES, Capacity, ConsoleAddress
from compute.resources.tracker import need_of
from compute.simulated.console import console_log
from compute.simulated.fault_injection import Faults, Setting, strikes
from compute.simulated.guests import GuestFiles, SimulatedGuest
from lifecycle import states
from objects.build import BuildSpec, Guest
from objects.diagnostics import Diagnostics, Disk, Nic

_MAX_EVENTS = 64
_LOOK_S = 0.1
_LETTERS = len(string.ascii_lowercase)
_HYPERVISOR_VERSION = 1000000


def simulated(conf: cfg.ConfigOpts) -> "SimulatedHypervisor":
    """The driver as the settings describe it."""
    settings = conf.simulated
    root = pathlib.Path(settings.path) if settings.path else pathlib.Path(conf.state_path) / "simulated"
    return SimulatedHypervisor(
        root / conf.host,
        vcpus=settings.vcpus,
        memory_mib=settings.memory_mib,
        disk_gib=settings.disk_gib,
        spawn_s=settings.spawn_s,
        wants_image_files=settings.fetch_images,
    )


class SimulatedHypervisor:
    """One host's guests below `directory`; `directory/dial.json` sets latencies and faults."""

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        vcpus: int = 64,
        memory_mib: int = 262144,
        disk_gib: int = 4096,
        spawn_s: float = 0.0,
        wants_image_files: bool = False,
    ) -> None:
        self.directory = directory
        self.wants_image_files = wants_image_files
        self.files = GuestFiles(directory / "guests")
        self._faults = Faults(directory)
        self._spawn_s = spawn_s
        self._capacity = Capacity(
            hypervisor_type="simulated",
            hypervisor_version=_HYPERVISOR_VERSION,
            vcpus=vcpus,
            memory_mib=memory_mib,
            disk_gib=disk_gib,
            cpu_info={"vendor": "Cellplane", "model": "simulated", "arch": "x86_64", "topology": {"sockets": 1, "cores": vcpus, "threads": 1}, "features": []},
            traits=("COMPUTE_IMAGE_TYPE_QCOW2", "COMPUTE_IMAGE_TYPE_RAW", "COMPUTE_NODE"),
        )

    def open(self, changed: Callable[[], None]) -> None:
        try:
            self.files.prepare()
        except OSError as error:
            raise core.errors.Invalid(f"[simulated] path: {self.directory} cannot be made: {error.strerror or error}", field="path") from error

    def close(self) -> None:
        pass

    def capacity(self) -> Capacity:
        self._setting()
        return self._capacity

    def guests(self) -> list[Guest]:
        self._setting()
        return [guest.as_guest() for guest in self.files.all()]

    def guest(self, uuid: str) -> Guest | None:
        self._setting()
        guest = self.files.get(uuid)
        return None if guest is None else guest.as_guest()

    def images_in_use(self) -> set[pathlib.Path]:
        return set()

    def spawn(self, spec: BuildSpec, attempt: int, *, image: pathlib.Path | None, deadline: Deadline) -> Guest:
        setting = self._setting(spec.uuid, spec.name)
        known = self.files.get(spec.uuid)
        if known is not None and known.attempt != attempt:
            raise core.errors.Conflict(f"A guest of attempt {known.attempt} is here", server=spec.uuid)
        refusal = strikes(setting.refuse)
        if refusal is not None:
            raise core.errors.Conflict(refusal, server=spec.uuid)
        if known is not None:
            return known.as_guest()
        self.files.begin(spec.uuid, attempt)
        self._take_time(spec, deadline)
        failure = strikes(setting.spawn_error)
        if failure is not None:
            raise core.errors.Broken(failure, server=spec.uuid)
        guest = _new_guest(spec, attempt)
        self.files.put(guest)
        self.files.end(spec.uuid, attempt)
        return guest.as_guest()

    def destroy(self, uuid: str, up_to_attempt: int, *, deadline: Deadline) -> None:
        known = self.files.get(uuid)
        setting = self._setting(uuid, known.name if known else "")
        failure = strikes(setting.destroy_error)
        if failure is not None:
            raise core.errors.Broken(failure, server=uuid)
        if setting.destroy_s:
            deadline.wait(setting.destroy_s)
        if known is not None and known.attempt <= up_to_attempt:
            self.files.drop(uuid)
        for attempt in self.files.half_built(uuid):
            if attempt <= up_to_attempt:
                self.files.end(uuid, attempt)

    def start(self, uuid: str, *, deadline: Deadline) -> Guest:
        guest = self._ready(uuid, deadline)
        if guest.power_state == states.RUNNING:
            return guest.as_guest()
        event = "unpause" if guest.power_state == states.POWER_PAUSED else "restore" if guest.saved else "boot"
        return self._change(guest, states.RUNNING, event)

    def stop(self, uuid: str, *, deadline: Deadline) -> Guest:
        guest = self._ready(uuid, deadline)
        if guest.power_state == states.SHUTDOWN and not guest.saved:
            return guest.as_guest()
        return self._change(guest, states.SHUTDOWN, "drop" if guest.saved else "shutdown")

    def reboot(self, uuid: str, *, hard: bool, deadline: Deadline) -> Guest:
        guest = self._ready(uuid, deadline)
        if not hard and guest.power_state != states.RUNNING:
            raise _wrong_state(guest, "be rebooted softly")
        if not hard:
            return self._change(_with_event(guest, "shutdown"), states.RUNNING, "reset")
        return self._change(msgspec.structs.replace(guest, rescued=False), states.RUNNING, "reset")

    def pause(self, uuid: str, *, deadline: Deadline) -> Guest:
        guest = self._ready(uuid, deadline)
        if guest.power_state == states.POWER_PAUSED:
            return guest.as_guest()
        if guest.power_state != states.RUNNING:
            raise _wrong_state(guest, "be paused")
        return self._change(guest, states.POWER_PAUSED, "pause")

    def unpause(self, uuid: str, *, deadline: Deadline) -> Guest:
        guest = self._ready(uuid, deadline)
        if guest.power_state == states.RUNNING:
            return guest.as_guest()
        if guest.power_state != states.POWER_PAUSED:
            raise _wrong_state(guest, "be unpaused")
        return self._change(guest, states.RUNNING, "unpause")

    def suspend(self, uuid: str, *, deadline: Deadline) -> Guest:
        guest = self._ready(uuid, deadline)
        if guest.saved:
            return guest.as_guest()
        if guest.power_state not in (states.RUNNING, states.POWER_PAUSED):
            raise _wrong_state(guest, "be suspended")
        return self._change(guest, states.SHUTDOWN, "save", saved=True)

    def resume(self, uuid: str, *, deadline: Deadline) -> Guest:
        guest = self._ready(uuid, deadline)
        if guest.power_state == states.RUNNING:
            return guest.as_guest()
        if not guest.saved:
            raise _wrong_state(guest, "be resumed")
        return self._change(guest, states.RUNNING, "restore")

    def rebuild(self, spec: BuildSpec, *, image: pathlib.Path | None, deadline: Deadline) -> Guest:
        guest = self._ready(spec.uuid, deadline)
        fresh = _new_guest(spec, guest.attempt)
        return self._change(msgspec.structs.replace(fresh, events=guest.events, disks=guest.disks, nics=guest.nics), states.RUNNING, "boot")

    def rescue(self, uuid: str, *, image: pathlib.Path | None, disk_format: str, deadline: Deadline) -> Guest:
        guest = self._ready(uuid, deadline)
        if guest.rescued and guest.power_state == states.RUNNING:
            return guest.as_guest()
        return self._change(msgspec.structs.replace(guest, rescued=True), states.RUNNING, "boot")

    def unrescue(self, uuid: str, *, deadline: Deadline) -> Guest:
        guest = self._ready(uuid, deadline)
        if not guest.rescued and guest.power_state == states.RUNNING:
            return guest.as_guest()
        return self._change(msgspec.structs.replace(guest, rescued=False), states.RUNNING, "boot")

    def snapshot(self, uuid: str, *, target: pathlib.Path, deadline: Deadline) -> None:
        guest = self._ready(uuid, deadline)
        # The header of an empty qcow2 image of this size: what checks formats takes it.
        private.write(target, struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, (guest.disk_gib or 1) * 1024**3, 0, 0, 0, 0, 0, 0, 0))

    def attach_disk(self, uuid: str, disk: DiskToAttach, *, deadline: Deadline) -> str:
        guest = self._changeable(uuid, deadline)
        if disk.volume_id not in guest.disks:
            guest = msgspec.structs.replace(guest, disks=(*guest.disks, disk.volume_id))
            self.files.put(guest)
        return _disk_name(guest.disks.index(disk.volume_id) + 1)

    def detach_disk(self, uuid: str, volume_id: str, *, deadline: Deadline) -> None:
        guest = self._changeable(uuid, deadline)
        if volume_id in guest.disks:
            self._let_go(guest)
            self.files.put(msgspec.structs.replace(guest, disks=tuple(disk for disk in guest.disks if disk != volume_id)))

    def attach_nic(self, uuid: str, nic: NicToAttach, *, deadline: Deadline) -> None:
        guest = self._changeable(uuid, deadline)
        if nic.mac not in guest.nics:
            self.files.put(msgspec.structs.replace(guest, nics=(*guest.nics, nic.mac)))

    def detach_nic(self, uuid: str, mac: str, *, deadline: Deadline) -> None:
        guest = self._changeable(uuid, deadline)
        if mac in guest.nics:
            self._let_go(guest)
            self.files.put(msgspec.structs.replace(guest, nics=tuple(nic for nic in guest.nics if nic != mac)))

    def set_password(self, uuid: str, *, user: str, password: str, deadline: Deadline) -> None:
        guest = self._ready(uuid, deadline)
        if guest.power_state != states.RUNNING:
            raise _wrong_state(guest, "be given a password")
        self.files.put(_with_event(guest, "password"))

    def inject_nmi(self, uuid: str, *, deadline: Deadline) -> None:
        guest = self._ready(uuid, deadline)
        if guest.power_state != states.RUNNING:
            raise _wrong_state(guest, "be interrupted")
        self.files.put(_with_event(guest, "nmi"))

    def console_addresses(self, uuid: str) -> list[ConsoleAddress]:
        self._running(uuid, "show a console")
        return []

    def diagnostics(self, uuid: str) -> Diagnostics:
        guest = self._running(uuid, "be diagnosed")
        return Diagnostics(
            driver="simulated",
            hypervisor="simulated",
            power_state=guest.power_state,
            vcpus=guest.vcpus,
            cpu_times_ns=[0] * guest.vcpus,
            memory_maximum_mib=guest.memory_mib,
            memory_used_mib=0,
            disks=[_disk_diagnostics(number) for number in range(1 + len(guest.disks))],
            nics=[_nic_diagnostics(number, mac) for number, mac in enumerate(guest.nics)],
            has_config_drive=False,
        )

    def console_log(self, uuid: str) -> str:
        self._setting(uuid)
        return console_log(self._known(uuid))[-MAX_CONSOLE_BYTES:]

    def _setting(self, uuid: str = "", name: str = "") -> Setting:
        setting = self._faults.now(uuid, name)
        if setting.away:
            raise core.errors.Unavailable("The simulated hypervisor does not answer")
        return setting

    def _known(self, uuid: str) -> SimulatedGuest:
        guest = self.files.get(uuid)
        if guest is None:
            raise core.errors.NotFound(f"There is no guest of server {uuid} on this host", server=uuid)
        return guest

    def _running(self, uuid: str, what: str) -> SimulatedGuest:
        self._setting(uuid)
        guest = self._known(uuid)
        if guest.power_state not in (states.RUNNING, states.POWER_PAUSED):
            raise _wrong_state(guest, what)
        return guest

    def _changeable(self, uuid: str, deadline: Deadline) -> SimulatedGuest:
        guest = self._ready(uuid, deadline)
        if guest.saved or guest.rescued:
            raise core.errors.WrongState("The devices of a guest that is saved or rescued cannot change", server=uuid)
        return guest

    def _let_go(self, guest: SimulatedGuest) -> None:
        is_stubborn = guest.power_state == states.RUNNING and self._setting(guest.uuid, guest.name).keeps_devices
        # A guest that is frozen hears nothing.
        if is_stubborn or guest.power_state == states.POWER_PAUSED:
            raise core.errors.Conflict("The guest does not release the device", server=guest.uuid)

    def _ready(self, uuid: str, deadline: Deadline) -> SimulatedGuest:
        """The guest, after the time and with the faults that an operation has."""
        guest = self._known(uuid)
        setting = self._setting(uuid, guest.name)
        if setting.act_s:
            deadline.wait(setting.act_s)
        failure = strikes(setting.act_error)
        if failure is not None:
            raise core.errors.Broken(failure, server=uuid)
        deadline.check()
        return guest

    def _change(self, guest: SimulatedGuest, power_state: int, event: str, *, saved: bool = False) -> Guest:
        changed = msgspec.structs.replace(_with_event(guest, event), power_state=power_state, saved=saved)
        self.files.put(changed)
        return changed.as_guest()

    def _take_time(self, spec: BuildSpec, deadline: Deadline) -> None:
        setting = self._setting(spec.uuid, spec.name)
        spawn_s = self._spawn_s if setting.spawn_s is None else setting.spawn_s
        if spawn_s:
            deadline.wait(spawn_s)
        while (setting := self._setting(spec.uuid, spec.name)).hang:
            if setting.ignores_deadline:
                time.sleep(_LOOK_S)
            else:
                deadline.wait(_LOOK_S)
        deadline.check()


def _disk_name(number: int) -> str:
    return f"vd{string.ascii_lowercase[number % _LETTERS]}"


def _disk_diagnostics(number: int) -> Disk:
    return Disk(name=_disk_name(number), read_bytes=0, read_requests=0, write_bytes=0, write_requests=0)


def _nic_diagnostics(number: int, mac: str) -> Nic:
    figures = {f"{way}_{figure}": 0 for way in ("rx", "tx") for figure in ("octets", "packets", "errors", "drop")}
    return Nic(name=f"tap{number}", mac_address=mac, **figures)


def _new_guest(spec: BuildSpec, attempt: int) -> SimulatedGuest:
    need = need_of(spec)
    return SimulatedGuest(
        uuid=spec.uuid,
        attempt=attempt,
        name=spec.name,
        hostname=spec.hostname,
        power_state=states.RUNNING,
        vcpus=need.vcpus,
        memory_mib=need.memory_mib,
        disk_gib=need.disk_gib,
        events=((time.time(), "boot"),),
    )


def _with_event(guest: SimulatedGuest, event: str) -> SimulatedGuest:
    return msgspec.structs.replace(guest, events=(*guest.events, (time.time(), event))[-_MAX_EVENTS:])


def _wrong_state(guest: SimulatedGuest, what: str) -> core.errors.WrongState:
    return core.errors.WrongState(f"The guest cannot {what}: its power state is {guest.power_state}", server=guest.uuid)
