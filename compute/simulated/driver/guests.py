"""Simulated guests come and go."""

import pathlib
import time

import core.errors
from compute.deadline import Deadline
from compute.simulated.driver.context import SimulatedContext
from compute.simulated.driver.devices import disk_name
from compute.simulated.fault_injection import strikes
from compute.simulated.guests import new_guest
from objects.build import BuildSpec, Guest
from objects.diagnostics import Diagnostics, Disk, Nic

_LOOK_S = 0.1


class SimulatedGuests:
    """See `compute.hypervisor.guests`."""

    def __init__(self, context: SimulatedContext, *, spawn_s: float) -> None:
        self._context = context
        self._spawn_s = spawn_s

    def all(self) -> list[Guest]:
        self._context.setting()
        return [guest.as_guest() for guest in self._context.files.all()]

    def get(self, uuid: str) -> Guest | None:
        self._context.setting()
        guest = self._context.files.get(uuid)
        return None if guest is None else guest.as_guest()

    def spawn(self, spec: BuildSpec, attempt: int, *, image: pathlib.Path | None, deadline: Deadline) -> Guest:
        setting = self._context.setting(spec.uuid, spec.name)
        known = self._context.files.get(spec.uuid)
        if known is not None and known.attempt != attempt:
            raise core.errors.Conflict(f"A guest of attempt {known.attempt} is here", server=spec.uuid)
        refusal = strikes(setting.refuse)
        if refusal is not None:
            raise core.errors.Conflict(refusal, server=spec.uuid)
        if known is not None:
            return known.as_guest()
        self._context.files.begin(spec.uuid, attempt)
        self._take_time(spec, deadline)
        failure = strikes(setting.spawn_error)
        if failure is not None:
            raise core.errors.Broken(failure, server=spec.uuid)
        guest = new_guest(spec, attempt)
        self._context.files.put(guest)
        self._context.files.end(spec.uuid, attempt)
        return guest.as_guest()

    def destroy(self, uuid: str, up_to_attempt: int, *, deadline: Deadline) -> None:
        known = self._context.files.get(uuid)
        setting = self._context.setting(uuid, known.name if known else "")
        failure = strikes(setting.destroy_error)
        if failure is not None:
            raise core.errors.Broken(failure, server=uuid)
        if setting.destroy_s:
            deadline.wait(setting.destroy_s)
        if known is not None and known.attempt <= up_to_attempt:
            self._context.files.drop(uuid)
        for attempt in self._context.files.half_built(uuid):
            if attempt <= up_to_attempt:
                self._context.files.end(uuid, attempt)

    def diagnostics(self, uuid: str) -> Diagnostics:
        guest = self._context.running(uuid, "be diagnosed")
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

    def _take_time(self, spec: BuildSpec, deadline: Deadline) -> None:
        setting = self._context.setting(spec.uuid, spec.name)
        spawn_s = self._spawn_s if setting.spawn_s is None else setting.spawn_s
        if spawn_s:
            deadline.wait(spawn_s)
        while (setting := self._context.setting(spec.uuid, spec.name)).hang:
            if setting.ignores_deadline:
                time.sleep(_LOOK_S)
            else:
                deadline.wait(_LOOK_S)
        deadline.check()


def _disk_diagnostics(number: int) -> Disk:
    return Disk(name=disk_name(number), read_bytes=0, read_requests=0, write_bytes=0, write_requests=0)


def _nic_diagnostics(number: int, mac: str) -> Nic:
    figures = {f"{way}_{figure}": 0 for way in ("rx", "tx") for figure in ("octets", "packets", "errors", "drop")}
    return Nic(name=f"tap{number}", mac_address=mac, **figures)
