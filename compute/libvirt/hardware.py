"""What flavor and image ask of the guest's hardware: names and values as OpenStack's `hw:*` extra specs and `hw_*`
image properties.

Whatever is asked for is either in the one description that this gives, or in `IGNORED`, or refused by name: a guest
that lacks what its flavor or its image names must not run.
"""

import dataclasses

import core.errors
from compute.libvirt import limits
from compute.libvirt.cpus import CpuPolicy, NumaNode, Topology, numa_of, page_kib_of, policy_of, topology_of
from compute.libvirt.guest_options import FlavorAndImageOptions, Options
from compute.libvirt.limits import Limits, limits_of
from objects.build import BuildSpec

DISK_BUSES = ("virtio", "scsi", "ide", "sata", "usb")
CDROM_BUSES = ("ide", "scsi", "virtio", "sata", "usb")
MACHINES = ("pc", "q35")
SCSI_MODELS = ("virtio-scsi", "lsilogic")
SOUND_MODELS = ("ac97", "es1370", "ich6", "ich9", "sb16", "usb")
TPM_MODELS = ("tpm-tis", "tpm-crb")
TPM_VERSIONS = ("1.2", "2.0")
USB_MODELS = ("ich9-ehci1", "nec-xhci", "piix3-uhci", "qemu-xhci")
VIDEO_MODELS = ("virtio", "vga", "cirrus", "qxl", "bochs", "none")
VIF_MODELS = ("virtio", "e1000", "e1000e", "ne2k_pci", "pcnet", "rtl8139")
WATCHDOG_ACTIONS = ("disabled", "reset", "poweroff", "pause", "none")

IGNORED = (
    "hw_auto_disk_config",
    "hw_device_id",
    "hw_disk_type",
    "hw_floppy_bus",
    "hw_ipxe_boot",
    "hw_keymap",
    "hw_rescue_bus",
    "hw_rescue_device",
    "hw_vif_multiqueue_enabled",
)
"""Image properties of other hypervisors, or wishes that change nothing that a guest could rely on."""

# All that says how a guest is made; of the last three nothing is known here but one name.
_FLAVOR = ("hw:", "hw_rng:", "hw_video:", limits.PREFIX, "accel:", "os:", "pci_passthrough:")
# What we lack may be asked for in one way only: that it be left out.
_LACKING = ("locked_memory", "mem_encryption", "virtio_packed_ring", "ephemeral_encryption", "cpu_realtime")
_MAX_VIDEO_MIB = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tpm:
    """A trusted platform module, as swtpm plays it."""

    model: str
    version: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rng:
    """A source of randomness; `bytes_per_period` None: as much as it has."""

    bytes_per_period: int | None = None
    period_ms: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a guest is made of beside its sizes.

    `machine` is pc, q35 or one exact version of them. `topology` None: one socket per CPU. `watchdog` None: there is
    none, else what it does when it strikes. `page_kib` as `cpus.page_kib_of`. None elsewhere: as QEMU has it by itself.
    """

    machine: str = "pc"
    has_uefi: bool = False
    disk_bus: str = "virtio"
    disk_discard: str = "unmap"
    cdrom_bus: str = "ide"
    scsi_model: str = "virtio-scsi"
    video: str = "virtio"
    video_ram_mib: int | None = None
    topology: Topology | None = None
    numa: tuple[NumaNode, ...] = ()
    cpu_policy: CpuPolicy = dataclasses.field(default_factory=CpuPolicy)
    page_kib: int | None = None
    has_pmu: bool | None = None
    hides_hypervisor: bool = False
    has_hpet: bool | None = None
    has_boot_menu: bool = False
    watchdog: str | None = None
    rng: Rng | None = dataclasses.field(default_factory=Rng)
    tpm: Tpm | None = None
    tablet_bus: str | None = None
    usb_model: str | None = None
    sound: str | None = None
    vif_model: str = "virtio"
    has_guest_agent: bool = False
    limits: Limits = dataclasses.field(default_factory=Limits)

    @property
    def family(self) -> str:
        """pc or q35."""
        return family_of(self.machine)


def family_of(machine: str) -> str:
    """What a machine is a version of.

    Raises:
        ValueError: of nothing that is known here.
    """
    for family, prefix in {"pc": "pc-i440fx-", "q35": "pc-q35-"}.items():
        if machine == family or machine.startswith(prefix):
            return family
    raise ValueError(f"{machine!r} is neither pc nor q35")


def hardware_of(spec: BuildSpec, *, machine: str) -> Hardware:
    """What the server asks for; the flavor's word goes before the image's, `machine` holds when the image does not say.

    Raises:
        Invalid: a name or a value is not known here; the message names it.
    """
    flavor = Options(spec.flavor.extra_specs, "extra spec", _FLAVOR)
    image = Options(spec.image.properties if spec.image else {}, "image property", ("hw_", "img_hide_hypervisor_id"))
    both = FlavorAndImageOptions(flavor, image)
    machine = _machine(image) or machine
    _refuse_what_is_lacking(both)
    hardware = Hardware(
        machine=machine,
        has_uefi=image.choice("hw_firmware_type", ("bios", "uefi")) == "uefi",
        disk_bus=image.choice("hw_disk_bus", DISK_BUSES) or "virtio",
        disk_discard=image.choice("hw_disk_discard", ("unmap", "ignore")) or "unmap",
        cdrom_bus=image.choice("hw_cdrom_bus", CDROM_BUSES) or ("ide" if family_of(machine) == "pc" else "scsi"),
        scsi_model=image.choice("hw_scsi_model", SCSI_MODELS) or "virtio-scsi",
        video=image.choice("hw_video_model", VIDEO_MODELS) or "virtio",
        video_ram_mib=_video_ram_mib(both),
        topology=topology_of(both, spec.flavor.vcpus),
        numa=numa_of(both, vcpus=spec.flavor.vcpus, memory_mib=spec.flavor.memory_mib),
        cpu_policy=policy_of(both),
        page_kib=page_kib_of(both),
        has_pmu=both.flag("pmu"),
        hides_hypervisor=_hides_hypervisor(both),
        has_hpet=image.flag("hw_time_hpet"),
        has_boot_menu=bool(both.flag("boot_menu")),
        watchdog=_watchdog(both),
        rng=_rng(both),
        tpm=_tpm(both),
        tablet_bus=_tablet_bus(image),
        usb_model=image.choice("hw_usb_model", USB_MODELS),
        sound=image.choice("hw_sound_model", SOUND_MODELS),
        vif_model=image.choice("hw_vif_model", VIF_MODELS) or "virtio",
        has_guest_agent=bool(image.flag("hw_qemu_guest_agent")),
        limits=limits_of(flavor),
    )
    _refuse_ide_on_q35(hardware)
    image.ignore(IGNORED)
    flavor.refuse_the_rest()
    image.refuse_the_rest()
    return hardware


def _machine(image: Options) -> str | None:
    image.choice("hw_architecture", ("x86_64",))
    image.choice("hw_emulation_architecture", ("x86_64",))
    image.choice("hw_vm_mode", ("hvm",))
    value = image.take("hw_machine_type")
    if value is None:
        return None
    try:
        family_of(value)
    except ValueError as error:
        raise image.refusal("hw_machine_type", f"it is one of: {', '.join(MACHINES)}, or a version of these") from error
    return value


def _refuse_what_is_lacking(both: FlavorAndImageOptions) -> None:
    for name in _LACKING:
        if both.flag(name):
            raise core.errors.Invalid(f"This hypervisor does not offer hw:{name}", field=f"hw:{name}")
    if both.image.flag("hw_firmware_stateless"):
        raise core.errors.Invalid("This hypervisor does not offer hw_firmware_stateless", field="hw_firmware_stateless")
    for asked, name in ((both.flavor, "os:secure_boot"), (both.image, "os_secure_boot")):
        asked.choice(name, ("disabled", "optional"))
    # One serial port is what every guest has.
    both.choice("serial_port_count", ("1",))
    both.choice("pci_numa_affinity_policy", ("legacy", "preferred"))


def _refuse_ide_on_q35(hardware: Hardware) -> None:
    if hardware.family != "pc" and "ide" in (hardware.disk_bus, hardware.cdrom_bus):
        field = "hw_disk_bus" if hardware.disk_bus == "ide" else "hw_cdrom_bus"
        raise core.errors.Invalid(f"Machine {hardware.machine} has no IDE bus", field=field)


def _video_ram_mib(both: FlavorAndImageOptions) -> int | None:
    """The image's wish, as far as its flavor allows any."""
    most = both.flavor.count("hw_video:ram_max_mb", most=_MAX_VIDEO_MIB) or 0
    wanted = both.image.count("hw_video_ram", most=_MAX_VIDEO_MIB)
    if wanted is not None and wanted > most:
        raise core.errors.Invalid(
            f"The image wants {wanted} MiB of video memory; its flavor allows {most} (hw_video:ram_max_mb)",
            field="hw_video_ram",
        )
    return wanted


def _hides_hypervisor(both: FlavorAndImageOptions) -> bool:
    older = both.image.flag("img_hide_hypervisor_id"), both.flavor.flag("hide_hypervisor_id")
    return bool(both.flag("hide_hypervisor_id") or any(older))


def _watchdog(both: FlavorAndImageOptions) -> str | None:
    action = both.choice("watchdog_action", WATCHDOG_ACTIONS) or "disabled"
    return None if action == "disabled" else action


def _rng(both: FlavorAndImageOptions) -> Rng | None:
    both.image.choice("hw_rng_model", ("virtio",))
    # `hw_rng:*` is a flavor's as well, though its prefix is not `hw:`.
    is_allowed = both.flavor.flag("hw_rng:allowed")
    size, period_ms = both.flavor.count("hw_rng:rate_bytes"), both.flavor.count("hw_rng:rate_period")
    if period_ms is not None and size is None:
        raise core.errors.Invalid(
            "The extra spec hw_rng:rate_period needs hw_rng:rate_bytes", field="hw_rng:rate_period"
        )
    return None if is_allowed is False else Rng(bytes_per_period=size, period_ms=period_ms)


def _tpm(both: FlavorAndImageOptions) -> Tpm | None:
    version, model = both.choice("tpm_version", TPM_VERSIONS), both.choice("tpm_model", TPM_MODELS)
    if version is None:
        if model is not None:
            raise core.errors.Invalid("A TPM's model needs a version (hw:tpm_version)", field="hw:tpm_model")
        return None
    if (version, model) == ("1.2", "tpm-crb"):
        raise core.errors.Invalid("A TPM of version 1.2 is never a tpm-crb", field="hw:tpm_model")
    return Tpm(model=model or "tpm-tis", version=version)


def _tablet_bus(image: Options) -> str | None:
    """On which bus there is a pointer that tells where it is; None: only the mouse that every machine has."""
    pointer = image.choice("hw_pointer_model", ("usbtablet", "ps2mouse"))
    bus = image.choice("hw_input_bus", ("usb", "virtio"))
    return bus or ("usb" if pointer == "usbtablet" else None)
