"""Can the host run the image?"""

from scheduler.filters.filter import Check, Filter
from scheduler.hosts import HostState
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


def _runs_image(request: Request) -> Check | None:
    properties = request.image_properties
    architecture = _same(_SAME_ARCHITECTURE, properties.get("hw_architecture") or properties.get("architecture"))
    hypervisor = _same(_SAME_HYPERVISOR, properties.get("img_hv_type") or properties.get("hypervisor_type"))
    if architecture is None and hypervisor is None:
        return None

    def check(host: HostState) -> str:
        if architecture is not None and host.architectures and architecture not in host.architectures:
            return f"image is for {architecture}"
        if (
            hypervisor is not None
            and host.hypervisor_type
            and hypervisor != _same(_SAME_HYPERVISOR, host.hypervisor_type)
        ):
            return f"image is for {hypervisor}"
        return ""

    return check


def _same(names: dict[str, str], name: str | None) -> str | None:
    if not name:
        return None
    return names.get(name.lower(), name.lower())


IMAGE_PROPERTIES = Filter("ImagePropertiesFilter", _runs_image)
