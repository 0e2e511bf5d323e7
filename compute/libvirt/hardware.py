"""What flavor and image ask of the guest's hardware: names and values as OpenStack's `hw:*` extra specs and `hw_*` image properties."""

import dataclasses
from collections.abc import Mapping

import core.errors
from objects.build import BuildSpec

DISK_BUSES = ("virtio", "scsi", "ide")
CDROM_BUSES = ("ide", "scsi", "virtio")
MACHINES = ("pc", "q35")
VIDEO_MODELS = ("virtio", "vga", "cirrus", "qxl", "none")
WATCHDOG_ACTIONS = ("disabled", "reset", "poweroff", "pause", "none")
_BOOLEANS = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}
_MOST_CPUS = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """How the guest's CPUs are put together; their product is the number of its CPUs."""

    sockets: int
    cores: int
    threads: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a guest is made of beside its sizes.

    `topology` None: one socket per CPU. `watchdog` None: there is none, else what it does when it strikes.
    """

    machine: str = "pc"
    disk_bus: str = "virtio"
    cdrom_bus: str = "ide"
    video: str = "virtio"
    topology: Topology | None = None
    watchdog: str | None = None
    has_rng: bool = True
    has_guest_agent: bool = False


def hardware_of(spec: BuildSpec, *, machine: str) -> Hardware:
    """What the server asks for; the flavor's word goes before the image's, `machine` holds when neither says.

    Raises:
        Invalid: an extra spec `hw:*` or the value of a property is not known here; the message names it.
    """
    flavor = _Asked(spec.flavor.extra_specs, "extra spec", "hw:")
    image = _Asked(spec.image.properties if spec.image else {}, "image property", "hw_")
    machine = _machine(image.take("hw_machine_type")) or machine
    disk_bus = image.choice("hw_disk_bus", DISK_BUSES) or "virtio"
    cdrom_bus = image.choice("hw_cdrom_bus", CDROM_BUSES) or ("ide" if machine == "pc" else "scsi")
    if machine != "pc" and "ide" in (disk_bus, cdrom_bus):
        raise core.errors.Invalid(f"Machine {machine} has no IDE bus", field="hw_disk_bus" if disk_bus == "ide" else "hw_cdrom_bus")
    found = Hardware(
        machine=machine,
        disk_bus=disk_bus,
        cdrom_bus=cdrom_bus,
        video=image.choice("hw_video_model", VIDEO_MODELS) or "virtio",
        topology=_topology(flavor, image, spec.flavor.vcpus),
        watchdog=_watchdog(flavor, image),
        has_rng=_has_rng(flavor, image),
        has_guest_agent=image.flag("hw_qemu_guest_agent", default=False),
    )
    flavor.refuse_the_rest()
    return found


class _Asked:
    """Named values, and which of them nobody has read yet."""

    def __init__(self, values: Mapping[str, str], kind: str, prefix: str) -> None:
        self._values = values
        self._kind = kind
        self._left = {name for name in values if name.startswith(prefix)}

    def take(self, name: str) -> str | None:
        self._left.discard(name)
        return self._values.get(name)

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        value = self.take(name)
        if value is not None and value not in choices:
            raise core.errors.Invalid(f"The {self._kind} {name} cannot be {value!r}; it is one of: {', '.join(choices)}", field=name)
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.take(name)
        if value is None:
            return default
        if value.strip().lower() not in _BOOLEANS:
            raise core.errors.Invalid(f"The {self._kind} {name} cannot be {value!r}; it is true or false", field=name)
        return _BOOLEANS[value.strip().lower()]

    def count(self, name: str) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        if not value.isascii() or not value.isdecimal() or not 1 <= int(value) <= _MOST_CPUS:
            raise core.errors.Invalid(f"The {self._kind} {name} cannot be {value!r}; it is a number from 1 to {_MOST_CPUS}", field=name)
        return int(value)

    def refuse_the_rest(self) -> None:
        # A flavor is a promise: a guest without what it names must not run. An image's property is a wish.
        if self._left:
            name = min(self._left)
            raise core.errors.Invalid(f"This hypervisor does not know the {self._kind} {name}", field=name)


def _machine(value: str | None) -> str | None:
    if value is None:
        return None
    for machine, prefixes in {"pc": ("pc-i440fx-",), "q35": ("pc-q35-",)}.items():
        if value == machine or value.startswith(prefixes):
            return machine
    raise core.errors.Invalid(f"The image property hw_machine_type cannot be {value!r}; it is one of: {', '.join(MACHINES)}", field="hw_machine_type")


def _topology(flavor: _Asked, image: _Asked, vcpus: int) -> Topology | None:
    sockets, cores, threads = (flavor.count(f"hw:cpu_{part}") or image.count(f"hw_cpu_{part}") for part in ("sockets", "cores", "threads"))
    if sockets is cores is threads is None:
        return None
    known = (sockets or 1) * (cores or 1) * (threads or 1)
    if vcpus % known:
        raise core.errors.Invalid(f"A topology of {known} CPUs does not fit a flavor of {vcpus}", field="hw:cpu_sockets")
    # What is left open goes to the sockets first: every guest system takes many sockets, few take odd threads.
    rest = vcpus // known
    if sockets is None:
        sockets, rest = rest, 1
    elif cores is None:
        cores, rest = rest, 1
    elif threads is None:
        threads, rest = rest, 1
    if rest != 1:
        raise core.errors.Invalid(f"A topology of {known} CPUs does not fit a flavor of {vcpus}", field="hw:cpu_sockets")
    return Topology(sockets=sockets, cores=cores or 1, threads=threads or 1)


def _watchdog(flavor: _Asked, image: _Asked) -> str | None:
    ours = flavor.choice("hw:watchdog_action", WATCHDOG_ACTIONS)
    theirs = image.choice("hw_watchdog_action", WATCHDOG_ACTIONS)
    action = ours or theirs or "disabled"
    return None if action == "disabled" else action


def _has_rng(flavor: _Asked, image: _Asked) -> bool:
    image.choice("hw_rng_model", ("virtio",))
    # `hw_rng:*` is a flavor's as well, though its prefix is not `hw:`.
    return flavor.flag("hw_rng:allowed", default=True)
