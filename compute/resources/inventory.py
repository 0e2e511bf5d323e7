"""What the host reports that it has to give."""

import uuid

from oslo_config import cfg

from compute.hypervisor import Capacity
from objects.host import Inventory

# The node's uuid is derived from the host's name, which is unique in the cloud, and not drawn and kept on disk: a host whose directory
# was wiped, or whose disk was replaced, is the same resource provider in Placement. A fresh uuid would clash there with the old
# provider of the same name and strand its allocations.
_NODES = uuid.UUID("6ce4c0c5-9f1f-5d0b-8a53-53b1c7d7f3a2")


def node_uuid(host: str) -> str:
    """The uuid under which Placement and the API know the host's node."""
    return str(uuid.uuid5(_NODES, host))


def inventory(conf: cfg.ConfigOpts, capacity: Capacity) -> Inventory:
    """The hypervisor's capacity with the operator's ratios and reserves."""
    settings = conf.compute
    return Inventory(
        node_uuid=node_uuid(conf.host),
        hypervisor_hostname=conf.host,
        hypervisor_type=capacity.hypervisor_type,
        hypervisor_version=capacity.hypervisor_version,
        vcpus=capacity.vcpus,
        memory_mib=capacity.memory_mib,
        disk_gib=capacity.disk_gib,
        reserved_vcpus=min(settings.reserved_vcpus, capacity.vcpus),
        reserved_memory_mib=min(settings.reserved_memory_mib, capacity.memory_mib),
        reserved_disk_gib=min(settings.reserved_disk_gib, capacity.disk_gib),
        cpu_allocation_ratio=settings.cpu_allocation_ratio,
        ram_allocation_ratio=settings.ram_allocation_ratio,
        disk_allocation_ratio=settings.disk_allocation_ratio,
        host_ip=settings.host_ip,
        cpu_info=capacity.cpu_info,
        traits=list(capacity.traits),
    )
