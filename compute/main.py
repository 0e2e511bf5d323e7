"""The program `cellplane-compute`: one host's agent."""

import sys
from collections.abc import Sequence

from oslo_config import cfg, types

import core.config
import core.errors
import core.process
from compute import libvirt, simulated
from compute.agent import Agent
from compute.resources.cpu_load import CPU_MONITOR
from core.config import OptionGroup

__all__ = ["Agent", "main", "options"]

COMPUTE = OptionGroup(
    "compute",
    [
        cfg.StrOpt("driver", default="simulated", help="Hypervisor driver."),
        cfg.FloatOpt("report_interval_s", default=5.0, min=0.1, help="Seconds between two heartbeats."),
        cfg.IntOpt("build_slots", default=10, min=1, help="Guests that are built at the same time."),
        cfg.IntOpt(
            "operation_slots",
            default=8,
            min=1,
            help="Guests with an operation at the same time; the same number of guests is destroyed at the same time.",
        ),
        cfg.FloatOpt("cpu_allocation_ratio", default=4.0, min=0.01, help="Virtual CPUs per CPU."),
        cfg.FloatOpt("ram_allocation_ratio", default=1.0, min=0.01, help="Guest memory per memory of the host."),
        cfg.FloatOpt("disk_allocation_ratio", default=1.0, min=0.01, help="Guest disk per disk of the host."),
        cfg.IntOpt("reserved_vcpus", default=0, min=0, help="CPUs that are reserved for the host."),
        cfg.IntOpt("reserved_memory_mib", default=512, min=0, help="Memory that is reserved for the host, in MiB."),
        cfg.IntOpt("reserved_disk_gib", default=0, min=0, help="Disk that is reserved for the host, in GiB."),
        cfg.ListOpt(
            "compute_monitors", default=[], item_type=types.String(choices=[CPU_MONITOR]),
            help="What the host measures for the scheduler: cpu.virt_driver (how busy its CPUs are, in steps of 10 %).",
        ),
        cfg.IPOpt("host_ip", default="127.0.0.1", help="Address of this host in the API, and of its guests' consoles."),
        cfg.FloatOpt(
            "unused_image_s",
            default=86400.0,
            min=0.0,
            help="Seconds that an image stays on the host after its last use by a guest.",
        ),
        cfg.FloatOpt(
            "build_deadline_s",
            default=600.0,
            min=0.1,
            help="Seconds within which a guest must be built; then the attempt is given up.",
        ),
        cfg.FloatOpt(
            "operation_deadline_s",
            default=180.0,
            min=0.1,
            help="Seconds within which an operation on a guest must be done. Long ones, such as rebuild, have a limit "
            "of their own.",
        ),
        cfg.FloatOpt("destroy_deadline_s", default=30.0, min=0.1, help="Seconds for one attempt to destroy guests."),
    ],
)


IMAGE_CACHE = OptionGroup(
    "image",
    [
        *core.config.IMAGE.options,
        cfg.IntOpt(
            "cache_gib", default=100, min=1,
            help="Maximum size of all images on the host's disk, in GiB. Unused images are removed for others.",
        ),
        cfg.IntOpt(
            "keep_free_gib", default=1, min=0,
            help="Space that downloads of images leave free on that disk, in GiB.",
        ),
    ],
)


def options() -> list[OptionGroup]:
    """The settings of this program."""
    return [core.config.PROCESS, COMPUTE, simulated.OPTIONS, libvirt.OPTIONS, IMAGE_CACHE]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT."""
    return core.process.run("cellplane-compute", argv, options(), Agent)


if __name__ == "__main__":
    sys.exit(main())
