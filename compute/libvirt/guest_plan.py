"""From the specification of a server to its disks and its domain's document."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

from oslo_config import cfg

import core.errors
from compute.deadline import Deadline
from compute.libvirt import config_drive
from compute.libvirt.devices import Disk
from compute.libvirt.domain import Domain, Identity, domain_xml
from compute.libvirt.domain_capabilities import Abilities, require
from compute.libvirt.hardware import Hardware, hardware_of
from compute.libvirt.image_format import ImageFacts, inspect
from compute.libvirt.instance_dirs import GIB, InstanceDirectory
from compute.libvirt.limits import nic_limits_text
from compute.libvirt.reservations import Reservation
from compute.resources.tracker import need_of
from objects.build import BuildSpec

_SEED_BYTES = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is decided of a guest before anything is made."""

    spec: BuildSpec
    hardware: Hardware
    image: pathlib.Path
    facts: ImageFacts
    root_bytes: int
    has_config_drive: bool
    virt_type: str
    tb_cache_mib: int


def plan_of(
    spec: BuildSpec,
    image: pathlib.Path | None,
    settings: cfg.ConfigOpts,
    *,
    virt_type: str,
    abilities: Callable[[str], Abilities],
    machine: str | None = None,
) -> Plan:
    """What becomes of the specification on this host.

    Args:
        settings: the group `libvirt`.
        abilities: what the host can give to a guest of this machine.
        machine: of a guest that is there already.

    Raises:
        Invalid: there is no image, it is not what it is said to be, it is larger than the flavor's disk, or the
            hardware is not to be had.
    """
    if spec.image is None or image is None:
        raise core.errors.Invalid("A server without an image cannot be built here", field="imageRef", server=spec.uuid)
    facts = inspect(image, said=spec.image.disk_format)
    wanted = spec.flavor.root_gib * GIB
    if wanted and facts.virtual_bytes > wanted:
        raise core.errors.Invalid(
            f"The image is a disk of {facts.virtual_bytes} bytes; the flavor's root disk has {wanted}",
            field="flavorRef",
            server=spec.uuid,
        )
    return Plan(
        spec=spec,
        hardware=_hardware(spec, machine or settings.machine, virt_type, abilities),
        image=image,
        facts=facts,
        root_bytes=wanted or facts.virtual_bytes,
        has_config_drive=spec.config_drive or settings.force_config_drive,
        virt_type=virt_type,
        tb_cache_mib=settings.tb_cache_mib,
    )


def make(plan: Plan, directory: InstanceDirectory, reservation: Reservation, deadline: Deadline) -> str:
    """Makes the disks; the document of the domain that has them."""
    need, hardware = need_of(plan.spec), plan.hardware
    return domain_xml(
        Domain(
            uuid=plan.spec.uuid,
            identity=Identity(
                attempt=directory.attempt,
                vcpus=need.vcpus,
                memory_mib=need.memory_mib,
                disk_gib=need.disk_gib,
                machine=hardware.machine,
                vif_model=hardware.vif_model,
                vif_limits=nic_limits_text(hardware.limits),
            ),
            virt_type=plan.virt_type,
            hardware=hardware,
            disks=_disks(plan, directory, deadline),
            console_log=directory.console_log,
            serial=reservation.serial,
            vnc=reservation.vnc,
            pins=reservation.pins,
            tb_cache_mib=plan.tb_cache_mib,
        )
    )


def _hardware(spec: BuildSpec, machine: str, virt_type: str, abilities: Callable[[str], Abilities]) -> Hardware:
    hardware = hardware_of(spec, machine=machine)
    can = abilities(hardware.family)
    require(hardware, can, virt_type=virt_type)
    # Exactly: when QEMU's newest version of the machine becomes another, the guest stays what it is.
    return dataclasses.replace(hardware, machine=can.machines[hardware.machine])


def _disks(plan: Plan, directory: InstanceDirectory, deadline: Deadline) -> tuple[Disk, ...]:
    flavor = plan.spec.flavor
    disks = [directory.root_disk(plan.image, plan.facts, plan.root_bytes, deadline)]
    if flavor.ephemeral_gib:
        disks.append(directory.ephemeral_disk(flavor.ephemeral_gib, deadline))
    if flavor.swap_mib:
        disks.append(directory.swap_disk(flavor.swap_mib, deadline))
    if plan.has_config_drive:
        disks.append(
            directory.config_drive(config_drive.files_of(plan.spec, random_seed=os.urandom(_SEED_BYTES)), deadline)
        )
    return tuple(disks)
