"""Can the host run the image?"""

import operator
import re
from collections.abc import Callable

import core.errors
from scheduler.filters.filter import Check, Filter
from scheduler.hosts import HostState
from scheduler.options import FilterOptions
from scheduler.request import Request

_SAME_ARCHITECTURE = {
    "amd64": "x86_64",
    "x64": "x86_64",
    "arm64": "aarch64",
    "i386": "i686",
    "i486": "i686",
    "i586": "i686",
}
# A KVM host reports itself as QEMU, and runs images that ask for either.
_SAME_HYPERVISOR = {"kvm": "qemu"}
_SAME_MODE = {"pv": "xen", "xenapi": "xen", "hv": "hvm", "baremetal": "hvm"}
_MODE = "hvm"
"""Of all guests of QEMU and of KVM."""

_PREDICATE = re.compile(r"(?P<sign><=|>=|==|!=|<|>) ?(?P<version>[0-9]{1,4}(\.[0-9]{1,4}){0,2})")
_SIGNS: dict[str, Callable[[int, int], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
_REQUESTED_VERSION = "img_hv_requested_version"
_NO_TEST: tuple[Callable[[int], bool], ...] = ()


def image_properties(options: FilterOptions) -> Filter:
    """Architecture, hypervisor, its version and its way to run guests are as the image wants them."""

    def prepare(request: Request) -> Check | None:
        return _runs_image(request, options.image_properties_default_architecture)

    return Filter("ImagePropertiesFilter", prepare, plain="cannot run the image")


def _runs_image(request: Request, default_architecture: str) -> Check | None:
    properties = request.image_properties
    asked = properties.get("hw_architecture") or properties.get("architecture") or default_architecture
    architecture = _same(_SAME_ARCHITECTURE, asked)
    hypervisor = _same(_SAME_HYPERVISOR, properties.get("img_hv_type") or properties.get("hypervisor_type"))
    mode = _same(_SAME_MODE, properties.get("hw_vm_mode") or properties.get("vm_mode"))
    tests = _tests_of(properties.get(_REQUESTED_VERSION) or properties.get("hypervisor_version_requires"))
    if architecture is None and hypervisor is None and mode in (None, _MODE) and not tests:
        return None

    def check(host: HostState) -> str:
        if architecture is not None and host.architectures and architecture not in host.architectures:
            return f"image is for {architecture}"
        if not host.hypervisor_type:
            return ""
        if hypervisor is not None and hypervisor != _same(_SAME_HYPERVISOR, host.hypervisor_type):
            return f"image is for {hypervisor}"
        if mode not in (None, _MODE):
            return f"image is for guests of the kind {mode}"
        return "" if all(test(host.hypervisor_version) for test in tests) else "hypervisor has another version"

    return check


def _tests_of(text: str | None) -> tuple[Callable[[int], bool], ...]:
    """The conditions on the hypervisor's version in `>=2.5,<9`.

    Raises:
        Invalid: it is none such.
    """
    if not text:
        return _NO_TEST
    matches = [_PREDICATE.fullmatch(part.strip()) for part in text[:255].split(",")]
    if not all(matches):
        raise core.errors.Invalid(
            f"image property {_REQUESTED_VERSION} is {text[:64]!r}, no condition such as >=2.5,<9",
            field=_REQUESTED_VERSION,
        )
    return tuple(_test(_SIGNS[match["sign"]], _number(match["version"])) for match in matches if match)


def _test(compare: Callable[[int, int], bool], wanted: int) -> Callable[[int], bool]:
    return lambda version: compare(version, wanted)


def _number(version: str) -> int:
    """As hypervisors say theirs: 7.2.22 is 7002022."""
    major, minor, micro = [*map(int, version.split(".")), 0, 0][:3]
    return (major * 1000 + minor) * 1000 + micro


def _same(names: dict[str, str], name: str | None) -> str | None:
    if not name:
        return None
    return names.get(name.lower(), name.lower())


# ---- what an image needs, as traits ----------------------------------------------------------------------------------

# The architecture is left to the filter above: hosts say it themselves, and not as a trait.
_PREFIXES = {
    "hw_cdrom_bus": "COMPUTE_STORAGE_BUS",
    "hw_disk_bus": "COMPUTE_STORAGE_BUS",
    "hw_video_model": "COMPUTE_GRAPHICS_MODEL",
    "hw_vif_model": "COMPUTE_NET_VIF_MODEL",
    "hw_emulation_architecture": "COMPUTE_ARCH",
    "hw_viommu_model": "COMPUTE_VIOMMU_MODEL",
}


def traits(options: FilterOptions) -> Filter:
    """The host has the traits that follow from the image's format and devices."""

    def prepare(request: Request) -> Check | None:
        wanted: set[str] = set()
        if options.query_placement_for_image_type_support and request.image_format:
            wanted.add(f"COMPUTE_IMAGE_TYPE_{_word(request.image_format)}")
        if options.image_metadata_prefilter:
            properties = request.image_properties
            wanted |= {f"{prefix}_{_word(properties[key])}" for key, prefix in _PREFIXES.items() if properties.get(key)}
        return _has(frozenset(wanted)) if wanted else None

    return Filter("ImageTraitsFilter", prepare, plain="cannot run the image")


def _has(wanted: frozenset[str]) -> Check:
    def check(host: HostState) -> str:
        return "" if wanted <= host.traits else f"lacks {min(wanted - host.traits)}"

    return check


def _word(text: str) -> str:
    return text[:64].replace("-", "_").upper()
