"""Which of the host's CPUs a guest runs on: some are dedicated to one guest's CPU each, the rest is shared."""

import dataclasses
import xml.etree.ElementTree as ET
from collections.abc import Iterable

import core.errors
from compute.libvirt.cpus import CpuPolicy, cpu_set


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pins:
    """Numbers of the host's CPUs. `cpus`: of each of the guest's CPUs its own; empty: they run on `shared`, or anywhere
    if that is empty too. `emulator`: where QEMU's own threads run; empty: as the guest's CPUs.
    """

    cpus: tuple[int, ...] = ()
    emulator: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostCpus:
    """How the operator has divided the host's CPUs; both empty: not at all."""

    dedicated: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many guests may use; 0: it is not said."""
        return len({*self.dedicated, *self.shared})


def host_cpus(dedicated: str | None, shared: str | None) -> HostCpus:
    """From the settings.

    Raises:
        Invalid: they are no sets, or have a CPU in common.
    """
    sets = {}
    for name, text in (("cpu_dedicated_set", dedicated), ("cpu_shared_set", shared)):
        try:
            sets[name] = cpu_set(text) if text else ()
        except ValueError as error:
            raise core.errors.Invalid(f"[libvirt] {name}: {error}", field=name) from error
    both = sorted(set(sets["cpu_dedicated_set"]) & set(sets["cpu_shared_set"]))
    if both:
        raise core.errors.Invalid(
            f"[libvirt] cpu_dedicated_set and cpu_shared_set have CPU {both[0]} in common", field="cpu_dedicated_set"
        )
    return HostCpus(dedicated=sets["cpu_dedicated_set"], shared=sets["cpu_shared_set"])


def pins_of(policy: CpuPolicy, vcpus: int, host: HostCpus, taken: Iterable[int], *, before: Pins | None = None) -> Pins:
    """Where the guest's CPUs go; those in `taken` are other guests'. What it had `before` it keeps, as far as that will
    do.

    Raises:
        Invalid: this host has no dedicated CPUs.
        Conflict: not enough of them are free.
    """
    if not policy.is_dedicated:
        return Pins(shared=host.shared)
    if not host.dedicated:
        raise core.errors.Invalid(
            "This host has no dedicated CPUs ([libvirt] cpu_dedicated_set)", field="hw:cpu_policy"
        )
    own = () if before is None or not before.cpus else (*before.cpus, *before.emulator)
    free = sorted(set(host.dedicated) - set(taken), key=lambda cpu: (cpu not in own, cpu))
    wanted = vcpus + (policy.emulator == "isolate")
    if len(free) < wanted:
        raise core.errors.Conflict(
            f"Not enough resources on the host: dedicated cpus (wanted {wanted}, free {len(free)})"
        )
    emulator = {"isolate": tuple(free[vcpus:wanted]), "share": host.shared}.get(policy.emulator or "", ())
    return Pins(cpus=tuple(free[:vcpus]), emulator=emulator)


def pins_in(document: str) -> Pins:
    """The pins of a guest that is there, from its domain's document."""
    root = ET.fromstring(document)
    cpus = sorted(
        (int(pin.get("vcpu", "0")), cpu_set(str(pin.get("cpuset")))) for pin in root.iterfind("cputune/vcpupin")
    )
    emulator = root.find("cputune/emulatorpin")
    shared = root.find("vcpu")
    return Pins(
        cpus=tuple(numbers[0] for _, numbers in cpus),
        emulator=() if emulator is None else cpu_set(str(emulator.get("cpuset"))),
        shared=cpu_set(str(shared.get("cpuset"))) if shared is not None and shared.get("cpuset") else (),
    )
