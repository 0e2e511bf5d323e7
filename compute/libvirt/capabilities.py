"""What the machine is, from libvirt's and the kernel's documents."""

import xml.etree.ElementTree as ET
from typing import Any

from compute.libvirt.domain_capabilities import Abilities
from compute.libvirt.hardware import DISK_BUSES, TPM_VERSIONS, VIDEO_MODELS, VIF_MODELS

# libvirt's names of features and Placement's (os-traits) of the same.
_TRAITS = {
    "aes": "HW_CPU_X86_AESNI",
    "avx": "HW_CPU_X86_AVX",
    "avx2": "HW_CPU_X86_AVX2",
    "avx512f": "HW_CPU_X86_AVX512F",
    "bmi1": "HW_CPU_X86_BMI",
    "bmi2": "HW_CPU_X86_BMI2",
    "f16c": "HW_CPU_X86_F16C",
    "fma": "HW_CPU_X86_FMA3",
    "mmx": "HW_CPU_X86_MMX",
    "pclmuldq": "HW_CPU_X86_CLMUL",
    "sse": "HW_CPU_X86_SSE",
    "sse2": "HW_CPU_X86_SSE2",
    "sse4.1": "HW_CPU_X86_SSE41",
    "sse4.2": "HW_CPU_X86_SSE42",
    "ssse3": "HW_CPU_X86_SSSE3",
    "svm": "HW_CPU_X86_SVM",
    "vmx": "HW_CPU_X86_VMX",
}
_ALWAYS = (
    "COMPUTE_ARCH_X86_64",
    "COMPUTE_FIRMWARE_BIOS",
    "COMPUTE_IMAGE_TYPE_QCOW2",
    "COMPUTE_IMAGE_TYPE_RAW",
    "COMPUTE_NODE",
    *(f"COMPUTE_NET_VIF_MODEL_{name.upper()}" for name in VIF_MODELS),
    *(f"COMPUTE_STORAGE_BUS_{name.upper()}" for name in DISK_BUSES),
)


def cpu_of(capabilities: str) -> dict[str, Any]:
    """The host's CPU, from the document of `virConnectGetCapabilities`, in the shape of the Compute API's
    `cpu_info`."""
    cpu = ET.fromstring(capabilities).find("host/cpu")
    if cpu is None:
        return {}
    topology = cpu.find("topology")
    document: dict[str, Any] = {name: cpu.findtext(name) for name in ("arch", "model", "vendor") if cpu.findtext(name)}
    if topology is not None:
        document["topology"] = {name: int(topology.get(name, "1")) for name in ("sockets", "cores", "threads")}
    document["features"] = sorted(str(feature.get("name")) for feature in cpu.findall("feature"))
    return document


def traits_of(cpu: dict[str, Any], abilities: Abilities, *, virt_type: str) -> tuple[str, ...]:
    """Placement's names of what guests can have. Without KVM they get QEMU's CPU, not the machine's."""
    features = cpu.get("features", []) if virt_type == "kvm" else []
    traits = {*_ALWAYS, *(_TRAITS[name] for name in features if name in _TRAITS)}
    traits |= {
        f"COMPUTE_GRAPHICS_MODEL_{name.upper()}" for name in VIDEO_MODELS if name in abilities.videos or name == "none"
    }
    traits |= {
        f"COMPUTE_SECURITY_TPM_{version.replace('.', '_')}"
        for version in TPM_VERSIONS
        if version in abilities.tpm_versions
    }
    if abilities.has_uefi:
        traits.add("COMPUTE_FIRMWARE_UEFI")
    return tuple(sorted(traits))


def memory_mib_of(meminfo: str) -> int:
    """The machine's memory, from /proc/meminfo: libvirt's own figure is that of one NUMA node's file, which may still
    grow."""
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return int(rest.split()[0]) // 1024
    raise ValueError("no MemTotal in /proc/meminfo")


def virt_type_of(cpuinfo: str) -> str:
    """kvm where the CPU says that it can, from /proc/cpuinfo; a /dev/kvm that opens, and libvirt, may promise it
    without."""
    for line in cpuinfo.splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == "flags":
            return "kvm" if {"vmx", "svm"} & set(rest.split()) else "qemu"
    return "qemu"
