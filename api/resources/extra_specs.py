"""Which extra specs of the known namespaces there are, and what their values look like.

Source: Compute API 2.86 and its table of extra specs. Names outside of these namespaces are an operator's own and never refused.
"""

import re

_WHOLE = r"\d+"
_SIGNED = r"-?\d+"
_TRUTH = r"(?i:1|t|true|on|y|yes|0|f|false|off|n|no)"
_ANY = r"[\s\S]*"
_CPUS = r"\^?\d+(-\d+)?(,\^?\d+(-\d+)?)*"
_GROUP = r"([a-zA-Z0-9_-]{1,64})?"


def _words(*words: str) -> str:
    return "|".join(re.escape(word) for word in words)


_NAMESPACES = frozenset(
    {
        "accel",
        "aggregate_instance_extra_specs",
        "capabilities",
        "group_policy",
        "hide_hypervisor_id",
        "hw",
        "hw_rng",
        "hw_video",
        "os",
        "pci_passthrough",
        "powervm",
        "quota",
        "resources",
        "trait",
        "vmware",
    }
)

_SPECS = tuple(
    (re.compile(name), re.compile(value))
    for name, value in (
        (r"accel:device_profile", _ANY),
        (r"aggregate_instance_extra_specs:.+", _ANY),
        (r"capabilities:.+", _ANY),
        (r"group_policy", _words("none", "isolate")),
        (r"hide_hypervisor_id", _TRUTH),
        (r"hw:boot_menu", _TRUTH),
        (r"hw:cpu_(cores|sockets|threads)", r"[1-9]\d*"),
        (r"hw:cpu_max_(cores|sockets|threads)", r"[1-9]\d*"),
        (r"hw:cpu_dedicated_mask", _CPUS),
        (r"hw:cpu_policy", _words("dedicated", "shared", "mixed")),
        (r"hw:cpu_realtime", _TRUTH),
        (r"hw:cpu_realtime_mask", _CPUS),
        (r"hw:cpu_thread_policy", _words("prefer", "isolate", "require")),
        (r"hw:emulator_threads_policy", _words("isolate", "share")),
        (r"hw:ephemeral_encryption", _TRUTH),
        (r"hw:ephemeral_encryption_format", _words("luks")),
        (r"hw:hide_hypervisor_id", _TRUTH),
        (r"hw:input_bus", _words("usb", "virtio")),
        (r"hw:locked_memory", _TRUTH),
        (r"hw:maxphysaddr_bits", _WHOLE),
        (r"hw:maxphysaddr_mode", _words("passthrough", "emulate")),
        (r"hw:mem_encryption", _TRUTH),
        (r"hw:mem_encryption_model", _words("amd-sev", "amd-sev-es")),
        (r"hw:mem_page_size", r"(large|small|any|\d+([kKMGT]i?[bB]?)?)"),
        (r"hw:numa_cpus\.\d+", _CPUS),
        (r"hw:numa_mem\.\d+", r"[1-9]\d*"),
        (r"hw:numa_nodes", r"[1-9]\d*"),
        (r"hw:pci_numa_affinity_policy", _words("required", "preferred", "legacy", "socket")),
        (r"hw:pmem", _ANY),
        (r"hw:pmu", _TRUTH),
        (r"hw:serial_port_count", _WHOLE),
        (r"hw:sound_model", _words("sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "virtio")),
        (r"hw:tpm_model", _words("tpm-tis", "tpm-crb")),
        (r"hw:tpm_secret_security", _words("user", "host", "deployment")),
        (r"hw:tpm_version", _words("1.2", "2.0")),
        (r"hw:usb_model", _words("piix3-uhci", "piix4-uhci", "ehci", "ich9-ehci1", "nec-xhci", "qemu-xhci", "none")),
        (r"hw:vif_multiqueue_enabled", _TRUTH),
        (r"hw:viommu_model", _words("intel", "smmuv3", "virtio", "auto")),
        (r"hw:virtio_packed_ring", _TRUTH),
        (r"hw:watchdog_action", _words("none", "pause", "poweroff", "reset", "disabled")),
        (r"hw_rng:allowed", _TRUTH),
        (r"hw_rng:rate_(bytes|period)", _WHOLE),
        (r"hw_video:ram_max_mb", _WHOLE),
        (r"os:monitors", r"[1-4]"),
        (r"os:resolution", _ANY),
        (r"os:secure_boot", _words("required", "disabled", "optional")),
        (r"os:vram", _WHOLE),
        (r"pci_passthrough:alias", r"[^:]+:\d+(,[^:]+:\d+)*"),
        (r"powervm:.+", _ANY),
        (r"quota:(cpu|memory|disk_io|vif)_(limit|reservation)", _SIGNED),
        (r"quota:(cpu|memory|disk_io|vif)_shares_(level|share)", r"custom|high|low|normal|-?\d+"),
        (r"quota:cpu_(period|quota|shares)", _SIGNED),
        (r"quota:disk_(read|write|total)_(bytes|iops)_sec", _WHOLE),
        (r"quota:vif_(inbound|outbound)_(average|burst|peak)", _WHOLE),
        (rf"resources{_GROUP}:[A-Z0-9_]+", _WHOLE),
        (rf"trait{_GROUP}:[A-Z0-9_]+", _words("required", "forbidden")),
        (r"vmware:.+", _ANY),
    )
)


def refuse_invalid(specs: dict[str, str]) -> None:
    """Returns if all of them are well-formed or nobody's but the operator's.

    Raises:
        ValueError: one of a known namespace is unknown or has a value that it can't have.
    """
    for name, value in specs.items():
        if _namespace(name) not in _NAMESPACES:
            continue
        pattern = next((value_like for name_like, value_like in _SPECS if name_like.fullmatch(name)), None)
        if pattern is None:
            raise ValueError(f"Validation failed; extra spec '{name}' does not appear to be a valid extra spec.")
        if not pattern.fullmatch(value):
            raise ValueError(f"Validation failed; '{value}' is no value of extra spec '{name}'.")


def _namespace(name: str) -> str:
    """What stands before the colon; of granular requests without the name of the group."""
    space = name.partition(":")[0]
    for granular in ("resources", "trait"):
        if space.startswith(granular) and ":" in name:
            return granular
    return space
