"""From the specification of a server to its disks and its domain's document."""

import dataclasses
import os
import pathlib

from oslo_config import cfg

import core.errors
from compute.libvirt import config_drive
from compute.libvirt.domain import Disk, Domain, Identity, domain_xml
from compute.libvirt.hardware import Hardware, hardware_of
from compute.libvirt.homes import GIB, Home
from compute.libvirt.image_format import ImageFacts, inspect
from compute.permit import Permit
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
    vnc_listen: str
    tb_cache_mib: int


def plan_of(spec: BuildSpec, image: pathlib.Path | None, settings: cfg.ConfigOpts, virt_type: str) -> Plan:
    """What becomes of the specification on this host; `settings` are the group `libvirt`.

    Raises:
        Invalid: there is no image, it is not what it is said to be, it is larger than the flavor's disk, or the hardware is not to be had.
    """
    if spec.image is None or image is None:
        raise core.errors.Invalid("A server without an image cannot be built here", field="imageRef", server=spec.uuid)
    facts = inspect(image, said=spec.image.disk_format)
    wanted = spec.flavor.root_gib * GIB
    if wanted and facts.virtual_bytes > wanted:
        raise core.errors.Invalid(
            f"The image is a disk of {facts.virtual_bytes} bytes; the flavor's root disk has {wanted}", field="flavorRef", server=spec.uuid
        )
    return Plan(
        spec=spec,
        hardware=hardware_of(spec, machine=settings.machine),
        image=image,
        facts=facts,
        root_bytes=wanted or facts.virtual_bytes,
        has_config_drive=spec.config_drive or settings.force_config_drive,
        virt_type=virt_type,
        vnc_listen=settings.vnc_listen,
        tb_cache_mib=settings.tb_cache_mib,
    )


def make(plan: Plan, home: Home, permit: Permit) -> str:
    """Makes the disks; the document of the domain that has them."""
    need = need_of(plan.spec)
    return domain_xml(
        Domain(
            uuid=plan.spec.uuid,
            identity=Identity(attempt=home.attempt, vcpus=need.vcpus, memory_mib=need.memory_mib, disk_gib=need.disk_gib),
            virt_type=plan.virt_type,
            hardware=plan.hardware,
            disks=_disks(plan, home, permit),
            console_log=home.console_log,
            vnc_listen=plan.vnc_listen,
            tb_cache_mib=plan.tb_cache_mib,
        )
    )


def _disks(plan: Plan, home: Home, permit: Permit) -> tuple[Disk, ...]:
    flavor = plan.spec.flavor
    disks = [home.root_disk(plan.image, plan.facts, plan.root_bytes, permit)]
    if flavor.ephemeral_gib:
        disks.append(home.ephemeral_disk(flavor.ephemeral_gib, permit))
    if flavor.swap_mib:
        disks.append(home.swap_disk(flavor.swap_mib, permit))
    if plan.has_config_drive:
        disks.append(home.config_drive(config_drive.files_of(plan.spec, random_seed=os.urandom(_SEED_BYTES)), permit))
    return tuple(disks)
