"""Which extra specs of the known namespaces there are, and what their values look like.

Source: Compute API 2.86 and its table of extra specs. Names outside of these namespaces are an operator's own and never
refused.
"""

import dataclasses
import re

_WHOLE = r"\d+"
# Placement counts up to 2**31 - 1.
_AMOUNT = r"[0-9]{1,9}"
_TRUTH = r"(?i:1|t|true|on|y|yes|0|f|false|off|n|no)"
_ANY = r"[\s\S]*"
_CPUS = r"\^?\d+(-\d+)?(,\^?\d+(-\d+)?)*"
_GROUP = r"([a-zA-Z0-9_-]{1,64})?"


def _words(*words: str) -> str:
    return "|".join(re.escape(word) for word in words)


# Of these nothing is read: the hardware, or the hypervisor, is none of ours.
UNREAD = frozenset({"accel", "pci_passthrough", "powervm", "vmware"})
_NAMESPACES = UNREAD | {
    "aggregate_instance_extra_specs", "capabilities", "cellplane", "group_policy", "hide_hypervisor_id", "hw", "hw_rng",
    "hw_video", "os", "quota", "resources", "trait",
}  # fmt: skip

# Who reads what flavors may hold. What nobody reads is refused (decision 0022): a flavor promises what its servers get.
SCHEDULER, LIBVIRT = "the scheduler", "the libvirt driver"


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """An extra spec of the known namespaces: what its name and value look like, and who reads it."""

    name: re.Pattern[str]
    value: re.Pattern[str]
    reader: str


KNOWN = tuple(
    Known(re.compile(name), re.compile(value), reader)
    for name, value, reader in (
        (r"aggregate_instance_extra_specs:.+", _ANY, SCHEDULER),
        (r"capabilities:.+", _ANY, SCHEDULER),
        (r"cellplane:policy", r"[A-Za-z0-9_-]{1,64}", SCHEDULER),
        (r"group_policy", _words("none", "isolate"), SCHEDULER),
        (r"hide_hypervisor_id", _TRUTH, LIBVIRT),
        (r"hw:boot_menu", _TRUTH, LIBVIRT),
        (r"hw:cpu_(cores|sockets|threads)", r"[1-9]\d*", LIBVIRT),
        (r"hw:cpu_max_(cores|sockets|threads)", r"[1-9]\d*", LIBVIRT),
        (r"hw:cpu_dedicated_mask", _CPUS, LIBVIRT),
        (r"hw:cpu_policy", _words("dedicated", "shared", "mixed"), LIBVIRT),
        (r"hw:cpu_realtime", _TRUTH, LIBVIRT),
        (r"hw:cpu_realtime_mask", _CPUS, LIBVIRT),
        (r"hw:cpu_thread_policy", _words("prefer", "isolate", "require"), LIBVIRT),
        (r"hw:emulator_threads_policy", _words("isolate", "share"), LIBVIRT),
        (r"hw:ephemeral_encryption", _TRUTH, LIBVIRT),
        (r"hw:ephemeral_encryption_format", _words("luks"), LIBVIRT),
        (r"hw:hide_hypervisor_id", _TRUTH, LIBVIRT),
        (r"hw:input_bus", _words("usb", "virtio"), LIBVIRT),
        (r"hw:locked_memory", _TRUTH, LIBVIRT),
        (r"hw:maxphysaddr_bits", _WHOLE, LIBVIRT),
        (r"hw:maxphysaddr_mode", _words("passthrough", "emulate"), LIBVIRT),
        (r"hw:mem_encryption", _TRUTH, LIBVIRT),
        (r"hw:mem_encryption_model", _words("amd-sev", "amd-sev-es"), LIBVIRT),
        (r"hw:mem_page_size", r"(large|small|any|\d+([kKMGT]i?[bB]?)?)", LIBVIRT),
        (r"hw:numa_cpus\.\d+", _CPUS, LIBVIRT),
        (r"hw:numa_mem\.\d+", r"[1-9]\d*", LIBVIRT),
        (r"hw:numa_nodes", r"[1-9]\d*", LIBVIRT),
        (r"hw:pci_numa_affinity_policy", _words("required", "preferred", "legacy", "socket"), LIBVIRT),
        (r"hw:pmem", _ANY, LIBVIRT),
        (r"hw:pmu", _TRUTH, LIBVIRT),
        (r"hw:serial_port_count", _WHOLE, LIBVIRT),
        (r"hw:sound_model", _words("sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "virtio"), LIBVIRT),
        (r"hw:tpm_model", _words("tpm-tis", "tpm-crb"), LIBVIRT),
        (r"hw:tpm_secret_security", _words("user", "host", "deployment"), LIBVIRT),
        (r"hw:tpm_version", _words("1.2", "2.0"), LIBVIRT),
        (
            r"hw:usb_model",
            _words("piix3-uhci", "piix4-uhci", "ehci", "ich9-ehci1", "nec-xhci", "qemu-xhci", "none"),
            LIBVIRT,
        ),
        (r"hw:vif_multiqueue_enabled", _TRUTH, LIBVIRT),
        (r"hw:viommu_model", _words("intel", "smmuv3", "virtio", "auto"), LIBVIRT),
        (r"hw:virtio_packed_ring", _TRUTH, LIBVIRT),
        (r"hw:watchdog_action", _words("none", "pause", "poweroff", "reset", "disabled"), LIBVIRT),
        (r"hw_rng:allowed", _TRUTH, LIBVIRT),
        (r"hw_rng:rate_(bytes|period)", _WHOLE, LIBVIRT),
        (r"hw_video:ram_max_mb", _WHOLE, LIBVIRT),
        (r"os:secure_boot", _words("required", "disabled", "optional"), LIBVIRT),
        (r"quota:cpu_(period|shares)", _WHOLE, LIBVIRT),
        (r"quota:cpu_quota", rf"-1|{_WHOLE}", LIBVIRT),
        (r"quota:disk_(read|write|total)_(bytes|iops)_sec", _WHOLE, LIBVIRT),
        (r"quota:vif_(inbound|outbound)_(average|burst|peak)", _WHOLE, LIBVIRT),
        (rf"resources{_GROUP}:[A-Z0-9_]+", _AMOUNT, SCHEDULER),
        (rf"trait{_GROUP}:[A-Z0-9_]+", _words("required", "forbidden"), SCHEDULER),
    )
)


def refuse_unread(specs: dict[str, str]) -> None:
    """Returns if none of them is of a namespace of which nothing is read here; a name that its reader does not know,
    its reader refuses.

    Raises:
        ValueError: one is.
    """
    for name in specs:
        if _namespace(name) in UNREAD:
            raise ValueError(
                f"Validation failed; extra spec '{name}' is not supported: no part of this cloud uses "
                f"{_namespace(name)}."
            )


def refuse_invalid(specs: dict[str, str]) -> None:
    """Returns if all of them are well-formed or nobody's but the operator's.

    Raises:
        ValueError: one of a known namespace is read by nobody, or has a value that it can't have.
    """
    refuse_unread(specs)
    for name, value in specs.items():
        if _namespace(name) not in _NAMESPACES:
            continue
        known = _known(name)
        if known is None:
            raise ValueError(f"Validation failed; extra spec '{name}' does not appear to be a valid extra spec.")
        if not known.value.fullmatch(value):
            raise ValueError(f"Validation failed; '{value}' is no value of extra spec '{name}'.")


MAX_GROUPS = 16
_GRANULAR = re.compile(r"(resources|trait)([a-zA-Z0-9_-]{1,64}):")


def refuse_unplaceable(specs: dict[str, str]) -> None:
    """Returns if the granular groups can be asked of Placement, whatever each of their extra specs may be by itself.

    Raises:
        ValueError: a group has traits and no resources, or there are too many groups.
    """
    groups: dict[str, set[str]] = {}
    for match in filter(None, map(_GRANULAR.match, specs)):
        groups.setdefault(match[2], set()).add(match[1])
    if len(groups) > MAX_GROUPS:
        raise ValueError(f"Validation failed; there are {len(groups)} groups of resources, and at most {MAX_GROUPS}.")
    for group, kinds in sorted(groups.items()):
        if "resources" not in kinds:
            raise ValueError(f"Validation failed; there is 'trait{group}:…' and no 'resources{group}:…'.")


def _known(name: str) -> Known | None:
    return next((known for known in KNOWN if known.name.fullmatch(name)), None)


def _namespace(name: str) -> str:
    """What stands before the colon; of granular requests without the name of the group."""
    space = name.partition(":")[0]
    for granular in ("resources", "trait"):
        if space.startswith(granular) and ":" in name:
            return granular
    return space
